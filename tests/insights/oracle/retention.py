"""Retention: cohorts by when persons were born, and how many came back in each period."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tests.insights.oracle import zones
from tests.insights.oracle.ground import Event, Ground, Segment, by_person, grouped, ratio
from tests.insights.oracle.people import Person

ROLLING = {"day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=30)}
Members = dict[str, set[Person]]


@dataclass(frozen=True, slots=True)
class Born:
    person: Person
    event: Event
    cohort: zones.Bucket


@dataclass(frozen=True, slots=True)
class Cell:
    """The periods first to last of a cohort; n names it."""

    n: int
    first: int
    last: int
    when: str


def answer(ground: Ground) -> list[tuple[object, ...]]:
    return [row for row, _ in cells(ground)]


def cells(ground: Ground) -> list[tuple[tuple[object, ...], Members]]:
    """Each row of the answer with the persons behind its figures."""
    born = _find_born(ground)
    of_key = grouped((ground.key(each.event), each) for each in born)
    segments = ground.segments({key: len(members) for key, members in of_key.items()})
    placed = grouped(((segments.of(key), each.cohort), each) for key, members in of_key.items() for each in members)
    rows: list[tuple[tuple[object, ...], Members]] = []
    for segment in segments.all():
        cohorts = sorted((cohort for of, cohort in placed if of == segment), key=zones.shown)
        here = [row for cohort in cohorts for row in _cohort(ground, segment, cohort, placed[segment, cohort])]
        rows.extend(here)
        if here and ground.question.get("mean"):
            rows.extend(_means(ground, segment, [row for row, _ in here]))
    return rows


def _find_born(ground: Ground) -> list[Born]:
    interval = ground.question.get("interval", "day")
    born_is = ground.question.get("born_is", "in_range")
    found: list[Born] = []
    for person, events in by_person(ground.matching(ground.question["born"])).items():
        if born_is == "ever":
            chosen = [event for event in events[:1] if ground.in_range(event)]
        else:
            chosen = [event for event in events if ground.in_range(event)]
        of_bucket = grouped((ground.bucket(event.time, interval), event) for event in chosen)
        cohorts = list(of_bucket.items()) if born_is == "recurring" else list(of_bucket.items())[:1]
        found.extend(Born(person, some[0], cohort) for cohort, some in cohorts)
    return found


def _cells(ground: Ground) -> list[Cell]:
    if "brackets" in ground.question:
        return [Cell(low, low, high, "on") for low, high in ground.question["brackets"]]
    when = ground.question.get("when", "on")
    return [Cell(n, n, n, when) for n in range(ground.question.get("periods", 14) + 1)]


def _cohort(
    ground: Ground, segment: Segment, cohort: zones.Bucket, born: list[Born]
) -> Iterable[tuple[tuple[object, ...], Members]]:
    everyone = {each.person for each in born}
    for cell in _cells(ground):
        if not all(_end_of(ground, each, cell.last) <= ground.complete_through for each in born):
            row = (segment, zones.shown(cohort), len(everyone), cell.n, None, None, False)
            yield row, {"size": everyone, "returned": set()}
            continue
        returned = {each.person for each in born if _came_back(ground, each, cell)}
        rate = ratio(len(returned), len(everyone))
        row_of = (segment, zones.shown(cohort), len(everyone), cell.n, len(returned), rate, True)
        yield row_of, {"size": everyone, "returned": returned}


def _came_back(ground: Ground, born: Born, cell: Cell) -> bool:
    start, stop = _start_of(ground, born, cell.first), _end_of(ground, born, cell.last)
    if cell.when == "on_or_before":
        start = born.event.time
    if cell.when == "on_or_after":
        stop = ground.complete_through + timedelta.resolution
    returns = [event for event in _returns(ground).get(born.person, []) if born.event.time <= event.time]
    inside = [event for event in returns if start <= event.time < stop and event.time <= ground.complete_through]
    return len(inside) >= int(ground.question.get("min_times", 1))


def _returns(ground: Ground) -> dict[Person, list[Event]]:
    if "returns" not in ground.found:
        ground.found["returns"] = by_person(ground.matching(ground.question["return"]))
    found: dict[Person, list[Event]] = ground.found["returns"]
    return found


def _start_of(ground: Ground, born: Born, n: int) -> datetime:
    interval = ground.question.get("interval", "day")
    if ground.question.get("period", "calendar") == "rolling":
        return born.event.time + n * ROLLING[interval]
    return zones.start_of(zones.after(born.cohort, interval, n), ground.zone)


def _end_of(ground: Ground, born: Born, n: int) -> datetime:
    return _start_of(ground, born, n + 1)


def _means(ground: Ground, segment: Segment, rows: list[Any]) -> Iterable[tuple[tuple[object, ...], Members]]:
    for cell in _cells(ground):
        mature = [row for row in rows if row[3] == cell.n and row[6]]
        size, returned = (sum(row[column] for row in mature) for column in (2, 4))
        if mature:
            yield (segment, "(mean)", size, cell.n, returned, ratio(returned, size), True), {}
        else:
            yield (segment, "(mean)", 0, cell.n, None, None, False), {}
