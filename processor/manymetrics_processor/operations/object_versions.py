"""Older versions of objects, in a bucket that keeps them: an erasure must take those too."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import boto3

from manymetrics_processor.lake.glue_catalog import delete_objects, find_endpoint


def purge_versions(location: str, environ: Mapping[str, str]) -> int:
    """Delete what is below a location (``s3://bucket/prefix``) and not its object's newest version.

    Returns how many versions and delete markers went; 0 where the bucket keeps none. Raises ClientError, and OSError
    for what S3 did not delete.
    """
    parts = urlsplit(location)
    s3 = boto3.client(
        "s3",
        region_name=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
        endpoint_url=find_endpoint("S3", environ),
    )
    prefix = f"{parts.path.strip('/')}/".lstrip("/")
    gone = []
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=parts.netloc, Prefix=prefix):
        older = [one for one in page.get("Versions", ()) if not one["IsLatest"]]
        gone += [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in (*older, *page.get("DeleteMarkers", ()))]
    delete_objects(s3, parts.netloc, gone)
    return len(gone)
