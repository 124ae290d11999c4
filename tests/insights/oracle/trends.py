"""Trends: one value for each series, segment and bucket."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tests.insights.oracle import values, zones
from tests.insights.oracle.ground import Event, Ground, Key, Segment, Segments, grouped, nearest_rank
from tests.insights.oracle.people import Person
from tests.insights.oracle.sessions import default_sessions

Series = dict[str, Any]
Value = int | float | Decimal | None
Line = list[Value]  # a value for each bucket
NUMERIC = ("sum", "average", "median", "p90", "min", "max")


def answer(ground: Ground) -> list[tuple[object, ...]]:
    question = ground.question
    interval = question.get("interval", "day")
    buckets = ground.buckets(interval)
    segments = _segments(ground)
    earlier = _earlier(ground)
    rows: list[tuple[object, ...]] = []
    now_lines = _lines(ground, segments, len(buckets))
    then_lines = _lines(earlier, segments, len(buckets)) if earlier else {}
    for place, name in enumerate(_names(ground)):
        for segment in segments.all():
            for number, bucket in enumerate(buckets):
                incomplete = ground.is_incomplete(bucket, interval)
                rows.append((name, segment, zones.shown(bucket), now_lines[place, segment][number], incomplete))
        for segment in segments.all():
            if earlier is None:
                break
            for number, bucket in enumerate(buckets):
                value, incomplete = _earlier_value(earlier, then_lines[place, segment], number, interval)
                rows.append((f"{name} (previous)", segment, zones.shown(bucket), value, incomplete))
    return rows


def ignored(ground: Ground) -> int:
    """How many values that a series measures are no numbers."""
    count = 0
    for series in ground.question["series"]:
        if series.get("measure") in NUMERIC:
            found = [ground.value(event, {"property": series["property"]}) for event in _matching(ground, series)]
            count += sum(value is not None and values.number(value) is None for value in found)
    return count


def persons(ground: Ground) -> dict[tuple[object, ...], dict[str, set[Person]]]:
    """The persons behind the values that count persons, by series, segment and bucket."""
    segments = _segments(ground)
    interval = ground.question.get("interval", "day")
    found: dict[tuple[object, ...], dict[str, set[Person]]] = {}
    for name, series in zip(_names(ground), ground.question["series"], strict=False):
        of_segment = grouped((segments.of(ground.key(event)), event) for event in _counted(ground, series))
        for segment in segments.all():
            for bucket in ground.buckets(interval):
                events = _events_of(ground, series, of_segment.get(segment, []), bucket)
                everyone = {event.person for event in events if event.person is not None}
                found[name, segment, zones.shown(bucket)] = {"value": everyone, "persons": everyone}
    return found


def _names(ground: Ground) -> list[str]:
    series = [each.get("label") or chr(ord("A") + n) for n, each in enumerate(ground.question["series"])]
    return [*series, *ground.question.get("formulas", [])]


def _earlier(ground: Ground) -> Ground | None:
    """The same question over the range to compare with."""
    compare = ground.question.get("compare")
    if compare is None:
        return None
    if compare == "year":
        start, stop = _year_before(ground.start), _year_before(ground.stop)
    else:
        start, stop = ground.start - (ground.stop - ground.start), ground.start
    moved = {"from": start.isoformat(), "to": stop.isoformat(), "last": None}
    question = {key: value for key, value in (ground.question | moved).items() if value is not None}
    return replace(ground, question=question)


def _year_before(day: date) -> date:
    is_leap_day = (day.month, day.day) == (2, 29)
    return day.replace(year=day.year - 1, day=28 if is_leap_day else day.day)


def _earlier_value(earlier: Ground, line: Line, number: int, interval: str) -> tuple[Value, bool]:
    buckets = earlier.buckets(interval)
    return line[number], number < len(buckets) and earlier.is_incomplete(buckets[number], interval)


# segments


def _segments(ground: Ground) -> Segments:
    """The segments of all series, ranked by the first one's measure over the whole range."""
    measured: dict[Key, Value] = {}
    for series in ground.question["series"]:
        of_key = grouped((ground.key(event), event) for event in _counted(ground, series))
        for key, events in of_key.items():
            is_first = series is ground.question["series"][0]
            measured.setdefault(key, measure(ground, series, events) if is_first else None)
    return ground.segments(measured)


def _matching(ground: Ground, series: Series) -> list[Event]:
    return [event for event in ground.matching(series) if ground.in_range(event)]


def _counted(ground: Ground, series: Series) -> list[Event]:
    """The events that the series measures: those of the range, firsts only, or with the days that trail."""
    measure = series.get("measure", "events")
    if measure == "first_ever":
        return [event for event in _firsts(ground.matching(series)) if ground.in_range(event)]
    if measure == "active":
        earliest = ground.start - timedelta(days=series.get("trailing", 1) - 1)
        return [e for e in ground.matching(series) if earliest <= zones.local_day(e.time, ground.zone) < ground.stop]
    return _matching(ground, series)


def _firsts(events: list[Event]) -> list[Event]:
    """The first event of each person."""
    seen: set[Person] = set()
    found = []
    for event in events:
        if event.person is not None and event.person not in seen:
            seen.add(event.person)
            found.append(event)
    return found


# values


def _lines(ground: Ground, segments: Segments, count: int) -> dict[tuple[int, Segment], Line]:
    """Every series and formula by its place, for each segment a value for each bucket."""
    moving = ground.question.get("moving")
    found: dict[tuple[int, Segment], Line] = {}
    asked = ground.question["series"]
    of_series = [
        grouped((segments.of(ground.key(event)), event) for event in _counted(ground, series)) for series in asked
    ]
    for segment in segments.all():
        lines = [
            _line(ground, series, events.get(segment, []), count)
            for series, events in zip(asked, of_series, strict=True)
        ]
        formulas = [_formula_line(formula, lines) for formula in ground.question.get("formulas", [])]
        for place, line in enumerate(lines + formulas):
            found[place, segment] = _leaving(_moved(line, moving) if moving else line)
    return found


def _line(ground: Ground, series: Series, events: list[Event], count: int) -> Line:
    """A value for each of so many buckets; those after the range are empty."""
    interval = ground.question.get("interval", "day")
    buckets = list(ground.buckets(interval))[:count]
    while len(buckets) < count:
        buckets.append(zones.after(buckets[-1], interval))
    return [measure(ground, series, _events_of(ground, series, events, bucket)) for bucket in buckets]


def _events_of(ground: Ground, series: Series, events: list[Event], bucket: zones.Bucket) -> list[Event]:
    """The events that the value of a bucket measures."""
    interval = ground.question.get("interval", "day")
    if series.get("measure") == "active":
        assert interval == "day"
        assert isinstance(bucket, date)
        earliest = bucket - timedelta(days=series.get("trailing", 1) - 1)
        return [event for event in events if earliest <= zones.local_day(event.time, ground.zone) <= bucket]
    if ground.question.get("cumulative"):
        return [event for event in events if ground.bucket(event.time, interval) <= bucket]
    return [event for event in events if ground.bucket(event.time, interval) == bucket]


def measure(ground: Ground, series: Series, events: list[Event]) -> Value:
    measure = series.get("measure", "events")
    everyone = {event.person for event in events if event.person is not None}
    if measure == "events":
        return len(events)
    if measure in ("persons", "first_ever", "active"):
        return len(everyone)
    if measure == "sessions":
        return _count_sessions(ground, events)
    if measure == "events_per_person":
        return _share(sum(event.person is not None for event in events), len(everyone))
    texts = [ground.value(event, {"property": series["property"]}) for event in events]
    if measure == "distinct":
        return len({text for text in texts if text is not None})
    return _of_numbers(measure, [number for text in texts if (number := values.number(text)) is not None])


def _count_sessions(ground: Ground, events: list[Event]) -> int:
    wanted = set(events)
    return sum(not wanted.isdisjoint(session.events) for session in default_sessions(ground))


def _of_numbers(measure: str, numbers: list[Decimal]) -> Value:
    if measure == "sum":
        return sum(numbers, Decimal(0))
    if measure == "average":
        return _share(sum(numbers, Decimal(0)), len(numbers))
    if measure in ("median", "p90"):
        rank: Decimal | None = nearest_rank(numbers, {"median": "0.5", "p90": "0.9"}[measure])
        return rank
    assert measure in ("min", "max")
    if not numbers:
        return None
    return min(numbers) if measure == "min" else max(numbers)


def _share(part: Decimal | Fraction | int, whole: int) -> float | None:
    return None if whole == 0 else float(Fraction(part) / whole)


def _moved(line: Line, count: int) -> Line:
    moved: Line = []
    for number in range(len(line)):
        known = [Fraction(value) for value in line[max(0, number - count + 1) : number + 1] if value is not None]
        moved.append(_share(sum(known, Fraction(0)), len(known)))
    return moved


def _leaving(line: Line) -> Line:
    """Doubles leave with 12 digits, and only then lose the others."""
    return [values.digits12(value) if isinstance(value, float) else value for value in line]


def _formula_line(formula: str, lines: list[Line]) -> Line:
    tree = ast.parse(formula, mode="eval").body
    return [_evaluate(tree, list(at)) for at in zip(*lines, strict=True)]


def _evaluate(tree: ast.expr, of_letter: list[Value]) -> float | None:
    if isinstance(tree, ast.Constant):
        return float(tree.value)  # type: ignore[arg-type]
    if isinstance(tree, ast.Name):
        value = of_letter[ord(tree.id) - ord("A")]
        return None if value is None else float(value)
    if isinstance(tree, ast.UnaryOp):
        inner = _evaluate(tree.operand, of_letter)
        return None if inner is None else -inner
    assert isinstance(tree, ast.BinOp)
    left, right = _evaluate(tree.left, of_letter), _evaluate(tree.right, of_letter)
    if left is None or right is None:
        return None
    if isinstance(tree.op, ast.Div) and right == 0:
        return None
    return _OPERATIONS[type(tree.op)](left, right)


_OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.Div: lambda left, right: left / right,
}
