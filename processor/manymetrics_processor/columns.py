"""Rows -> Arrow columns, as tables.py says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pyarrow as pa

from manymetrics.tables import Column, Table
from manymetrics_processor.rows import DAY_US, Row

_ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "timestamp": pa.timestamp("us"),
    "int": pa.int32(),
    "long": pa.int64(),
}


@cache
def arrow_schema(table: Table) -> pa.Schema:
    """With Iceberg's field ids, so that readers resolve columns by id."""
    return pa.schema([_field(number, column) for number, column in enumerate(table.columns, 1)])


def _field(field_id: int, column: Column) -> pa.Field:
    ids = {"PARQUET:field_id": str(field_id)}
    return pa.field(column.name, _ARROW_TYPES[column.type], nullable=not column.required, metadata=ids)


def to_arrow(table: Table, rows: Sequence[Row]) -> pa.Table:
    """Rows, their values in table order, as Arrow; rows stay in order."""
    schema = arrow_schema(table)
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def sort_keys(table: Table, rows: Sequence[Row]) -> list[tuple[int, str, str, int]]:
    """For each row, what orders it: its UTC day (since 1970), then as the table is sorted, nulls first."""
    day_at, first, second, third = map(table.column_names.index, (table.partition_day_of, *table.sort))
    return [(row[day_at] // DAY_US, row[first] or "", row[second] or "", row[third]) for row in rows]  # type: ignore[operator, misc]  # as tables.py types these
