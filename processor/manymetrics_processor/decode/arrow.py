"""Convert rows to Arrow columns, by the schema of tables.py."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manymetrics.tables import Column, Table
from manymetrics_processor.decode.context import ADDED_COLUMNS, take_added
from manymetrics_processor.decode.row import DAY_US, Row

_ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "timestamp": pa.timestamp("us"),
    "int": pa.int32(),
    "long": pa.int64(),
}


@cache
def arrow_schema(table: Table) -> pa.Schema:
    """Return the schema with Iceberg's field ids, so that readers resolve columns by id."""
    return pa.schema([_field(number, column) for number, column in enumerate(table.columns, 1)])


def _field(field_id: int, column: Column) -> pa.Field:
    ids = {"PARQUET:field_id": str(field_id)}
    return pa.field(column.name, _ARROW_TYPES[column.type], nullable=not column.required, metadata=ids)


@cache
def row_schema(table: Table) -> pa.Schema:
    """Like ``arrow_schema``, without enriched columns."""
    return pa.schema([arrow_schema(table).field(column.name) for column in table.row_columns])


def to_arrow(table: Table, rows: Sequence[Row]) -> pa.Table:
    """Convert rows, with values in table order, to Arrow, without enriched columns; keeps the order of rows."""
    schema = row_schema(table)
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [_to_array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _to_array(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    """Like ``pa.array``; columns without any value, about half of them, take a third of the time."""
    if values and values[0] is None and values.count(None) == len(values):
        return pa.nulls(len(values), kind)
    return pa.array(values, type=kind)


def to_schema(table: Table, rows: pa.Table) -> pa.Table:
    """Put columns in table order, with Iceberg's field ids."""
    schema = arrow_schema(table)
    return pa.Table.from_arrays([rows[name] for name in schema.names], schema=schema)


def to_days(table: Table, rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return the UTC day of each row, in days since 1970."""
    days: npt.NDArray[np.int64] = rows[table.partition_day_of].cast(pa.int64()).to_numpy() // DAY_US
    return days


def sort_order(table: Table, rows: pa.Table, days: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """Return the indices that sort the rows: by day, if ``days`` is given, then by the table's sort order.

    Nulls first; stable.
    """
    keyed = rows.select(table.sort)
    keys = [(name, "ascending", "at_start") for name in table.sort]
    if days is not None:
        keyed, keys = keyed.append_column(" day", pa.array(days)), [(" day", "ascending", "at_start"), *keys]
    order: npt.NDArray[np.int64] = pc.sort_indices(keyed, sort_keys=keys).to_numpy().astype(np.int64)
    return order


def holds_added(context: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return whether values of `context` may hold values of added columns, left there by an older processor."""
    names = "|".join(re.escape(column.path.rpartition(".")[2]) for column in ADDED_COLUMNS)
    return pc.fill_null(pc.match_substring_regex(context, f'"(?:{names})"'), False)  # noqa: FBT003  # Arrow's signature


def move_added(rows: pa.Table) -> pa.Table:
    """Return rows of ``events`` with values that an older processor left in `context` moved to the added columns."""
    places = pc.indices_nonzero(holds_added(rows["context"])).to_pylist()
    if not places:
        return rows
    changed = {name: rows[name].to_pylist() for name in ("context", *(column.name for column in ADDED_COLUMNS))}
    for place in places:
        values, changed["context"][place] = take_added(changed["context"][place])
        for name, value in values.items():
            if changed[name][place] is None:
                changed[name][place] = value
    for name, column in changed.items():
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), pa.array(column, rows.schema.field(at).type))
    return rows
