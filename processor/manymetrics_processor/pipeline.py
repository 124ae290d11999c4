"""One micro-batch, from stream records to committed rows. The only file that knows the order of effects.

    decode -> split good and bad -> commit dead letters -> [watermark -> dedupe -> encode -> commit events]*

Dead letters go first: the commit of events carries the books, so it must not speak of letters that aren't there.
What stands in brackets is done anew after each lost race. Delivering a batch again, whole or re-sliced, from one
process or many, changes nothing.
"""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from pyiceberg.table import Table as IcebergTable

from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor.decode import DUPLICATE, Batch, Bools, StreamRecord, decode
from manymetrics_processor.lake import Lake, Plan
from manymetrics_processor.ledger import StreamBooks
from manymetrics_processor.window import Window, resends_within


class Committed(NamedTuple):
    """The books after a commit, and what became of each event.

    ``outcomes``: for each record, by shard and sequence, a byte an event (decode.STORED and so on); None where the
    record had been committed before.
    """

    books: StreamBooks
    outcomes: list[bytes | None]


def run(records: Iterable[StreamRecord], stream: str, lake: Lake, window: Window) -> Committed:
    """Commit the records. Raises CommitContentionError; then deliver them again."""
    with no_collection():
        return commit(decode(records, stream), lake, window)


def commit(batch: Batch, lake: Lake, window: Window) -> Committed:
    """As run, for a batch that is decoded."""
    if batch.reasons:
        lake.commit(DEAD_LETTERS, batch.stream, lambda iceberg, books: _plan_letters(batch, lake, iceberg, books))
    events = _EventsPlan(batch, lake, window)
    books, snapshot_id = lake.commit(EVENTS, batch.stream, events.plan)
    if snapshot_id is None:
        return Committed(books, [None] * len(batch.keys))
    window.put(snapshot_id, batch.events.day[events.stored], batch.ids[events.stored])
    return Committed(books, events.outcomes())


def _plan_letters(batch: Batch, lake: Lake, iceberg: IcebergTable, books: StreamBooks) -> Plan | None:
    kept = _fresh(batch, books)[batch.letters.record]
    if not kept.any():
        return None
    files = lake.stage(DEAD_LETTERS, iceberg, batch.letters.only(kept))
    reasons = _reasons(batch, kept)
    return Plan(files, books.moved(_watermarks(batch), received=int(kept.sum()), dead_lettered=reasons))


class _EventsPlan:
    """Watermark, dedupe and encode, against the table as it stands at each attempt."""

    def __init__(self, batch: Batch, lake: Lake, window: Window) -> None:
        self._batch, self._lake, self._window = batch, lake, window
        self._files: Sequence[Any] | None = None
        self._fresh: Bools = np.zeros(len(batch.keys), dtype=np.bool_)
        self.stored: Bools = np.zeros(len(batch.ids), dtype=np.bool_)

    def plan(self, iceberg: IcebergTable, books: StreamBooks) -> Plan | None:
        batch = self._batch
        self._fresh = fresh = _fresh(batch, books)
        if not fresh.any():
            return None
        candidates = fresh[batch.events.record]
        stored = self._without_resends(iceberg, candidates)
        if self._files is None or not np.array_equal(stored, self.stored):
            self._files = self._lake.stage(EVENTS, iceberg, batch.events.only(stored)) if stored.any() else []
        self.stored = stored
        moved = books.moved(
            _watermarks(batch),
            received=int(batch.counts[fresh].sum()),
            stored=int(stored.sum()),
            duplicate=int(candidates.sum() - stored.sum()),
            dead_lettered=_reasons(batch, fresh[batch.letters.record]),
        )
        return Plan(self._files, moved)

    def outcomes(self) -> list[bytes | None]:
        """As Committed.outcomes, after the last plan was committed."""
        marks = [bytearray(of_record) for of_record in self._batch.outcomes]
        events = self._batch.events
        for row in np.flatnonzero(~self.stored):
            marks[events.record[row]][events.position[row]] = DUPLICATE[0]
        return [bytes(one) if fresh else None for one, fresh in zip(marks, self._fresh, strict=True)]

    def _without_resends(self, iceberg: IcebergTable, candidates: Bools) -> Bools:
        """Which candidates are first: in the table's window, and in the batch itself, where the lowest place wins."""
        events, ids = self._batch.events, self._batch.ids
        stored = candidates.copy()
        stored[candidates] = ~self._window.resends(iceberg, ids[candidates], events.day[candidates])
        left = np.flatnonzero(stored)
        in_place_order = left[np.argsort(events.place[left])]
        again = resends_within(ids[in_place_order], events.day[in_place_order], self._window.days)
        stored[in_place_order[again]] = False
        return stored


def _fresh(batch: Batch, books: StreamBooks) -> Bools:
    """For each record, whether it is past the watermark of its shard."""
    marks = {shard: books.watermark(shard) for shard, _ in batch.keys}
    return np.array([sequence > marks[shard] for shard, sequence in batch.keys], dtype=np.bool_)


def _watermarks(batch: Batch) -> dict[str, int]:
    return dict(batch.keys)  # in order, so the last of a shard is its highest


def _reasons(batch: Batch, kept: Bools) -> Counter[str]:
    return Counter(reason for reason, is_kept in zip(batch.reasons, kept, strict=True) if is_kept)


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """A batch is a hundred thousand objects and no garbage: looking at them again and again costs a quarter."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
