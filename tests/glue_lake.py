"""The tables in Glue and on S3, as on AWS, at ``strict_moto``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.glue import GlueCatalog

from manymetrics.tables import NAMESPACE
from manymetrics_processor.lake import Lake
from tests.strict_moto import CREDENTIALS, REGION, Aws

BUCKET = "lake"


def glue_catalog(aws: Aws) -> Catalog:
    """A handle of its own on the catalogue."""
    return GlueCatalog(
        "manymetrics",
        **{
            "warehouse": f"s3://{BUCKET}/warehouse",
            "glue.endpoint": aws.url,
            "s3.endpoint": aws.url,
            "client.region": REGION,
            "client.access-key-id": CREDENTIALS["AWS_ACCESS_KEY_ID"],
            "client.secret-access-key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            "glue.max-retries": 0,  # an answer that was lost and is asked for again would look like a lost race
        },
    )


@contextmanager
def glue_lake(aws: Aws) -> Iterator[Lake]:
    """Empty tables; with all else of the database, they are gone from Glue when the block ends."""
    lake = Lake(glue_catalog(aws), sleep=lambda _seconds: None)
    lake.ensure_tables()
    try:
        yield lake
    finally:
        glue = aws.client("glue")
        for table in glue.get_tables(DatabaseName=NAMESPACE)["TableList"]:
            glue.delete_table(DatabaseName=NAMESPACE, Name=table["Name"])
        glue.delete_database(Name=NAMESPACE)
