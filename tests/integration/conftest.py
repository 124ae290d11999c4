"""What the tests of parts that work together may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.in_process import end_threads
from tests.kinesis_server import kinesis_server
from tests.strict_moto import CREDENTIALS, REGION, Aws, strict_moto


@pytest.fixture(scope="module")
def moto_server() -> Iterator[Aws]:
    """One for a file: it takes a second to start."""
    with strict_moto() as aws:
        yield aws


@pytest.fixture
def aws_lake(moto_server: Aws, monkeypatch: pytest.MonkeyPatch) -> tuple[Aws, str]:
    """An AWS without Glue tables, with a bucket of the test's own; the location of its tables to be."""
    for name, value in moto_server.environ.items():
        monkeypatch.setenv(name, value)
    glue = moto_server.client("glue")
    for database in glue.get_databases()["DatabaseList"]:
        glue.delete_database(Name=database["Name"])
    bucket = f"lake-{uuid4().hex[:12]}"
    moto_server.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    return moto_server, f"s3://{bucket}/warehouse"


@pytest.fixture(scope="module", params=["moto", "kinesis-local"])
def kinesis_url(request: pytest.FixtureRequest, moto_server: Aws) -> Iterator[str]:
    """Where a Kinesis listens: one, then another, for what must hold on both."""
    if request.param == "moto":
        yield moto_server.url
    else:
        with kinesis_server() as url:
            yield url


@pytest.fixture
def threads() -> Iterator[None]:
    """What an app has started ends with its test."""
    yield
    end_threads()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of AWS, as a process finds them."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
