"""Open the tables on AWS: Glue's catalog, and files in S3.

Region, credentials and custom endpoints follow the standard AWS configuration.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError
from pyarrow.fs import FileSystem, S3FileSystem
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.io.pyarrow import PyArrowFileIO

DELETED_AT_ONCE = 1_000  # S3's maximum
CONNECT_S, ANSWER_S = 3, 20  # a hanging commit would fail the whole invocation


def glue_catalog(warehouse: str, environ: Mapping[str, str]) -> GlueCatalog:
    """Open the catalog. ``warehouse``: the S3 location of the tables, ``s3://bucket/prefix``."""
    properties = {"warehouse": warehouse.rstrip("/"), "py-io-impl": f"{__name__}.{S3FileIO.__name__}"}
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if region:
        properties["client.region"] = region
    if endpoint := find_endpoint("S3", environ):
        properties["s3.endpoint"] = endpoint
    # botocore would retry an UpdateTable whose response was lost; Glue then reports a conflict, and pyiceberg deletes
    # the files of the commit that landed, which makes the table unreadable. So it is sent only once.
    once = Config(retries={"total_max_attempts": 1}, connect_timeout=CONNECT_S, read_timeout=ANSWER_S)
    glue = boto3.client("glue", config=once, region_name=region, endpoint_url=find_endpoint("GLUE", environ))
    return _Catalog("manymetrics", client=glue, **properties)


def delete_objects(s3: Any, bucket: str, objects: Sequence[Mapping[str, str]]) -> None:  # noqa: ANN401  # boto3 ships no types
    """Delete objects or object versions, given as S3 identifiers. Raises OSError if S3 did not delete some."""
    for at in range(0, len(objects), DELETED_AT_ONCE):
        some = objects[at : at + DELETED_AT_ONCE]
        done = s3.delete_objects(Bucket=bucket, Delete={"Objects": some, "Quiet": True})
        if errors := done.get("Errors"):
            raise OSError(f"S3 did not delete {len(errors)} of {len(some)} files: {errors[0]['Code']}")


def find_endpoint(service: str, environ: Mapping[str, str]) -> str | None:
    return environ.get(f"AWS_ENDPOINT_URL_{service}") or environ.get("AWS_ENDPOINT_URL") or None


class S3FileIO(PyArrowFileIO):
    """pyiceberg's FileIO, but a small file takes one PUT instead of the three requests of a multipart upload."""

    def _initialize_s3_fs(self, netloc: str | None) -> FileSystem:
        del netloc
        region, endpoint = self.properties.get("client.region"), self.properties.get("s3.endpoint")
        return S3FileSystem(
            region=region,
            endpoint_override=endpoint,
            allow_delayed_open=True,
            connect_timeout=CONNECT_S,
            request_timeout=ANSWER_S,
        )

    def delete_many(self, locations: Iterable[str]) -> None:
        """Delete a thousand per request. pyarrow deletes one by one, with a lookup and a folder marker for each."""
        by_bucket = defaultdict[str, list[str]](list)
        for location in locations:
            _, bucket, path = self.parse_location(location)
            by_bucket[bucket].append(path.removeprefix(f"{bucket}/"))
        for bucket, keys in by_bucket.items():
            delete_objects(self._s3(), bucket, [{"Key": key} for key in keys])

    def _s3(self) -> Any:  # noqa: ANN401  # boto3 ships no types
        config = Config(connect_timeout=CONNECT_S, read_timeout=ANSWER_S)
        region, endpoint = self.properties.get("client.region"), self.properties.get("s3.endpoint")
        return boto3.client("s3", config=config, region_name=region, endpoint_url=endpoint)


class _Catalog(GlueCatalog):
    """pyiceberg's catalog, except for commits with an unknown outcome."""

    def commit_table(self, *arguments: Any) -> Any:  # noqa: ANN401  # as the real one
        try:
            return super().commit_table(*arguments)
        except HTTPClientError as error:
            raise CommitStateUnknownException(str(error)) from error
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500 or _is_throttled(error):
                raise CommitStateUnknownException(str(error)) from error
            raise


def _is_throttled(error: ClientError) -> bool:
    code: str = error.response["Error"]["Code"]
    return "Throttl" in code or code in {"RequestLimitExceeded", "TooManyRequestsException"}
