"""One Spark session for all tests here, against one AWS: it takes seconds to start.

What both engines promise is tested with each of them through ``tables``; those with arrow need no JVM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from manymetrics.tables import TABLES
from manymetrics_processor.glue import glue_catalog
from manymetrics_processor.lake import Lake
from manymetrics_processor.spark_engine import SparkEngine
from manymetrics_processor.spark_session import SparkSettings, start_session, stop_session
from tests.faulty_aws import Calls, FaultyAws, faulty_aws
from tests.glue_lake import BUCKET, another_handle, glue_lake
from tests.jvm_home import jvm_part
from tests.strict_moto import REGION, Aws, strict_moto

WAREHOUSE = f"s3://{BUCKET}/warehouse"


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    with strict_moto() as server:
        place = {"LocationConstraint": REGION}
        server.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
        yield server


@pytest.fixture(scope="session")
def faulty(aws: Aws) -> Iterator[FaultyAws]:
    """What stands between an engine and Glue and S3."""
    with faulty_aws(aws.url) as between:
        yield between


@pytest.fixture
def glue(faulty: FaultyAws) -> Calls:
    """The commits of tables."""
    return faulty["UpdateTable"]


@pytest.fixture(scope="session")
def settings(faulty: FaultyAws, tmp_path_factory: pytest.TempPathFactory) -> SparkSettings:
    return SparkSettings(
        warehouse=WAREHOUSE,
        region=REGION,
        jars=jvm_part("jars"),
        java_home=jvm_part("java21"),
        temp=Path(tmp_path_factory.mktemp("spark")),
        endpoint=faulty.url,
        heap_mb=768,
    )


@pytest.fixture(scope="session")
def session(settings: SparkSettings, aws: Aws) -> Iterator[SparkSession]:
    with pytest.MonkeyPatch.context() as environ:
        for name, value in aws.environ.items():
            environ.setenv(name, value)
        running = start_session(settings)
        yield running
        stop_session(running)


@dataclass(frozen=True, slots=True)
class Lakes:
    """The same tables, through each of the engines."""

    catalog: Catalog
    engine: SparkEngine
    spark: Lake
    arrow: Lake

    def remove(self) -> None:
        for table in TABLES:
            self.catalog.drop_table(("manymetrics", table.name))


@pytest.fixture
def lakes(aws: Aws, faulty: FaultyAws, session: SparkSession) -> Iterator[Lakes]:
    """Empty tables."""
    faulty.reset()
    made = make_lakes(aws, session)
    yield made
    faulty.reset()
    made.remove()
    s3 = aws.client("s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for file in page.get("Contents", ()):
            s3.delete_object(Bucket=BUCKET, Key=file["Key"])


def make_lakes(aws: Aws, session: SparkSession) -> Lakes:
    catalog = glue_catalog(f"s3://{BUCKET}/warehouse", aws.environ)
    engine = SparkEngine(session)
    arrow = Lake(catalog, sleep=lambda _seconds: None)
    arrow.ensure_tables()
    return Lakes(catalog, engine, Lake(catalog, engine, sleep=lambda _seconds: None), arrow)


@dataclass(frozen=True, slots=True)
class Tables:
    """Empty tables, as the processors of one engine have them; ``sound`` has no faults on its way."""

    engine: str
    sound: Lake
    make_lake: Callable[[], Lake]


@pytest.fixture(params=["arrow", pytest.param("spark", marks=pytest.mark.jvm)])
def tables(aws: Aws, faulty: FaultyAws, request: pytest.FixtureRequest) -> Iterator[Tables]:
    behind = Aws(faulty.url)
    session: SparkSession | None = request.getfixturevalue("session") if request.param == "spark" else None

    def make_lake() -> Lake:
        with pytest.MonkeyPatch.context() as environ:
            environ.setenv("AWS_ENDPOINT_URL", behind.url)
            return another_handle(behind, SparkEngine(session) if session else None)

    faulty.reset()
    with glue_lake(aws) as sound:
        yield Tables(request.param, sound, make_lake)
        faulty.reset()
