"""The views stay in the SQL that Trino and DuckDB read alike.

sqlglot only parses here. What it would translate is exactly what must not be there.
"""

from __future__ import annotations

import pytest
import sqlglot
from sqlglot import exp

from manymetrics_insights.views import VIEW_NAMES, View, read_views

FUNCTIONS = {
    "AND",
    "ARG_MAX",  # max_by
    "ARRAY",  # array[...]
    "ARRAY_AGG",
    "ARRAY_TO_STRING",  # array_join: a macro of ours, like the others of Trino's names
    "CASE",
    "CAST",
    "COALESCE",
    "COUNT",
    "CURRENT_TIMESTAMP",
    "ELEMENT_AT",  # a macro
    "IF",  # a branch of CASE
    "JSON_EXTRACT_SCALAR",  # in DuckDB a macro of ours, with Trino's answers
    "JSON_FORMAT",  # a macro
    "LEAST",
    "LENGTH",
    "MAP_AGG",  # a macro
    "MAP_KEYS",
    "MAX",
    "MIN",
    "OR",
    "PARSE_JSON",  # json_parse: a macro
    "ROUND",
    "ROW",
    "STRUCT",  # row(...)
    "SUBSTRING",
    "SUM",
    "TO_UNIXTIME",
    "TIME_TO_UNIX",
    "TRY",
    "TRY_CAST",
    "UNNEST",
}
NOT_PORTABLE = (
    exp.Qualify,
    exp.JSONExtract,
    exp.IntDiv,
    exp.DateDiff,
    exp.Lambda,
    exp.Bracket,
    exp.Distinct,
)


def faults(sql: str) -> list[str]:
    """What of ``sql`` one of the two engines reads otherwise, or not at all."""
    found: list[str] = []
    for dialect in ("trino", "duckdb"):
        try:
            tree = sqlglot.parse_one(sql, dialect=dialect)
        except sqlglot.ParseError as error:
            found.append(f"{dialect}: {error}")
            continue
        found += [f"{dialect}: {fault}" for node in tree.walk() if (fault := fault_of(node))]
    return found + [f"text: {token}" for token in ("::", "->>", " ASOF ", "TIMESTAMP '") if token in sql.upper()]


def fault_of(node: exp.Expr) -> str | None:
    if isinstance(node, exp.Distinct) and isinstance(node.parent, exp.Count):
        return None
    if isinstance(node, exp.JSONExtract) and node.expression == exp.JSONPath(expressions=[exp.JSONPathRoot()]):
        return None  # of a text: itself as JSON; DuckDB raises an error where it is none
    if isinstance(node, exp.Bracket) and node.args.get("safe"):
        return None  # element_at
    if isinstance(node, NOT_PORTABLE):
        return type(node).__name__
    if isinstance(node, exp.Func) and name_of(node) not in FUNCTIONS:
        return name_of(node)
    if isinstance(node, exp.Div) and not all(is_double(side) for side in (node.left, node.right)):
        return "division of what is not CAST(... AS double)"
    return None


def name_of(function: exp.Func) -> str:
    return function.name.upper() if isinstance(function, exp.Anonymous) else function.sql_name()


def is_double(side: exp.Expr) -> bool:
    return isinstance(side, exp.Cast) and side.to.this == exp.DataType.Type.DOUBLE


@pytest.mark.parametrize("view", read_views(), ids=VIEW_NAMES)
def test_a_view_is_read_alike_by_trino_and_duckdb(view: View) -> None:
    assert faults(view.sql) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM t QUALIFY ROW_NUMBER() OVER (ORDER BY a) = 1",
        "SELECT a::varchar FROM t",
        "SELECT a ->> '$.b' FROM t",
        "SELECT a -> '$.b' FROM t",
        "SELECT JSON_EXTRACT(a, '$.b') FROM t",
        "SELECT 1 / 2",
        "SELECT CAST(a AS double) / b FROM t",
        "SELECT a // b FROM t",
        "SELECT DATE_DIFF('hour', a, b) FROM t",
        "SELECT TIMESTAMP '2026-01-01 00:00:00 UTC'",
        "SELECT APPROX_DISTINCT(a) FROM t",
        "SELECT LIST_SORT(a) FROM t",
        "SELECT a[1] FROM t",
        "SELECT DISTINCT ON (a) a FROM t",
        "SELECT * FROM t ASOF JOIN u USING (a)",
        "SELECT FORMAT_DATETIME(a, 'yyyy') FROM t",
        "SELECT FROM WHERE",
    ],
)
def test_what_one_engine_reads_otherwise_is_found(sql: str) -> None:
    assert faults(sql) != []
