"""Open a DuckDB session with the tables and views by name, and no access to anything else.

    plan the files (lake) -> name them as tables -> macros for Trino's functions -> views -> lock the configuration

A session reads one snapshot of each table, regardless of concurrent commits. Data files are read by field id, so a
column that was added later is null in older files; rows in delete files are left out. All times are UTC.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Final

import duckdb

from manymetrics.tables import EVENTS, TABLES, ColumnType, Table
from manymetrics_insights.reader.iceberg import Attached, DataFile, Field, LakeError, Source, TableState, read_table
from manymetrics_insights.views import View, read_views

# Iceberg spec, primitive types, except decimal(p, s), which DuckDB writes the same way. Nested types aren't in the
# contract; PyIceberg reads tables that have one.
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
# What a query holds before it spills to the disk; plus DuckDB's vectors of 2,048 rows, and the result's rows.
MEMORY_LIMIT: Final = "1GB"
_HIDDEN: Final = "_manymetrics"  # schema of internal tables, not for queries
_ABSENT_FIELD_ID: Final = 1_000_000_000  # first id for the contract's columns that the table lacks

# Trino's functions that DuckDB lacks, with Trino's results: null for non-scalars and for invalid JSON.
_MACROS: Final = (
    """CREATE MACRO json_extract_scalar(json, path) AS
    CASE WHEN json_valid(json) THEN
      CASE WHEN json_type(json, _json_path(path)) NOT IN ('OBJECT', 'ARRAY')
      THEN json_extract_string(json, _json_path(path)) END
    END""",
    """CREATE MACRO json_extract(json, path) AS
    CASE WHEN json_valid(json) THEN system.main.json_extract(json, _json_path(path)) END""",
    "CREATE MACRO json_parse(text) AS CAST(CASE WHEN _json_strict(text) THEN text ELSE '{' END AS JSON)",
    "CREATE MACRO json_format(json) AS CAST(json AS VARCHAR)",
    "CREATE MACRO regexp_like(text, pattern) AS regexp_matches(text, pattern)",
    """CREATE MACRO regexp_replace(text, pattern, replacement) AS
      system.main.regexp_replace(text, pattern, replacement, 'g'),
    (text, pattern, replacement, options) AS system.main.regexp_replace(text, pattern, replacement, options)""",
    "CREATE MACRO to_unixtime(time) AS epoch(time)",
    "CREATE MACRO element_at(list_or_map, key) AS list_or_map[key]",  # DuckDB's own returns a list for a map
    "CREATE MACRO map_agg(key, value) AS map(list(key) FILTER (key IS NOT NULL), list(value) FILTER (key IS NOT NULL))",
    "CREATE MACRO array_join(list, separator) AS array_to_string(list, separator)",
)
# DuckDB also takes NaN, Infinity and a comma before a closing bracket, as no other reader does: look for them, first in
# the whole text, which is quick, then outside of strings.
_LENIENT: Final = r"'(?i)nan|inf|,\s*[\]}]'"
_JSON_STRICT: Final = rf"""CREATE MACRO _json_strict(text) AS json_valid(text) AND (
    NOT regexp_matches(text, {_LENIENT})
    OR NOT regexp_matches(regexp_replace(text, '"(?:[^"\\]|\\.)*"', '""', 'g'), {_LENIENT}))"""
# A path of Trino's, $["a"]["b"], as a JSON pointer, which takes any key; another as a path of DuckDB's. In a pointer
# ~0 is a ~ and ~1 a /; ~2 and ~3 stand for an escaped " and \\ until the keys are apart.
_JSON_PATH: Final = r"""CREATE MACRO _json_path(path) AS
    CASE WHEN path LIKE '$["%"]'
      AND NOT regexp_matches(replace(replace(path, '\\', ''), '\"', ''), '"\]([.]|\[[^"])') THEN
      '/' || replace(replace(replace(replace(replace(replace(replace(
        substr(path, 4, length(path) - 5),
        '~', '~0'), '/', '~1'), '\\', '~3'), '\"', '~2'), '"]["', '/'), '~2', '"'), '~3', '\')
    ELSE regexp_replace(path, '\["([^"]*)"\]', '."\1"', 'g') END"""


@dataclass(frozen=True, slots=True)
class Session:
    """A session. ``failure``, called after an error of DuckDB's, returns what kept it from reading a file.

    If that is a FileNotFoundError, maintenance removed the file, and a new session finds its replacement; or it was
    deleted by someone else. Queries on other tables still work. ``events``: that table's state, if there is one.
    """

    connection: duckdb.DuckDBPyConnection
    views: tuple[View, ...]
    failure: Attached
    events: TableState | None = None


def open_session(
    source: Source, *, writable: Path | None = None, snapshot: int | None = None, more: Sequence[View] = ()
) -> Session:
    """Open a session on the current state of ``source``. ``writable`` is the only file that its COPY may write.

    ``snapshot``: of the events, if not the newest. ``more``: views besides ManyMetrics' own.

    Raises LakeError, SnapshotExpiredError.
    """
    states: dict[Table, TableState | None] = {}
    missing: dict[Table, FileNotFoundError] = {}
    for table in TABLES:
        try:
            states[table] = read_table(source, table.name, snapshot if table is EVENTS else None)
        except FileNotFoundError as error:
            states[table], missing[table] = None, error
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    files = [file for state in states.values() if state for file in state.files]
    deletes = [file for state in states.values() if state for file in state.deletes]
    attached = source.attach(connection, [*files, *deletes])
    connection.execute(f"CREATE SCHEMA {_HIDDEN}")
    for table, state in states.items():
        try:
            if table not in missing:
                _create_table(connection, table, state, source)
        except duckdb.Error as error:
            cause = attached() or error
            if not isinstance(cause, FileNotFoundError):
                raise cause from error
            missing[table] = cause
        if table in missing:
            _create_failing(connection, table, missing[table])

    def failure() -> Exception | None:
        return attached() or next(iter(missing.values()), None)

    for macro in (_JSON_PATH, _JSON_STRICT, *_MACROS):
        connection.execute(macro)
    views = (*read_views(), *more)
    for view in views:
        connection.execute(f"CREATE VIEW {view.name} AS {view.duckdb_sql}")
    _lock(connection, [*(file.path for file in files), *([str(writable)] if writable else [])])
    return Session(connection, views, failure, states.get(EVENTS))


def _create_table(
    connection: duckdb.DuckDBPyConnection, table: Table, state: TableState | None, source: Source
) -> None:
    """Create the view of a table's rows."""
    fields = _fields(table, state)
    if state is None or not state.files:
        columns = ", ".join(f"CAST(NULL AS {kind}) AS {_name(name)}" for _, name, kind in fields)
        connection.execute(f"CREATE VIEW {table.name} AS SELECT {columns} WHERE false")
    elif any(_duckdb_type(field) is None for field in state.fields):
        _copy_with_pyiceberg(connection, table, state, fields, source)
    else:
        connection.execute(f"CREATE VIEW {table.name} AS {_rows(connection, table, state, fields, source)}")


def _create_failing(connection: duckdb.DuckDBPyConnection, table: Table, error: Exception) -> None:
    """Create a table whose query fails with this error; its columns are known, so views on it can be created."""
    columns = ", ".join(f"CAST(NULL AS {kind}) AS {_name(name)}" for _, name, kind in _fields(table, None))
    connection.execute(
        f"CREATE VIEW {table.name} AS SELECT {columns} FROM range(1) WHERE error({_text(str(error))}) IS NULL"
    )


def _rows(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    state: TableState,
    fields: list[tuple[int, str, str]],
    source: Source,
) -> str:
    """Return SQL for the table's rows. Files without deletes are read without the anti-join."""
    if not state.deletes:
        return f"SELECT * FROM {_scan(state.files, fields)}"
    deleted = f"{_HIDDEN}.{_name('deleted_' + table.name)}"
    connection.execute(
        f"CREATE TABLE {deleted} AS SELECT file_path AS path, pos"
        f" FROM read_parquet({_paths(state.deletes)}, hive_partitioning = false)"
    )
    named = [location for (location,) in connection.execute(f"SELECT DISTINCT path FROM {deleted}").fetchall()]
    paths = [source.path(location) for location in named]
    if paths != named:
        moved = "(SELECT unnest(?) AS location, unnest(?) AS path) AS moved"
        connection.execute(
            f"UPDATE {deleted} SET path = moved.path FROM {moved} WHERE {deleted}.path = moved.location", [named, paths]
        )
    touched = set(paths)
    whole = [file for file in state.files if file.path not in touched]
    holed = [file for file in state.files if file.path in touched]
    scans = [f"SELECT * FROM {_scan(whole, fields)}"] if whole else []
    if holed:
        still_there = f"NOT EXISTS (SELECT 1 FROM {deleted} WHERE path = kept.filename AND pos = kept.file_row_number)"
        scans.append(f"SELECT * FROM {_scan(holed, fields)} AS kept WHERE {still_there}")
    return " UNION ALL ".join(scans)


def _scan(files: Iterable[DataFile], fields: list[tuple[int, str, str]]) -> str:
    schema = ", ".join(
        f"{field_id}: {{name: {_text(name)}, type: {_text(kind)}, default_value: NULL}}"
        for field_id, name, kind in fields
    )
    return f"read_parquet({_paths(files)}, schema = MAP {{{schema}}}, hive_partitioning = false)"


def _paths(files: Iterable[DataFile]) -> str:
    return f"[{', '.join(_text(file.path) for file in files)}]"


def _fields(table: Table, state: TableState | None) -> list[tuple[int, str, str]]:
    """Return field id, name and DuckDB type: of the table's columns, then of the contract's that an older one lacks."""
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
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    state: TableState,
    fields: list[tuple[int, str, str]],
    source: Source,
) -> None:
    """Read with PyIceberg, in seconds: nested columns, added by others, need a complete Iceberg reader."""
    try:
        from pyiceberg.table import StaticTable
    except ModuleNotFoundError as error:
        raise LakeError(
            f"{table.name} has a nested column, which needs PyIceberg: pip install '.[processor]' in a checkout."
        ) from error

    rows = StaticTable.from_metadata(state.metadata_location, source.pyiceberg_properties()).scan().to_arrow()
    columns = ", ".join(
        _name(name) if field_id < _ABSENT_FIELD_ID else f"CAST(NULL AS {kind}) AS {_name(name)}"
        for field_id, name, kind in fields
    )
    connection.register("_rows", rows)
    connection.execute(f"CREATE TABLE {table.name} AS SELECT {columns} FROM _rows")
    connection.unregister("_rows")


@cache
def _spill_home() -> Path | None:
    """Create the private folder for spilled rows of this process: no other user can have created it, or may enter it.

    Returns None if the temporary folder is not writable.
    """
    try:
        home = Path(tempfile.mkdtemp(prefix="manymetrics-query-"))  # 0700, with an unpredictable name
    except OSError:
        return None
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


_sessions = count()


def _lock(connection: duckdb.DuckDBPyConnection, paths: list[str]) -> None:
    home = _spill_home()
    spill = str(home / str(next(_sessions))) if home else ""  # empty: queries that exceed the memory fail
    connection.execute(f"SET temp_directory = {_text(spill)}")
    connection.execute(f"SET allowed_paths = [{', '.join(map(_text, paths))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
