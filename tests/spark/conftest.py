"""What tests of Spark may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from manymetrics.tables import TABLES
from manymetrics_processor.glue import glue_catalog
from manymetrics_processor.lake import Lake
from manymetrics_processor.spark_engine import SparkEngine
from manymetrics_processor.spark_session import SparkSettings
from tests.glue_lake import BUCKET
from tests.spark.faulty_glue import FaultyGlue
from tests.spark_parts import Spark
from tests.strict_moto import Aws


@pytest.fixture(scope="session")
def aws(spark: Spark) -> Aws:
    return spark.aws


@pytest.fixture(scope="session")
def glue(spark: Spark) -> FaultyGlue:
    """What stands between Spark and Glue."""
    return spark.glue


@pytest.fixture(scope="session")
def settings(spark: Spark) -> SparkSettings:
    return spark.settings


@pytest.fixture(scope="session")
def session(spark: Spark) -> SparkSession:
    return spark.session


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
