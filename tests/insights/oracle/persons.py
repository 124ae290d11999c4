"""Who is behind a figure, and what a person did."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

from tests.insights.oracle import funnel, lifecycle, paths, retention, sessions, trends, zones
from tests.insights.oracle.ground import Event, Ground
from tests.insights.oracle.people import Person
from tests.insights.oracle.sessions import default_sessions
from tests.insights.oracle.values import NumberText

CELLS = {
    "funnel": funnel.cells,
    "retention": retention.cells,
    "lifecycle": lifecycle.cells,
    "stickiness": lifecycle.stickiness_cells,
    "sessions": sessions.cells,
    "paths": paths.cells,
}
KEYS = {
    "trends": ("series", "segment", "bucket"),
    "funnel": ("segment", "bucket", "step"),
    "retention": ("segment", "cohort", "n"),
    "lifecycle": ("bucket",),
    "stickiness": ("days",),
    "sessions": ("segment", "bucket"),
    "paths": ("step", "from", "to"),
}
PLACES = {"retention": (0, 1, 3), "funnel": (0, 1, 2)}


def answer(ground: Ground) -> list[tuple[object, ...]]:
    asked = ground.question
    of = replace(ground, question=asked["of"])
    found = sorted(_found(of, asked.get("cell", {}), asked.get("figure")))
    rows = [_person(of, person) for person in found]
    if "order_by" in asked:
        measured = {person: _measured(of, person, asked["order_by"]) for person in found}
        rows.sort(key=lambda row: (measured[row[0], row[1]] is None, -(measured[row[0], row[1]] or 0)))  # type: ignore[index]
    return rows[: asked["limit"]] if asked.get("limit") else rows


def _found(of: Ground, cell: dict[str, Any], figure: str | None) -> set[Person]:
    insight = of.question["insight"]
    names = KEYS[insight]
    if insight == "trends":
        lists = list(trends.persons(of).items())
    else:
        places = PLACES.get(insight, tuple(range(len(names))))
        lists = [(tuple(row[place] for place in places), figures) for row, figures in CELLS[insight](of)]
    found: set[Person] = set()
    for key, figures in lists:
        if all(_same(key[names.index(name)], wanted) for name, wanted in cell.items()):
            found |= figures.get(figure or _default_figure(insight), set())
    return found


def _default_figure(insight: str) -> str:
    return {"retention": "returned", "lifecycle": "active"}.get(insight, "persons")


def _same(shown: object, wanted: object) -> bool:
    return shown == (tuple(wanted) if isinstance(wanted, list) else wanted)


def _person(ground: Ground, person: Person) -> tuple[object, ...]:
    events = [event for event in ground.all_events if event.person == person]
    first, last = (zones.instant_text(events[at].time) for at in (0, -1))
    traits = ground.traits.get(person)
    return (*person, first, last, len(events), merged(traits) if traits else None)


def _measured(ground: Ground, person: Person, order_by: dict[str, Any]) -> Any:  # noqa: ANN401  # a number, or None
    keeps_all = ground.question["insight"] == "sessions"  # there, where is of sessions
    kept = [event for event in ground.events if keeps_all or ground.kept(event)]
    events = [event for event in kept if event.person == person and ground.in_range(event)]
    return trends.measure(ground, order_by, events)


def merged(traits: dict[str, object]) -> str:
    """Traits as JSON text, numbers as they were sent."""
    return json.dumps(_plain(traits), ensure_ascii=False, sort_keys=True)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return json.loads(value) if isinstance(value, NumberText) else value


def timeline(ground: Ground) -> list[tuple[object, ...]]:
    """The person's events of any type, newest first; the session is the instant at which it began."""
    asked = ground.question
    wanted = (asked["person_id"], asked["person_kind"])
    events = [event for event in reversed(ground.all_events) if event.person == wanted]
    if "before" in asked:
        before = datetime.fromisoformat(asked["before"]).replace(tzinfo=None)  # it ends with Z
        events = [event for event in events if event.time < before]
    return [_moment(ground, event) for event in events[: asked.get("limit", 100)]]


def _moment(ground: Ground, event: Event) -> tuple[object, ...]:
    began = [zones.instant_text(s.start) for s in default_sessions(ground) if event in s.events]
    session = began[0] if began else None
    return zones.instant_text(event.time), event.type, event.name, session, event.message_id, None
