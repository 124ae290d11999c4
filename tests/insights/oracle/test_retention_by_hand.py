from __future__ import annotations

import pytest

from tests.insights.oracle.by_hand import ask, at, column, event, page

ANY = {"any": True}
A, B = {"event": "A"}, {"event": "B"}


def test_calendar_periods_are_local_days() -> None:
    rows = [event("A", "1 23:00"), event("B", "2 01:00"), event("B", "3 22:59")]

    found = ask("retention", rows, born=A, return_=B, periods=2)

    assert column(found, "cohort", "size", "n", "returned", "rate", "mature") == [
        ("2026-03-01", 1, 0, 0, 0.0, True),
        ("2026-03-01", 1, 1, 1, 1.0, True),
        ("2026-03-01", 1, 2, 1, 1.0, True),
    ]


def test_rolling_periods_are_24_hours_from_the_born_instant() -> None:
    rows = [event("A", "1 23:00"), event("B", "2 22:59:59.999999"), event("B", "3 23:00")]

    found = ask("retention", rows, born=A, return_=B, periods=2, period="rolling")

    assert column(found, "returned") == [1, 0, 1]


def test_a_day_of_25_hours_is_one_period_of_the_calendar() -> None:
    rows = [event("A", "1"), event("B", "1")]
    for row, time in zip(rows, ("238 23:30", "240 00:30"), strict=True):  # 24 October 23:30Z, 26 October 00:30Z
        row |= {"event_time": at(time), "received_at": at(time)}

    asked = {"born": A, "return_": B, "periods": 1, "start_at": "2026-10-25", "to": "2026-10-26"}
    found = ask("retention", rows, zone="Europe/London", complete_through=at("300"), **asked)

    assert column(found, "cohort", "returned") == [("2026-10-25", 0), ("2026-10-25", 1)]


@pytest.mark.parametrize(
    ("when", "expected"), [("on", [0, 1, 0, 1]), ("on_or_after", [1, 1, 1, 1]), ("on_or_before", [0, 1, 1, 1])]
)
def test_when(when: str, expected: list[int]) -> None:
    rows = [event("A", "1"), event("B", "2"), event("B", "4")]

    assert column(ask("retention", rows, born=A, return_=B, periods=3, when=when), "returned") == expected


def test_brackets_are_named_by_their_lower_edge() -> None:
    rows = [event("A", "1"), event("B", "3"), event("B", "4")]
    asked = {"born": A, "return_": B, "brackets": [[0, 0], [1, 3], [4, 5]]}

    assert column(ask("retention", rows, **asked), "n", "returned") == [(0, 0), (1, 1), (4, 0)]
    assert column(ask("retention", rows, min_times=2, **asked), "returned") == [0, 1, 0]
    assert column(ask("retention", rows, complete_through=at("4"), **asked), "mature") == [True, False, False]


def test_the_born_row_is_a_return_itself() -> None:
    found = ask("retention", [event("A", "1")], born=A, return_=A, periods=0)

    assert column(found, "rate") == [1.0]


def test_what_came_before_the_born_row_is_no_return() -> None:
    rows = [event("B", "1 09:00"), event("A", "1 10:00")]

    assert column(ask("retention", rows, born=A, return_=B, periods=0), "returned") == [0]


@pytest.mark.parametrize(
    ("born_is", "cohorts"),
    [("in_range", ["2026-03-02"]), ("ever", []), ("recurring", ["2026-03-02", "2026-03-03"])],
)
def test_born(born_is: str, cohorts: list[str]) -> None:
    rows = [event("A", "0"), event("A", "2 05:00"), event("A", "2 04:00"), event("A", "3")]

    found = ask("retention", rows, born=A, return_=ANY, born_is=born_is, periods=0)

    assert column(found, "cohort") == cohorts


def test_a_cell_is_null_until_its_period_is_over_for_the_whole_cohort() -> None:
    rows = [event("A", "1 05:00"), event("A", "1 06:00", "bob")]
    asked = {"born": A, "return_": ANY, "periods": 0}

    calendar = ask("retention", rows, complete_through=at("2"), **asked)
    rolling = ask("retention", rows, complete_through=at("2 05:59:59"), period="rolling", **asked)
    over = ask("retention", rows, complete_through=at("2 06:00"), period="rolling", **asked)

    assert column(calendar, "returned", "mature") == [(2, True)]
    assert column(rolling, "returned", "rate", "mature") == [(None, None, False)]
    assert column(over, "returned", "mature") == [(2, True)]


def test_the_mean_is_weighted_by_the_mature_cohorts() -> None:
    rows = [event("A", "1", name) for name in "abc"] + [
        event("A", "2", "d"),
        event("B", "2", "a"),
        event("B", "3", "d"),
    ]

    found = ask("retention", rows, born=A, return_=B, periods=1, mean="weighted", complete_through=at("3"))

    assert column(found[4:], "cohort", "size", "n", "returned", "rate", "mature") == [
        ("(mean)", 4, 0, 0, 0.0, True),
        ("(mean)", 3, 1, 1, 0.333333333333, True),
    ]


def test_the_breakdown_is_the_born_rows() -> None:
    rows = [event("A", "1", properties={"plan": "x"}), event("A", "2", properties={"plan": "y"})]

    found = ask("retention", rows, born=A, return_=ANY, periods=1, by=[{"property": ["plan"]}])

    assert column(found, "segment", "returned") == [("x", 1), ("x", 1)]


def test_months_of_the_calendar() -> None:
    rows = [event("A", "31"), page("/", "32")]

    found = ask("retention", rows, born=A, return_=ANY, interval="month", periods=1)

    assert column(found, "cohort", "returned") == [("2026-03-01", 1), ("2026-03-01", 1)]


def test_lifecycle() -> None:
    rows = [event("A", "2"), event("A", "3"), event("A", "5"), event("B", "-5"), event("A", "2", "bob")]

    found = ask("lifecycle", rows, event=A, interval="day", start_at="2026-03-02", to="2026-03-06")

    assert [list(row.values())[1:6] for row in found] == [
        [2, 0, 0, 0, 2],
        [0, 1, 0, 1, 1],
        [0, 0, 0, 1, 0],
        [0, 0, 1, 0, 1],
    ]
    created = ask("lifecycle", rows, event=A, interval="day", new="created", start_at="2026-03-02", to="2026-03-03")
    assert [list(row.values())[1:6] for row in created] == [[1, 0, 1, 0, 2]]


def test_lifecycle_widens_its_buckets() -> None:
    found = ask("lifecycle", [event("A", "2")], start_at="2026-03-05", to="2026-03-06")

    assert column(found, "bucket", "new") == [("2026-03-02", 1)]


def test_stickiness_counts_local_days() -> None:
    rows = [event("A", "1"), event("A", "1 23:00"), event("A", "3"), event("A", "1", "bob")]

    found = ask("stickiness", rows, to="2026-03-04")

    assert column(found, "days", "persons") == [(1, 1), (2, 1), (3, 0)]
