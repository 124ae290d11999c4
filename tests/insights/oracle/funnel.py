"""Funnels: for each unit (a person, or a session) the winning chain of rows, then the figures of each step.

Chains are enumerated, all of them, and the winner is chosen by the words of the definition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tests.insights.oracle import zones
from tests.insights.oracle.ground import (
    Event,
    Ground,
    Key,
    Matcher,
    by_person,
    grouped,
    nearest_rank,
    ratio,
    seconds,
    seconds12,
)
from tests.insights.oracle.people import Person
from tests.insights.oracle.sessions import default_sessions

Chain = list["FunnelRow"]  # the rows that serve steps 1, 2, ..., as far as it comes


@dataclass(frozen=True, eq=False, slots=True)
class FunnelRow:
    event: Event
    steps: tuple[int, ...]  # the steps that it matches, from 1; empty for another active event
    place: int  # in the order of rows
    hold: str | None


@dataclass(frozen=True, slots=True)
class Exclusion:
    """No such event strictly between the rows of two steps."""

    times: list[Any]
    after: int
    before: int

    def hurts(self, chain: Chain) -> bool:
        if len(chain) < self.before:
            return False
        start, stop = chain[self.after - 1].event.time, chain[self.before - 1].event.time
        return any(start < time < stop for time in self.times)


@dataclass(frozen=True, slots=True)
class Unit:
    """Whose chain is looked for."""

    person: Person
    events: list[Event]  # those that may serve
    all_events: list[Event]  # of the person


@dataclass(frozen=True, slots=True)
class Winner:
    person: Person
    chain: Chain

    @property
    def entry(self) -> Event:
        return self.chain[0].event

    def time_to(self, step: int) -> timedelta:
        return self.chain[step - 1].event.time - self.entry.time


def answer(ground: Ground) -> list[tuple[object, ...]]:
    return [row for row, _ in cells(ground)]


def cells(ground: Ground) -> list[tuple[tuple[object, ...], dict[str, set[Person]]]]:
    """Each row of the answer with the persons behind its figures."""
    interval = ground.question.get("by_time")
    of_key = grouped((_key(ground, winner), winner) for winner in find_winners(ground))
    segments = ground.segments({key: len(winners) for key, winners in of_key.items()})
    shown = segments.all() or ["(none)" if len(ground.by) == 1 else ("(none)",) * len(ground.by)]
    of_segment = grouped((segments.of(key), winner) for key, winners in of_key.items() for winner in winners)
    rows = []
    for segment in shown:
        winners = of_segment.get(segment, [])
        if interval is None:
            rows.extend(_rows(ground, segment, None, winners))
            continue
        for bucket in ground.buckets(interval):
            entered = [winner for winner in winners if ground.bucket(winner.entry.time, interval) == bucket]
            rows.extend(_rows(ground, segment, zones.shown(bucket), entered))
    return rows


# units and their rows


def find_winners(ground: Ground) -> list[Winner]:
    found = []
    for unit in _units(ground):
        chain = _winner(ground, unit)
        if chain is not None:
            found.append(Winner(unit.person, chain))
    return found


def _units(ground: Ground) -> list[Unit]:
    kept = [event for event in ground.events if ground.kept(event)]
    of_person = by_person(kept)
    if ground.question.get("count", "persons") == "persons":
        return [Unit(person, events, events) for person, events in of_person.items()]
    return [
        Unit(session.person, [e for e in session.events if ground.kept(e)], of_person.get(session.person, []))
        for session in default_sessions(ground)
    ]


def _rows_of(ground: Ground, unit: Unit) -> list[FunnelRow]:
    """The rows that may serve a step, or that stand between under ``strict``, in the order of rows."""
    steps: list[Matcher] = ground.question["steps"]
    hold = ground.question.get("hold")
    found = []
    for event in unit.events:
        matched = tuple(n for n, step in enumerate(steps, 1) if ground.matches(event, step))
        if matched or (_order(ground) == "strict" and event.is_active):
            found.append((event, matched))
    found.sort(key=lambda row: (row[0].time, min(row[1], default=len(steps) + 1), row[0].message_id))
    if _order(ground) == "any":
        found = [(event, matched[:1]) for event, matched in found]
    return [
        FunnelRow(event, matched, place, ground.value(event, hold) if hold else None)
        for place, (event, matched) in enumerate(found)
    ]


def _order(ground: Ground) -> str:
    return str(ground.question.get("order", "loose"))


# chains


def _winner(ground: Ground, unit: Unit) -> Chain | None:
    rows = _rows_of(ground, unit)
    exclusions = _exclusions(ground, unit)
    drops = ground.question.get("exclusion", "stop") == "drop"
    entries = [row for row in rows if _is_entry(ground, row)]
    if ground.question.get("reentry", "best") == "first":
        entries = entries[:1]
    chains = [chain for entry in entries for chain in _chains(ground, rows, entry, [] if drops else exclusions)]
    if not chains:
        return None
    deepest = max(len(chain) for chain in chains)
    chains = [chain for chain in chains if len(chain) == deepest]
    reached = min(chain[-1].place for chain in chains)
    chains = [chain for chain in chains if chain[-1].place == reached]
    entered = max(chain[0].place for chain in chains)
    chains = [chain for chain in chains if chain[0].place == entered]
    winner = min(chains, key=lambda chain: [row.place for row in chain])
    if drops and any(exclusion.hurts(winner) for exclusion in exclusions):
        return None
    return winner


def _is_entry(ground: Ground, row: FunnelRow) -> bool:
    if "hold" in ground.question and row.hold is None:
        return False
    is_first = bool(row.steps) if _order(ground) == "any" else 1 in row.steps
    return is_first and ground.in_range(row.event)


def _exclusions(ground: Ground, unit: Unit) -> list[Exclusion]:
    last = len(ground.question["steps"])
    return [
        Exclusion(
            [event.time for event in unit.all_events if ground.matches(event, each)],
            each.get("after", 1),
            each.get("before", last),
        )
        for each in ground.question.get("exclude", [])
    ]


def _chains(ground: Ground, rows: list[FunnelRow], entry: FunnelRow, exclusions: list[Exclusion]) -> Iterator[Chain]:
    """Every chain from the entry, also those that could go on."""
    until = entry.event.time + zones.duration(ground.question.get("window", "7d"))
    later = [row for row in rows[entry.place + 1 :] if row.event.time <= until]
    if exclusions or ground.found.get("exhaustive"):
        yield from _longer(ground, [entry], later, exclusions)
    else:
        yield _earliest(ground, [entry], later)


def _earliest(ground: Ground, chain: Chain, later: list[FunnelRow]) -> Chain:
    """The chain of the earliest rows: without exclusions none is deeper or sooner at its end, as the tests show."""
    for number, row in enumerate(later[:1] if _order(ground) == "strict" else later):
        if len(chain) < len(ground.question["steps"]) and _serves(ground, chain, row):
            return _earliest(ground, [*chain, row], later[number + 1 :])
    return chain


def _longer(ground: Ground, chain: Chain, later: list[FunnelRow], exclusions: list[Exclusion]) -> Iterator[Chain]:
    yield chain
    if len(chain) == len(ground.question["steps"]):
        return
    for number, row in enumerate(later[:1] if _order(ground) == "strict" else later):
        longer = [*chain, row]
        if _serves(ground, chain, row) and not any(exclusion.hurts(longer) for exclusion in exclusions):
            yield from _longer(ground, longer, later[number + 1 :], exclusions)


def _serves(ground: Ground, chain: Chain, row: FunnelRow) -> bool:
    """Whether the row may be the next of the chain."""
    if row.hold != chain[0].hold:
        return False
    if _order(ground) == "any":
        return bool(row.steps) and row.steps not in [earlier.steps for earlier in chain]
    return len(chain) + 1 in row.steps


# figures


def _key(ground: Ground, winner: Winner) -> Key:
    return tuple(_attributed(ground, winner, place) for place in range(len(ground.by)))


def _attributed(ground: Ground, winner: Winner, place: int) -> str | None:
    found = [ground.value(row.event, ground.by[place]) for row in winner.chain]
    attribution = ground.question.get("attribution", "first")
    if isinstance(attribution, dict):
        step = attribution["step"]
        return found[step - 1] if step <= len(found) else None
    known = [value for value in found if value is not None]
    if not known:
        return None
    return known[0] if attribution == "first" else known[-1]


def _rows(
    ground: Ground, segment: object, bucket: str | None, winners: list[Winner]
) -> list[tuple[tuple[object, ...], dict[str, set[Person]]]]:
    steps = ground.question["steps"]
    window = zones.duration(ground.question.get("window", "7d"))
    immature = [
        winner
        for winner in winners
        if len(winner.chain) < len(steps) and ground.complete_through - winner.entry.time < window
    ]
    rows: list[tuple[tuple[object, ...], dict[str, set[Person]]]] = []
    for number, step in enumerate(steps, 1):
        here = [winner for winner in winners if len(winner.chain) >= number]
        before = [winner for winner in winners if len(winner.chain) >= number - 1]
        dropped = [winner for winner in before if winner not in here]
        times = [seconds(winner.time_to(number)) for winner in here]
        row = (
            segment,
            bucket,
            number,
            label(step),
            len(here),
            None if number == 1 else ratio(len(here), len(before)),
            ratio(len(here), len(winners)),
            len(dropped),
            seconds12(nearest_rank(times, "0.5")),
            seconds12(nearest_rank(times, "0.9")),
            ratio(sum(times), len(times)),
            len(immature),
        )
        lists = {"persons": here, "dropped": dropped, "immature": immature}
        rows.append((row, {figure: {winner.person for winner in some} for figure, some in lists.items()}))
    return rows


def label(step: Matcher) -> str:
    if "label" in step:
        return str(step["label"])
    if "any_of" in step:
        return " or ".join(label(each) for each in step["any_of"])
    for name in ("event", "page", "type", "definition"):
        if name in step:
            return str(step[name])
    return "any event"
