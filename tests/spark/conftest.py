"""One Spark session for all tests here, against one AWS: it takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
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
from tests.glue_lake import BUCKET
from tests.jvm_home import jvm_part
from tests.spark.faulty_glue import FaultyGlue, faulty_glue
from tests.strict_moto import REGION, Aws, strict_moto

WAREHOUSE = f"s3://{BUCKET}/warehouse"


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    with strict_moto() as server:
        place = {"LocationConstraint": REGION}
        server.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
        yield server


@pytest.fixture(scope="session")
def glue(aws: Aws) -> Iterator[FaultyGlue]:
    """What stands between Spark and Glue."""
    with faulty_glue(aws.url) as faulty:
        yield faulty


@pytest.fixture(scope="session")
def settings(aws: Aws, glue: FaultyGlue, tmp_path_factory: pytest.TempPathFactory) -> SparkSettings:
    return SparkSettings(
        warehouse=WAREHOUSE,
        region=REGION,
        jars=jvm_part("jars"),
        java_home=jvm_part("java21"),
        temp=Path(tmp_path_factory.mktemp("spark")),
        endpoint=aws.url,
        heap_mb=768,
        catalog={"glue.endpoint": glue.url},
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
def lakes(aws: Aws, glue: FaultyGlue, session: SparkSession) -> Iterator[Lakes]:
    """Empty tables."""
    glue.reset()
    made = make_lakes(aws, session)
    yield made
    glue.reset()
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
