"""The Arrow engine: write rows to data files and commit them, with Arrow and pyiceberg in this process.

One file per UTC day of received_at, rows in the table's sort order, row groups small enough for queries to skip.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    DataFileStatistics,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table as IcebergTable
from pyiceberg.typedef import Record

from manymetrics.tables import Table
from manymetrics_processor.decode.batch import Rows
from manymetrics_processor.lake import pyiceberg_commits
from manymetrics_processor.lake.file_memory import MEMORY_KEY, row_groups
from manymetrics_processor.lake.object_storage import delete_files, locate, make_folder, note_written

ROW_GROUP_ROWS = 50_000  # small enough that min and max of the sort columns let queries skip
# Real events (32,505, of two kinds) take 15 % less with level 3 and these pages than with level 1 and Arrow's pages of
# 1 MB, for 0.3 us of CPU an event more, and another 9 % less with level 5, for 3 us (2026-11-28).
ZSTD_LEVEL = 3
MERGED_ZSTD_LEVEL = 5  # of merged files, which are kept longer
PAGE_BYTES = 8 * 2**20
BOUND_CHARACTERS = 16  # of the lower and upper bound of a text column, as set in the tables' properties
_SURROGATES = range(0xD800, 0xE000)


class ArrowEngine:
    """The lightweight engine; also used on one machine."""

    def is_alive(self) -> bool:
        """Like ``Engine.is_alive``."""
        return True

    def stage(self, table: Table, iceberg: IcebergTable, rows: Rows) -> list[DataFile]:
        """Like ``Engine.stage``."""
        days, starts = np.unique(rows.day, return_index=True)
        stops = [*starts[1:], len(rows.day)]
        return [
            stage_day(table, iceberg, rows.table.slice(start, stop - start), int(day))
            for day, start, stop in zip(days, starts, stops, strict=True)
        ]

    def try_out(self, table: Table, iceberg: IcebergTable, rows: Rows) -> None:
        """Like ``Engine.try_out``."""
        files: list[DataFile] = []
        try:
            files += self.stage(table, iceberg, rows)
            pyiceberg_commits.rehearse(iceberg, files)
        finally:
            delete_files(iceberg.io, [file.file_path for file in files])

    def append(
        self,
        table: Table,  # noqa: ARG002  # the handle is enough here
        iceberg: IcebergTable,
        files: Sequence[DataFile],
        summary: Mapping[str, str],
        properties: Mapping[str, str],
    ) -> int:
        """Like ``Engine.append``."""
        return pyiceberg_commits.append(iceberg, files, summary, properties)


def stage_day(
    table: Table, iceberg: IcebergTable, data: pa.Table, day: int, *, zstd_level: int = ZSTD_LEVEL
) -> DataFile:
    """Write sorted rows of one day (days since 1970, UTC) to one file.

    The name is unique, since two processes may encode a batch differently: they must never write the same file.
    """
    data = _with_its_ids(data, iceberg)
    location = f"{iceberg.location()}/data/{table.partition_day_of}_day={day}/{uuid4().hex}.parquet"
    system, path = locate(iceberg.io, location)
    make_folder(system, path)
    try:
        with system.open_output_stream(path) as sink:
            writer = pq.ParquetWriter(
                sink,
                data.schema,
                compression="zstd",
                compression_level=zstd_level,
                data_page_size=PAGE_BYTES,
                use_dictionary=list(_dictionary_columns(table)),
                write_statistics=[*table.sort, *_times(table)],
                store_schema=False,
            )
            with writer:
                for group in row_groups(data, ROW_GROUP_ROWS):
                    writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
                writer.add_key_value_metadata({MEMORY_KEY: str(data.nbytes)})
            size = sink.tell()
        note_written(iceberg.io, location)
    except BaseException:  # mostly a full disk, which partial files of each attempt would fill further
        with contextlib.suppress(OSError):
            delete_files(iceberg.io, [location])
        raise
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=writer.writer.metadata,
        stats_columns=compute_statistics_plan(iceberg.schema(), iceberg.metadata.properties),
        parquet_column_mapping=parquet_path_to_id_mapping(iceberg.schema()),
    )
    _bound_texts(statistics)
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=Record(day),
        file_size_in_bytes=size,
        sort_order_id=iceberg.metadata.default_sort_order_id,
        spec_id=iceberg.metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def _bound_texts(statistics: DataFileStatistics) -> None:
    """Shorten the bounds of text columns.

    pyiceberg's own truncation makes a lone surrogate of U+D7FF, which can't be encoded (apache/iceberg-python#3880).
    """
    for bounds in statistics.column_aggregates.values():
        if bounds.trunc_length is not None:
            bounds.trunc_length = None
            bounds.current_min = None if bounds.current_min is None else bounds.current_min[:BOUND_CHARACTERS]
            bounds.current_max = None if bounds.current_max is None else upper_bound(bounds.current_max)


def upper_bound(text: str) -> str | None:
    """Return a short text that is not smaller, or None if there is none (U+10FFFF repeated); short texts unchanged."""
    if len(text) <= BOUND_CHARACTERS:
        return text
    for at in range(BOUND_CHARACTERS - 1, -1, -1):
        following = ord(text[at]) + 1
        if following in _SURROGATES:
            following = _SURROGATES.stop
        if following <= sys.maxunicode:
            return text[:at] + chr(following)
    return None


def _with_its_ids(data: pa.Table, iceberg: IcebergTable) -> pa.Table:
    """Apply this table's field ids: others may have added a column before one of ours."""
    ids = {field.name: {"PARQUET:field_id": str(field.field_id)} for field in iceberg.schema().fields}
    return data.cast(pa.schema([field.with_metadata(ids[field.name]) for field in data.schema]))


@cache
def _dictionary_columns(table: Table) -> tuple[str, ...]:
    """Return the columns whose values repeat within a file. For others, a dictionary costs time and is discarded."""
    unique = {"message_id", "request_id", "properties", "raw", "dead_letter_id", "session_sequence"}
    return tuple(c.name for c in table.columns if c.type != "timestamp" and c.name not in unique)


@cache
def _times(table: Table) -> tuple[str, ...]:
    return tuple(c.name for c in table.columns if c.type == "timestamp" and c.name not in table.sort)
