"""What both engines promise is tested with each of them through ``tables``; with arrow it needs no JVM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from manymetrics.tables import TABLES
from manymetrics_processor.lake.glue_catalog import glue_catalog
from manymetrics_processor.lake.lake import Lake
from manymetrics_processor.lake.spark.engine import SparkEngine
from manymetrics_processor.lake.spark.session import SparkSettings
from tests.faulty_aws import Calls, FaultyAws
from tests.glue_lake import BUCKET, another_handle, empty_bucket, glue_lake
from tests.spark_parts import Spark
from tests.strict_moto import Aws


@pytest.fixture(scope="session")
def aws(aws_behind_faults: tuple[Aws, FaultyAws]) -> Aws:
    return aws_behind_faults[0]


@pytest.fixture(scope="session")
def faulty(aws_behind_faults: tuple[Aws, FaultyAws]) -> FaultyAws:
    """What stands between an engine and Glue and S3."""
    return aws_behind_faults[1]


@pytest.fixture
def glue(faulty: FaultyAws) -> Calls:
    """The commits of tables."""
    return faulty["UpdateTable"]


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
def lakes(aws: Aws, faulty: FaultyAws, session: SparkSession) -> Iterator[Lakes]:
    """Empty tables."""
    faulty.reset()
    made = make_lakes(aws, session)
    yield made
    faulty.reset()
    made.remove()
    empty_bucket(aws)


def make_lakes(aws: Aws, session: SparkSession) -> Lakes:
    catalog = glue_catalog(f"s3://{BUCKET}/warehouse", aws.environ)
    engine = SparkEngine(lambda: session)
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
        return another_handle(behind, SparkEngine(lambda: session) if session else None)

    faulty.reset()
    with glue_lake(aws) as sound:
        yield Tables(request.param, sound, make_lake)
        faulty.reset()
