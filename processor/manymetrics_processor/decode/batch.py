"""Decode stream records to a micro-batch in columns: rows, and dead letters. Pure, so it can run in any process.

Every delivery of a record decodes to the same result: nothing here depends on the clock, the table or stored data.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple, cast

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manymetrics.books import Shards
from manymetrics.events import Rejected, parse_event, without_key
from manymetrics.limits import MAX_EVENT_BYTES, OVERSIZE_PREFIX_BYTES
from manymetrics.outcomes import Reason
from manymetrics.records import Cut, Stamp, UnreadableRecordError, unpack, weight
from manymetrics.tables import DEAD_LETTERS, EVENTS, Table
from manymetrics_processor.decode.arrow import arrow_schema, sort_order, to_arrow, to_days, to_schema
from manymetrics_processor.decode.ids import Ids, Place, dedup_digest, place_digest, to_ids
from manymetrics_processor.decode.row import Request, Row, make_row, read_request
from manymetrics_processor.enrich.enrichment import enrich
from manymetrics_processor.enrich.privacy import Mask, make_mask, mask_record, mask_rows

STORED, DUPLICATE, DEAD_LETTERED = b"s", b"d", b"x"  # in the outcomes of a record, one byte per event

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class StreamRecord(NamedTuple):
    """A record as read from its stream. ``arrived_at``: microseconds since 1970, UTC.

    ``known_weight``: by records.weight, None if not determined yet.
    """

    shard: str
    sequence: int
    data: bytes
    arrived_at: int
    known_weight: int | None = None

    @property
    def weight(self) -> int:
        """Like ``records.weight``."""
        return weight(self.data) if self.known_weight is None else self.known_weight


class Rows(NamedTuple):
    """Rows, sorted by day and then in the table's order; the arrays have one item per row.

    ``record``: the index of the row's record in the batch. ``place``: the row's rank by shard, sequence and position.
    """

    table: pa.Table
    day: Ints  # of received_at: days since 1970, UTC
    record: Ints
    position: Ints
    place: Ints

    def only(self, kept: Bools) -> Rows:
        """Return some of the rows, in the same order."""
        if kept.all():
            return self
        return Rows(self.table.filter(pa.array(kept)), *(array[kept] for array in self[1:]))


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch.

    ``counts`` and ``outcomes`` are by record, ``ids`` by row of ``events``, ``reasons`` by row of ``letters``.
    ``begin`` and ``end``: the first position in the first record, and the position before which it ends in the last one
    (None: all of it). Events outside are in no count and no outcome. ``arrived_at``: per shard of a stream, the latest
    arrival of a record that is complete in the batch, in microseconds since 1970, UTC. ``shards``: those that the
    stream lists, if known.
    """

    stream: str
    keys: list[tuple[str, int]]  # shard and sequence of each record, in order
    counts: Ints
    outcomes: list[bytes]
    events: Rows
    ids: Ids
    letters: Rows
    reasons: list[str]
    begin: int = 0
    end: int | None = None
    arrived_at: Mapping[str, int] = field(default_factory=dict)
    shards: Shards | None = None

    @property
    def watermarks(self) -> dict[str, int]:
        """Return per shard the highest sequence number of a record that is complete in the batch."""
        return dict(self.keys if self.end is None else self.keys[:-1])  # in order, so the last one of a shard wins

    def begin_of(self, record: int) -> int:
        """Return the position at which the batch begins in the record of this index."""
        return self.begin if record == 0 else 0

    @property
    def part(self) -> tuple[str, int, int] | None:
        """Return the argument ``part`` of StreamBooks.moved."""
        return None if self.end is None else (*self.keys[-1], self.end)


Entry = tuple[Row, int, int, object, Mask | None]
"""A row, the index of its record, its position there, an event's dedup digest or a letter's reason, and the mask of an
event's row."""


EventKey = tuple[str, int, int]
"""Shard, sequence number and position; WHOLE_RECORD for all of the record."""

WHOLE_RECORD = -1


def in_order(records: Iterable[StreamRecord]) -> list[StreamRecord]:
    """Sort records in a batch's order: by shard and sequence number."""
    return sorted(records, key=lambda record: (record.shard, record.sequence))


def decode(
    records: Iterable[StreamRecord],
    stream: str,
    *,
    begin: int = 0,
    end: int | None = None,
    unstorable: Mapping[EventKey, str] = MappingProxyType({}),
) -> Batch:
    """Decode a micro-batch; the records may come in any order.

    ``begin`` and ``end`` as in Batch. ``unstorable``: events, and whole records, to dead-letter, each with the name of
    the error that storing it raised.
    """
    ordered = in_order(records)
    events, letters = _RowsBuilder(EVENTS), _RowsBuilder(DEAD_LETTERS)
    outcomes = []
    for number, record in enumerate(ordered):
        first = begin if number == 0 else 0
        last = end if number == len(ordered) - 1 else None
        good: list[Entry] = []
        bad: list[Entry] = []
        outcomes.append(_decode_record(number, record, stream, good, bad, slice(first, last), unstorable))
        events.add(good)
        letters.add(bad)
    batch = _build_batch(stream, [(record.shard, record.sequence) for record in ordered], outcomes, events, letters)
    complete = ordered if end is None else ordered[:-1]
    return replace(batch, begin=begin, end=end, arrived_at=_latest_arrivals(complete))


def _latest_arrivals(records: Iterable[StreamRecord]) -> dict[str, int]:
    latest: dict[str, int] = {}
    for record in records:  # not the last one's: a local stream moves heavy records behind later ones
        latest[record.shard] = max(record.arrived_at, latest.get(record.shard, 0))
    return latest


def make_batch(
    stream: str, keys: list[tuple[str, int]], outcomes: list[bytes], good: list[Entry], bad: list[Entry]
) -> Batch:
    """Assemble a batch from its events and letters, which are in the order of their places."""
    events, letters = _RowsBuilder(EVENTS), _RowsBuilder(DEAD_LETTERS)
    events.add(good)
    letters.add(bad)
    return _build_batch(stream, keys, outcomes, events, letters)


def _build_batch(
    stream: str, keys: list[tuple[str, int]], outcomes: list[bytes], events: _RowsBuilder, letters: _RowsBuilder
) -> Batch:
    rows, digests = events.build()
    letter_rows, reasons = letters.build()
    return Batch(
        stream=stream,
        keys=keys,
        counts=np.array([len(marks) for marks in outcomes], dtype=np.int64),
        outcomes=outcomes,
        events=rows,
        ids=to_ids(cast("list[bytes]", digests)),
        letters=letter_rows,
        reasons=cast("list[str]", reasons),
    )


_ROWS_AT_ONCE = 300  # converted to columns while in the CPU's cache: saves a tenth of decode's time (2026-11-30)


class _RowsBuilder:
    """Collects entries, in the order of their places, and sorts them by day and in the table's order."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._waiting: list[Entry] = []
        self._parts: list[pa.Table] = []
        self._records: list[int] = []
        self._positions: list[int] = []
        self._notes: list[object] = []
        self._masks: list[Mask | None] = []

    def add(self, entries: list[Entry]) -> None:
        self._waiting += entries
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._convert()

    def build(self) -> tuple[Rows, list[object]]:
        """Return the rows, and each one's digest or reason."""
        if self._waiting:
            self._convert()
        if not self._parts:
            none = np.empty(0, dtype=np.int64)
            return Rows(arrow_schema(self._table).empty_table(), none, none, none, none), []
        rows = pa.concat_tables(self._parts).combine_chunks()
        days = to_days(self._table, rows)
        order = sort_order(self._table, rows, days)
        records, positions = (np.array(values, dtype=np.int64)[order] for values in (self._records, self._positions))
        notes = list(map(self._notes.__getitem__, order.tolist()))
        rows = rows.take(pa.array(order))
        if self._table == EVENTS:
            rows = to_schema(self._table, enrich(rows))
            if any(self._masks):
                rows = mask_rows(rows, list(map(self._masks.__getitem__, order.tolist())))
        return Rows(rows, days[order], records, positions, order), notes

    def _convert(self) -> None:
        waiting, self._waiting = self._waiting, []
        rows, records, positions, notes, masks = zip(*waiting, strict=True)
        self._records += records
        self._positions += positions
        self._notes += notes
        self._masks += masks
        self._parts.append(to_arrow(self._table, rows))


def _decode_record(
    number: int,
    record: StreamRecord,
    stream: str,
    good: list[Entry],
    bad: list[Entry],
    span: slice,
    unstorable: Mapping[EventKey, str],
) -> bytes:
    """Append the rows and letters of the record's events in ``span``.

    Returns their outcomes, as if no event were a duplicate.
    """
    sequence = str(record.sequence)
    whole = unstorable.get((record.shard, record.sequence, WHOLE_RECORD)) if unstorable else None
    try:
        unpacked = unpack(record.data)
    except Exception as error:
        if whole is None and not isinstance(error, UnreadableRecordError):
            raise
        if span.start:  # the part before has reported it
            return b""
        letter = _unreadable(record, (stream, record.shard, sequence, 0), whole or str(error))
        bad.append((letter, number, 0, Reason.UNREADABLE_RECORD.value, None))
        return DEAD_LETTERED
    mask = make_mask(unpacked.stamp)
    if whole is not None:
        events = unpacked.events[span]
        for position, raw in enumerate(events, span.start):
            kept = raw if mask is None else mask.mask(raw)
            letter = _bare_letter(kept, record, whole, (stream, record.shard, sequence, position))
            bad.append((letter, number, position, Reason.UNSTORABLE.value, None))
        return DEAD_LETTERED * len(events)
    stamp, cuts = unpacked.stamp, unpacked.cuts
    request, facts = read_request(stamp), ""
    events = unpacked.events[span]
    outcomes = bytearray(STORED * len(events))
    for position, raw in enumerate(events, span.start):
        place = (stream, record.shard, sequence, position)
        cause = unstorable.get((record.shard, record.sequence, position)) if unstorable else None
        row = (
            row_or_rejected(raw, request, place, cuts) if cause is None else unstorable_event(cause, cuts.get(position))
        )
        if isinstance(row, Rejected):
            outcomes[position - span.start] = DEAD_LETTERED[0]
            kept, facts_of = (raw, stamp) if mask is None else (mask.mask(raw), mask.stamp)
            facts = facts or encode_stamp(facts_of)
            bad.append((make_letter(kept, facts_of, row, place, facts), number, position, row.reason.value, None))
        else:
            good.append((row, number, position, dedup_digest(stamp.project_id, row[0], stamp.key_kind), mask))
    return bytes(outcomes)


def unstorable_event(error: str, cut: Cut | None) -> Rejected:
    """Reject an event because storing it raised ``error``."""
    return Rejected(Reason.UNSTORABLE, error if cut is None else f"{error}, {cut.length} bytes, sha256 {cut.sha256}")


def row_or_rejected(raw: bytes, request: Request, place: Place, cuts: dict[int, Cut]) -> Row | Rejected:
    """Make the row of an event's bytes, or the reason why there is none. Never raises."""
    cut = cuts.get(place[3]) if cuts else None
    if cut is not None:
        return Rejected(Reason.TOO_LARGE, f"{cut.length} bytes, sha256 {cut.sha256}")
    if not raw:  # never sent by a client: an event that was erased
        return Rejected(Reason.ERASED, "")
    if len(raw) + len(request.stamp.context) > MAX_EVENT_BYTES:
        return Rejected(Reason.TOO_LARGE, f"{len(raw)} bytes, and its batch's context with them")
    try:
        event = parse_event(raw, request.stamp.default_type, request.stamp.anonymous_id)
        if isinstance(event, Rejected):
            return event
        return Rejected(Reason.UNPROCESSABLE, request.failure) if request.failure else make_row(event, request, place)
    except Exception as error:  # noqa: BLE001  # an internal error in one event must not stop all others
        return Rejected(Reason.UNPROCESSABLE, type(error).__name__)


def make_letter(raw: bytes, stamp: Stamp, rejected: Rejected, place: Place, facts: str = "") -> Row:
    """Make the dead letter of an event. ``facts``: encode_stamp(stamp), if the caller has it: it may be long."""
    raw = bytes(without_key(raw))  # of any key: the client may have put one where none is expected
    # What the table can't store as text, it stores as base64.
    text, encoding = _decode_text(raw) if rejected.reason != Reason.UNSTORABLE else _base64_of(raw)
    whole = 0 if rejected.detail.partition(" sha256 ")[1] or rejected.reason == Reason.ERASED else 1
    if rejected.reason == Reason.ERASED:
        stamp, facts = Stamp(stamp.received_at, "", stamp.project_id, stamp.key_kind), ""
    return (
        place_digest(place).hex(),
        stamp.received_at,
        "event",
        rejected.reason.value,
        rejected.detail,
        stamp.project_id,
        text,
        encoding,
        whole,
        facts or encode_stamp(stamp),
        *place,
    )


def encode_stamp(stamp: Stamp) -> str:
    """Encode a stamp for a dead letter: JSON, with its byte strings in base64."""
    return msgspec.json.encode(msgspec.structs.asdict(stamp)).decode()


def _unreadable(record: StreamRecord, place: Place, detail: str) -> Row:
    kept = mask_record(record.data)[:OVERSIZE_PREFIX_BYTES]
    return _letter_of_record(record, kept, Reason.UNREADABLE_RECORD, detail, place)


def _letter_of_record(record: StreamRecord, raw: bytes, reason: Reason, detail: str, place: Place) -> Row:
    """Make a dead letter without request data; it can't be replayed."""
    arrived_at, (text, encoding) = record.arrived_at, _base64_of(raw)
    facts = (detail, None, text, encoding, 0, None)
    return (place_digest(place).hex(), arrived_at, "event", reason.value, *facts, *place)


def _bare_letter(raw: bytes, record: StreamRecord, detail: str, place: Place) -> Row:
    """Make the letter of an event whose request can't be stored either: its bytes, and nothing else from the client."""
    return _letter_of_record(record, raw, Reason.UNSTORABLE, detail, place)


def _decode_text(raw: bytes) -> tuple[str, str]:
    try:
        return raw.decode(), "utf-8"
    except UnicodeDecodeError:
        return _base64_of(raw)


def _base64_of(raw: bytes) -> tuple[str, str]:
    return base64.b64encode(raw).decode(), "base64"
