"""The views, one SQL file each in ``views/``: the same text for Athena (Trino) and for the DuckDB of one machine.

A file starts with a comment that describes a row, then each column:

    -- One row is a person of a project.
    --
    -- project_id: The project.

    SELECT ...

The docs, the catalog and ``manymetrics query --describe`` derive from it. ``*: events`` stands for all columns of a
table, and ``e.*`` in the SQL for each of them by name, falling back to the value that an older processor left in
`context`. A view only builds on those before it in ``VIEW_NAMES``.

Where one text can't be quick on both engines, ``NAME.duckdb.sql`` has the subqueries that DuckDB computes instead of
those in ``NAME.sql``, from WITH up to the last SELECT, with the same rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from manymetrics.tables import TABLES, Column, ColumnType, Table

VIEW_NAMES: Final = ("identities", "identifies", "pages", "person_events", "users", "event_catalog", "data_quality")


@dataclass(frozen=True, slots=True)
class View:
    """``columns``: descriptions by name, in the order of the SQL. ``widens``: the table whose columns come first.

    ``duckdb_sql``: what DuckDB runs, if not ``sql``.
    """

    name: str
    doc: str
    columns: dict[str, str]
    widens: Table | None
    sql: str
    duckdb_sql: str


def read_views() -> tuple[View, ...]:
    """Read all views, in the order in which they can be created."""
    folder = files("manymetrics_insights") / "views"
    views = []
    for name in VIEW_NAMES:
        on_duckdb = folder / f"{name}.duckdb.sql"
        subqueries = on_duckdb.read_text("utf-8") if on_duckdb.is_file() else None
        views.append(parse_view(name, (folder / f"{name}.sql").read_text("utf-8"), subqueries))
    return tuple(views)


def parse_view(name: str, text: str, on_duckdb: str | None = None) -> View:
    """Parse a view from the text of its file, and of its file of subqueries for DuckDB, if it has one."""
    header, _, sql = text.partition("\n\n")
    lines = [line.removeprefix("--").strip() for line in header.splitlines()]
    blank = lines.index("")
    docs = dict(line.split(": ", 1) for line in lines[blank + 1 :])
    widened = docs.pop("*", None)
    widens = next((table for table in TABLES if table.name == widened), None)
    inherited = {column.name: column.doc for column in widens.columns} if widens else {}
    if widens:
        sql = _ALL_COLUMNS.sub(lambda alias: _select_list(widens, alias[1]), sql)
    duckdb_sql = sql
    if on_duckdb is not None:
        duckdb_sql = on_duckdb.partition("\n\n")[2] + sql[sql.rindex("\nSELECT\n") + 1 :]
    return View(name, " ".join(lines[:blank]), inherited | docs, widens, sql.strip(), duckdb_sql.strip())


_ALL_COLUMNS = re.compile(r"\b(\w+)\.\*")


def _select_list(table: Table, alias: str) -> str:
    """List each column by name: Athena rejects a view as stale if its declared columns differ from those of its SQL."""
    return ",\n  ".join(_selected(column, alias) for column in table.columns)


def _selected(column: Column, alias: str) -> str:
    if not column.added or not column.path:
        return f"{alias}.{column.name}"
    rest = f"JSON_EXTRACT_SCALAR({alias}.context, '$.{column.path.removeprefix('context.')}')"
    if column.type != "string":
        rest = f"TRY_CAST({rest} AS {_SQL_TYPES[column.type]})"
    return f"COALESCE({alias}.{column.name}, {rest}) AS {column.name}"


_SQL_TYPES: dict[ColumnType, str] = {"int": "INTEGER", "long": "BIGINT", "timestamp": "TIMESTAMP(6)"}
