"""Allow only SQL that reads: a single statement.

DuckDB's own parser decides, not a pattern over the text. Its configuration is locked as well (see ``session``), but
that is not enough: files that may be read may be written too, and ``WITH a AS (COPY ... TO ...)`` is a SELECT. So the
parts of a statement are compared with those known to only read, and anything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import duckdb
import msgspec

_READING_NODES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_READING_TABLE_FUNCTIONS: Final = frozenset(
    {
        "duckdb_columns",
        "duckdb_functions",
        "duckdb_keywords",
        "duckdb_settings",
        "duckdb_types",
        "duckdb_views",
        "generate_series",
        "histogram",
        "json_each",
        "json_tree",
        "pg_timezone_names",
        "pragma_version",
        "range",
        "repeat",
        "summary",
        "unnest",
    }
)
_EXPLAIN: Final = re.compile(r"\s*explain(\s+analyze|\s*\([\w\s,]*\))?\s", re.IGNORECASE)
_NOTHING_ELSE: Final = "queries can only read the tables and views."
_CURE: Final = "Only statements that read are allowed: SELECT, WITH, VALUES, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN."


class RefusedSqlError(ValueError):
    """Not a single statement that only reads. The message, one line, names what is allowed."""


def reading_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """Return the single statement in ``sql``, without its semicolon. Leaves syntax errors to DuckDB."""
    statements = connection.extract_statements(sql)
    if not statements:
        raise RefusedSqlError("No statement found: give one, such as SELECT COUNT(*) FROM events.")
    if len(statements) != 1:
        raise RefusedSqlError(f"Only one statement is allowed, found {len(statements)}.")
    statement = statements[0]
    text = statement.query.rstrip().removesuffix(";")
    if statement.type == duckdb.StatementType.EXPLAIN:
        _check_reads(connection, _explained(text))
    elif statement.type == duckdb.StatementType.SELECT:
        _check_reads(connection, text)
    else:
        raise RefusedSqlError(_CURE)
    return text


def _explained(text: str) -> str:
    prefix = _EXPLAIN.match(text)
    if prefix is None:
        raise RefusedSqlError("EXPLAIN must come first, and its statement right after it.")
    return text[prefix.end() :]


def _check_reads(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    row = connection.execute("SELECT json_serialize_sql(?)", [statement]).fetchone()
    tree = msgspec.json.decode(row[0]) if row else {}
    if tree.get("error", True):
        raise RefusedSqlError(_CURE)
    for part in _parts(tree):
        kind = part.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _READING_NODES:
            raise RefusedSqlError(_CURE)
        if kind == "TABLE_FUNCTION":
            _check_table_function(part)
        if kind == "BASE_TABLE" and "/" in str(part.get("table_name")):  # DuckDB would read it as a file
            raise RefusedSqlError(f"{part['table_name']} can't be read: {_NOTHING_ELSE}")


def _check_table_function(part: dict[str, object]) -> None:
    function = part.get("function")
    name = function.get("function_name") if isinstance(function, dict) else None
    if name not in _READING_TABLE_FUNCTIONS:
        raise RefusedSqlError(f"{name}() is not allowed: {_NOTHING_ELSE}")


def _parts(tree: object) -> Iterator[dict[str, object]]:
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
