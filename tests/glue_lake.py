"""The tables in Glue and on S3, as on AWS, at ``strict_moto``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from manymetrics.tables import NAMESPACE
from manymetrics_processor.lake.glue_catalog import glue_catalog
from manymetrics_processor.lake.lake import Engine, Lake
from tests.strict_moto import Aws

BUCKET = "lake"


@contextmanager
def glue_lake(aws: Aws) -> Iterator[Lake]:
    """Empty tables, and an environment in which all finds them; when the block ends, Glue holds nothing of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws.environ.items():
            patch.setenv(name, value)
        lake = another_handle(aws)
        lake.ensure_tables()
        yield lake
        for database in aws.client("glue").get_databases()["DatabaseList"]:
            aws.client("glue").delete_database(Name=database["Name"])
        empty_bucket(aws, "warehouse/")


def empty_bucket(aws: Aws, prefix: str = "") -> None:
    """Delete all objects with this prefix, a thousand at once: a test leaves hundreds."""
    s3 = aws.client("s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        if keys := [{"Key": one["Key"]} for one in page.get("Contents", ())]:
            assert "Errors" not in s3.delete_objects(Bucket=BUCKET, Delete={"Objects": keys, "Quiet": True})


def another_handle(aws: Aws, engine: Engine | None = None, database: str = NAMESPACE) -> Lake:
    """The same tables, as another process has them; or those of another database."""
    catalog = glue_catalog(f"s3://{BUCKET}/warehouse", aws.environ)
    return Lake(catalog, engine, database=database, sleep=lambda _seconds: None)
