"""A DuckDB session over the lake of one machine: the tables and views by name, and nothing else within reach.

    plan the files (lake) -> name them as tables -> macros that Trino has -> views -> lock the configuration

A session reads one snapshot of each table, whatever commits meanwhile. Data files are read by field id, so a column
that was added later is null in older files. All times are UTC.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from manymetrics.tables import TABLES, ColumnType, Table
from manymetrics_insights.lake import Field, TableState, read_table
from manymetrics_insights.views import View, read_views

# Iceberg spec, primitive types, but for decimal(p, s), which DuckDB writes the same way. Nested ones aren't in the
# contract; PyIceberg reads a table that has one.
_DUCKDB_TYPES: Final = {
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMPTZ",
    "string": "VARCHAR",
    "uuid": "UUID",
    "binary": "BLOB",
}
_CONTRACT_TYPES: Final[dict[ColumnType, str]] = {
    "string": "VARCHAR",
    "timestamp": "TIMESTAMP",
    "int": "INTEGER",
    "long": "BIGINT",
}
_ABSENT_FIELD_ID: Final = 1_000_000_000  # from here on: ids of the contract's columns that the table hasn't yet

# Trino's functions that DuckDB lacks, with Trino's answers: null for what is no scalar, and for what is no JSON.
_MACROS: Final = (
    """CREATE MACRO json_extract_scalar(json, path) AS
    CASE WHEN json_valid(json) THEN
      CASE WHEN json_type(json, _json_path(path)) NOT IN ('OBJECT', 'ARRAY')
      THEN json_extract_string(json, _json_path(path)) END
    END""",
    "CREATE MACRO to_unixtime(time) AS epoch(time)",
)
_JSON_PATH: Final = """CREATE MACRO _json_path(path) AS regexp_replace(path, '\\["([^"]*)"\\]', '."\\1"', 'g')"""


@dataclass(frozen=True, slots=True)
class Session:
    """``files`` are all that it may read."""

    connection: duckdb.DuckDBPyConnection
    views: tuple[View, ...]
    files: tuple[str, ...]

    def lost_file(self) -> str | None:
        """A planned file that is gone: maintenance was faster. A new session finds what replaced it."""
        return next((path for path in self.files if not Path(path).exists()), None)


def open_session(data_dir: Path, *, writable: Path | None = None) -> Session:
    """Read what ``data_dir`` holds now. ``writable`` is the one file that the caller's own COPY may write."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    files: list[str] = []
    for table in TABLES:
        files += _create_table(connection, table, read_table(data_dir, table.name))
    for macro in (_JSON_PATH, *_MACROS):
        connection.execute(macro)
    views = read_views()
    for view in views:
        connection.execute(f"CREATE VIEW {view.name} AS {view.sql}")
    _lock(connection, [*files, *([str(writable)] if writable else [])])
    return Session(connection, views, tuple(files))


def _create_table(connection: duckdb.DuckDBPyConnection, table: Table, state: TableState | None) -> list[str]:
    """Name the table's rows. Returns the files that its queries read."""
    fields = _fields(table, state)
    if state is None or not state.files:
        columns = ", ".join(f"CAST(NULL AS {kind}) AS {_name(name)}" for _, name, kind in fields)
        connection.execute(f"CREATE VIEW {table.name} AS SELECT {columns} WHERE false")
        return []
    if state.has_deletes or any(_duckdb_type(field) is None for field in state.fields):
        _copy_with_pyiceberg(connection, table, state, fields)
        return []
    paths = [file.path for file in state.files]
    schema = ", ".join(
        f"{field_id}: {{name: {_text(name)}, type: {_text(kind)}, default_value: NULL}}"
        for field_id, name, kind in fields
    )
    connection.execute(
        f"CREATE VIEW {table.name} AS SELECT * FROM read_parquet("
        f"[{', '.join(map(_text, paths))}], schema = MAP {{{schema}}}, hive_partitioning = false)"
    )
    return paths


def _fields(table: Table, state: TableState | None) -> list[tuple[int, str, str]]:
    """Field id, name and DuckDB type: the table's own, then what the contract has and an older table lacks."""
    fields = [(field.id, field.name, _duckdb_type(field) or "") for field in state.fields] if state else []
    there = {name for _, name, _ in fields}
    return fields + [
        (_ABSENT_FIELD_ID + place, column.name, _CONTRACT_TYPES[column.type])
        for place, column in enumerate(table.columns)
        if column.name not in there
    ]


def _duckdb_type(field: Field) -> str | None:
    return field.type if field.type.startswith("decimal(") else _DUCKDB_TYPES.get(field.type)


def _copy_with_pyiceberg(
    connection: duckdb.DuckDBPyConnection, table: Table, state: TableState, fields: list[tuple[int, str, str]]
) -> None:
    """Rows that delete files took away, and nested columns, need a whole Iceberg reader, which takes seconds."""
    from pyiceberg.table import StaticTable

    rows = StaticTable.from_metadata(state.metadata_path).scan().to_arrow()
    columns = ", ".join(
        _name(name) if field_id < _ABSENT_FIELD_ID else f"CAST(NULL AS {kind}) AS {_name(name)}"
        for field_id, name, kind in fields
    )
    connection.register("_rows", rows)
    connection.execute(f"CREATE TABLE {table.name} AS SELECT {columns} FROM _rows")
    connection.unregister("_rows")


def _lock(connection: duckdb.DuckDBPyConnection, paths: list[str]) -> None:
    spill = str(Path(tempfile.gettempdir()) / f"manymetrics-query-{os.getpid()}")
    connection.execute(f"SET temp_directory = {_text(spill)}")
    connection.execute(f"SET allowed_paths = [{', '.join(map(_text, paths))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
