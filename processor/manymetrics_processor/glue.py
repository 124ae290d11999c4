"""The tables on AWS: Glue's catalogue, and files in S3.

Region, credentials and other endpoints are found as every AWS tool finds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError
from pyarrow.fs import FileSystem, S3FileSystem
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.io.pyarrow import PyArrowFileIO

CONNECT_S, ANSWER_S = 3, 20  # a commit that hangs would take the invocation with it


def glue_catalog(warehouse: str, environ: Mapping[str, str]) -> GlueCatalog:
    """``warehouse``: the S3 location under which the tables are, ``s3://bucket/prefix``."""
    properties = {"warehouse": warehouse.rstrip("/"), "py-io-impl": f"{__name__}.{S3FileIO.__name__}"}
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if region:
        properties["client.region"] = region
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        properties["s3.endpoint"] = endpoint
    # botocore would send an UpdateTable again whose answer was lost; Glue then says that somebody else committed, and
    # pyiceberg deletes the files of the commit that landed: the table can't be read any more. So it is sent once.
    once = Config(retries={"total_max_attempts": 1}, connect_timeout=CONNECT_S, read_timeout=ANSWER_S)
    return _Catalog("manymetrics", client=boto3.client("glue", config=once, region_name=region), **properties)


class S3FileIO(PyArrowFileIO):
    """As pyiceberg's; a small file takes one PUT instead of the three requests of a multipart upload."""

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


class _Catalog(GlueCatalog):
    """As pyiceberg's, but for a commit whose outcome isn't known."""

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
