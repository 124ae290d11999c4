"""The SQL of questions stays in the subset that DuckDB and Trino share: both grammars, known functions, no trap.

Traps: a division of whole numbers (Trino truncates), DATE_DIFF on timestamps (DuckDB counts borders), times with a
zone (naive ones mean opposite things), QUALIFY, ``::``, ``->>``, ASOF, and approximate functions.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import pytest
import sqlglot
from sqlglot import exp

from manymetrics_insights.questions.models import parse_question
from manymetrics_insights.sql.render import render
from manymetrics_insights.sql.scope import Scope
from tests.insights.oracle.questions import make_questions
from tests.insights.oracle.worlds import make_world

FUNCTIONS = frozenset(
    [
        "abs",
        "and",
        "array",
        "avg",
        "case",
        "cast",
        "chr",
        "coalesce",
        "concat",
        "count",
        "date_diff",
        "date_trunc",
        "dense_rank",
        "first_value",
        "json_extract",
        "json_extract_scalar",
        "json_format",
        "json_parse",
        "lag",
        "lead",
        "least",
        "length",
        "lower",
        "ltrim",
        "max",
        "max_by",
        "min",
        "min_by",
        "mod",
        "not",
        "nullif",
        "or",
        "regexp_like",
        "regexp_replace",
        "replace",
        "round",
        "row",
        "row_number",
        "split_part",
        "starts_with",
        "strpos",
        "substr",
        "sum",
        "to_unixtime",
        "try",
        "try_cast",
    ]
)
_WORDS_BEFORE_A_PARENTHESIS = frozenset(
    [
        "and",
        "as",
        "by",
        "decimal",
        "exists",
        "filter",
        "from",
        "in",
        "interval",
        "join",
        "not",
        "on",
        "or",
        "over",
        "select",
        "then",
        "timestamp",
        "union",
        "values",
        "when",
        "where",
        "case",
        "else",
        "end",
        "having",
        "all",
        "varchar",
    ]
)
_FORBIDDEN = re.compile(
    r"::|->|\bQUALIFY\b|\bASOF\b|\bAPPROX|AT TIME ZONE|WITH TIME ZONE|\bGROUP BY ALL\b", re.IGNORECASE
)
_TEXT = re.compile(r"'(?:[^']|'')*'")
_CALL = re.compile(r"\b([A-Za-z_]\w*)\s*\(")


def statements(first: int, count: int) -> list[tuple[dict[str, Any], str]]:
    found = []
    for seed in range(first, first + count):
        world = make_world(seed)
        for question in make_questions(seed, world):
            scope = Scope(f"w{seed}", world.complete_through, world.complete_through)
            rendered = render(parse_question(question), scope)
            found += [(question, sql) for sql in (rendered.sql, rendered.ignored) if sql is not None]
    return found


@pytest.mark.parametrize("first", [0, 2])
def test_statements_are_in_the_common_subset(first: int) -> None:
    for question, sql in statements(first, 2):
        assert traps(sql) == [], question


@pytest.mark.parametrize("dialect", ["trino", "duckdb"])
def test_statements_parse_in_both_grammars(dialect: str) -> None:
    for question, sql in statements(4, 1):
        trees = sqlglot.parse(sql, dialect=dialect)
        assert len(trees) == 1, question
        assert isinstance(trees[0], exp.Select), question


@pytest.mark.parametrize(
    ("sql", "trap"),
    [
        ("SELECT 1 / 2", "/ without a double"),
        ("SELECT COUNT(*) / COUNT(x) FROM t", "/ without a double"),
        ("SELECT x::DATE FROM t", "::"),
        ("SELECT APPROX_DISTINCT(x) FROM t", "APPROX"),
        ("SELECT EPOCH(x) FROM t", "epoch()"),
        ("SELECT DATE_DIFF('day', event_time, received_at) FROM t", "DATE_DIFF of what is no date"),
        ("SELECT TIMESTAMP '2026-01-01 00:00:00 UTC'", "a literal with a zone"),
    ],
)
def test_a_trap_is_found(sql: str, trap: str) -> None:
    assert traps(sql) == [trap]


def test_values_stay_values() -> None:
    hostile = "x' OR 1=1; DROP TABLE events -- \\ \0 \" /* */ 🙂"
    question = parse_question(
        {"insight": "trends", "series": [{"event": hostile, "where": [{"property": [hostile], "is": hostile}]}]}
    )

    sql = render(question, Scope(hostile, datetime(2026, 1, 1), datetime(2026, 1, 1))).sql

    [tree] = sqlglot.parse(sql, dialect="trino")
    assert isinstance(tree, exp.Select)
    assert not list(tree.find_all(exp.Drop))
    assert "\0" not in sql


def traps(sql: str) -> list[str]:
    """Everything in a statement that an engine lacks, or reads in another way."""
    code = _TEXT.sub("''", sql)
    found = [match[0] for match in [_FORBIDDEN.search(code)] if match]
    called = {name.lower() for name in _CALL.findall(code)} - _WORDS_BEFORE_A_PARENTHESIS
    names = {name.lower() for name in re.findall(r"(\w+) AS \(", code)} | {"constant_rows"}
    if not found:
        found += [f"{name}()" for name in sorted(called - FUNCTIONS - names)]
    if re.search(r"TIMESTAMP '[^']*[A-Za-z][^']*'|TIMESTAMP '[^']*[+][0-9:]+'", sql):
        found.append("a literal with a zone")
    tree = sqlglot.parse_one(sql, dialect="trino")
    for division in tree.find_all(exp.Div):
        if not (_is_double(division.this) or _is_double(division.expression)):
            found.append("/ without a double")
    for call in tree.find_all(exp.DateDiff):
        if not any(_is_date(part) for part in (call.this, call.expression)):
            found.append("DATE_DIFF of what is no date")
    return found


def _is_double(part: exp.Expression) -> bool:
    while isinstance(part, exp.Paren | exp.Nullif):
        part = part.this
    if isinstance(part, exp.Div | exp.Mul | exp.Add | exp.Sub):
        return _is_double(part.this) or _is_double(part.expression)
    if isinstance(part, exp.Column):
        return part.name == "average_us"  # of doubles
    return isinstance(part, exp.Cast) and part.to.is_type("double")


def _is_date(part: exp.Expression) -> bool:
    return (isinstance(part, exp.Cast) and part.to.is_type("date")) or isinstance(part, exp.DateStrToDate)
