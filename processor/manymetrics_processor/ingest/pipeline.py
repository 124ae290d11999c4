"""Process one micro-batch, from stream records to committed rows. The only file that knows the order of effects.

    decode -> split good and bad -> commit dead letters -> [watermark -> dedupe -> encode -> commit events]*

Dead letters are committed first: the commit of events carries the books, which must not count missing letters. The part
in brackets is repeated after each lost race. Redelivering a batch, whole or re-sliced, from one process or several,
changes nothing.

``run`` also finds the events that make a batch fail (see ``isolation``), and commits the rest.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from pyiceberg.table import Table as IcebergTable

from manymetrics.books import StreamBooks
from manymetrics.outcomes import Reason
from manymetrics.records import Stamp, pack
from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor.decode.batch import (
    DUPLICATE,
    WHOLE_RECORD,
    Batch,
    Bools,
    EventKey,
    Ints,
    Rows,
    StreamRecord,
    decode,
    in_order,
)
from manymetrics_processor.dedup.window import Window, resends_within
from manymetrics_processor.ingest.isolation import ATTEMPTS, Span, Spans, event_count, is_retryable
from manymetrics_processor.lake.lake import Lake, Plan, get_fence, live_files, reading_stored
from manymetrics_processor.lake.scan import read_files

log = logging.getLogger("manymetrics.pipeline")


class Committed(NamedTuple):
    """The books after a commit, and the result of each event.

    ``outcomes``: per record, by shard and sequence, one byte per event (decode.STORED and so on); None if the record
    had been committed before.
    """

    books: StreamBooks
    outcomes: list[bytes | None]


def run(
    records: Iterable[StreamRecord],
    stream: str,
    lake: Lake,
    window: Window,
    *,
    decode: Callable[..., Batch] = decode,
    length: Callable[[StreamRecord], int] = event_count,
    suspect: bool = False,
) -> Committed:
    """Commit the records; an event that can't be stored becomes a dead letter with the reason ``unstorable``.

    ``decode``: a replacement of decode.decode for other streams or formats; ``length`` then returns a record's number
    of events. ``suspect``: as in isolation.is_retryable. Raises CommitContentionError and other retryable errors; then
    redeliver the records.
    """
    ordered = in_order(records)
    with no_collection():
        try:
            return commit(decode(ordered, stream), lake, window)
        except Exception as error:
            if is_retryable(error, suspect=suspect):
                raise
            log.warning("a commit failed; searching for the events that cause it", exc_info=error)
        return _Isolation(Spans(ordered, length), ordered, stream, lake, window, decode, suspect=suspect).run()


class _Isolation:
    """Commits a failed batch without the events that make it fail."""

    def __init__(
        self,
        spans: Spans,
        records: Sequence[StreamRecord],
        stream: str,
        lake: Lake,
        window: Window,
        decode: Callable[..., Batch],
        *,
        suspect: bool,
    ) -> None:
        self._records, self._stream, self._lake, self._window = records, stream, lake, window
        self._spans, self._suspect = spans, suspect
        self._unstorable: dict[EventKey, str] = {}
        self._decode = decode
        self._outcomes: dict[tuple[str, int], list[bytes | None]] = {}

    def run(self) -> Committed:
        """Like ``pipeline.run``."""
        books = self._commit(0, len(self._spans))
        outcomes = [self._outcomes.get((record.shard, record.sequence), [None]) for record in self._records]
        return Committed(books, [None if None in parts else b"".join(filter(None, parts)) for parts in outcomes])

    def _commit(self, start: int, stop: int) -> StreamBooks:
        """Commit the events from ``start`` to before ``stop``, together or in halves."""
        failures = 0
        while True:
            span = self._spans.span(start, stop)
            try:
                committed = commit(self._decode_span(span), self._lake, self._window)
            except Exception as error:
                if is_retryable(error, suspect=self._suspect):
                    raise
                self._check_plain(span, error)
                failures += 1
                found = self._spans.failing(start, stop, lambda one: self._try_out(self._decode_span, one))
                if not found and stop - start > 1:
                    middle = self._spans.middle(start, stop)
                    self._commit(start, middle)
                    return self._commit(middle, stop)
                if found or failures == ATTEMPTS:
                    failures = 0
                    self._condemn(found or {start: type(error).__name__}, error)
                continue
            for key, marks in zip(((one.shard, one.sequence) for one in span.records), committed.outcomes, strict=True):
                self._outcomes.setdefault(key, []).append(marks)
            return committed.books

    def _decode_span(self, span: Span) -> Batch:
        records, begin, end = span
        return self._decode(records, self._stream, begin=begin, end=end, unstorable=self._unstorable)

    def _try_out(self, decode: Callable[[Span], Batch], span: Span) -> Exception | None:
        """Stage a part of the batch without a commit; returns the error, or None if it passes."""
        try:
            batch = decode(span)
            for table, rows in ((EVENTS, batch.events), (DEAD_LETTERS, batch.letters)):
                self._lake.try_out(table, rows)
        except Exception as failure:
            if is_retryable(failure, suspect=self._suspect):
                raise
            return failure
        return None

    def _check_plain(self, span: Span, error: Exception) -> None:
        """Raise what a control event raises on the batch's day: then the batch is not the cause of ``error``."""
        plain = Span((_plain_record(span.records[0].arrived_at),), 0, None)
        fault = self._try_out(lambda one: decode(one.records, self._stream), plain)
        if fault is not None:
            raise fault from error

    def _condemn(self, found: dict[int, str], error: Exception) -> None:
        """Dead-letter events or, if that fails too, their whole records. Raises what any commit raises."""
        named: dict[EventKey, str] = {self._spans.key(at): name for at, name in found.items()}
        if named.keys() <= self._unstorable.keys():
            named = {(shard, sequence, WHOLE_RECORD): name for (shard, sequence, _), name in named.items()}
        if named.keys() <= self._unstorable.keys():
            raise error
        self._lake.commit(EVENTS, self._stream, lambda _iceberg, books: Plan((), books))
        log.warning(
            "events can't be stored; dead-lettering them",
            extra={"facts": {"events": len(named), "errors": dict(Counter(named.values()))}},
        )
        self._unstorable.update(named)


def _plain_record(received_at: int) -> StreamRecord:
    """Make a control record, of one good and one bad event, that can be stored if anything can."""
    good = b'{"type":"track","event":"plain","userId":"plain","messageId":"plain"}'
    [data] = pack(Stamp(received_at, "plain", "plain", "server"), [good, b"{}"])
    return StreamRecord("plain", 0, data, received_at)


def commit(batch: Batch, lake: Lake, window: Window) -> Committed:
    """Like ``run``, for a decoded batch."""
    if batch.reasons:
        lake.commit(DEAD_LETTERS, batch.stream, lambda iceberg, books: _plan_letters(batch, lake, iceberg, books))
    events = _EventsPlan(batch, lake, window)
    books, snapshot_id = lake.commit(EVENTS, batch.stream, events.plan)
    if snapshot_id is None:
        return Committed(books, [None] * len(batch.keys))
    window.put(snapshot_id, batch.events.day[events.stored], batch.ids[events.stored])
    return Committed(books, events.outcomes())


def _plan_letters(batch: Batch, lake: Lake, iceberg: IcebergTable, books: StreamBooks) -> Plan | None:
    kept = _fresh_rows(batch, books, _fresh(batch, books), batch.letters)
    late = np.array([reason == Reason.UNSTORABLE for reason in batch.reasons], dtype=np.bool_) & ~kept
    if late.any():  # the letters of its record were committed before it was condemned
        kept |= late & ~_known_letters(iceberg, batch.letters, late)
    if not kept.any():
        return None
    files = lake.stage(DEAD_LETTERS, iceberg, batch.letters.only(kept))
    moved = books.moved(
        batch.watermarks, part=batch.part, received=int(kept.sum()), dead_lettered=_reasons(batch, kept)
    )
    return Plan(files, moved)


def _known_letters(iceberg: IcebergTable, letters: Rows, asked: Bools) -> Bools:
    """Return which of the given letters the table has, by id."""
    with reading_stored(DEAD_LETTERS.name):
        days = set(letters.day[asked].tolist())
        files = [file for file in live_files(iceberg) if file.partition[0] in days]
        known = read_files(DEAD_LETTERS, iceberg, files, ["dead_letter_id"])["dead_letter_id"]
    found: Bools = pc.is_in(letters.table["dead_letter_id"], value_set=known.combine_chunks()).to_numpy()
    return found


class _EventsPlan:
    """Plans a commit: watermark, dedupe and encode, against the table's state at each attempt."""

    def __init__(self, batch: Batch, lake: Lake, window: Window) -> None:
        self._batch, self._lake, self._window = batch, lake, window
        self._files: Sequence[Any] | None = None
        self._fence = ""
        self._fresh: Bools = np.zeros(len(batch.keys), dtype=np.bool_)
        self.stored: Bools = np.zeros(len(batch.ids), dtype=np.bool_)

    def plan(self, iceberg: IcebergTable, books: StreamBooks) -> Plan | None:
        batch = self._batch
        self._fresh = fresh = _fresh(batch, books)
        if not fresh.any():
            return None
        candidates = _fresh_rows(batch, books, fresh, batch.events)
        stored = self._without_resends(iceberg, candidates)
        if self._files is None or self._fence != get_fence(iceberg) or not np.array_equal(stored, self.stored):
            self._fence = get_fence(iceberg)
            self._files = self._lake.stage(EVENTS, iceberg, batch.events.only(stored)) if stored.any() else []
        self.stored = stored
        moved = books.moved(
            batch.watermarks,
            part=batch.part,
            arrived_at=batch.arrived_at,
            shards=batch.shards,
            received=int(_fresh_counts(batch, books)[fresh].sum()),
            stored=int(stored.sum()),
            duplicate=int(candidates.sum() - stored.sum()),
            dead_lettered=_reasons(batch, _fresh_rows(batch, books, fresh, batch.letters)),
        )
        return Plan(self._files, moved)

    def outcomes(self) -> list[bytes | None]:
        """Return ``Committed.outcomes``, after the last plan was committed."""
        marks = [bytearray(of_record) for of_record in self._batch.outcomes]
        events = self._batch.events
        for row in np.flatnonzero(~self.stored):
            record = events.record[row]
            marks[record][events.position[row] - self._batch.begin_of(record)] = DUPLICATE[0]
        return [bytes(one) if fresh else None for one, fresh in zip(marks, self._fresh, strict=True)]

    def _without_resends(self, iceberg: IcebergTable, candidates: Bools) -> Bools:
        """Return which candidates are not resends, by the table's window and the batch, where the lowest place wins."""
        events, ids = self._batch.events, self._batch.ids
        stored = candidates.copy()
        with reading_stored(EVENTS.name):
            stored[candidates] = ~self._window.resends(iceberg, ids[candidates], events.day[candidates])
        left = np.flatnonzero(stored)
        in_place_order = left[np.argsort(events.place[left])]
        again = resends_within(ids[in_place_order], events.day[in_place_order], self._window.days)
        stored[in_place_order[again]] = False
        return stored


def _fresh(batch: Batch, books: StreamBooks) -> Bools:
    """Return per record whether it is past its shard's watermark, and not completely committed in parts."""
    marks = {shard: books.watermark(shard) for shard, _ in batch.keys}
    fresh = np.array([sequence > marks[shard] for shard, sequence in batch.keys], dtype=np.bool_)
    left: Bools = (_fresh_counts(batch, books) > 0) | (batch.counts == 0)
    return np.logical_and(fresh, left)


def _fresh_counts(batch: Batch, books: StreamBooks) -> Ints:
    """Return per record how many of its events in the batch are not yet committed in parts."""
    counts = batch.counts
    if books.parts:
        counts = counts.copy()
        for record, (shard, sequence) in enumerate(batch.keys):
            known, position = books.part(shard)
            if known == sequence:
                done = position - batch.begin_of(record)
                counts[record] -= min(max(0, done), counts[record])
    return counts


def _fresh_rows(batch: Batch, books: StreamBooks, fresh: Bools, rows: Rows) -> Bools:
    """Return per row whether it is not yet committed. ``fresh``: the result of _fresh."""
    kept: Bools = fresh[rows.record]
    for record, (shard, sequence) in enumerate(batch.keys if books.parts else ()):
        known, position = books.part(shard)
        if known == sequence:
            kept = kept & ((rows.record != record) | (rows.position >= position))
    return kept


def _reasons(batch: Batch, kept: Bools) -> Counter[str]:
    return Counter(reason for reason, is_kept in zip(batch.reasons, kept, strict=True) if is_kept)


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Disable garbage collection: a batch is 100,000 objects without garbage, whose traversals cost a quarter."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
