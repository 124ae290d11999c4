"""One Spark session for all tests that ask for it: it takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from manymetrics_processor.lake.spark.session import SparkSettings, start_session, stop_session
from tests.faulty_aws import FaultyAws
from tests.glue_lake import BUCKET
from tests.jvm_home import jvm_part
from tests.strict_moto import REGION, Aws

WAREHOUSE = f"s3://{BUCKET}/warehouse"


@dataclass(frozen=True, slots=True)
class Spark:
    """``faulty`` is what stands between the session and its AWS."""

    aws: Aws
    faulty: FaultyAws
    settings: SparkSettings
    session: SparkSession


@contextmanager
def running_spark(aws: Aws, faulty: FaultyAws, temp: Path) -> Iterator[Spark]:
    settings = SparkSettings(
        warehouse=WAREHOUSE,
        region=REGION,
        jars=jvm_part("jars"),
        java_home=jvm_part("java21"),
        temp=temp,
        endpoint=faulty.url,
        heap_mb=768,
    )
    with pytest.MonkeyPatch.context() as environ:
        for name, value in aws.environ.items():
            environ.setenv(name, value)
        session = start_session(settings)
        yield Spark(aws, faulty, settings, session)
        stop_session(session)
