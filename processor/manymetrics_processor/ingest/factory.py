"""Build the processor and its dependencies from the settings, for the Lambda handler, the jobs and the commands."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from pyiceberg.catalog import Catalog
from pyiceberg.io import load_file_io

from manymetrics.settings import Settings, SettingsError
from manymetrics.tables import EVENTS
from manymetrics_processor.dedup.id_store import KeptIds
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest.kinesis_poller import MAINTAIN_EVERY_S, EventSource, Options, list_shards
from manymetrics_processor.ingest.processor import Processor
from manymetrics_processor.ingest.raw_archive import Archive
from manymetrics_processor.lake.arrow_engine import ArrowEngine
from manymetrics_processor.lake.glue_catalog import glue_catalog
from manymetrics_processor.lake.lake import Engine, Lake, current_books
from manymetrics_processor.lake.object_storage import write_bytes

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger("manymetrics.processor")


def make_catalog(settings: Settings, environ: Mapping[str, str]) -> Catalog:
    """Open the tables' catalog. Raises SettingsError."""
    if not settings.warehouse.startswith("s3://"):
        raise SettingsError("MANYMETRICS_WAREHOUSE is missing: the S3 location of the tables, s3://bucket/prefix")
    return glue_catalog(settings.warehouse, environ)


def make_processor(
    settings: Settings,
    catalog: Catalog,
    environ: Mapping[str, str],
    stream_of: Callable[[str], str] | None = None,
) -> Processor:
    """Build the processor. Its engine starts with the first batch."""
    engine = make_engine(settings, environ)
    archive = Archive(settings.archive, load_file_io(catalog.properties)) if settings.archive else None
    window = make_window(settings, catalog)
    kinesis = boto3.client("kinesis")
    return Processor(
        lambda sleep: Lake(catalog, engine, database=settings.database, sleep=sleep),
        window,
        stream_of or partial(stream_name, kinesis),
        archive,
        engine.is_alive,
        list_shards=partial(list_shards, kinesis),
    )


def make_engine(settings: Settings, environ: Mapping[str, str]) -> Engine:
    """Build the engine that the settings name."""
    if settings.engine == "arrow":
        return ArrowEngine()
    from manymetrics_processor.lake.spark.engine import SparkEngine
    from manymetrics_processor.lake.spark.session import SparkSettings, maps_archive, start_session

    archive = settings.spark_jars / "classes.jsa"

    def start() -> SparkSession:
        session = start_session(
            SparkSettings(
                warehouse=settings.warehouse,
                region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1",
                jars=settings.spark_jars,
                java_home=Path(environ["JAVA_HOME"]) if "JAVA_HOME" in environ else None,
                class_archive=archive,
                endpoint=environ.get("AWS_ENDPOINT_URL"),
            )
        )
        if archive.is_file() and not maps_archive(session, archive):
            log.warning(
                "the JVM does not use its class archive, so each start takes twice as long: rebuild the image",
                extra={"facts": {"archive": str(archive)}},
            )
        return session

    return SparkEngine(start)


def make_window(settings: Settings, catalog: Catalog) -> Window:
    """Build the dedup window, whose ids are stored next to the tables."""
    home = f"{settings.warehouse.rstrip('/')}/{settings.database}/{EVENTS.name}-ids"
    kept = KeptIds(load_file_io(catalog.properties), home)
    return Window(settings.dedup_window_days, kept=kept, max_ids=settings.dedup_max_ids)


def make_event_source(environ: Mapping[str, str], options: Options, failures: str | None = None) -> EventSource:
    """Build the poller that runs the processor without Lambda. Raises SettingsError.

    ``failures``: the location for batches that are given up.
    """
    settings = Settings.read(environ)
    catalog = make_catalog(settings, environ)
    lake = Lake(catalog, database=settings.database)
    lake.ensure_tables()
    # A batch belongs to the incarnation it was read from, even if the stream was recreated since.
    processor = make_processor(settings, catalog, environ, lambda _arn: source.stream)
    home = (failures or f"{settings.warehouse.rstrip('/')}/failures").rstrip("/")
    maintained_at = time.monotonic()

    def invoke(event: dict[str, Any]) -> dict[str, Any]:
        nonlocal maintained_at
        answer = processor.handle(event, None)
        if (
            time.monotonic() - maintained_at >= MAINTAIN_EVERY_S
        ):  # between two commits: concurrently it would lose every race
            maintained_at = time.monotonic()
            try:
                processor.handle({"action": "maintain"}, None)
            except Exception as error:  # maintenance is optional
                log.warning("maintenance failed; it will be retried in an hour", exc_info=error)
        return answer

    kinesis = boto3.client("kinesis")
    source = EventSource(
        kinesis,
        kinesis.describe_stream_summary(StreamName=settings.stream)["StreamDescriptionSummary"]["StreamARN"],
        invoke,
        partial(stream_name, kinesis),
        lambda stream, shard: current_books(lake.load(EVENTS), stream).watermark(shard),
        lambda key, data: write_bytes(lake.io, f"{home}/{key}", data),
        options,
    )
    return source


def stream_name(kinesis: Any, arn: str) -> str:  # noqa: ANN401  # boto3 ships no types
    """Return a stream's name with its incarnation: a recreated stream starts at its first record."""
    # Queried each time: a container may outlive a stream, and one call per batch is negligible.
    stream = kinesis.describe_stream_summary(StreamARN=arn)["StreamDescriptionSummary"]
    return f"{arn}@{stream['StreamCreationTimestamp'].timestamp():.3f}"


def known_stream_name(kinesis: Any, arn: str) -> str:  # noqa: ANN401  # as above
    """Like ``stream_name``, but only the ARN if the stream is gone, so that its records can still be replayed."""
    try:
        return stream_name(kinesis, arn)
    except kinesis.exceptions.ResourceNotFoundException:
        return arn
