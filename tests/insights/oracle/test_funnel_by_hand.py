from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from tests.insights.oracle.by_hand import LATER, MARCH, ask, column, event, stream
from tests.insights.oracle.funnel import find_winners
from tests.insights.oracle.ground import Ground
from tests.insights.oracle.people import Row

Option = Any


def steps(names: str) -> list[Row]:
    return [{"event": name} for name in names]


def winner(rows: list[Row], names: str, **options: object) -> list[float]:
    """At how many minutes each step of the only person's chain was served."""
    question = {"insight": "funnel", "from": "2026-03-01", "to": "2026-04-01", "steps": steps(names)} | options
    found = find_winners(Ground(question, rows, LATER))
    if not found:
        return []
    (one,) = found
    return [(row.event.time - MARCH) / timedelta(minutes=1) for row in one.chain]


def test_the_first_conversion_wins_by_its_latest_entry() -> None:
    assert winner(stream("A@0 B@1 A@10 B@20"), "AB") == [0, 1]
    assert winner(stream("A@0 A@5 B@10"), "AB") == [5, 10]


def test_the_deepest_entry_wins_even_if_it_is_later() -> None:
    assert winner(stream("A@0 B@1 A@100 B@101 C@102"), "ABC", window="1h") == [100, 101, 102]


def test_nobody_deeper_than_step_1_has_the_earliest_entry() -> None:
    assert winner(stream("A@3 A@7"), "AB") == [3]


def test_each_step_is_served_by_its_earliest_row() -> None:
    assert winner(stream("A@0 B@1 B@2 C@3"), "ABC") == [0, 1, 3]


def test_the_window_is_inclusive_and_ends_at_the_last_step() -> None:
    assert winner(stream("A@0 B@30 C@60"), "ABC", window="1h") == [0, 30, 60]
    late = stream("A@0 B@30 C@60")
    late[2]["event_time"] += timedelta(microseconds=1)  # type: ignore[operator]
    assert winner(late, "ABC", window="1h") == [0, 30]


def test_later_steps_may_come_after_the_range() -> None:
    rows = [event("A", "31 23:59:59"), event("B", "32"), event("A", "32", "bob"), event("B", "33", "bob")]

    found = ask("funnel", rows, steps=steps("AB"))

    assert column(found, "persons") == [1, 1]


def test_rows_of_one_microsecond_go_by_their_lowest_step() -> None:
    rows = stream("B@5 A@5")  # B has the lesser message_id

    assert winner(rows, "AB") == [5, 5]
    assert winner(stream("B@5 A@5"), "BA") == [5, 5]


def test_one_row_serves_one_step() -> None:
    assert winner(stream("A@0"), "AA") == [0]
    assert winner(stream("A@0 A@0"), "AA") == [0, 0]
    assert winner(stream("A@0 A@3 A@4"), "AAA") == [0, 3, 4]


def test_strict_steps_are_consecutive_among_active_events() -> None:
    between = stream("A@0 X@1 B@2")

    assert winner(between, "AB", order="strict") == [0]
    assert winner(stream("A@0 Error@1 B@2"), "AB", order="strict") == [0, 2]
    assert winner(stream("A@0 A@1 B@2"), "AB", order="strict") == [1, 2]
    assert winner(between, "AB", order="loose") == [0, 2]


def test_any_order_counts_different_steps_from_the_earliest_row() -> None:
    assert winner(stream("B@0 A@1"), "AB", order="any") == [0, 1]
    assert winner(stream("A@0 A@1"), "AB", order="any") == [0]
    assert winner(stream("C@0 B@1 B@2 A@3"), "ABC", order="any") == [0, 1, 3]


def test_reentry_first_takes_only_the_first_entry() -> None:
    rows = stream("A@0 A@30 B@70")

    assert winner(rows, "AB", window="1h") == [30, 70]
    assert winner(rows, "AB", window="1h", reentry="first") == [0]


@pytest.mark.parametrize(
    ("text", "names", "exclude", "expected"),
    [
        ("A@0 X@1 B@2", "AB", {}, [0]),
        ("A@0 X@1 A@2 B@3", "AB", {}, [2, 3]),
        ("A@0 B@1 X@2 B@3 C@4", "ABC", {"after": 2, "before": 3}, [0, 3, 4]),
        ("A@0 B@1 X@2 B@3 C@4", "ABC", {"after": 1, "before": 2}, [0, 1, 4]),
        ("A@0 B@1 X@2 C@3", "ABC", {}, [0, 1]),
        ("A@0 X@0 B@1 X@1", "AB", {}, [0, 1]),
    ],
)
def test_no_chain_has_an_excluded_event_strictly_between(
    text: str, names: str, exclude: Row, expected: list[float]
) -> None:
    assert winner(stream(text), names, exclude=[{"event": "X"} | exclude]) == expected


def test_dropping_leaves_out_a_person_whose_winner_has_an_excluded_event() -> None:
    exclude = [{"event": "X"}]

    assert winner(stream("A@0 X@1 A@2 X@3 B@4"), "AB", exclude=exclude, exclusion="drop") == []
    assert winner(stream("A@0 X@1 A@2 B@3"), "AB", exclude=exclude, exclusion="drop") == [2, 3]
    assert winner(stream("A@0 X@1"), "AB", exclude=exclude, exclusion="drop") == [0]


def test_a_held_property_is_equal_on_all_steps_and_set_at_the_entry() -> None:
    rows = [
        *stream("A@0", properties={"cart": 1}),
        *stream("A@1", properties={"cart": 2}),
        *stream("B@2", properties={"cart": "1"}),
        *stream("A@3 B@4"),
    ]

    assert winner(rows, "AB", hold={"property": ["cart"]}) == [0, 2]


def test_sessions_have_all_steps_within() -> None:
    rows = [event("A", "1 10:00"), event("B", "1 10:31"), event("A", "1 10:32"), event("B", "1 10:33")]

    assert column(ask("funnel", rows, steps=steps("AB"), count="sessions"), "persons") == [2, 1]


def test_figures_of_each_step() -> None:
    rows = [
        row
        for name, text in zip("abcd", ("A@0 B@2", "A@0 B@4", "A@0 B@9", "A@0"), strict=True)
        for row in stream(text, name)
    ]

    found = ask("funnel", rows, steps=steps("AB"))

    assert [list(row.values())[2:] for row in found] == [
        [1, "A", 4, None, 1.0, 0, 0.0, 0.0, 0.0, 0],
        [2, "B", 3, 0.75, 0.75, 1, 240.0, 540.0, 300.0, 0],
    ]


@pytest.mark.parametrize(("minutes", "immature"), [(59, 1), (60, 0)])
def test_immature_persons_still_can(minutes: int, immature: int) -> None:
    complete_through = MARCH + timedelta(minutes=minutes)

    found = ask("funnel", stream("A@0"), steps=steps("AB"), window="1h", complete_through=complete_through)

    assert column(found, "immature") == [immature, immature]


@pytest.mark.parametrize(
    ("attribution", "expected"), [("first", "x"), ("last", "y"), ({"step": 2}, "y"), ({"step": 3}, "(none)")]
)
def test_attribution(attribution: Option, expected: str) -> None:
    rows = [
        *stream("A@0", properties={"plan": "x"}),
        *stream("B@1", properties={"plan": "y"}),
    ]

    found = ask("funnel", rows, steps=steps("ABC"), by=[{"property": ["plan"]}], attribution=attribution)

    assert column(found, "segment", "persons") == [(expected, 1), (expected, 1), (expected, 0)]


def test_by_time_is_by_the_bucket_of_the_entry() -> None:
    rows = [event("A", "1 23:00"), event("B", "2 01:00")]

    found = ask("funnel", rows, steps=steps("AB"), by_time="day", to="2026-03-03")

    assert column(found, "bucket", "persons") == [
        ("2026-03-01", 1),
        ("2026-03-01", 1),
        ("2026-03-02", 0),
        ("2026-03-02", 0),
    ]


def test_all_rows_come_where_nobody_came() -> None:
    found = ask("funnel", [], steps=steps("AB"))

    assert column(found, "step", "persons", "from_first", "from_previous") == [(1, 0, None, None), (2, 0, None, None)]


@pytest.mark.parametrize("order", ["loose", "strict", "any"])
def test_the_chain_of_the_earliest_rows_is_the_winner_of_all_chains(order: str) -> None:
    chance = random.Random(order)
    for _ in range(150):
        rows = stream(" ".join(f"{chance.choice('AABC')}@{chance.randint(0, 6)}" for _ in range(chance.randint(1, 8))))
        matched = [{"event": "A"}, {"any_of": [{"event": "A"}, {"event": "B"}]}, {"event": "B"}, {"event": "C"}]
        question = {
            "insight": "funnel",
            "from": "2026-03-01",
            "to": "2026-03-02",
            "steps": chance.choices(matched, k=chance.randint(2, 4)),
            "window": "3m",
            "order": order,
            "reentry": chance.choice(("best", "first")),
        }
        greedy, exhaustive = Ground(question, rows, LATER), Ground(question, rows, LATER)
        exhaustive.found["exhaustive"] = True

        assert chains(greedy) == chains(exhaustive)


def chains(ground: Ground) -> list[list[str]]:
    return [[row.event.message_id for row in one.chain] for one in find_winners(ground)]
