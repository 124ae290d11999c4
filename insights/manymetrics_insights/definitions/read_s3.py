"""Read the files below a prefix in S3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from manymetrics_insights.definitions.yaml_nodes import MAX_BYTES
from manymetrics_insights.reader.aws_errors import describe_failure, describe_refusal, error_code
from manymetrics_insights.reader.s3 import SCHEME, make_s3_client

PERMISSIONS: Final = "s3:ListBucket on the bucket and s3:GetObject on the files"


class S3Error(Exception):
    """The files can't be read. The message names the fix."""


def read_objects(
    location: str, environ: Mapping[str, str], endings: tuple[str, ...], max_files: int
) -> dict[str, bytes]:
    """Return the objects directly below ``s3://bucket/prefix`` by location; of a large one only the start."""
    bucket, _, prefix = location.removeprefix(f"{SCHEME}://").partition("/")
    if not bucket:
        raise S3Error(f"takes a folder or s3://bucket/prefix, not {location!r}.")
    prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
    try:
        client = make_s3_client(environ)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
        keys = [one["Key"] for page in pages for one in page.get("Contents", ()) if one["Key"].endswith(endings)]
        if len(keys) > max_files:
            raise S3Error(f"{location} has more than {max_files:,} YAML files.")
        return {
            f"{SCHEME}://{bucket}/{key}": client.get_object(Bucket=bucket, Key=key)["Body"].read(MAX_BYTES + 1)
            for key in keys
        }
    except ClientError as error:
        if error_code(error) == "NoSuchBucket":
            raise S3Error(f"there is no bucket {bucket}.") from error
        raise S3Error(describe_refusal(error, f"read {location}", PERMISSIONS)) from error
    except BotoCoreError as error:
        raise S3Error(describe_failure(error)) from error
