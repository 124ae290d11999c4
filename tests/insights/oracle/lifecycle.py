"""Lifecycle: who is new, returning, resurrecting and dormant. Stickiness: on how many days persons are active."""

from __future__ import annotations

from tests.insights.oracle import zones
from tests.insights.oracle.ground import Ground, by_person
from tests.insights.oracle.people import Person

ANY = {"any": True}
FIGURES = ("new", "returning", "resurrecting", "dormant", "active")


def answer(ground: Ground) -> list[tuple[object, ...]]:
    return [row for row, _ in cells(ground)]


def cells(ground: Ground) -> list[tuple[tuple[object, ...], dict[str, set[Person]]]]:
    """Each row of the answer with the persons behind its figures."""
    interval = ground.question.get("interval", "week")
    active_in = {
        person: {ground.bucket(event.time, interval) for event in events}
        for person, events in by_person(ground.matching(ground.question.get("event", ANY))).items()
    }
    if ground.question.get("new", "active") == "created":
        created = by_person(ground.events)
        new_in = {person: ground.bucket(created[person][0].time, interval) for person in active_in}
    else:
        new_in = {person: min(buckets, key=zones.shown) for person, buckets in active_in.items()}
    rows: list[tuple[tuple[object, ...], dict[str, set[Person]]]] = []
    for bucket in ground.buckets(interval):
        before = zones.after(bucket, interval, -1)
        now = {person for person, buckets in active_in.items() if bucket in buckets}
        then = {person for person, buckets in active_in.items() if before in buckets}
        new = {person for person in now - then if new_in[person] == bucket}
        groups = (new, now & then, now - then - new, then - now, now)
        row = (zones.shown(bucket), *map(len, groups), ground.is_incomplete(bucket, interval))
        rows.append((row, dict(zip(FIGURES, groups, strict=True))))
    return rows


def stickiness(ground: Ground) -> list[tuple[object, ...]]:
    return [row for row, _ in stickiness_cells(ground)]


def stickiness_cells(ground: Ground) -> list[tuple[tuple[object, ...], dict[str, set[Person]]]]:
    events = [event for event in ground.matching(ground.question.get("event", ANY)) if ground.in_range(event)]
    days_of = {
        person: len({zones.local_day(event.time, ground.zone) for event in some})
        for person, some in by_person(events).items()
    }
    rows: list[tuple[tuple[object, ...], dict[str, set[Person]]]] = []
    for count in range(1, (ground.stop - ground.start).days + 1):
        persons = {person for person, days in days_of.items() if days == count}
        rows.append(((count, len(persons)), {"persons": persons}))
    return rows
