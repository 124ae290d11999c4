"""Rows -> data files, with Arrow in this process. Stages files only; the lake commits them.

One file a UTC day of received_at, rows sorted as the table says, row groups small enough for a query to skip.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, cast

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

from manymetrics.tables import Column, Table
from manymetrics_processor.rows import DAY_US, Row

ROW_GROUP_ROWS = 50_000  # small enough that min and max of the sort columns let queries skip
ZSTD_LEVEL = 1  # level 3 bought nothing on events (2026-11-23)

_ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "timestamp": pa.timestamp("us"),
    "int": pa.int32(),
    "long": pa.int64(),
}


def arrow_schema(table: Table) -> pa.Schema:
    """With Iceberg's field ids, so that readers resolve columns by id."""
    return pa.schema([_field(number, column) for number, column in enumerate(table.columns, 1)])


def _field(field_id: int, column: Column) -> pa.Field:
    ids = {"PARQUET:field_id": str(field_id)}
    return pa.field(column.name, _ARROW_TYPES[column.type], nullable=not column.required, metadata=ids)


def to_arrow(table: Table, rows: Sequence[Row]) -> pa.Table:
    """Rows, in table order, as Arrow in the same order."""
    schema = arrow_schema(table)
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def stage_rows(table: Table, iceberg: IcebergTable, rows: Iterable[Row], name: str) -> list[DataFile]:
    """Write the rows to files of their own, called ``name`` and the day; nothing refers to them yet."""
    day_at = table.column_names.index(table.partition_day_of)
    days: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        days[cast("int", row[day_at]) // DAY_US].append(row)
    order = _sort_key(table)
    return [
        stage_arrow(table, iceberg, to_arrow(table, sorted(of_day, key=order)), day, name)
        for day, of_day in sorted(days.items())
    ]


def stage_arrow(table: Table, iceberg: IcebergTable, data: pa.Table, day: int, name: str) -> DataFile:
    """Write sorted rows of one day (days since 1970, UTC) to one file."""
    location = f"{iceberg.location()}/data/{table.partition_day_of}_day={day}/{name}.parquet"
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
    with writer:
        writer.write_table(data, row_group_size=ROW_GROUP_ROWS)
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


def _sort_key(table: Table) -> Any:  # noqa: ANN401  # a key of mixed columns has no better type
    at = [table.column_names.index(name) for name in table.sort]

    def key(row: Row) -> tuple[object, ...]:
        return tuple([(row[i] is not None, row[i]) for i in at])

    return key
