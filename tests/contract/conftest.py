"""The same tables, made by each catalog and engine: what a test of the contract says holds for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from manymetrics.tables import NAMESPACE
from manymetrics_processor.lake.lake import Engine, Lake
from tests.glue_lake import BUCKET, another_handle, glue_lake
from tests.integration.micro_batches import make_lake
from tests.strict_moto import REGION, Aws, strict_moto

STORES = [
    "sqlite-arrow",
    "glue-arrow",
    pytest.param("glue-spark", marks=[pytest.mark.jvm, pytest.mark.xdist_group("spark")]),
]


@dataclass(frozen=True, slots=True)
class Store:
    """Empty tables, and as many handles on them as a test likes, each as another process has it."""

    lake: Lake
    another: Callable[[], Lake]
    beside: Callable[[str], Lake]
    """Those of another database in the same catalog."""


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite-arrow":
        yield Store(make_lake(tmp_path), lambda: make_lake(tmp_path), lambda name: make_lake(tmp_path, name))
    elif request.param == "glue-arrow":
        yield from _store_in_glue(request.getfixturevalue("contract_aws"), lambda: None)
    else:
        from manymetrics_processor.lake.spark.engine import SparkEngine

        spark = request.getfixturevalue("spark")
        yield from _store_in_glue(spark.aws, lambda: SparkEngine(lambda: spark.session))


@pytest.fixture(scope="session")
def contract_aws() -> Iterator[Aws]:
    with strict_moto() as aws:
        aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield aws


def _store_in_glue(aws: Aws, engine: Callable[[], Engine | None]) -> Iterator[Store]:
    def another(database: str = NAMESPACE) -> Lake:
        lake = another_handle(aws, engine(), database)
        lake.ensure_tables()
        return lake

    with glue_lake(aws):
        yield Store(another(), another, another)
