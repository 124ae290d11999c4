"""Commit batches of Kinesis records from an event source mapping, and handle the other actions.

A bad record never fails a batch. Other failures (Glue or S3 unreachable, no time left) are reported as a partial
failure at the first uncommitted record; Lambda redelivers from there.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import groupby
from typing import Any, Protocol

from botocore.exceptions import ClientError

from manymetrics.books import Shards
from manymetrics.tables import TABLES
from manymetrics.telemetry import embedded_metrics
from manymetrics_processor.decode.batch import DEAD_LETTERED, DUPLICATE, STORED, Batch, StreamRecord, decode
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.ingest.lambda_records import split_parts, stream_record
from manymetrics_processor.ingest.raw_archive import Archive
from manymetrics_processor.lake.lake import CommitContentionError, Lake
from manymetrics_processor.lake.maintenance import Read, maintain

RESERVE_S = 8.0  # with less time left, no commit is started, and no lost race retried
SUSPECT_AFTER = 5  # failures in a row at one record: then AWS errors are examined, too
KEEP_SNAPSHOTS = 100  # with a window of 300 s: time travel of 8 hours
EXPIRE_AT_ONCE = 50
EXPIRE_AFTER_S = 3_600.0  # a query in Athena ends within half an hour
# Longer than any Athena statement or EMR job holds uncommitted files.
AWS_ORPHAN_AGE_S = 86_400.0
NEW_ROLE_S, NEW_ROLE_RETRY_S = 60.0, 3.0

log = logging.getLogger("manymetrics.processor")


class Context(Protocol):
    """Lambda's context object."""

    def get_remaining_time_in_millis(self) -> int: ...


class Processor:
    """``stream_of`` names a stream with its incarnation, by its ARN. ``is_alive``: whether the engine is usable.

    ``list_shards`` returns a stream's shards, by its ARN.
    """

    def __init__(
        self,
        lake_of: Callable[[Callable[[float], None]], Lake],
        window: Window,
        stream_of: Callable[[str], str],
        archive: Archive | None = None,
        is_alive: Callable[[], bool] = lambda: True,
        *,
        list_shards: Callable[[str], Shards],
    ) -> None:
        self._lake = lake_of(self._sleep)
        self._window, self._stream_of, self._archive = window, stream_of, archive
        self._is_alive = is_alive
        self._list_shards = list_shards
        self._shards: dict[str, Shards] = {}  # by stream
        self._until = float("inf")
        self._has_tables = False
        self._manifests: Read = {}
        self._failed_at: tuple[str, int] | None = None  # the first uncommitted record, and its number of failures
        self._failures = 0

    def handle(self, event: Mapping[str, Any], context: Context | None) -> dict[str, Any]:
        """Handle one invocation."""
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
        """Create the tables, with retries: IAM takes seconds to propagate a role that was just created."""
        until = time.monotonic() + NEW_ROLE_S
        while True:
            try:
                self._lake.ensure_tables()
            except (ClientError, OSError) as error:
                if not _is_denied(error) or time.monotonic() > until:
                    raise
                log.warning("access denied; retrying, since the role may be new", exc_info=error)
                time.sleep(NEW_ROLE_RETRY_S)
            else:
                return

    def _commit(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        """Commit; returns the partial batch response: empty, or the first uncommitted record."""
        pending = records
        try:
            if not self._has_tables:
                self._lake.ensure_tables()
                self._has_tables = True
            for arn, of_stream in groupby(records, key=lambda record: str(record["eventSourceARN"])):
                stream = self._stream_of(arn)
                for part in split_parts([stream_record(record) for record in of_stream]):
                    if self._is_short_of_time():
                        raise TimeoutError("too little time left for another commit")  # noqa: TRY301  # reported like other errors
                    if self._archive is not None:
                        self._archive.put(stream, part)
                    suspect = self._failed_at == (part[0].shard, part[0].sequence) and self._failures >= SUSPECT_AFTER
                    decode_part = partial(decode_with_shards, self._shards_of(arn, stream, part))
                    committed = pipeline.run(
                        part, stream, self._lake, self._window, decode=decode_part, suspect=suspect
                    )
                    pending = pending[len(part) :]
                    _put_metrics(committed.outcomes, self._window, self._lake.database)
            self._window.keep()
        except Exception as error:  # never caused by a bad record, so it is temporary
            log.warning("a batch failed; it will be redelivered from its first uncommitted record", exc_info=error)
            if not self._is_alive():
                log.exception("the JVM is gone; exiting, and a new process resumes from the watermark")
                os._exit(1)  # this process is unusable; Lambda or the supervisor starts a new one
            first = stream_record(pending[0])
            failed_at = first.shard, first.sequence
            self._failures = self._failures + 1 if failed_at == self._failed_at else 1
            self._failed_at = failed_at
            return [{"itemIdentifier": pending[0]["kinesis"]["sequenceNumber"]}]
        self._failed_at, self._failures = None, 0
        return []

    def _shards_of(self, arn: str, stream: str, records: Sequence[StreamRecord]) -> Shards | None:
        """Return the stream's shards, listed when a process begins and after a resharding; None if that fails."""
        known = self._shards.get(stream)
        if known is None or any(record.shard not in known for record in records):
            try:
                known = self._list_shards(arn)
            except Exception as error:  # without it, only the time of a closed shard stays in the books
                log.warning("the stream's shards can't be listed", exc_info=error)
                return known
            self._shards = {stream: known}
        return known

    def _is_short_of_time(self) -> bool:
        return self._until - time.monotonic() < RESERVE_S

    def _sleep(self, seconds: float) -> None:
        if self._is_short_of_time():
            raise CommitContentionError("lost a race, and too little time is left for a retry")
        time.sleep(seconds)


def decode_with_shards(shards: Shards | None, records: Iterable[StreamRecord], stream: str, **options: Any) -> Batch:  # noqa: ANN401  # decode's
    """Decode a batch of a stream with these shards."""
    return replace(decode(records, stream, **options), shards=shards)


def _is_denied(error: Exception) -> bool:
    """Return whether an error means access denied, from Glue or from S3 through Arrow."""
    return "AccessDenied" in str(error) or "ACCESS_DENIED" in str(error)


def _put_metrics(outcomes: Sequence[bytes | None], window: Window, database: str) -> None:
    """Report one commit's metrics to CloudWatch."""
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
    print(embedded_metrics(database, ("stored", "dead_lettered"), values), flush=True)  # noqa: T201  # the format is a line on stdout
