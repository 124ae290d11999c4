"""The root of the processor on AWS Lambda: a Kinesis event in, rows in the tables.

    manymetrics_processor.handler.handler

A bad record never fails a batch. What fails for our reasons (Glue or S3 out of reach, no time left) is reported as a
partial failure at the first record that is not committed; Lambda delivers from there again. ``{"action":
"ensure_tables"}`` and ``{"action": "maintain"}`` are answered too; the latter with ``"orphans": false`` costs little.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import boto3
from botocore.exceptions import ClientError
from pyiceberg.catalog import Catalog
from pyiceberg.io import load_file_io
from pyiceberg.table import Table as IcebergTable

from manymetrics.settings import Settings, SettingsError
from manymetrics.tables import EVENTS, TABLES, Table
from manymetrics.telemetry import embedded_metrics, log_json_lines
from manymetrics_processor import pipeline
from manymetrics_processor.archive import Archive
from manymetrics_processor.arrow_engine import ArrowEngine
from manymetrics_processor.decode import DEAD_LETTERED, DUPLICATE, STORED, Rows
from manymetrics_processor.delivery import parts_of, stream_record
from manymetrics_processor.event_source import MAINTAIN_EVERY_S, EventSource, Options
from manymetrics_processor.glue import glue_catalog
from manymetrics_processor.kept_ids import KeptIds
from manymetrics_processor.lake import CommitContentionError, Engine, Lake, current_books
from manymetrics_processor.maintenance import Read, maintain
from manymetrics_processor.storage import write_bytes
from manymetrics_processor.window import Window

RESERVE_S = 8.0  # no commit is begun with less time left, and no lost race is run again
SUSPECT_AFTER = 5  # failures in a row at one record: then errors of AWS are looked into, too
KEEP_SNAPSHOTS = 100  # with a window of 300 s: what was 8 hours ago can still be asked
EXPIRE_AT_ONCE = 50
EXPIRE_AFTER_S = 3_600.0  # a query in Athena ends within half an hour
# Longer than any statement of Athena's or job of EMR's holds files that it has not committed.
AWS_ORPHAN_AGE_S = 86_400.0

NEW_ROLE_S, NEW_ROLE_RETRY_S = 60.0, 3.0

log = logging.getLogger("manymetrics.processor")


class Context(Protocol):
    """What Lambda tells of an invocation."""

    def get_remaining_time_in_millis(self) -> int: ...


class Processor:
    """``stream_of`` names a stream with its incarnation, by its ARN. ``is_alive``: whether the engine still is."""

    def __init__(
        self,
        lake_of: Callable[[Callable[[float], None]], Lake],
        window: Window,
        stream_of: Callable[[str], str],
        archive: Archive | None = None,
        is_alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self._lake = lake_of(self._sleep)
        self._window, self._stream_of, self._archive = window, stream_of, archive
        self._is_alive = is_alive
        self._until = float("inf")
        self._has_tables = False
        self._manifests: Read = {}
        self._failed_at: tuple[str, int] | None = None  # the first record that was not committed, and how often
        self._failures = 0

    def handle(self, event: Mapping[str, Any], context: Context | None) -> dict[str, Any]:
        """Answer one invocation."""
        self._until = (
            float("inf") if context is None else time.monotonic() + context.get_remaining_time_in_millis() / 1e3
        )
        if "Records" in event:
            return {"batchItemFailures": self._commit(event["Records"])}
        action = event.get("action")
        if action == "ensure_tables":
            self._ensure_tables()
            return {"tables": {table.name: self._lake.load(table).location() for table in TABLES}}
        if action == "maintain":
            reports = maintain(
                self._lake,
                keep_snapshots=KEEP_SNAPSHOTS,
                older_than_s=EXPIRE_AFTER_S,
                at_least=EXPIRE_AT_ONCE,
                look_for_orphans=event.get("orphans", True),
                orphan_age_s=AWS_ORPHAN_AGE_S,
                read=self._manifests,
            )
            return {"tables": [asdict(report) for report in reports]}
        raise ValueError('the processor takes a Kinesis event, {"action": "ensure_tables"} or {"action": "maintain"}')

    def _ensure_tables(self) -> None:
        """It is called as soon as the role is made, and IAM takes seconds until it is known everywhere."""
        until = time.monotonic() + NEW_ROLE_S
        while True:
            try:
                self._lake.ensure_tables()
            except (ClientError, OSError) as error:
                if not _is_denied(error) or time.monotonic() > until:
                    raise
                log.warning("not allowed yet, and tried again: the role may be new", exc_info=error)
                time.sleep(NEW_ROLE_RETRY_S)
            else:
                return

    def _commit(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        """Returns where to go on from, as Lambda wants it: none, or the first record that isn't committed."""
        pending = records
        try:
            if not self._has_tables:
                self._lake.ensure_tables()
                self._has_tables = True
            for arn, of_stream in groupby(records, key=lambda record: str(record["eventSourceARN"])):
                stream = self._stream_of(arn)
                for part in parts_of([stream_record(record) for record in of_stream]):
                    if self._is_short_of_time():
                        raise TimeoutError("too little time left for another commit")  # noqa: TRY301  # reported as all else
                    if self._archive is not None:
                        self._archive.put(stream, part)
                    suspect = self._failed_at == (part[0].shard, part[0].sequence) and self._failures >= SUSPECT_AFTER
                    run = partial(pipeline.run, suspect=True) if suspect else pipeline.run
                    committed = run(part, stream, self._lake, self._window)
                    pending = pending[len(part) :]
                    _put_metrics(committed.outcomes, self._window, self._lake.database)
            self._window.keep()
        except Exception as error:  # whatever it is: no bad record does this, so it is ours, and passes
            log.warning("a batch will be delivered again from its first record that is not committed", exc_info=error)
            if not self._is_alive():
                log.exception("the JVM is gone, and this process ends: a new one goes on from the watermark")
                os._exit(1)  # nothing here can be used again; Lambda, or who started this, starts a new one
            first = stream_record(pending[0])
            failed_at = first.shard, first.sequence
            self._failures = self._failures + 1 if failed_at == self._failed_at else 1
            self._failed_at = failed_at
            return [{"itemIdentifier": pending[0]["kinesis"]["sequenceNumber"]}]
        self._failed_at, self._failures = None, 0
        return []

    def _is_short_of_time(self) -> bool:
        return self._until - time.monotonic() < RESERVE_S

    def _sleep(self, seconds: float) -> None:
        if self._is_short_of_time():
            raise CommitContentionError("lost a race, and too little time is left for another")
        time.sleep(seconds)


def handler(event: Mapping[str, Any], context: Context | None = None) -> dict[str, Any]:
    """Lambda's entry."""
    return processor().handle(event, context)


@cache
def processor() -> Processor:
    """The processor that the environment describes. Raises SettingsError."""
    log_json_lines()
    settings = Settings.read(os.environ)
    return make_processor(settings, make_catalog(settings, os.environ), os.environ)


def make_catalog(settings: Settings, environ: Mapping[str, str]) -> Catalog:
    """The tables' catalogue. Raises SettingsError."""
    if not settings.warehouse.startswith("s3://"):
        raise SettingsError("MANYMETRICS_WAREHOUSE is missing: the S3 location of the tables, s3://bucket/prefix")
    return glue_catalog(settings.warehouse, environ)


def make_processor(
    settings: Settings,
    catalog: Catalog,
    environ: Mapping[str, str],
    stream_of: Callable[[str], str] | None = None,
) -> Processor:
    """The processor that the settings describe. Its engine starts with the first batch."""
    engine = StartedEngine(lambda: make_engine(settings, environ))
    archive = Archive(settings.archive, load_file_io(catalog.properties)) if settings.archive else None
    window = make_window(settings, catalog)
    names = stream_of or partial(stream_name, boto3.client("kinesis"))
    return Processor(
        lambda sleep: Lake(catalog, engine, database=settings.database, sleep=sleep),
        window,
        names,
        archive,
        engine.is_alive,
    )


class StartedEngine:
    """An engine that ``start`` makes as it is first needed.

    Spark takes seconds to start. Lambda stops an init after ten and runs it again, with the first JVM still there.
    Creating and maintaining tables needs no engine.
    """

    def __init__(self, start: Callable[[], tuple[Engine, Callable[[], bool]]]) -> None:
        self._start = start
        self._started: tuple[Engine, Callable[[], bool]] | None = None

    def is_alive(self) -> bool:
        """Whether it is still there; also where it has not started."""
        return self._started is None or self._started[1]()

    @property
    def _engine(self) -> Engine:
        if self._started is None:
            self._started = self._start()
        return self._started[0]

    def stage(self, table: Table, iceberg: IcebergTable, rows: Rows) -> Sequence[Any]:
        """As Engine.stage."""
        return self._engine.stage(table, iceberg, rows)

    def try_out(self, table: Table, iceberg: IcebergTable, rows: Rows) -> None:
        """As Engine.try_out."""
        self._engine.try_out(table, iceberg, rows)

    def append(
        self,
        table: Table,
        iceberg: IcebergTable,
        files: Sequence[Any],
        summary: Mapping[str, str],
        properties: Mapping[str, str],
    ) -> int:
        """As Engine.append."""
        return self._engine.append(table, iceberg, files, summary, properties)


def make_engine(settings: Settings, environ: Mapping[str, str]) -> tuple[Engine, Callable[[], bool]]:
    """The engine that the settings name, and whether it is still there. Starting Spark takes seconds."""
    if settings.engine == "arrow":
        return ArrowEngine(), lambda: True
    from manymetrics_processor.spark_engine import SparkEngine
    from manymetrics_processor.spark_session import SparkSettings, is_running, maps_archive, start_session

    archive = settings.spark_jars / "classes.jsa"
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
            "the JVM does without its class archive, so that each start takes twice as long: build the image again",
            extra={"facts": {"archive": str(archive)}},
        )
    return SparkEngine(session), lambda: is_running(session)


def make_window(settings: Settings, catalog: Catalog) -> Window:
    """The dedup window, with its ids beside the tables."""
    home = f"{settings.warehouse.rstrip('/')}/{settings.database}/{EVENTS.name}-ids"
    kept = KeptIds(load_file_io(catalog.properties), home)
    return Window(settings.dedup_window_days, kept=kept, max_ids=settings.dedup_max_ids)


def make_event_source(environ: Mapping[str, str], options: Options, failures: str | None = None) -> EventSource:
    """What runs the processor without Lambda. Raises SettingsError.

    ``failures``: the location under which batches are kept that are given up.
    """
    settings = Settings.read(environ)
    catalog = make_catalog(settings, environ)
    lake = Lake(catalog, database=settings.database)
    lake.ensure_tables()
    # A batch is of the incarnation that it was read from, also where the stream was made anew since.
    processor = make_processor(settings, catalog, environ, lambda _arn: source.stream)
    home = (failures or f"{settings.warehouse.rstrip('/')}/failures").rstrip("/")
    maintained_at = time.monotonic()

    def invoke(event: dict[str, Any]) -> dict[str, Any]:
        nonlocal maintained_at
        answer = processor.handle(event, None)
        if time.monotonic() - maintained_at >= MAINTAIN_EVERY_S:  # between two commits: beside them it loses each race
            maintained_at = time.monotonic()
            try:
                processor.handle({"action": "maintain"}, None)
            except Exception as error:  # nothing depends on it
                log.warning("maintenance failed and will be tried again in an hour", exc_info=error)
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
    """A stream with its incarnation: one that is deleted and made again starts at its first record."""
    # Asked each time: a container outlives a stream, and one call a batch is nothing.
    stream = kinesis.describe_stream_summary(StreamARN=arn)["StreamDescriptionSummary"]
    return f"{arn}@{stream['StreamCreationTimestamp'].timestamp():.3f}"


def known_stream_name(kinesis: Any, arn: str) -> str:  # noqa: ANN401  # as above
    """As stream_name; the ARN alone where the stream is gone, for what can still be replayed of it."""
    try:
        return stream_name(kinesis, arn)
    except kinesis.exceptions.ResourceNotFoundException:
        return arn


def _is_denied(error: Exception) -> bool:
    """Glue's word for it, or S3's by way of Arrow."""
    return "AccessDenied" in str(error) or "ACCESS_DENIED" in str(error)


def _put_metrics(outcomes: Sequence[bytes | None], window: Window, database: str) -> None:
    """Tell CloudWatch what one commit did."""
    marks = Counter(mark for of_record in outcomes for mark in of_record or b"")
    stored, duplicate, dead = (marks[mark[0]] for mark in (STORED, DUPLICATE, DEAD_LETTERED))
    values = {
        "received": marks.total(),
        "stored": stored,
        "duplicate": duplicate,
        "dead_lettered": dead,
        "dedup_ids": len(window),
        "dedup_days": window.days_held,
    }
    print(embedded_metrics(database, ("stored", "dead_lettered"), values), flush=True)  # noqa: T201  # the format is a line of the output


if "AWS_LAMBDA_RUNTIME_API" in os.environ:  # Lambda gives a start more CPU than a first invocation
    processor()
