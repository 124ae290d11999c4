"""Delete older versions of objects in a versioned bucket, as part of an erasure."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import boto3

from manymetrics_processor.lake.glue_catalog import delete_objects, find_endpoint


def purge_versions(location: str, environ: Mapping[str, str]) -> int:
    """Delete all noncurrent object versions below a location (``s3://bucket/prefix``).

    Returns the number of versions and delete markers deleted; 0 for an unversioned bucket. Raises ClientError, and
    OSError if S3 did not delete some.
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
