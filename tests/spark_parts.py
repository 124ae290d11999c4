"""One Spark session for all tests that ask for it, against an AWS of its own: it takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from manymetrics_processor.spark_session import SparkSettings, start_session, stop_session
from tests.glue_lake import BUCKET
from tests.jvm_home import jvm_part
from tests.spark.faulty_glue import FaultyGlue, faulty_glue
from tests.strict_moto import REGION, Aws, strict_moto

WAREHOUSE = f"s3://{BUCKET}/warehouse"


@dataclass(frozen=True, slots=True)
class Spark:
    """``glue`` is what stands between the session and Glue."""

    aws: Aws
    glue: FaultyGlue
    settings: SparkSettings
    session: SparkSession


@contextmanager
def running_spark(temp: Path) -> Iterator[Spark]:
    jars, java_home = jvm_part("jars"), jvm_part("java21")
    with strict_moto() as aws, faulty_glue(aws.url) as glue, pytest.MonkeyPatch.context() as environ:
        aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        settings = SparkSettings(
            warehouse=WAREHOUSE,
            region=REGION,
            jars=jars,
            java_home=java_home,
            temp=temp,
            endpoint=aws.url,
            heap_mb=768,
            catalog={"glue.endpoint": glue.url},
        )
        for name, value in aws.environ.items():
            environ.setenv(name, value)
        session = start_session(settings)
        yield Spark(aws, glue, settings, session)
        stop_session(session)
