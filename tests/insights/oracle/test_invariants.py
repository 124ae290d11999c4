"""What holds in every world, whatever the question's options."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

from tests.insights.oracle.ground import Ground, Question
from tests.insights.oracle.oracle import answer
from tests.insights.oracle.persons import CELLS, KEYS
from tests.insights.oracle.questions import make_questions
from tests.insights.oracle.worlds import World, make_world
from tests.scale import scaled

WORLDS = scaled(60, 200, 1_000)
Rows = list[tuple[object, ...]]


@cache
def worlds() -> list[tuple[World, list[Question]]]:
    return [(world, make_questions(seed, world)) for seed in range(WORLDS) for world in [make_world(seed)]]


def asked(insight: str) -> Iterator[tuple[World, Question, Rows]]:
    for world, questions in worlds():
        for question in questions:
            if question["insight"] == insight:
                yield world, question, reply(world, question)


def reply(world: World, question: Question) -> Rows:
    return answer(question, world.rows, world.complete_through)


def number(value: object) -> int:
    assert isinstance(value, int)
    return value


def test_worlds_and_questions_are_the_same_for_the_same_seed() -> None:
    assert make_world(7) == make_world(7)
    assert make_questions(7, make_world(7)) == make_questions(7, make_world(7))


def test_steps_never_rise_and_the_dropped_are_those_missing() -> None:
    for _, _, rows in asked("funnel"):
        for before, row in pairwise(rows):
            if row[2] != 1:
                assert number(row[4]) == number(before[4]) - number(row[7])
                assert number(row[4]) <= number(before[4])


def test_the_segments_of_a_funnel_sum_to_its_total() -> None:
    for world, question, rows in asked("funnel"):
        total = reply(world, without(question, "by", "attribution", "by_time", "limit"))
        for step in range(1, len(question["steps"]) + 1):
            assert sum(number(row[4]) for row in rows if row[2] == step) == total[step - 1][4]


def test_a_wider_window_never_lowers_a_step() -> None:
    for world, question, _ in asked("funnel"):
        if question.get("exclusion") != "drop":
            plain = without(question, "by", "attribution", "by_time", "limit")
            narrow, wide = (reply(world, plain | {"window": window}) for window in ("30m", "24h"))
            assert all(number(one[4]) <= number(other[4]) for one, other in zip(narrow, wide, strict=True))


def test_every_figure_of_persons_is_as_long_as_its_list() -> None:
    places = {"funnel": {"persons": 4, "dropped": 7, "immature": 11}, "stickiness": {"persons": 1}}
    places |= {"lifecycle": {"new": 1, "returning": 2, "resurrecting": 3, "dormant": 4, "active": 5}}
    places |= {"sessions": {"persons": 3}, "paths": {"persons": 4}, "retention": {"size": 2, "returned": 4}}
    for insight, figures in places.items():
        for world, question, _ in asked(insight):
            if question.get("count") == "sessions" or question.get("detail"):
                continue
            for row, lists in CELLS[insight](Ground(question, world.rows, world.complete_through)):
                if "(mean)" not in row:
                    assert {name: len(lists[name]) for name in figures} == {
                        name: row[place] or 0 for name, place in figures.items()
                    }


def test_lifecycle_adds_up() -> None:
    for _, _, rows in asked("lifecycle"):
        figures = [[number(figure) for figure in row[1:6]] for row in rows]
        assert all(new + returning + back == active for new, returning, back, _, active in figures)
        for before, row in pairwise(figures):
            assert before[4] == row[1] + row[3]


def test_what_flows_into_a_node_flows_out() -> None:
    for _, question, rows in asked("paths"):
        ins: dict[tuple[object, object], int] = defaultdict(int)
        outs: dict[tuple[object, object], int] = defaultdict(int)
        for step, one, other, count, _ in rows:
            source, target = (other, one) if "end" in question else (one, other)
            outs[step, source] += number(count)
            if target not in ("(exit)", "(entry)"):
                ins[number(step) + 1, target] += number(count)
        last = question.get("depth", 5)
        assert {node: count for node, count in ins.items() if node[0] < last} == {
            node: count for node, count in outs.items() if node[0] != 1
        }


def test_the_buckets_of_events_sum_to_the_total() -> None:
    for world, question, _ in asked("trends"):
        plain = without(question, "formulas", "cumulative", "moving", "compare", "last") | {"series": [{"any": True}]}
        total = len(Ground(plain, world.rows, world.complete_through).events)
        everything = plain | {"from": "2024-01-01", "to": "2028-01-01", "interval": "month"}
        kept = reply(world, without(everything, "where"))
        ground = Ground(plain, world.rows, world.complete_through)
        assert sum(number(row[3]) for row in kept) == sum(event.is_active for event in ground.events) <= total


def test_day_0_of_one_event_for_both_is_everybody() -> None:
    for world, question, _ in asked("retention"):
        same = without(question, "brackets", "min_times") | {"return": question["born"]}
        assert all(row[5] in (None, 1.0) for row in reply(world, same) if row[3] == 0)


def test_another_project_changes_nothing() -> None:
    for (world, questions), (other, _) in pairwise(worlds()):
        for question in questions:
            both = answer(question, world.rows + other.rows, world.complete_through)
            if "project" in question.get("of", {"project": ""}):
                assert both == reply(world, question)


def test_every_insight_has_its_keys() -> None:
    assert set(KEYS) == {*CELLS, "trends"}


def without(question: Question, *names: str) -> Question:
    return {key: value for key, value in question.items() if key not in names}
