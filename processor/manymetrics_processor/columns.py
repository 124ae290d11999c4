"""Rows -> Arrow columns, as tables.py says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import pyarrow as pa

from manymetrics.tables import Column, Table
from manymetrics_processor.rows import Row

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


def sort_key(table: Table) -> Callable[[Row], tuple[object, ...]]:
    """Order rows as the table is sorted, nulls first."""
    first, second, third = (table.column_names.index(name) for name in table.sort)

    def key(row: Row) -> tuple[object, ...]:
        return row[first] or "", row[second] or "", row[third]

    return key
