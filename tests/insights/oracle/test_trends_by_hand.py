from __future__ import annotations

from decimal import Decimal

import pytest

from tests.insights.oracle.by_hand import ask, at, column, event
from tests.insights.oracle.people import Row

NUMBERS = ("0.1", "0.2", "10", '"3"', "null", '"x"')


def value_of(rows: list[Row], **series: object) -> object:
    return column(ask("trends", rows, series=[{"event": "A"} | series], interval="month"), "value")[0]


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("sum", Decimal("13.3")),
        ("average", 3.325),
        ("median", Decimal("0.2")),
        ("p90", Decimal(10)),
        ("min", Decimal("0.1")),
        ("max", Decimal(10)),
        ("distinct", 5),
    ],
)
def test_measures_of_a_property(measure: str, expected: object) -> None:
    rows = [event("A", "1", properties=f'{{"x": {number}}}') for number in NUMBERS]

    assert value_of(rows, measure=measure, property=["x"]) == expected


@pytest.mark.parametrize(
    ("measure", "expected"),
    [("sum", 0), ("average", None), ("median", None), ("min", None), ("distinct", 0)],
)
def test_empty_buckets_are_0_for_counts_and_sums_and_null_otherwise(measure: str, expected: object) -> None:
    assert value_of([], measure=measure, property=["x"]) == expected


def test_events_of_no_persons_per_person_are_null() -> None:
    assert value_of([], measure="events_per_person") is None


def test_percentiles_by_nearest_rank() -> None:
    rows = [event("A", "1", properties={"x": n}) for n in range(1, 11)]

    assert value_of(rows, measure="median", property=["x"]) == 5
    assert value_of(rows, measure="p90", property=["x"]) == 9


def test_events_of_nobody_are_events_but_no_persons() -> None:
    nobody = event("A", "1", "undefined", anonymous_id=None, repairs="user_id_placeholder")
    rows = [nobody, event("A", "1"), event("A", "1"), event("A", "1", "bob")]

    assert value_of(rows) == 4
    assert value_of(rows, measure="persons") == 2
    assert value_of(rows, measure="events_per_person") == 1.5


def test_sessions_are_those_with_a_matching_event() -> None:
    rows = [event("A", "1 10:00"), event("A", "1 10:30"), event("B", "1 11:00"), event("A", "1 11:30:00.000001")]
    server_side = event("A", "1", anonymous_id=None)

    assert value_of([*rows, server_side], measure="sessions") == 2


def test_first_ever_looks_at_all_time() -> None:
    rows = [event("A", "0", "bob"), event("A", "5", "bob"), event("A", "5"), event("A", "6"), event("B", "1")]

    found = ask(
        "trends", rows, series=[{"event": "A", "measure": "first_ever"}], start_at="2026-03-05", to="2026-03-07"
    )

    assert column(found, "value") == [1, 0]


def test_active_persons_of_trailing_days_count_what_came_before_the_range() -> None:
    rows = [event("A", "1"), event("A", "7 23:59:59.999999", "bob"), event("A", "8")]
    series = [{"any": True, "measure": "active", "trailing": 7}]

    found = ask("trends", rows, series=series, start_at="2026-03-06", to="2026-03-10")

    assert column(found, "value") == [1, 2, 2, 2]


def test_formulas_divide_by_zero_to_null() -> None:
    rows = [event("A", "1"), event("A", "1"), event("A", "2"), event("B", "1"), event("B", "1"), event("B", "1")]
    series = [{"event": "A"}, {"event": "B"}]

    found = ask("trends", rows, series=series, formulas=["A / B"], to="2026-03-03")

    assert column(found[4:], "series", "value") == [("A / B", 0.666666666667), ("A / B", None)]


def test_cumulative_persons_are_distinct_so_far() -> None:
    rows = [event("A", "1"), event("A", "2"), event("A", "2", "bob")]
    asked = {"cumulative": True, "to": "2026-03-04"}

    assert column(ask("trends", rows, series=[{"event": "A", "measure": "persons"}], **asked), "value") == [1, 2, 2]
    assert column(ask("trends", rows, series=[{"event": "A"}], **asked), "value") == [1, 3, 3]


def test_moving_averages_begin_with_what_there_is() -> None:
    rows = [event("A", "1"), event("A", "2"), event("A", "2"), event("A", "2")]

    found = ask("trends", rows, series=[{"event": "A"}], moving=2, to="2026-03-04")

    assert column(found, "value") == [1.0, 2.0, 1.5]


def test_compare_puts_the_previous_buckets_under_the_current_ones_by_number() -> None:
    rows = [event("A", "1"), event("A", "3"), event("A", "3"), event("A", "4")]

    found = ask("trends", rows, series=[{"event": "A"}], compare="previous", start_at="2026-03-03", to="2026-03-05")

    assert column(found, "series", "bucket", "value") == [
        ("A", "2026-03-03", 2),
        ("A", "2026-03-04", 1),
        ("A (previous)", "2026-03-03", 1),
        ("A (previous)", "2026-03-04", 0),
    ]


def test_compare_with_the_year_before() -> None:
    rows = [event("A", "-364"), event("A", "1"), event("A", "1")]  # 2025-03-01

    found = ask("trends", rows, series=[{"event": "A"}], compare="year", to="2026-03-02", complete_through=at("1"))

    assert column(found, "value", "incomplete") == [(2, True), (1, False)]


def test_segments_of_all_series_are_the_first_ones() -> None:
    rows = [
        event("A", "1", properties={"plan": "pro"}),
        event("B", "1", properties={"plan": "free"}),
        event("B", "1", properties={"plan": "free"}),
    ]
    asked = {"interval": "month", "by": [{"property": ["plan"]}]}

    found = ask("trends", rows, series=[{"event": "A"}, {"event": "B"}], **asked)

    assert column(found, "series", "segment", "value") == [
        ("A", "pro", 1),
        ("A", "free", 0),
        ("B", "pro", 0),
        ("B", "free", 2),
    ]


def test_series_of_one_label_are_two_series() -> None:
    rows = [event("A", "1"), event("B", "1"), event("B", "1")]
    series = [{"event": "A", "label": "same"}, {"event": "B", "label": "same"}]

    assert column(ask("trends", rows, series=series, interval="month"), "series", "value") == [("same", 1), ("same", 2)]


def test_formulas_take_values_with_all_their_digits() -> None:
    rows = [event("A", "1", properties={"x": x}) for x in (1, 0, 0)]
    series = [{"event": "A", "measure": "average", "property": ["x"]}]

    found = ask("trends", rows, series=series, interval="month", formulas=["A * 3 - 1"])

    assert column(found, "value") == [0.333333333333, 0.0]
