"""Rows -> data files, with Arrow in this process. Stages files only; the lake commits them.

One file a UTC day of received_at, rows sorted as the table says, row groups small enough for a query to skip.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table as IcebergTable
from pyiceberg.typedef import Record

from manymetrics.tables import Table
from manymetrics_processor.decode import Rows

ROW_GROUP_ROWS = 50_000  # small enough that min and max of the sort columns let queries skip
ZSTD_LEVEL = 1  # level 3 bought nothing on events (2026-11-23)


def stage(table: Table, iceberg: IcebergTable, rows: Rows) -> list[DataFile]:
    """Write the rows to new files, one a day; nothing refers to them yet.

    The names are unique: two processes may encode one batch differently, so they must never write one file.
    """
    days, starts = np.unique(rows.day, return_index=True)
    stops = [*starts[1:], len(rows.day)]
    return [
        stage_day(table, iceberg, rows.table.slice(start, stop - start), int(day))
        for day, start, stop in zip(days, starts, stops, strict=True)
    ]


def stage_day(table: Table, iceberg: IcebergTable, data: pa.Table, day: int) -> DataFile:
    """Write sorted rows of one day (days since 1970, UTC) to one file."""
    location = f"{iceberg.location()}/data/{table.partition_day_of}_day={day}/{uuid4().hex}.parquet"
    path = local_path(location)
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120  # per commit: pathlib costs more than the call
    writer = pq.ParquetWriter(
        path,
        data.schema,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=list(_dictionary_columns(table)),
        write_statistics=[*table.sort, *_times(table)],
        store_schema=False,
    )
    try:
        with writer:
            writer.write_table(data, row_group_size=ROW_GROUP_ROWS)
    except BaseException:  # a full disk, mostly: what is half written would fill it at each attempt
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108  # as above
        raise
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=writer.writer.metadata,
        stats_columns=compute_statistics_plan(iceberg.schema(), iceberg.metadata.properties),
        parquet_column_mapping=parquet_path_to_id_mapping(iceberg.schema()),
    )
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=Record(day),
        file_size_in_bytes=os.path.getsize(path),  # noqa: PTH202  # as above
        sort_order_id=iceberg.metadata.default_sort_order_id,
        spec_id=iceberg.metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def local_path(location: str) -> str:
    """The path of a ``file://`` location."""
    return location.removeprefix("file://")


@cache
def _dictionary_columns(table: Table) -> tuple[str, ...]:
    """Where values repeat within a file. Elsewhere a dictionary costs time and is thrown away."""
    unique = {"message_id", "request_id", "properties", "raw", "dead_letter_id", "session_sequence"}
    return tuple(c.name for c in table.columns if c.type != "timestamp" and c.name not in unique)


@cache
def _times(table: Table) -> tuple[str, ...]:
    return tuple(c.name for c in table.columns if c.type == "timestamp" and c.name not in table.sort)
