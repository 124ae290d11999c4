"""The stream record: many events, and the request data known only to the API, in one blob under 1,000,000 bytes.

A record's weight, in bytes, estimates its cost downstream: the sum over its events of the event's length, at least
MIN_EVENT_WEIGHT, plus the length of its batch's shared fields, since each row and dead letter holds a copy of them.

    byte 0      format: 0x01 plain, 0x02 zstd (what follows byte 8 is compressed)
    bytes 1-4   number of events, big-endian: readable even where the rest is damaged
    bytes 5-8   length of the header (after decompression), big-endian
    header      msgpack, the fields of ``Stamp`` and the lengths of the events, in order
    events      their own bytes as they came, one after the other

``pack``, ``compress``, ``unpack``, ``weight`` and ``without`` are the only code that knows this layout.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise, repeat

import msgspec
import zstandard

from manymetrics.events import Rejected, parse_event
from manymetrics.limits import MAX_EVENT_BYTES, MIN_EVENT_WEIGHT, OVERSIZE_PREFIX_BYTES

MAX_RECORD_BYTES = 1_000_000  # our limit; Kinesis accepts 1 MiB including the partition key
MAX_RECORD_WEIGHT = 8_000_000  # of a packed record with several events: bounds the memory to process one
PLAIN, ZSTD = 0x01, 0x02
ZSTD_LEVEL = 1  # level 3 was no smaller on real events, and slower (2026-11-23)
_PREFIX = 9
_HEADER_BYTES = (
    4_000  # more than a header takes without its envelope and lengths: 1,024 of user agent are 2,048 in UTF-8
)


class Stamp(msgspec.Struct, gc=False, array_like=True, frozen=True):
    """The request data that only the API knows; the same for each of its events.

    ``sent_at`` and the fields after it are the envelope's JSON bytes, empty if absent.
    """

    received_at: int  # microseconds since 1970, UTC
    request_id: str
    project_id: str
    key_kind: str  # browser | server
    ip: str | None = None
    user_agent: str | None = None
    default_type: str | None = None  # the type implied by the route, for an event without `type`
    sent_at: bytes = b""
    context: bytes = b""
    integrations: bytes = b""
    anonymous_id: bytes = b""  # records of older versions end before this field, or before the next ones
    ip_rule: str = ""  # how the address is stored, if the write key has a rule: keep, truncate or drop
    user_agent_rule: str = ""  # likewise: keep or drop


class Cut(msgspec.Struct, gc=False, array_like=True, frozen=True):
    """An event over the limit: only its first 64 kB are in the record."""

    position: int
    length: int  # bytes of the whole event
    sha256: str


class _Header(msgspec.Struct, gc=False, array_like=True):
    stamp: Stamp
    lengths: list[int]
    cuts: list[Cut] = []


class Record(msgspec.Struct, gc=False, frozen=True):
    """A record of the stream, unpacked. ``cuts`` maps the position of an event over the limit to its facts."""

    stamp: Stamp
    events: list[bytes]
    cuts: dict[int, Cut]


class _OfThread(threading.local):
    """Per-thread compressors, since one must not be used by two threads at once."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)


class UnreadableRecordError(ValueError):
    """The bytes are not a ManyMetrics record."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Header)
_of_thread = _OfThread()
_decompressor = zstandard.ZstdDecompressor()


def pack(stamp: Stamp, events: Sequence[bytes | msgspec.Raw]) -> list[bytes]:
    """Pack events, in order, into uncompressed records; no records for no events.

    Each is under MAX_RECORD_BYTES, and weighs at most MAX_RECORD_WEIGHT if it holds more than one event.
    """
    lengths = list(map(len, events))
    size, shared = sum(lengths), _shared_bytes(stamp)
    if (
        size + shared + _HEADER_BYTES + 8 * len(lengths) < MAX_RECORD_BYTES
        and size + (MIN_EVENT_WEIGHT + shared) * len(lengths) <= MAX_RECORD_WEIGHT
        and (size <= MAX_EVENT_BYTES or max(lengths) <= MAX_EVENT_BYTES)
    ):
        return [_pack_one(_Header(stamp, lengths), events)] if lengths else []
    return [_pack_one(_Header(stamp, *header), chunk) for header, chunk in _chunks(stamp, events)]


def compress(record: bytes) -> bytes:
    """Compress a record, if that makes it smaller. Releases the GIL."""
    if record[:1] != b"\x01":
        return record
    packed = b"\x02" + record[1:_PREFIX] + _of_thread.compressor.compress(memoryview(record)[_PREFIX:])
    return packed if len(packed) < len(record) else record


def unpack(data: bytes) -> Record:
    """Decode a record. Raises UnreadableRecordError."""
    try:
        body = data[_PREFIX:] if data[0] == PLAIN else _inflate(data)
        end = _header_bytes(data)
        header = _decoder.decode(body[:end])
        stops = list(accumulate(header.lengths, initial=end))
        if len(header.lengths) != count_events(data) or stops[-1] != len(body):
            raise UnreadableRecordError("the lengths do not add up")
        events = [body[start:stop] for start, stop in pairwise(stops)]
    except (msgspec.DecodeError, UnicodeDecodeError, zstandard.ZstdError, IndexError) as error:
        raise UnreadableRecordError(str(error)) from error
    return Record(header.stamp, events, {cut.position: cut for cut in header.cuts})


def without(data: bytes, gone: Collection[int]) -> bytes:
    """Return the record with the events at these positions emptied; the others keep their positions.

    Also removes the request data if no event is left, and the batch's anonymous id if no remaining event uses it.
    Raises UnreadableRecordError.
    """
    record = unpack(data)
    events = [b"" if position in gone else event for position, event in enumerate(record.events)]
    stamp = record.stamp
    if not any(events):
        stamp = Stamp(stamp.received_at, "", stamp.project_id, stamp.key_kind)
    elif stamp.anonymous_id and not any(_takes_shared_id(event) for event in events if event):
        stamp = msgspec.structs.replace(stamp, anonymous_id=b"")
    return pack_again(Record(stamp, events, {at: cut for at, cut in record.cuts.items() if at not in gone}))


def pack_again(record: Record) -> bytes:
    """Encode an unpacked and modified record; compressed if that makes it smaller."""
    header = _Header(record.stamp, list(map(len, record.events)), list(record.cuts.values()))
    return compress(_pack_one(header, record.events))


def _takes_shared_id(raw: bytes) -> bool:
    event = parse_event(raw)
    return isinstance(event, Rejected) or not event.anonymous_id


def count_events(data: bytes) -> int:
    """Return the number of events by a record's prefix; 1 for bytes that are no record: they become one dead letter."""
    if len(data) < _PREFIX or data[0] not in {PLAIN, ZSTD}:
        return 1
    return int.from_bytes(data[1:5], "big")


def weight(data: bytes) -> int:
    """Return a record's weight without inflating its events; bytes that are no record weigh their length."""
    return owner_and_weight(data)[1]


def owner_and_weight(data: bytes) -> tuple[str, int]:
    """Return the owner (project and kind of key; empty for bytes that are no record), and the weight as ``weight``."""
    if len(data) < _PREFIX or data[0] not in {PLAIN, ZSTD}:
        return "", MIN_EVENT_WEIGHT + len(data)
    try:
        header = _decoder.decode(_first_bytes(data, _header_bytes(data)))
    except (msgspec.DecodeError, UnicodeDecodeError, zstandard.ZstdError, MemoryError):
        return "", MIN_EVENT_WEIGHT + len(data)
    owner = f"{header.stamp.project_id} {header.stamp.key_kind}"
    return owner, sum_weights(header.lengths, _shared_bytes(header.stamp))


def sum_weights(lengths: Collection[int], shared: int) -> int:
    """Return the weight of events of these lengths, each with ``shared`` bytes of its batch."""
    is_usual = min(lengths, default=0) >= MIN_EVENT_WEIGHT  # takes a fifth of the time
    of_events = sum(lengths) if is_usual else sum(map(max, lengths, repeat(MIN_EVENT_WEIGHT)))
    return of_events + shared * len(lengths)


def _header_bytes(data: bytes) -> int:
    return int.from_bytes(data[5:_PREFIX], "big")


def _first_bytes(data: bytes, length: int) -> bytes:
    """Inflate only the first bytes after the prefix."""
    if data[0] == PLAIN:
        return data[_PREFIX : _PREFIX + length]
    with _decompressor.stream_reader(memoryview(data)[_PREFIX:]) as reader:
        return reader.read(min(length, 2 * MAX_RECORD_BYTES))


def _inflate(data: bytes) -> bytes:
    if data[0] != ZSTD:
        raise UnreadableRecordError(f"unknown format {data[0]:#04x}")
    frame = data[_PREFIX:]
    if (
        zstandard.frame_content_size(frame) > 2 * MAX_RECORD_BYTES
    ):  # zstandard would trust this size, whatever the limit below
        raise UnreadableRecordError("the inflated size is over that of a record")
    return _decompressor.decompress(frame, max_output_size=2 * MAX_RECORD_BYTES)


def _shared_bytes(stamp: Stamp) -> int:
    agent = len(stamp.user_agent) if stamp.user_agent else 0
    return agent + len(stamp.sent_at) + len(stamp.context) + len(stamp.integrations) + len(stamp.anonymous_id)


def _pack_one(header: _Header, events: Sequence[bytes | msgspec.Raw]) -> bytes:
    head = _encoder.encode(header)
    count = len(header.lengths)
    return b"".join((b"\x01", count.to_bytes(4, "big"), len(head).to_bytes(4, "big"), head, *events))


def _chunks(
    stamp: Stamp, events: Sequence[bytes | msgspec.Raw]
) -> list[tuple[tuple[list[int], list[Cut]], list[bytes]]]:
    chunks: list[tuple[tuple[list[int], list[Cut]], list[bytes]]] = []
    shared = _shared_bytes(stamp)
    room = lift = 0
    for event in events:
        raw = bytes(event)
        kept = raw if len(raw) <= MAX_EVENT_BYTES else raw[:OVERSIZE_PREFIX_BYTES]
        weighs = max(len(kept), MIN_EVENT_WEIGHT) + shared
        if len(kept) + 8 > room or weighs > lift:
            chunks.append((([], []), []))
            room, lift = MAX_RECORD_BYTES - _HEADER_BYTES - shared, MAX_RECORD_WEIGHT
        (lengths, cuts), chunk = chunks[-1]
        if kept is not raw:
            cuts.append(Cut(len(lengths), len(raw), hashlib.sha256(raw).hexdigest()))
            room -= 100
        lengths.append(len(kept))
        chunk.append(kept)
        room, lift = room - len(kept) - 8, lift - weighs
    return chunks
