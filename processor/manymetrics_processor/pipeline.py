"""One micro-batch, from stream records to committed rows. The only file that knows the order of effects:

    decode -> split good and bad -> commit dead letters -> [watermark -> dedupe -> encode -> commit events]*

Dead letters go first: the commit of events carries the books, so it must not speak of letters that aren't there.
What stands in brackets is done anew after each lost race. Delivering a batch again, whole or re-sliced, from one
process or many, changes nothing.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import uuid4

import msgspec
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable

from manymetrics.events import MAX_EVENT_BYTES, OVERSIZE_PREFIX_BYTES, Rejected, parse_event
from manymetrics.outcomes import Reason
from manymetrics.records import Cut, Record, Stamp, UnreadableRecordError, unpack
from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor.arrow_engine import stage_rows
from manymetrics_processor.dedup import ids_of
from manymetrics_processor.lake import Lake, Plan
from manymetrics_processor.ledger import StreamBooks
from manymetrics_processor.rows import DAY_US, Place, Request, Row, dedup_digest, read_request, row_of
from manymetrics_processor.window import Window

STORED, DUPLICATE, DEAD_LETTERED = b"s", b"d", b"x"


class StreamRecord(NamedTuple):
    """A record as its stream gave it. ``arrived_at``: microseconds since 1970, UTC."""

    shard: str
    sequence: int
    data: bytes
    arrived_at: int


@dataclass(slots=True)
class _Batch:
    """A decoded micro-batch. Decoding is pure, so every delivery of a record decodes alike."""

    stream: str
    records: list[StreamRecord]
    counts: list[int] = field(default_factory=list)  # events, for each record
    rows: list[Row] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    of_row: list[int] = field(default_factory=list)  # for each row, its record
    letters: list[Row] = field(default_factory=list)
    of_letter: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    outcomes: list[bytearray] = field(default_factory=list)

    def fresh(self, books: StreamBooks) -> list[bool]:
        """For each record, whether it is past the watermark of its shard."""
        marks = {record.shard: books.watermark(record.shard) for record in self.records}
        return [record.sequence > marks[record.shard] for record in self.records]

    def last_sequences(self) -> dict[str, int]:
        """For each shard, its highest sequence number."""
        return {record.shard: record.sequence for record in self.records}


class Committed(NamedTuple):
    """``outcomes``: for each record, in order of shard and sequence, a byte an event: s, d or x; empty where the
    record had been committed before."""

    books: StreamBooks
    records: list[StreamRecord]
    outcomes: list[bytes]


def run(records: Iterable[StreamRecord], stream: str, lake: Lake, window: Window) -> Committed:
    """Commit the records. Raises CommitContentionError; then deliver them again."""
    batch = decode(records, stream)
    if batch.letters:
        lake.commit(DEAD_LETTERS, stream, lambda iceberg, books: _plan_letters(batch, iceberg, books))
    events = _EventsPlan(batch, window)
    books, snapshot_id = lake.commit(EVENTS, stream, events.plan)
    if snapshot_id is not None:
        window.put(snapshot_id, events.stored_rows())
    return Committed(books, batch.records, events.outcomes() if snapshot_id is not None else [b""] * len(batch.records))


# --- decode -----------------------------------------------------------------------------------------------


def decode(records: Iterable[StreamRecord], stream: str) -> _Batch:
    """Records, in the order of shard and sequence, as rows and dead letters."""
    batch = _Batch(stream, sorted(records, key=lambda record: (record.shard, record.sequence)))
    for number, record in enumerate(batch.records):
        try:
            unpacked = unpack(record.data)
        except UnreadableRecordError as error:
            batch.counts.append(1)
            batch.outcomes.append(bytearray(DEAD_LETTERED))
            letter = _unreadable(record, Place(stream, record.shard, str(record.sequence), 0), str(error))
            _put_letter(batch, number, letter, Reason.UNREADABLE_RECORD)
            continue
        batch.counts.append(len(unpacked.events))
        batch.outcomes.append(bytearray(STORED * len(unpacked.events)))
        _decode_events(batch, number, record, unpacked)
    return batch


def _decode_events(batch: _Batch, number: int, record: StreamRecord, unpacked: Record) -> None:
    stamp, sequence = unpacked.stamp, str(record.sequence)
    request = read_request(stamp)
    limit = MAX_EVENT_BYTES - len(stamp.context)
    for position, raw in enumerate(unpacked.events):
        place = Place(batch.stream, record.shard, sequence, position)
        row = _row_or_rejected(raw, limit, request, place, unpacked.cuts.get(position))
        if isinstance(row, Rejected):
            batch.outcomes[number][position] = DEAD_LETTERED[0]
            _put_letter(batch, number, _letter(raw, stamp, row, place), row.reason)
        else:
            batch.rows.append(row)
            batch.digests.append(dedup_digest(row[_PROJECT_ID], row[_MESSAGE_ID]))
            batch.of_row.append(number)


def _row_or_rejected(raw: bytes, limit: int, request: Request, place: Place, cut: Cut | None) -> Row | Rejected:
    if cut is not None:
        return Rejected(Reason.TOO_LARGE, f"{cut.length} bytes, sha256 {cut.sha256}")
    if len(raw) > limit:
        return Rejected(Reason.TOO_LARGE, f"{len(raw)} bytes, and its batch's context with them")
    try:
        event = parse_event(raw, request.stamp.default_type)
        return event if isinstance(event, Rejected) else row_of(event, request, place)
    except Exception as error:  # noqa: BLE001  # a fault of ours in one event must not stop all others
        return Rejected(Reason.UNPROCESSABLE, type(error).__name__)


def _put_letter(batch: _Batch, number: int, letter: Row, reason: Reason) -> None:
    batch.letters.append(letter)
    batch.of_letter.append(number)
    batch.reasons.append(reason.value)


def _letter(raw: bytes, stamp: Stamp, rejected: Rejected, place: Place) -> Row:
    text, encoding = _text_of(raw)
    whole = 0 if rejected.detail.partition(" sha256 ")[1] else 1
    facts = msgspec.json.encode(msgspec.structs.asdict(stamp)).decode()
    return (
        place.digest().hex(),
        stamp.received_at,
        "event",
        rejected.reason.value,
        rejected.detail,
        stamp.project_id,
        text,
        encoding,
        whole,
        facts,
        *place,
    )


def _unreadable(record: StreamRecord, place: Place, detail: str) -> Row:
    raw = base64.b64encode(record.data[:OVERSIZE_PREFIX_BYTES]).decode()
    reason = Reason.UNREADABLE_RECORD.value
    return (place.digest().hex(), record.arrived_at, "event", reason, detail, None, raw, "base64", 0, None, *place)


def _text_of(raw: bytes) -> tuple[str, str]:
    try:
        return raw.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode(), "base64"


# --- plans ------------------------------------------------------------------------------------------------


def _plan_letters(batch: _Batch, iceberg: IcebergTable, books: StreamBooks) -> Plan | None:
    fresh = batch.fresh(books)
    chosen = [i for i, number in enumerate(batch.of_letter) if fresh[number]]
    if not chosen:
        return None
    reasons = Counter(batch.reasons[i] for i in chosen)
    files = stage_rows(DEAD_LETTERS, iceberg, [batch.letters[i] for i in chosen], _file_name(batch))
    return Plan(files, books.moved(batch.last_sequences(), received=len(chosen), dead_lettered=reasons))


class _EventsPlan:
    """Watermark, dedupe and encode, against the table as it stands at each attempt."""

    def __init__(self, batch: _Batch, window: Window) -> None:
        self._batch = batch
        self._window = window
        self._ids = ids_of(batch.digests)
        self._days = [_day(row) for row in batch.rows]
        self._staged: tuple[list[int], list[DataFile]] = ([], [])
        self._fresh: list[bool] = []
        self._stored: list[int] = []

    def plan(self, iceberg: IcebergTable, books: StreamBooks) -> Plan | None:
        batch = self._batch
        self._fresh = fresh = batch.fresh(books)
        if not any(fresh):
            return None
        candidates = [i for i, number in enumerate(batch.of_row) if fresh[number]]
        self._stored = self._without_resends(iceberg, candidates)
        if not self._staged[1] or self._staged[0] != self._stored:
            rows = [batch.rows[i] for i in self._stored]
            self._staged = self._stored, stage_rows(EVENTS, iceberg, rows, _file_name(batch))
        moved = books.moved(
            batch.last_sequences(),
            received=sum(count for count, is_fresh in zip(batch.counts, fresh, strict=True) if is_fresh),
            stored=len(self._stored),
            duplicate=len(candidates) - len(self._stored),
            dead_lettered=Counter(
                reason for reason, number in zip(batch.reasons, batch.of_letter, strict=True) if fresh[number]
            ),
        )
        return Plan(self._staged[1], moved)

    def stored_rows(self) -> list[tuple[int, bytes]]:
        """Day and id of what the last plan stores."""
        return [(self._days[i], self._batch.digests[i]) for i in self._stored]

    def outcomes(self) -> list[bytes]:
        """As Committed.outcomes."""
        batch, stored = self._batch, set(self._stored)
        for i, number in enumerate(batch.of_row):
            if i not in stored:
                position = batch.rows[i][-1]
                batch.outcomes[number][position] = DUPLICATE[0]  # type: ignore[index]  # `_position` is an int
        return [bytes(marks) if fresh else b"" for marks, fresh in zip(batch.outcomes, self._fresh, strict=True)]

    def _without_resends(self, iceberg: IcebergTable, candidates: list[int]) -> list[int]:
        """Which candidates are first: in the table's window, and in the batch itself, where the lowest place wins."""
        known = self._window.resends(iceberg, self._ids, self._days, candidates)
        first_day: dict[bytes, int] = {}
        kept = []
        for i in candidates:
            digest, day = self._batch.digests[i], self._days[i]
            seen = first_day.get(digest)
            if i in known or (seen is not None and abs(seen - day) <= self._window.days):
                continue
            first_day[digest] = day
            kept.append(i)
        return kept


def _file_name(batch: _Batch) -> str:
    """Unique: two processes may encode one batch differently, so they must never write one file."""
    return f"{batch.records[0].sequence}-{uuid4().hex}"


def _day(row: Row) -> int:
    return row[_RECEIVED_AT] // DAY_US  # type: ignore[operator, no-any-return]  # microseconds


_MESSAGE_ID, _PROJECT_ID, _RECEIVED_AT = (
    EVENTS.column_names.index(name) for name in ("message_id", "project_id", "received_at")
)
