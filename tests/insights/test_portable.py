"""The SQL that the docs promise for both engines, on DuckDB; tests/trino runs the same on Trino."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta

import pytest

from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import open_session
from manymetrics_insights.views.portable import PATTERNS, note_what_only_duckdb_takes
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from tests.conftest import ROOT
from tests.insights.portable_events import portable_records
from tests.insights.test_query import Query
from tests.integration.micro_batches import STREAM, make_lake

VITALS = re.findall(r"```sql\n(.*?)```", (ROOT / "sdk-js" / "docs" / "web-vitals.md").read_text(), re.DOTALL)
Answers = Callable[[str], list[tuple[object, ...]]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    folder = tmp_path_factory.mktemp("portable") / "data"
    pipeline.run(portable_records(1), STREAM, make_lake(folder), Window())
    connection = open_session(Folder(folder)).connection
    return lambda sql: connection.execute(sql).fetchall()


def test_items_of_an_array_are_counted_and_what_is_no_array_has_none(answers: Answers) -> None:
    items, *_ = PATTERNS.values()

    assert answers(items) == [
        ("DE", "cup", 1),
        ("DE", "größe", 3),
        ("UK", "cup", 1),
        ("UK", "tea", 4),
        ("UK", None, None),
        (None, "cup", 1),
    ]


def test_dates_are_texts_days_are_added_and_the_last_event_of_each_user_is_found(answers: Answers) -> None:
    _, texts, days, last = PATTERNS.values()
    [(today,)] = answers("SELECT MAX(CAST(event_time AS DATE)) FROM events")
    assert isinstance(today, date)

    assert [row[0] for row in answers(texts)] == sorted(str(row[0]) for row in answers(texts))
    assert (f"{today}", f"{today:%Y-%m}") in [row[:2] for row in answers(texts)]
    assert {row[2] for row in answers(texts)} <= {f"{hour:02}" for hour in range(24)}
    assert today + timedelta(7) in [row[1] for row in answers(days)]
    assert {row[3] for row in answers(days)} >= {0, 1, 2}
    assert [row[0] for row in answers(last)] == ["u-0", "u-1", "u-2"]


def test_the_web_vitals_of_the_docs_count_the_last_report_of_a_load(answers: Answers) -> None:
    [sql] = VITALS

    assert answers(sql) == [("/a", 4, 900.0), ("/b", 1, 70.5)]


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("SELECT event_time::date FROM events", "::"),
        ("SELECT properties->>'$.plan' FROM events", "->>"),
        ("SELECT user_id FROM events qualify row_number() OVER (PARTITION BY user_id) = 1", "QUALIFY"),
        ("SELECT event, COUNT(*) FROM events GROUP BY ALL", "GROUP BY ALL"),
        ("SELECT 7 / 2", "/ of whole numbers"),
        ("SELECT count(user_id)/COUNT(*) FROM events", "/ of whole numbers"),
    ],
)
def test_what_athena_takes_otherwise_is_answered_with_one_note(query: Query, sql: str, named: str) -> None:
    status, _, error = query(sql, "-o", "csv")

    assert status == 0
    assert error.startswith(f"note: not the same on Athena: {named} (write ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "sql",
    [
        *PATTERNS.values(),
        *VITALS,
        "SELECT 'a::b', 'it''s 7/2 ->> x' AS \"QUALIFY\" -- ::\n/* 7 / 2 */ FROM events",
        "SELECT CAST(COUNT(user_id) AS DOUBLE) / COUNT(*), 1.5/2, 1.0 * 3 / 2, 3 / 2.0, received_at FROM events",
    ],
)
def test_what_both_engines_take_brings_no_note(sql: str, capsys: pytest.CaptureFixture[str]) -> None:
    note_what_only_duckdb_takes(sql)

    assert capsys.readouterr().err == ""
