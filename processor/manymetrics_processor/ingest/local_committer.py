"""The loop that commits a stream to the tables: read, commit, clean up. Failures are retried without limit."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from manymetrics.records import count_events
from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor.decode.batch import Batch, StreamRecord, decode
from manymetrics_processor.decode.worker_pool import Decoders
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import Lake, Version, current_books
from manymetrics_processor.lake.maintenance import Maintenance
from manymetrics_processor.lake.rollback import metadata_number

MAX_EVENTS = 20_000  # per micro-batch under backlog: enough to make the fixed cost of a commit small
MAX_BYTES = 20_000_000  # of records.weight: two decoders and a commit together stay under a gigabyte
POLL_S = 0.05
FAILURES_BEFORE_RESTART = 8  # in a row; about half a minute
FEWER = 8  # factor by which less is read after a failure, and more after a commit
LONGEST_ERROR = 500  # characters reported of an error
_LONGEST_WAIT_S = 10.0
_DROP_EVERY_S = 15.0

log = logging.getLogger("manymetrics.committer")


class SourceRecord(Protocol):
    """A record as read from a source."""

    @property
    def sequence(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    @property
    def arrived_at(self) -> int: ...
    @property
    def weight(self) -> int: ...


class Source(Protocol):
    """A stream with one shard."""

    def name(self) -> str: ...
    def read(self, after: int, max_events: int, max_bytes: int) -> Sequence[SourceRecord]: ...
    def seen(self) -> Iterable[tuple[str, str, str]]: ...
    def put_outcomes(
        self, outcomes: Iterable[tuple[int, bytes]], seen: Iterable[tuple[str, str, str]] = ...
    ) -> None: ...
    def mark_committed(self, up_to: int) -> None: ...
    def drop_committed(self, up_to: int) -> int: ...
    def leave_incarnation(self, watermark: int) -> bool: ...


class _Position(NamedTuple):
    stream: str
    sequence: int


class Failure(NamedTuple):
    """Consecutive failed commits. ``since``: seconds since 1970. ``times``: how many."""

    since: float
    times: int
    error: str


class Committer:
    """Commits one stream to the tables.

    ``interval_s``: the longest wait from event to table under load; an idle stream is committed immediately. ``report``
    is called with each failure, and with None once the tables exist and whenever commits succeed again. ``failure``:
    the state of the previous process, if it exited while commits were failing.
    """

    def __init__(
        self,
        source: Source,
        shard: str,
        lake: Lake,
        window: Window,
        interval_s: float,
        report: Callable[[Failure | None], None] = lambda _failure: None,
        failure: Failure | None = None,
    ) -> None:
        self._source, self._shard, self._lake, self._window = source, shard, lake, window
        self._interval_s, self._report = interval_s, report
        self._failure = failure
        self._has_passed = False
        self._max_events = MAX_EVENTS  # fewer after a failure, so that a failing batch becomes small
        self._maintenance = Maintenance(lake)
        self._decoders = Decoders()
        self._position: _Position | None = None
        self._held: list[StreamRecord] = []  # read, and waiting for the interval
        self._stop = threading.Event()
        self._last_commit = self._last_drop = float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Run until ``stop`` is set; finishes the current commit first.

        Also returns after so many failures that a new process is worth a try: this one might hold a file that was
        replaced.
        """
        self._stop = stop
        gc.freeze()  # objects loaded so far are permanent: exclude them from collections
        wait, failures = POLL_S, 0
        while not stop.is_set() and failures < FAILURES_BEFORE_RESTART:
            try:
                idle, wait, failures = self.step(), POLL_S, 0
            except Exception as error:  # any error: the records are safe, so retry
                if self._fail(error):  # retried without limit: one log line per kind of error
                    log.warning("a commit failed; retrying", exc_info=error)
                self._decoders.close()
                self._position, self._held = None, []
                self._max_events = max(1, self._max_events // FEWER)
                idle, wait, failures = True, min(_LONGEST_WAIT_S, wait * 2), failures + 1
            if idle:
                stop.wait(wait)
        self._decoders.close()

    def _fail(self, error: Exception) -> bool:
        """Record a failure; returns whether the error differs from the previous one."""
        before = self._failure or Failure(time.time(), 0, "")
        self._failure = Failure(before.since, before.times + 1, f"{type(error).__name__}: {error}"[:LONGEST_ERROR])
        self._report(self._failure)
        return self._failure.error != before.error

    def _pass(self) -> None:
        self._max_events = min(MAX_EVENTS, self._max_events * FEWER)
        if self._failure is not None or not self._has_passed:
            self._failure, self._has_passed = None, True
            self._report(None)

    def step(self) -> bool:
        """Commit available records when due. Returns True if there was nothing to do."""
        position = self._position = self._position_now()
        self._held += self._read_past_held(position)
        if self._source.name() != position.stream:  # the stream was replaced between reading its name and its records
            self._position, self._held = None, []
            return False
        is_full = self._is_full(self._held)
        if not self._held:
            self._tidy(position)
            self._pass()
            return True
        if not is_full and time.monotonic() - self._last_commit < self._interval_s:
            return True
        records, self._held = self._held, []
        self._last_commit = time.monotonic()
        if is_full and self._max_events >= MAX_EVENTS:
            self._drain(position.stream, records)
        else:
            suspect = self._max_events == 1 and self._failure is not None
            committed = pipeline.run(records, position.stream, self._lake, self._window, suspect=suspect)
            self._note(committed, position.stream, [record.sequence for record in records])
        return False

    def _drain(self, stream: str, records: list[StreamRecord]) -> None:
        """Commit a backlog, as far as time allows: the next batches are decoded while one is committed."""
        decoders, ready = self._decoders, None
        while records or decoders.waiting or ready is not None:
            if records and not decoders.waiting and ready is None and not decoders.are_ready:
                with pipeline.no_collection():  # don't wait for the workers to start
                    ready = decode(records, stream)
                records = self._read_on(records, stream)
            while records and decoders.are_ready and decoders.has_room:
                decoders.put(records, stream)
                records = self._read_on(records, stream)
            if ready is not None:
                self._commit(ready, may_merge=False)  # a merge takes as much memory as the decoders
                self._last_commit = time.monotonic()
            if self._stop.is_set():
                return
            ready = decoders.take() if decoders.waiting else None

    def _commit(self, batch: Batch, *, may_merge: bool = True) -> None:
        committed = pipeline.commit(batch, self._lake, self._window)
        sequences = [sequence for _, sequence in batch.keys]
        self._note(committed, batch.stream, sequences, may_merge=may_merge)

    def _note(
        self, committed: pipeline.Committed, stream: str, sequences: Sequence[int], *, may_merge: bool = True
    ) -> None:
        self._position = _Position(stream, sequences[-1])
        marks = zip(sequences, committed.outcomes, strict=True)
        self._source.put_outcomes(((at, one) for at, one in marks if one is not None), self._seen())
        self._maintenance.after_commit(may_merge=may_merge)
        self._pass()
        self._tidy(self._position)

    def _seen(self) -> list[tuple[str, str, str]]:
        return [(table, one.table_uuid, one.location) for table, one in self._lake.versions.items()]

    def _read_past_held(self, position: _Position) -> list[StreamRecord]:
        if not self._held:
            return self._read(position.sequence)
        found = self._read(self._held[-1].sequence)
        if not found:
            self._source.read(position.sequence, 1, 1)  # else a replaced source would treat held records as committed
        return found

    def _read_on(self, records: list[StreamRecord], stream: str) -> list[StreamRecord]:
        """Read the next records of a backlog; none if the source became another stream with other sequence numbers."""
        if not self._is_full(records):
            return []
        found = self._read(records[-1].sequence)
        if not found:
            self._source.read(records[0].sequence - 1, 1, 1)  # as above: they are not committed yet
            return []
        return found if self._source.name() == stream else []

    def _read(self, after: int) -> list[StreamRecord]:
        found = self._source.read(after, self._max_events, MAX_BYTES)
        return [
            StreamRecord(self._shard, record.sequence, record.data, record.arrived_at, record.weight)
            for record in found
        ]

    def _position_now(self) -> _Position:
        stream = self._source.name()
        if self._position is not None and self._position.stream == stream:
            return self._position
        self._held = []
        for table, table_uuid, location in self._source.seen():
            self._lake.expect(table, Version(table_uuid, metadata_number(location), location))
        self._lake.ensure_tables()
        position = _Position(stream, current_books(self._lake.load(EVENTS), stream).watermark(self._shard))
        if self._source.leave_incarnation(position.sequence):  # its next sequence numbers would count as committed
            log.warning("the stream is behind the tables; starting a new incarnation")
            return self._position_now()
        if position.sequence >= 0:  # also drop what was committed by a process that exited before noting it
            self._source.mark_committed(position.sequence)
        return position

    def _tidy(self, position: _Position) -> None:
        self._decoders.close_if_idle()
        if time.monotonic() - self._last_drop >= _DROP_EVERY_S:
            self._last_drop = time.monotonic()
            # Drop only what a fresh read of the catalog confirms: the records are the only other copy.
            self._lake.load(DEAD_LETTERS)
            durable = current_books(self._lake.load(EVENTS), position.stream).watermark(self._shard)
            self._source.put_outcomes((), self._seen())
            self._source.drop_committed(min(position.sequence, durable))
            self._maintenance.delete_dead_files()

    def _is_full(self, records: list[StreamRecord]) -> bool:
        """Return whether a read stopped at its limits, so that more records are likely."""
        events = sum(count_events(record.data) for record in records)
        return events >= self._max_events or sum(record.weight for record in records) >= MAX_BYTES
