"""Paths: what comes after a start, or before an end, in a session or of a person."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

from tests.insights.oracle import zones
from tests.insights.oracle.ground import Event, Ground, by_person, grouped
from tests.insights.oracle.people import Person
from tests.insights.oracle.sessions import default_sessions, page_of

EXIT, ENTRY, OTHER = "(exit)", "(entry)", "(other)"
_ID = re.compile(r"[0-9]+|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Path:
    person: Person
    nodes: list[str]  # from the start on, or back from the end; as many as the depth


def clean(path: str) -> str:
    """A page's path without query, fragment and trailing slash, with ``:id`` for ids."""
    path = re.split(r"[?#]", path, maxsplit=1)[0]
    path = path.rstrip("/") or "/"
    return "/".join(":id" if _ID.fullmatch(part) else part for part in path.split("/"))


def node(event: Event) -> str | None:
    if event.is_view:
        page = page_of(event)
        return page if page is None or event.column("context_page_path") is None else clean(page)
    return event.name if event.type == "track" else None


def is_node(ground: Ground, event: Event) -> bool:
    nodes = ground.question.get("nodes", "both")
    wanted = (event.is_view and nodes != "events") or (event.is_custom and nodes != "pages")
    return wanted and node(event) is not None


def answer(ground: Ground) -> list[tuple[object, ...]]:
    return [row for row, _ in cells(ground)]


def cells(ground: Ground) -> list[tuple[tuple[object, ...], dict[str, set[Person]]]]:
    """Each row of the answer with the persons behind its figures."""
    depth, limit = ground.question.get("depth", 5), ground.question.get("limit", 10)
    paths = _paths(ground, depth)
    top = []
    for place in range(depth):
        counts = Counter(path.nodes[place] for path in paths if place < len(path.nodes))
        top.append(sorted(counts, key=lambda name, counts=counts: (-counts[name], name))[:limit])  # type: ignore[misc]
    steps: list[tuple[int, str, str, Person]] = []
    for path in paths:
        names = [name if name in top[place] else OTHER for place, name in enumerate(path.nodes)]
        if len(names) < depth:
            names.append(ENTRY if "end" in ground.question else EXIT)
        steps.extend((step, *pair, path.person) for step, pair in enumerate(pairwise(names), 1))
    rows: list[tuple[tuple[object, ...], dict[str, set[Person]]]] = []
    for (step, one, other), persons in grouped((each[:3], each[3]) for each in steps).items():
        pair = (other, one) if "end" in ground.question else (one, other)
        rows.append(((step, *pair, len(persons), len(set(persons))), {"persons": set(persons)}))
    return sorted(rows, key=lambda row: (row[0][0], -int(str(row[0][3])), str(row[0][1]), str(row[0][2])))


def _paths(ground: Ground, depth: int) -> list[Path]:
    found = []
    for person, events in _units(ground):
        names: list[str] = []
        for event in events:
            name = str(node(event))
            if not names or names[-1] != name:
                names.append(name)
        if names:
            found.append(Path(person, names[:depth]))
    return found


def _units(ground: Ground) -> list[tuple[Person, list[Event]]]:
    """The rows of each unit that become nodes, from the start on or back from the end."""
    if ground.question.get("unit", "session") == "person":
        everyone = by_person(event for event in ground.events if ground.kept(event))
        return [(person, _of_person(ground, events)) for person, events in everyone.items()]
    sessions = [session for session in default_sessions(ground) if ground.in_range(session.events[0])]
    return [(each.person, _within(ground, [e for e in each.events if ground.kept(e)])) for each in sessions]


def _of_person(ground: Ground, events: list[Event]) -> list[Event]:
    """A person's nodes within the window from the first anchor in the range."""
    window = zones.duration(ground.question["window"])
    anchors = [event for event in events if ground.in_range(event) and _is_anchor(ground, event)]
    return _directed(ground, events, anchors[0], window) if anchors else []


def _within(ground: Ground, events: list[Event]) -> list[Event]:
    """A session's nodes from its first anchor on."""
    anchors = [event for event in events if _is_anchor(ground, event)]
    return _directed(ground, events, anchors[0], timedelta.max) if anchors else []


def _is_anchor(ground: Ground, event: Event) -> bool:
    matcher = ground.question.get("end") or ground.question.get("start")
    return is_node(ground, event) if matcher is None else ground.matches(event, matcher) and node(event) is not None


def _directed(ground: Ground, events: list[Event], anchor: Event, window: timedelta) -> list[Event]:
    """From the anchor on, or back from it; only rows that are nodes, and the anchor."""
    place = events.index(anchor)
    around = events[: place + 1][::-1] if "end" in ground.question else events[place:]
    near = [event for event in around if abs(event.time - anchor.time) <= window]
    return [event for event in near if event is anchor or is_node(ground, event)]
