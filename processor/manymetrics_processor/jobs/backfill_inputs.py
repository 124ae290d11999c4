"""Split the inputs of a backfill into pieces, each decoded by one task: raw archive objects, or parts of NDJSON.

A line of NDJSON is an event as sent to the API, or as exported by Segment and others. Its received_at is its
``receivedAt``, else the time of the event, else that of the file. If it has no id, one is derived from its position:
file, part and line. So a second run makes the same rows.

The sequence number of a part is its end, in bytes of the unpacked file: if a file has grown, only the new part is read,
together with the previous last part.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import math
import re
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import IO, Any, NamedTuple

import msgspec
import pyarrow as pa
import zstandard
from pyiceberg.io import FileIO

from manymetrics.events import Rejected
from manymetrics.limits import MAX_EVENT_BYTES, OVERSIZE_PREFIX_BYTES
from manymetrics.records import Cut, Stamp
from manymetrics.tables import EVENTS
from manymetrics_processor.decode.batch import (
    DEAD_LETTERED,
    STORED,
    Batch,
    Entry,
    EventKey,
    StreamRecord,
    decode,
    make_batch,
    make_letter,
    row_or_rejected,
    unstorable_event,
)
from manymetrics_processor.decode.ids import dedup_digest
from manymetrics_processor.decode.row import DAY_US, parse_time, read_request
from manymetrics_processor.enrich.privacy import make_mask
from manymetrics_processor.ingest import raw_archive
from manymetrics_processor.ingest.isolation import event_count
from manymetrics_processor.ingest.lambda_records import split_parts
from manymetrics_processor.ingest.pipeline import no_collection
from manymetrics_processor.lake.object_storage import StoredFile, locate, read_bytes

PART_BYTES = 32_000_000  # of NDJSON decoded at once. Determines the positions of lines: never change it
ARCHIVE_BYTES = 2_000_000  # of packed records per piece; unpacked they are at least seven times as large
_KEY_KIND = EVENTS.column_names.index("key_kind")
_NDJSON = re.compile(r"\.(?:ndjson|jsonl|json)(\.gz|\.zst)?$")
_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError)
_ARCHIVED = re.compile(r"^([0-9a-f]{16})-(.+)-(\d+)-(\d+)" + re.escape(raw_archive.SUFFIX) + "$")


Part = tuple[int, list[bytes]]
"""Read a file of lines: where each ends, and the lines."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of input. ``shard``: the source's shard. ``day``: approximate, as sortable text.

    ``first`` and ``last`` sequence number; ``last`` is None if unknown before reading.
    """

    shard: str
    first: int
    last: int | None
    day: str
    size: int


@dataclass(frozen=True, slots=True)
class ArchivePiece(Piece):
    """Archive objects of one shard."""

    locations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LinesPiece(Piece):
    """A part of a file, or a whole compressed file. ``name``: the file's name, as in rows.

    ``key_kind``: the kind of key of the events, which determines what they can be resends of.
    """

    part: int
    file: StoredFile
    name: str
    project: str
    key_kind: str


class Decoded(NamedTuple):
    """The batch of a piece, its columns serialized by Arrow. ``problem``: an error in the piece."""

    facts: Batch
    letter_ids: list[str]
    events: bytes
    letters: bytes
    problem: str | None = None


class Found(NamedTuple):
    """The pieces, in the order of their commits, and the skipped files."""

    pieces: list[Piece]
    passed_over: list[str]


def find_pieces(files: Iterable[StoredFile], home: str, project: str | None, key_kind: str = "server") -> Found:
    """Find the pieces. ``project`` and ``key_kind``: those of NDJSON, which is skipped without a project."""
    archived: list[tuple[re.Match[str], StoredFile]] = []
    pieces: list[Piece] = []
    passed_over = []
    for file in files:
        name = file.location.rpartition("/")[2]
        if match := _ARCHIVED.match(name):
            archived.append((match, file))
        elif project is not None and _NDJSON.search(name):
            pieces.extend(_lines_pieces(file, home, project, key_kind))
        else:
            passed_over.append(file.location)
    archived.sort(key=lambda one: (*one[0].group(1, 2), int(one[0][3])))
    for (stream, shard), of_shard in groupby(archived, key=lambda one: one[0].group(1, 2)):
        pieces.extend(_archive_pieces(f"{stream}/{shard}", list(of_shard)))
    return Found(sorted(pieces, key=lambda one: (one.day, one.shard, one.first)), passed_over)


def _archive_pieces(shard: str, objects: Sequence[tuple[re.Match[str], StoredFile]]) -> Iterator[Piece]:
    """Group archive objects; overlapping ones, of differently sliced batches, share a piece, which dedupes records."""
    part: list[StoredFile] = []
    first = last = -1
    day = ""
    for match, file in objects:
        if part and int(match[3]) > last and sum(one.size for one in part) + file.size > ARCHIVE_BYTES:
            yield ArchivePiece(shard, first, last, day, _size(part), tuple(one.location for one in part))
            part = []
        if not part:
            first, last = int(match[3]), -1
            # Never before the previous one, or a watermark would skip it.
            day = max(day, file.location.rpartition("/day=")[2].partition("/")[0])
        part.append(file)
        last = max(last, int(match[4]))
    if part:
        yield ArchivePiece(shard, first, last, day, _size(part), tuple(one.location for one in part))


def _size(files: Iterable[StoredFile]) -> int:
    return 7 * sum(one.size for one in files)


def _lines_pieces(file: StoredFile, home: str, project: str, key_kind: str) -> Iterator[Piece]:
    name = file.location.removeprefix(home).lstrip("/") or file.location.rpartition("/")[2]
    shard = hashlib.sha256(name.encode()).hexdigest()[:12]
    if _compression(file.location):
        yield LinesPiece(shard, 0, None, name, 8 * file.size, 0, file, name, project, key_kind)
        return
    count = max(1, -(-file.size // PART_BYTES))
    for part in range(count):
        end = min((part + 1) * PART_BYTES, file.size)
        yield LinesPiece(shard, end, end, name, end - part * PART_BYTES, part, file, name, project, key_kind)


def _compression(location: str) -> str | None:
    match = _NDJSON.search(location)
    return match[1] if match else None


# --- decode: on the cluster -------------------------------------------------------------------------------


def decode_piece(io: FileIO, source: str, piece: Piece) -> Iterator[Decoded]:
    """Decode in parts that fit memory, by sequence number. Raises OSError if a file is unavailable."""
    if isinstance(piece, ArchivePiece):
        return _decode_archive(io, source, piece)
    assert isinstance(piece, LinesPiece)  # noqa: S101  # the only other kind
    return _decode_lines(io, source, piece)


def _decode_archive(io: FileIO, source: str, piece: ArchivePiece) -> Iterator[Decoded]:
    problems: list[Decoded] = []

    def tell(location: str, error: Exception) -> None:
        what = f"{error} (after a fix, backfill it by exactly this location)"
        problems.append(_problem(source, location, what))

    parts = list(_archived(io, piece, tell))
    yield from problems
    for stream, part in parts:
        with no_collection():
            yield packed(_decode_archived(source, piece.shard, stream, part, source))


def _archived(
    io: FileIO, piece: ArchivePiece, tell: Callable[[str, Exception], None] = lambda _location, _error: None
) -> Iterator[tuple[str, list[StreamRecord]]]:
    """Yield the records of the piece, each with its stream, in parts that fit a commit."""
    found: dict[int, tuple[str, StreamRecord]] = {}
    for location in piece.locations:
        data = read_bytes(io, location)
        try:
            for stream, records in raw_archive.decode(data):
                found.update({one.sequence: (stream, one) for one in records})
        except (pa.ArrowException, ValueError, KeyError) as error:
            tell(location, error)
    ordered = [found[sequence] for sequence in sorted(found)]
    for stream, of_stream in groupby(ordered, key=itemgetter(0)):
        for part in split_parts([record for _, record in of_stream]):
            yield stream, part


def _decode_lines(io: FileIO, source: str, piece: LinesPiece) -> Iterator[Decoded]:
    try:
        for number, (end, lines) in enumerate(_parts(io, piece), piece.part):
            with no_collection():
                batch = _batch_of_lines(lines, source, piece, number, end)
            yield packed(batch)
    except _DAMAGED as error:
        yield _problem(source, piece.file.location, str(error))


def _batch_of_lines(
    lines: list[bytes],
    source: str,
    piece: LinesPiece,
    number: int,
    end: int,
    *,
    span: slice = slice(None),
    unstorable: Mapping[EventKey, str] = MappingProxyType({}),
) -> Batch:
    """Decode lines. ``span``: the events to decode. ``unstorable`` as in decode."""
    good: list[Entry] = []
    bad: list[Entry] = []
    marks = bytearray()
    begin, stop = span.start or 0, math.inf if span.stop is None else span.stop
    count = 0
    if number == 0 and lines:
        lines[0] = lines[0].removeprefix(BOM_UTF8)
    for line, whole in enumerate(lines):
        if not whole or whole.isspace():
            continue
        position, raw, cuts = count, whole, {}
        count += 1
        if not begin <= position < stop:
            continue
        if len(whole) > MAX_EVENT_BYTES:
            raw = whole[:OVERSIZE_PREFIX_BYTES]
            cuts[line] = Cut(line, len(whole), hashlib.sha256(whole).hexdigest())
        place = (source, piece.name, str(number), line)
        # The operator's file is trusted, whatever its key kind, so its context.ip is used as with a server key.
        stamp = Stamp(_received_at(whole, piece.file.modified_at), "", piece.project, "server")
        cause, mask = unstorable.get((piece.shard, end, position)), make_mask(stamp)
        row = (
            row_or_rejected(raw, read_request(stamp), place, cuts)
            if cause is None
            else unstorable_event(cause, cuts.get(line))
        )
        if isinstance(row, Rejected):
            marks += DEAD_LETTERED
            stamp = msgspec.structs.replace(stamp, key_kind=piece.key_kind)
            kept = raw if mask is None else mask.mask(raw)
            bad.append((make_letter(kept, stamp, row, place), 0, position, row.reason.value, None))
        else:
            marks += STORED
            row = (*row[:_KEY_KIND], piece.key_kind, *row[_KEY_KIND + 1 :])
            good.append((row, 0, position, dedup_digest(piece.project, row[0], piece.key_kind), mask))
    batch = make_batch(source, [(piece.shard, end)], [bytes(marks)], good, bad)
    return replace(batch, begin=begin, end=span.stop)


class Apart(NamedTuple):
    """Arguments for pipeline.run, to commit a part of a piece."""

    records: list[StreamRecord]
    decode: Callable[..., Batch]
    length: Callable[[StreamRecord], int]


def take_apart(io: FileIO, source: str, piece: Piece) -> Iterator[Apart]:
    """Convert the piece to records, so that an event that can't be stored can be found. Skips damaged data."""
    if isinstance(piece, ArchivePiece):
        for stream, part in _archived(io, piece):
            yield Apart(part, partial(_decode_archived, source, piece.shard, stream), event_count)
    elif isinstance(piece, LinesPiece):
        with contextlib.suppress(*_DAMAGED):
            for number, (end, lines) in enumerate(_parts(io, piece), piece.part):
                count = sum(bool(line) and not line.isspace() for line in lines)
                record = StreamRecord(piece.shard, end, b"", 0)
                yield Apart([record], partial(_decode_lines_span, lines, piece, number, end), partial(_always, count))


def _decode_archived(
    source: str,
    shard: str,
    stream: str,
    records: Sequence[StreamRecord],
    _stream: str,
    **options: Any,  # noqa: ANN401
) -> Batch:
    batch = decode(records, stream, **options)
    return replace(batch, stream=source, keys=[(shard, sequence) for _, sequence in batch.keys], arrived_at={})


def _decode_lines_span(  # decode's arguments, after the bound ones
    lines: list[bytes],
    piece: LinesPiece,
    number: int,
    at: int,
    _records: Sequence[StreamRecord],
    source: str,
    **options: Any,  # noqa: ANN401  # decode's
) -> Batch:
    span = slice(options.pop("begin", 0), options.pop("end", None))
    return _batch_of_lines(lines, source, piece, number, at, span=span, **options)


def _always(count: int, _record: StreamRecord) -> int:
    return count


def _problem(source: str, location: str, what: str) -> Decoded:
    return packed(make_batch(source, [], [], [], []), f"{location}: {what}")


class _Times(msgspec.Struct, rename="camel"):
    received_at: object = None
    timestamp: object = None
    original_timestamp: object = None


_times = msgspec.json.Decoder(_Times)


def _received_at(raw: bytes, file_written_at: int) -> int:
    try:
        times = _times.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return file_written_at
    for value in (times.received_at, times.timestamp, times.original_timestamp):
        time = parse_time(value)
        if (
            time is not None and 0 <= time <= file_written_at + DAY_US
        ):  # a wrong clock must not create a day in the far future
            return time
    return file_written_at


# --- lines ------------------------------------------------------------------------------------------------


def _parts(io: FileIO, piece: LinesPiece) -> Iterator[Part]:
    """Yield each part of a file, or only the piece's."""
    system, path = locate(io, piece.file.location)
    with system.open_input_file(path) as file:
        match _compression(piece.file.location):
            case ".gz":
                unpacked = gzip.GzipFile(fileobj=file)
                yield from _whole_parts(iter(partial(unpacked.read1, _MORE_BYTES), b""))
            case ".zst":
                yield from _whole_parts(_unpacked_zst(file))
            case _:
                yield piece.first, _lines_from(file, piece.part * PART_BYTES, piece.file.size)


def _unpacked_zst(file: IO[bytes]) -> Iterator[bytes]:
    """Decompress. Raises EOFError if the last frame is truncated, which the library's own reader ignores."""
    frame = None
    while data := file.read(_PACKED_BYTES):
        while data:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(data)
            data = frame.unused_data
            if frame.eof:
                frame = None
    if frame is not None:
        raise EOFError("Compressed file ended before the end of its last frame")


def _lines_from(file: IO[bytes], start: int, size: int) -> list[bytes]:
    """Read the lines that begin within PART_BYTES from ``start``. ``size``: of the file, which may have grown since."""
    before = min(start, 1)  # the byte before tells whether a line begins at ``start``
    file.seek(start - before)
    data = file.read(before + min(PART_BYTES, size - start))
    lines = data.split(b"\n")[before:]
    if lines and lines[-1]:  # the last line continues
        rest = [lines.pop()]
        while b"\n" not in rest[-1] and file.tell() < size:
            rest.append(file.read(min(_MORE_BYTES, size - file.tell())))
        lines.append(b"".join(rest).partition(b"\n")[0])
    return lines


_MORE_BYTES = 1_000_000
_PACKED_BYTES = 64_000  # a few hundred kilobytes of events


def _whole_parts(chunks: Iterator[bytes]) -> Iterator[Part]:
    left, end = b"", 0
    for data in _cut_evenly(chunks):
        lines = (left + data).split(b"\n")
        left, end = lines.pop(), end + len(data)
        if left and len(data) < PART_BYTES:  # the last
            lines.append(left)
            left = b""
        yield end, lines
    if left:
        yield end + 1, [left]


def _cut_evenly(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Cut into PART_BYTES each, the last one shorter: a line's part must not depend on how the file was read."""
    data = bytearray()
    for chunk in chunks:
        data += chunk
        while len(data) >= PART_BYTES:
            yield bytes(data[:PART_BYTES])
            del data[:PART_BYTES]
    if data:
        yield bytes(data)


# --- between the cluster and the driver -------------------------------------------------------------------


def packed(batch: Batch, problem: str | None = None) -> Decoded:
    """Pack a result for transfer and for disk."""
    facts = replace(batch, events=batch.events._replace(table=None), letters=batch.letters._replace(table=None))
    ids: list[str] = batch.letters.table["dead_letter_id"].to_pylist()
    return Decoded(facts, ids, to_bytes(batch.events.table), to_bytes(batch.letters.table), problem)


def to_bytes(table: pa.Table) -> bytes:
    """Serialize to Arrow's stream format, compressed."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_bytes(data: bytes) -> pa.Table:
    """Undo ``to_bytes``."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()
