"""Read the tables on AWS: metadata locations from Glue, files from S3, with boto3 and its standard configuration.

DuckDB's own S3 reader is an extension, downloaded at first use, that supports fewer kinds of credentials. So DuckDB
uses a file system in Python, which has only the planned files, read-only. DuckDB still skips what a query doesn't need:
it fetches a small file whole; of one of 8 MB the footer, then the columns of the row groups that may match, in
parallel pieces of 2 MB (measured 2026-11-25, DuckDB 2.0.1).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError, ResponseStreamingError
from fsspec import AbstractFileSystem

from manymetrics_insights.reader.aws_errors import describe_failure, describe_refusal, error_code
from manymetrics_insights.reader.iceberg import Attached, DataFile, LakeError, gone

if TYPE_CHECKING:
    import duckdb

SCHEME: Final = "s3"
READS_AT_ONCE: Final = 16
TRIES: Final = 3  # for a response body that is cut off; botocore retries only requests without a response
_CHANGED: Final = datetime(2000, 1, 1, tzinfo=UTC)  # constant, since Iceberg's files never change


def glue_source(warehouse: str, database: str, environ: Mapping[str, str]) -> GlueSource:
    """Make the source. ``warehouse``: the S3 location of the tables, ``s3://bucket/prefix``. Raises LakeError."""
    if not warehouse.startswith(f"{SCHEME}://") or len(warehouse) == len(f"{SCHEME}://"):
        raise LakeError(f"MANYMETRICS_WAREHOUSE takes s3://bucket/prefix, not {warehouse!r}.")
    try:
        session = boto3.Session(region_name=environ.get("AWS_REGION") or None)
        if session.region_name is None:
            raise LakeError("No AWS region: set AWS_REGION to that of the tables, or `aws configure set region`.")
        glue, s3 = session.client("glue"), make_s3_client(environ, session)
        return GlueSource(warehouse.rstrip("/"), database, session, glue, s3, _endpoint(environ))
    except BotoCoreError as error:
        raise LakeError(describe_failure(error)) from error


def make_s3_client(environ: Mapping[str, str], session: Any = None) -> Any:  # noqa: ANN401  # boto3 ships no types
    """Make a client with AWS's standard configuration. Raises BotoCoreError."""
    session = session or boto3.Session(region_name=environ.get("AWS_REGION") or None)
    # A bucket name as a subdomain of a custom endpoint would rarely resolve.
    style = {"addressing_style": "path"} if _endpoint(environ) else None
    return session.client("s3", config=Config(max_pool_connections=READS_AT_ONCE, s3=style))


def _endpoint(environ: Mapping[str, str]) -> str | None:
    return environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")


@dataclass(frozen=True, slots=True)
class GlueSource:
    """A ``Source``: Glue's catalog and S3."""

    warehouse: str
    database: str
    session: Any
    glue: Any
    s3: Any
    endpoint: str | None

    def metadata_location(self, table: str) -> str | None:
        name = f"{self.database}.{table}"
        region = self.session.region_name
        try:
            found = self.glue.get_table(DatabaseName=self.database, Name=table)["Table"]
        except ClientError as error:
            if error_code(error) == "EntityNotFoundException":
                raise LakeError(
                    f"Glue in {region} has no {name}: the processor creates it at startup (`manymetrics stream run`). "
                    "If it has run, check the database (MANYMETRICS_DATABASE), region (AWS_REGION) and account "
                    "(AWS_PROFILE)."
                ) from error
            raise LakeError(
                describe_refusal(error, f"read {name} in Glue", "glue:GetTable on it, its database")
            ) from error
        except BotoCoreError as error:
            raise LakeError(describe_failure(error)) from error
        location = found.get("Parameters", {}).get("metadata_location")
        if location is None:
            raise LakeError(f"Glue's {name} is not an Iceberg table: it was not created by ManyMetrics.")
        if not location.startswith(f"{self.warehouse}/"):
            raise LakeError(
                f"Glue's {name} in {region} is at {location}, which is not under MANYMETRICS_WAREHOUSE "
                f"({self.warehouse}): correct it, or the database (MANYMETRICS_DATABASE), region "
                "(AWS_REGION) or account (AWS_PROFILE)."
            )
        return str(location)

    def path(self, location: str) -> str:
        return location

    def read(self, locations: Sequence[str]) -> Iterator[bytes]:
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            yield from pool.map(self.read_object, locations)

    def attach(self, connection: duckdb.DuckDBPyConnection, files: Sequence[DataFile]) -> Attached:
        planned = PlannedFiles({file.path: file.size for file in files}, self.read_object)
        connection.register_filesystem(planned)
        return lambda: next(iter(planned.failures), None)

    def pyiceberg_properties(self) -> dict[str, str]:
        credentials = self.session.get_credentials().get_frozen_credentials()
        known = {
            "s3.region": self.session.region_name,
            "s3.endpoint": self.endpoint,
            "s3.access-key-id": credentials.access_key,
            "s3.secret-access-key": credentials.secret_key,
            "s3.session-token": credentials.token,
        }
        return {name: value for name, value in known.items() if value}

    def read_object(self, location: str, only: str | None = None) -> bytes:
        """Read a whole object, or a range of its bytes in HTTP's syntax. Raises FileNotFoundError, LakeError."""
        tries = TRIES
        while True:
            tries -= 1
            try:
                return self._get(location, only)
            except (ResponseStreamingError, ReadTimeoutError) as error:
                if not tries:
                    raise LakeError(describe_failure(error)) from error
            except BotoCoreError as error:
                raise LakeError(describe_failure(error)) from error

    def _get(self, location: str, only: str | None) -> bytes:
        bucket, _, key = location.removeprefix(f"{SCHEME}://").partition("/")
        try:
            answer = self.s3.get_object(Bucket=bucket, Key=key, **({"Range": only} if only else {}))
        except ClientError as error:
            if error_code(error) == "NoSuchKey":
                raise gone(location) from error
            if error_code(error) == "NoSuchBucket":
                raise LakeError(f"There is no bucket {bucket}, which Glue names: it was deleted.") from error
            raise LakeError(describe_refusal(error, f"read {location}", "s3:GetObject on the warehouse")) from error
        data: bytes = answer["Body"].read()
        return data


class PlannedFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """A read-only fsspec file system of the planned files, by location, for DuckDB."""

    protocol = SCHEME
    cachable = False  # one instance per query

    def __init__(self, sizes: Mapping[str, int], read_range: Callable[[str, str], bytes]) -> None:
        super().__init__()
        self.failures: list[FileNotFoundError | LakeError] = []
        self._sizes = sizes
        self._read_range = read_range

    def open(self, path: str, mode: str = "rb", **_options: object) -> PlannedFile:
        if mode != "rb" or path not in self._sizes:
            raise PermissionError(f"{path} is not a file that a query may open ({mode})")
        return PlannedFile(self._sizes[path], lambda start, end: self._read(path, start, end))

    def info(self, path: str, **_options: object) -> dict[str, object]:
        return {"name": path, "size": self._sizes[path], "type": "file"}

    def glob(self, path: str, **_options: object) -> list[str]:
        return [path] if path in self._sizes else []

    def exists(self, path: str, **_options: object) -> bool:
        return path in self._sizes

    def modified(self, _path: str) -> datetime:
        return _CHANGED

    def _read(self, path: str, start: int, end: int) -> bytes:
        try:
            return self._read_range(path, f"bytes={start}-{end - 1}")
        except (FileNotFoundError, LakeError) as error:
            self.failures.append(error)
            raise


@dataclass(slots=True)
class PlannedFile:
    """A file open for reading. DuckDB's threads share it and seek before each read, so the position is per thread."""

    size: int
    read_range: Callable[[int, int], bytes]
    closed: bool = False
    _place: threading.local = field(default_factory=threading.local)

    def seek(self, offset: int, _whence: int = 0) -> int:
        self._place.offset = offset
        return offset

    def tell(self) -> int:
        return getattr(self._place, "offset", 0)

    def read(self, size: int = -1) -> bytes:
        start = self.tell()
        end = self.size if size < 0 else min(start + size, self.size)
        data = self.read_range(start, end) if start < end else b""
        self._place.offset = start + len(data)
        return data

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True
