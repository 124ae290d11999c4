"""Estimate the memory that the rows of a data file take, which can't be derived from the file's size.

Dictionary encoding stores a repeated value once: 165 rows of 128 kB are 480 bytes in Parquet, and 21 MB in Arrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO

from manymetrics_processor.lake.object_storage import locate

ROW_GROUP_MEMORY = 32_000_000  # bytes in Arrow that a reader holds of a file at once, per thread
MEMORY_KEY = "manymetrics.memory_bytes"  # key in a Parquet file's metadata, if its writer knew the figure
SURELY_SMALL = 32_000  # bytes: column chunks that can't take more aren't examined
_DICTIONARIES = frozenset({"PLAIN_DICTIONARY", "RLE_DICTIONARY"})
_OFFSET_BYTES = 4  # Arrow's, per text value


def row_groups(rows: pa.Table, most_rows: int) -> Iterator[pa.Table]:
    """Split rows into row groups of at most so many rows and, unless it is a single row, ROW_GROUP_MEMORY bytes."""
    if rows.nbytes <= ROW_GROUP_MEMORY:
        for start in range(0, rows.num_rows, most_rows):
            yield rows.slice(start, most_rows)
        return
    ends = np.cumsum(_row_bytes(rows))
    start = 0
    while start < rows.num_rows:
        before = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, before + ROW_GROUP_MEMORY, side="right"))
        stop = min(max(stop, start + 1), start + most_rows)
        yield rows.slice(start, stop - start)
        start = stop


def _row_bytes(rows: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    sizes = np.full(rows.num_rows, 8 * rows.num_columns, dtype=np.int64)
    for column in rows.columns:
        if pa.types.is_string(column.type):
            sizes += pc.fill_null(pc.binary_length(column), 0).to_numpy()
    return sizes


@lru_cache(maxsize=10_000)  # a data file never changes
def memory_bytes(io: FileIO, location: str) -> int:
    """Estimate the Arrow memory of a file's rows, in bytes; never much too low. Raises FileNotFoundError.

    It holds at most a row group with distinct values at once. 0.5 ms of CPU if the file's metadata has it, else 3.
    """
    system, path = locate(io, location)
    metadata = pq.read_metadata(path, filesystem=system)
    said = (metadata.metadata or {}).get(MEMORY_KEY.encode(), b"")
    if said.isdigit():
        return int(said)
    names = [metadata.schema.column(at).path for at in range(metadata.num_columns)]
    with pq.ParquetFile(path, filesystem=system, metadata=metadata, read_dictionary=names) as parquet:
        return sum(_group_bytes(parquet, group, names) for group in range(metadata.num_row_groups))


def _group_bytes(parquet: pq.ParquetFile, number: int, names: list[str]) -> int:
    group, total, unsure = parquet.metadata.row_group(number), 0, []
    for at, name in enumerate(names):
        least, most = _chunk_bytes(group.column(at))
        if most - least > SURELY_SMALL:
            unsure.append(name)
            total += _OFFSET_BYTES * int(group.num_rows)
        else:
            total += most
    columns = parquet.read_row_group(number, columns=unsure).columns if unsure else []
    return total + sum(_text_bytes(chunk) for column in columns for chunk in column.chunks)


def _chunk_bytes(chunk: pq.ColumnChunkMetaData) -> tuple[int, int]:
    """Return the minimum and maximum bytes of a column, by the file's footer."""
    rows, stored = int(chunk.num_values), int(chunk.total_uncompressed_size)
    if chunk.physical_type != "BYTE_ARRAY":
        return 8 * rows, 8 * rows  # the widest fixed-size type in our tables
    if _DICTIONARIES.isdisjoint(chunk.encodings):
        return stored + _OFFSET_BYTES * rows, stored + _OFFSET_BYTES * rows
    return 0, rows * (stored + _OFFSET_BYTES)  # no value is longer than its chunk


def _text_bytes(texts: pa.Array) -> int:
    if not isinstance(texts, pa.DictionaryArray):
        return int(texts.nbytes)
    lengths = pc.binary_length(texts.dictionary).cast(pa.int64())
    return pc.sum(lengths.take(texts.indices)).as_py() or 0
