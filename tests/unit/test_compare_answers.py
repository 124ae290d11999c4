"""Two answers are equal byte for byte, or it is said which cells differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from manymetrics_insights.asking.compare import KEYS, AnswerError, Change, changes, is_same, read_answer, receipt_of

COLUMNS = ["series", "segment", "bucket", "value", "incomplete"]


def answer(*rows: Sequence[object], sql: str = "SELECT 1", **question: object) -> dict[str, Any]:
    asked = {"insight": "trends", **question}
    return read_answer(json.dumps({"question": asked, "sql": sql, "columns": COLUMNS, "rows": rows, "ms": 1}))


def read(value: str) -> dict[str, Any]:
    """An answer of one cell, as it is written."""
    rows = f'[["A", null, "2026-03-01", {value}, false]]'
    return read_answer(
        f'{{"question": {{"insight": "trends"}}, "sql": "", "columns": {json.dumps(COLUMNS)}, "rows": {rows}}}'
    )


def test_the_same_answer_is_the_same_however_long_it_took() -> None:
    row = ["A", None, "2026-03-01", 1, False]

    assert is_same(answer(row), answer(row) | {"ms": 7, "notes": ["x"]})
    assert list(changes(answer(row), answer(row))) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("0.1", "0.10"),
        ("1", "1.0"),
        ("1", '"1"'),
        ("0.5", '"0.5"'),
        ("null", "0"),
        ('"é"', '"e"'),
        ("9007199254740993", "9007199254740992"),
    ],
)
def test_numbers_and_texts_are_equal_only_as_they_are_written(before: str, after: str) -> None:
    assert is_same(read(before), read(before))
    assert not is_same(read(before), read(after))
    assert [change.column for change in changes(read(before), read(after))] == ["value"]


def test_another_sql_or_order_is_not_the_same() -> None:
    first, second = ["A", None, "2026-03-01", 1, False], ["A", None, "2026-03-02", 2, False]

    assert not is_same(answer(first), answer(first, sql="SELECT 2"))
    assert not is_same(answer(first, second), answer(second, first))
    assert list(changes(answer(first, second), answer(second, first))) == []


def test_cells_that_moved_are_named_by_their_row() -> None:
    before = answer(["A", "DE", "2026-03-01", 1, True], ["A", "FR", "2026-03-01", 5, False])
    after = answer(["A", "DE", "2026-03-01", 2, False], ["A", "AT", "2026-03-01", 7, False])

    key = {"series": "A", "segment": "DE", "bucket": "2026-03-01"}
    assert list(changes(before, after)) == [
        Change(key, "value", 1, 2),
        Change(key, column="incomplete", before=True, after=False),
        Change(key | {"segment": "FR"}, None, dict(zip(COLUMNS, before["rows"][1], strict=True)), None),
        Change(key | {"segment": "AT"}, None, None, dict(zip(COLUMNS, after["rows"][1], strict=True))),
    ]


def test_two_series_of_one_name_are_two_rows() -> None:
    first, second = ["A", None, "2026-03-01", 1, False], ["A", None, "2026-03-01", 2, False]

    assert [change.after for change in changes(answer(first, second), answer(first, [*second[:3], 3, False]))] == [3]


def test_sessions_in_detail_are_named_by_person_and_start() -> None:
    columns = ["person_id", "person_kind", "start", "pages"]
    one, other = (
        {
            "question": {"insight": "sessions", "detail": True},
            "columns": columns,
            "rows": [["u1", "user", "2026-03-01T00:00:00Z", pages]],
            "sql": "",
        }
        for pages in (1, 2)
    )

    assert list(changes(one, other)) == [
        Change({"person_id": "u1", "person_kind": "user", "start": "2026-03-01T00:00:00Z"}, "pages", 1, 2)
    ]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "1", '{"question": {}, "sql": "", "columns": [], "rows": []}', '{"insight": "trends"}']
)
def test_what_is_no_answer_is_refused(text: str) -> None:
    with pytest.raises(AnswerError):
        read_answer(text)


@pytest.mark.parametrize(
    ("snapshot", "through", "receipt"),
    [
        ("402908661594759898", "2026-03-01T12:00:00.000001Z", (402908661594759898, datetime(2026, 3, 1, 12, 0, 0, 1))),
        (None, None, (None, None)),
    ],
)
def test_the_receipt_is_read(snapshot: object, through: object, receipt: object) -> None:
    assert receipt_of(answer() | {"snapshot": snapshot, "complete_through": through}) == receipt


@pytest.mark.parametrize("broken", [{"snapshot": "newest"}, {"complete_through": "noon"}, {"complete_through": 3}])
def test_a_receipt_that_cannot_be_read_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(AnswerError):
        receipt_of(answer() | broken)


def test_each_insight_has_columns_that_name_its_rows() -> None:
    assert set(KEYS) == {
        *("trends", "funnel", "retention", "lifecycle", "stickiness", "sessions", "paths", "persons", "timeline")
    }
