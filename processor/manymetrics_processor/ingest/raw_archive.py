"""The raw archive: the processor's input records, by UTC day of arrival, as a source for `replay`.

An object is a Parquet file of ``stream``, ``shard``, ``sequence`` (decimal), ``arrived_at`` (microseconds since 1970)
and ``data`` (the packed record). A redelivered batch replaces its own objects; if it is sliced differently, records are
archived twice, which is harmless in a replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO

from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.enrich.privacy import mask_record
from manymetrics_processor.lake.object_storage import read_bytes, write_bytes

SUFFIX = ".records.parquet"
_SCHEMA = pa.schema(
    [
        ("stream", pa.string()),
        ("shard", pa.string()),
        ("sequence", pa.string()),
        ("arrived_at", pa.int64()),
        ("data", pa.binary()),
    ]
)


class Archive:
    """``home``: the location of the archive's days."""

    def __init__(self, home: str, io: FileIO) -> None:
        self._home, self._io = home.rstrip("/"), io

    def put(self, stream: str, records: Sequence[StreamRecord]) -> None:
        """Store records of one stream. Raises what the file system raises."""
        for (day, shard), together in groupby(records, key=lambda one: (_day(one), one.shard)):
            part = list(together)
            name = hashlib.sha256(stream.encode()).hexdigest()[:16]
            span = f"{shard}-{part[0].sequence}-{part[-1].sequence}"
            write_bytes(self._io, f"{self._home}/day={day}/{name}-{span}{SUFFIX}", encode([(stream, part)]))


def encode(streams: Iterable[tuple[str, Sequence[StreamRecord]]]) -> bytes:
    """Encode an archive object of records, by stream."""
    rows = [
        (stream, one.shard, str(one.sequence), one.arrived_at, mask_record(one.data))
        for stream, records in streams
        for one in records
    ]
    arrays = [pa.array(values, type=field.type) for values, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)]
    sink = BytesIO()
    # The records are compressed already.
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=_SCHEMA), sink, compression="none", use_dictionary=["stream", "shard"]
    )
    return sink.getvalue()


def read(io: FileIO, location: str) -> Iterator[tuple[str, list[StreamRecord]]]:
    """Read the records of an object, each with its stream."""
    return decode(read_bytes(io, location))


def decode(data: bytes) -> Iterator[tuple[str, list[StreamRecord]]]:
    """Decode an archive object. Raises ValueError and KeyError, also during iteration."""
    try:
        rows = pq.read_table(BytesIO(data)).to_pylist()
    except OSError as error:  # damaged pages: the data is in memory, so there is no other I/O
        raise ValueError(str(error)) from error
    for stream, together in groupby(rows, key=lambda row: str(row["stream"])):
        yield stream, [StreamRecord(r["shard"], int(r["sequence"]), r["data"], r["arrived_at"]) for r in together]


def _day(record: StreamRecord) -> str:
    return datetime.fromtimestamp(record.arrived_at / 1e6, UTC).strftime("%Y-%m-%d")
