from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest

from tests.insights.oracle import values, zones
from tests.insights.oracle.by_hand import ask, at, column, event, page
from tests.insights.oracle.ground import satisfies
from tests.insights.oracle.oracle import ignored
from tests.insights.oracle.people import Row, find_persons


def count(rows: list[Row], matcher: dict[str, object], **options: object) -> object:
    """How many events of March match."""
    found = ask("trends", rows, series=[matcher], interval="month", **options)
    return column(found, "value")[0]


def test_a_local_day_has_one_bucket_whatever_its_hours() -> None:
    london, cairo = "Europe/London", "Africa/Cairo"

    assert zones.start_of_day(date(2026, 3, 30), london) == datetime(2026, 3, 29, 23)
    assert zones.start_of_day(date(2026, 4, 24), cairo) == datetime(2026, 4, 23, 22)
    assert zones.local_day(datetime(2026, 4, 23, 21, 59), cairo) == date(2026, 4, 23)
    assert zones.start_of_day(date(2026, 10, 30), cairo) == datetime(2026, 10, 29, 22)
    assert len(zones.buckets(date(2026, 10, 25), date(2026, 10, 26), "hour", london, "monday")) == 25
    assert len(zones.buckets(date(2026, 3, 29), date(2026, 3, 30), "hour", london, "monday")) == 23


def test_an_hour_starts_where_the_local_clock_says() -> None:
    assert zones.bucket_of(datetime(2026, 3, 1, 10, 20), "hour", "Asia/Kathmandu", "monday") == datetime(
        2026, 3, 1, 10, 15
    )


def test_a_week_is_named_by_its_first_day() -> None:
    sunday = datetime(2026, 3, 1)

    assert zones.bucket_of(sunday, "week", "UTC", "monday") == date(2026, 2, 23)
    assert zones.bucket_of(sunday, "week", "UTC", "sunday") == date(2026, 3, 1)
    for month, quarter in ((1, 1), (3, 1), (4, 4), (12, 10)):
        assert zones.bucket_of(datetime(2026, month, 28), "quarter", "UTC", "monday") == date(2026, quarter, 1)
    assert zones.after(date(2026, 10, 1), "quarter") == date(2027, 1, 1)
    assert zones.after(datetime(2026, 10, 1), "hour") == datetime(2026, 10, 1, 1)


def test_durations() -> None:
    assert [zones.duration(text) for text in ("90s", "30m", "24h", "7d")] == [
        timedelta(seconds=90),
        timedelta(minutes=30),
        timedelta(days=1),
        timedelta(days=7),
    ]


def test_the_range_is_half_open_in_local_days() -> None:
    rows = [event("A", "1"), event("A", "2"), event("A", "2 23:59:59.999999"), event("A", "3")]

    found = ask("trends", rows, series=[{"event": "A"}], start_at="2026-03-02", to="2026-03-03")

    assert column(found, "bucket", "value") == [("2026-03-02", 2)]


def test_a_bucket_is_incomplete_until_complete_through_reaches_its_end() -> None:
    asked = {"series": [{"event": "A"}], "start_at": "2026-03-01", "to": "2026-03-03"}

    assert column(ask("trends", [], complete_through=at("2"), **asked), "incomplete") == [False, True]
    assert column(ask("trends", [], complete_through=at("3"), **asked), "incomplete") == [False, False]


def test_a_month_is_incomplete_to_its_own_end_not_that_of_the_range() -> None:
    found = ask("trends", [], series=[{"any": True}], interval="month", to="2026-03-02", complete_through=at("20"))

    assert column(found, "bucket", "incomplete") == [("2026-03-01", True)]


def test_what_the_page_tells_by_itself_is_not_active() -> None:
    told = [event(name, "1") for name in ("Page Left", "Web Vitals", "Error", "Dead Click")]
    active = [event("Element Clicked", "1"), event(None, "1"), page("/", "1"), event("Error", "1", type="screen")]
    others = [event(None, "1", type=kind) for kind in ("identify", "alias", "group")]

    assert count(told + active + others, {"any": True}) == 4


def test_matchers() -> None:
    rows = [event("A", "1"), event("B", "1"), page("/a", "1"), event("A", "1", type="page"), page("/a/", "1")]

    assert count(rows, {"event": "A"}) == 1
    assert count(rows, {"page": "/a"}) == 1
    assert count(rows, {"type": "page"}) == 3
    assert count(rows, {"any_of": [{"event": "B"}, {"page": "/a"}]}) == 2


@pytest.mark.parametrize(
    ("condition", "those_that_pass"),
    [
        ({"is": "3"}, {"3", "text 3"}),
        ({"is": 3}, {"3", "text 3"}),
        ({"is": True}, {"true", "text true"}),
        ({"is_not": "3"}, {"absent", "null", "true", "text true", "empty", "object", "array", "pro"}),
        ({"is_set": True}, {"3", "text 3", "true", "text true", "empty", "pro"}),
        ({"is_set": False}, {"absent", "null", "object", "array"}),
        ({"in": ["pro", 3]}, {"pro", "3", "text 3"}),
        ({"contains": "r"}, {"pro", "true", "text true"}),
        ({"starts_with": ""}, {"3", "text 3", "true", "text true", "empty", "pro"}),
        ({"ends_with": "O"}, set()),
        ({"matches": "^p.o$"}, {"pro"}),
        ({"matches": "r"}, {"pro", "true", "text true"}),
        ({"<": 4}, {"3", "text 3"}),
        ({">=": 3}, {"3", "text 3"}),
        ({">": 3}, set()),
        ({"between": [3, 3]}, {"3", "text 3"}),
    ],
)
def test_operators_are_true_or_false(condition: dict[str, object], those_that_pass: set[str]) -> None:
    raw = {
        "3": "3",
        "text 3": '"3"',
        "true": "true",
        "text true": '"true"',
        "empty": '""',
        "null": "null",
        "object": "{}",
        "array": "[3]",
        "pro": '"pro"',
    }
    rows = {name: event(name, "1", properties=f'{{"x": {value}}}') for name, value in raw.items()}
    rows["absent"] = event("absent", "1", properties='{"y": 1}')

    passed = {
        name
        for name, row in rows.items()
        if count([row], {"any": True, "where": [{"property": ["x"]} | condition]}) == 1
    }

    assert passed == those_that_pass


def test_all_any_and_not() -> None:
    rows = [event("A", "1", properties={"x": x, "y": y}) for x in (1, 2) for y in (1, 2)]
    x, y = {"property": ["x"], "is": 1}, {"property": ["y"], "is": 1}

    assert count(rows, {"event": "A", "where": [{"all": [x, y]}]}) == 1
    assert count(rows, {"event": "A", "where": [{"any": [x, y]}]}) == 3
    assert count(rows, {"event": "A", "where": [{"not": x}, y]}) == 1


def test_a_path_is_a_list_of_keys() -> None:
    text = '{"a.b": {"$c \\"d\\"": {"0": "deep"}}, "list": ["first"]}'
    rows = [event("A", "1", properties=text), event("A", "1", properties="{malformed")]

    assert count(rows, {"event": "A", "where": [{"property": ["a.b", '$c "d"', "0"], "is": "deep"}]}) == 1
    assert count(rows, {"event": "A", "where": [{"property": ["list", "0"], "is_set": True}]}) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", "3"),
        ("-0", "0"),
        ("1e3", "1000"),
        ("0.0000000005", "0.000000001"),
        ("-0.0000000005", "-0.000000001"),
        ("0.00000000049", "0"),
        ("100000000000000", "1e14"),
        ("1000000000000000", None),
        ("9007199254740993", None),
        ("-1e15", None),
        ("1e400", None),
        ("1e-400", "0"),
        ("1_000", None),
        ("NaN", None),
        (" 3 ", None),
        ("+3", None),
        ("03", None),
        (".5", None),
        ("5.", None),
        ("", None),
        ("0x10", None),
        ("true", None),
    ],
)
def test_numbers_are_those_of_jsons_grammar_below_1e15(text: str, expected: str | None) -> None:
    assert values.number(text) == (None if expected is None else Decimal(expected))


def test_ignored_counts_values_that_are_no_numbers() -> None:
    raw = ("1", '"2"', '"x"', "true", "null", "[1]", "1e15", "{}")
    rows = [event("A", "1", properties=f'{{"x": {value}}}') for value in raw]
    question = {
        "insight": "trends",
        "from": "2026-03-01",
        "to": "2026-03-02",
        "series": [{"event": "A", "measure": "sum", "property": ["x"]}],
    }

    assert ignored(question, rows, at("9")) == 3


def test_a_trait_is_the_latest_value_that_is_not_null() -> None:
    rows = [
        event(None, "1", type="identify", traits={"plan": "free", "n": 1}),
        event(None, "3", type="identify", traits={"plan": None}),
        event(None, "2", type="identify", traits={"plan": "pro"}),
        event(None, "4", type="identify", traits="malformed"),
        event(None, "5", type="group", traits={"plan": "group"}),
        event("A", "1"),
    ]

    assert count(rows, {"event": "A", "where": [{"trait": ["plan"], "is": "pro"}]}) == 1
    assert count(rows, {"event": "A", "where": [{"trait": ["n"], "is": 1}]}) == 1


def test_bots_are_left_out_unless_asked_for() -> None:
    rows = [event("A", "1"), event("A", "1", bot_kind="search"), event("A", "1", bot_kind="AI assistant")]

    assert [count(rows, {"event": "A"}, bots=bots) for bots in ("exclude", "include", "only")] == [1, 3, 2]


def test_persons() -> None:
    rows = [
        event("A", "1", None, anonymous_id="42"),
        event("A", "1", "42", anonymous_id=None),
        event("A", "1", "undefined", anonymous_id="null", repairs="user_id_placeholder,anonymous_id_placeholder"),
        event("A", "1", None, anonymous_id="shared"),
        event("A", "2", "bob", anonymous_id="shared"),
        event("A", "1", "old", anonymous_id="shared"),
        event(None, "3", "new", anonymous_id=None, type="alias", previous_id="old"),
    ]

    assert find_persons(rows) == [
        ("42", "anonymous"),
        ("42", "user"),
        None,
        ("bob", "user"),
        ("bob", "user"),
        ("new", "user"),
        ("new", "user"),
    ]
    assert count(rows, {"event": "A"}) == 6
    assert count(rows, {"event": "A", "measure": "persons"}) == 4


def test_aliases_are_followed_through_seven_and_cycles_of_four() -> None:
    chain = [event(None, "1", f"c{n + 1}", anonymous_id=None, type="alias", previous_id=f"c{n}") for n in range(7)]
    cycle = [
        event(None, "1", new, anonymous_id=None, type="alias", previous_id=old)
        for old, new in (("k2", "k3"), ("k3", "k4"), ("k4", "k1"), ("k1", "k2"))
    ]

    assert find_persons([*chain, event("A", "1", "c0")])[-1] == ("c7", "user")
    assert set(find_persons(cycle)) == {("k1", "user")}


def test_segments_are_the_top_then_none_then_other() -> None:
    plans = ["b", "b", "a", "a", "c", None, None, None, [1]]
    rows = [event("A", "1", properties={"plan": plan}) for plan in plans]

    found = ask("trends", rows, series=[{"event": "A"}], interval="month", by=[{"property": ["plan"]}], limit=2)

    assert column(found, "segment", "value") == [("a", 2), ("b", 2), ("(none)", 4), ("(other)", 1)]


def test_several_breakdowns_make_one_segment() -> None:
    rows = [event("A", "1", properties={"x": x, "y": y}) for x, y in (("a", 1), ("a", 1), ("a", None), (None, None))]
    by = [{"property": ["x"]}, {"property": ["y"]}]

    found = ask("trends", rows, series=[{"event": "A"}], interval="month", by=by)

    assert column(found, "segment", "value") == [
        (("a", "1"), 2),
        (("a", "(none)"), 1),
        (("(none)", "(none)"), 1),
    ]


def test_false_is_the_text_false() -> None:
    rows = [event("A", "1", properties={"x": x}) for x in (False, "false", True, 0, None)]

    assert count(rows, {"event": "A", "where": [{"property": ["x"], "is": False}]}) == 2


def test_texts_compare_as_texts() -> None:
    assert satisfies("10", {"<": "9"})
    assert not satisfies("10", {"<": 9})
