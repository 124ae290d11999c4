"""The loop that carries a stream into the tables: read, commit, tidy up. Faults are retried without limit."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from manymetrics.tables import EVENTS
from manymetrics_processor import pipeline
from manymetrics_processor.lake import Lake, current_books
from manymetrics_processor.maintenance import Maintenance
from manymetrics_processor.pipeline import StreamRecord
from manymetrics_processor.window import Window

MAX_EVENTS = 20_000  # a micro-batch under backlog: enough that the fixed cost of a commit is small beside it
MAX_BYTES = 32_000_000
POLL_S = 0.05
_LONGEST_WAIT_S = 10.0

log = logging.getLogger("manymetrics.committer")


class SourceRecord(Protocol):
    """A record as a source gives it."""

    @property
    def sequence(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    @property
    def arrived_at(self) -> int: ...


class Source(Protocol):
    """A stream of one shard."""

    def name(self) -> str: ...
    def read(self, after: int, max_events: int, max_bytes: int) -> Sequence[SourceRecord]: ...
    def put_outcomes(self, outcomes: Iterable[tuple[int, bytes]]) -> None: ...
    def drop_committed(self, up_to: int) -> int: ...


class _Position(NamedTuple):
    stream: str
    sequence: int


class Committer:
    """``interval_s``: the longest wait from event to table under load; an idle stream is committed at once."""

    def __init__(self, source: Source, shard: str, lake: Lake, window: Window, interval_s: float) -> None:
        self._source, self._shard, self._lake, self._window = source, shard, lake, window
        self._interval_s = interval_s
        self._maintenance = Maintenance(lake)
        self._position: _Position | None = None
        self._last_commit = float("-inf")
        self._last_drop = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set; what is under way is finished first."""
        gc.freeze()  # what is loaded by now stays: no need to look at it in every collection
        gc.set_threshold(50_000, 20, 100)
        wait = POLL_S
        while not stop.is_set():
            try:
                waits = self.step()
                wait = POLL_S
            except Exception as error:  # noqa: BLE001  # whatever it is: the records are safe, so try again
                log.warning("commit failed, will be tried again", exc_info=error)
                self._position = None
                wait = min(_LONGEST_WAIT_S, wait * 2)
                waits = True
            if waits:
                stop.wait(wait)

    def step(self) -> bool:
        """Commit what there is, if it is time. True where there was nothing to do."""
        position = self._position = self._position_now()
        records = self._source.read(position.sequence, MAX_EVENTS, MAX_BYTES)
        if not records:
            self._tidy(position)
            return True
        waited = time.monotonic() - self._last_commit
        full = len(records) > 1 and sum(len(record.data) for record in records) >= MAX_BYTES // 8
        if waited < self._interval_s and not full:
            return True
        self._last_commit = time.monotonic()
        batch = [StreamRecord(self._shard, record.sequence, record.data, record.arrived_at) for record in records]
        committed = pipeline.run(batch, position.stream, self._lake, self._window)
        self._position = _Position(position.stream, records[-1].sequence)
        self._source.put_outcomes(
            (record.sequence, marks) for record, marks in zip(committed.records, committed.outcomes, strict=True)
        )
        self._maintenance.after_commit()
        self._tidy(self._position)
        return False

    def _position_now(self) -> _Position:
        stream = self._source.name()
        if self._position is not None and self._position.stream == stream:
            return self._position
        self._lake.ensure_tables()
        books = current_books(self._lake.load(EVENTS), stream)
        return _Position(stream, books.watermark(self._shard))

    def _tidy(self, position: _Position) -> None:
        if time.monotonic() - self._last_drop >= 15:
            self._last_drop = time.monotonic()
            self._source.drop_committed(position.sequence)
