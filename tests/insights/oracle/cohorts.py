"""Who belongs to a cohort, in plain Python from the definitions alone, and small worlds with conditions that hit them.

A person is the user, else the device: these worlds link no devices and no aliases, which is not what is asked here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

Row = dict[str, Any]
Condition = dict[str, Any]

TOLD_BY_THE_PAGE = ("Page Left", "Web Vitals", "Error", "Dead Click")
ZONES = ("UTC", "Europe/London", "Asia/Kathmandu", "Africa/Cairo", "America/New_York")
DAYS = (date(2026, 3, 29), date(2026, 10, 25), date(2026, 4, 24), date(2026, 11, 1), date(2026, 7, 1))  # clocks change
MICRO = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class World:
    project: str
    zone: str
    complete_through: datetime
    rows: list[Row]


def person_of(row: Row) -> str | None:
    if row.get("user_id") is not None:
        return "u" + str(row["user_id"])
    return None if row.get("anonymous_id") is None else "a" + str(row["anonymous_id"])


def members(world: World, condition: Condition, bots: str = "exclude", bot_rows: Iterable[Condition] = ()) -> set[str]:
    """The persons of the cohort, among those with a row of the population."""
    rules = list(bot_rows)
    rows = [row for row in world.rows if _in_population(row, bots, rules)]
    persons = {person for row in rows if (person := person_of(row)) is not None}
    return {person for person in persons if _is_in(world, rows, person, condition)}


def _in_population(row: Row, bots: str, rules: list[Condition]) -> bool:
    is_bot = row.get("bot_kind") is not None or any(_passes(_property(row, rule), rule) for rule in rules)
    return {"include": True, "exclude": not is_bot, "only": is_bot}[bots]


def _is_in(world: World, rows: list[Row], person: str, condition: Condition) -> bool:
    if "all" in condition:
        return all(_is_in(world, rows, person, one) for one in condition["all"])
    if "any" in condition:
        return any(_is_in(world, rows, person, one) for one in condition["any"])
    if "not" in condition:
        return not _is_in(world, rows, person, condition["not"])
    if "cohort" in condition:
        return _is_in(world, rows, person, condition["cohort"])
    if "trait" in condition:
        return _passes(_trait(world, person, condition["trait"][0]), condition)
    if "column" in condition:
        value = person[1:] if condition["column"] == "person_id" else {"u": "user", "a": "anonymous"}[person[0]]
        return _passes(value, condition)
    matcher = condition.get("did") or condition.get("did_not") or condition["first_did"]
    times = sorted(
        row["event_time"] for row in rows if person_of(row) == person and _matches(world, rows, row, matcher)
    )
    days = [_local_day(time, world.zone) for time in times]
    last = _local_day(world.complete_through, world.zone)
    count = int(condition["last"][:-1]) if "last" in condition else None
    within = [count is None or last - timedelta(days=count) < day <= last for day in days]
    if "did" in condition:
        return sum(within) >= int(condition.get("at_least", 1))
    if "did_not" in condition:
        return not any(within)
    return bool(within) and within[0]


def _local_day(time: datetime, zone: str) -> date:
    return time.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).date()


def _matches(world: World, rows: list[Row], row: Row, matcher: Condition) -> bool:
    if "any_of" in matcher:
        kind = any(_matches(world, rows, row, one) for one in matcher["any_of"])
    elif "event" in matcher:
        kind = row["type"] == "track" and row.get("event") == matcher["event"]
    elif "type" in matcher:
        kind = bool(row["type"] == matcher["type"])
    else:
        named = row["type"] == "track" and row.get("event") not in TOLD_BY_THE_PAGE
        kind = named or row["type"] in ("page", "screen")
    return kind and all(_holds(world, rows, row, one) for one in matcher.get("where", []))


def _holds(world: World, rows: list[Row], row: Row, one: Condition) -> bool:
    if "cohort" in one:
        person = person_of(row)
        return person is not None and _is_in(world, rows, person, one["cohort"])
    return _passes(_property(row, one), one)


def _property(row: Row, one: Condition) -> str | None:
    properties = json.loads(row.get("properties") or "{}")
    value = properties.get(one["property"][0])
    return None if value is None else str(value)


def _trait(world: World, person: str, key: str) -> str | None:
    """The latest value that is not null, of all rows, those of bots too."""
    told = [
        (row["event_time"], row["message_id"], json.loads(row["traits"])[key])
        for row in world.rows
        if row["type"] == "identify" and person_of(row) == person and row.get("traits")
        and json.loads(row["traits"]).get(key) is not None
    ]  # fmt: skip
    return str(max(told)[2]) if told else None


def _passes(value: str | None, one: Condition) -> bool:
    if "is_set" in one:
        return (value is not None) == bool(one["is_set"])
    if "is_not" in one:
        return bool(value != one["is_not"])
    return value is not None and bool(value == one["is"])


def make_world(seed: int) -> World:
    """Times at local midnights, a microsecond before and after, and around them."""
    chance = random.Random(seed)
    zone, day = ZONES[seed % len(ZONES)], chance.choice(DAYS)
    midnights = [_midnight(day + timedelta(days=number), zone) for number in range(-4, 4)]
    rows = []
    for number in range(chance.randint(1, 30)):
        time = chance.choice(midnights) + chance.choice((0, 0, 1, -1)) * MICRO
        time += timedelta(hours=chance.choice((0, 0, 1, 12)))
        kind = chance.choice(("track", "track", "track", "track", "page", "identify", "identify"))
        rows.append(
            {
                "message_id": f"m{chance.randrange(10**6):06}-{number}",
                "project_id": f"w{seed}",
                "type": kind,
                "event_time": time,
                "received_at": time + timedelta(seconds=chance.choice((0, 90, 90_000))),
                "event": chance.choice(("A", "A", "B", "Error", None)) if kind == "track" else None,
                "user_id": chance.choice((None, "42", "u1", "u2")),
                "anonymous_id": chance.choice((None, "42", "d1")),
                "bot_kind": chance.choice((None,) * 9 + ("search",)),
                "properties": json.dumps({"p": chance.choice(("x", "y", None))}),
                "traits": json.dumps({"plan": chance.choice(("pro", "free", None))}) if kind == "identify" else None,
            }
        )
        if rows[-1]["user_id"] is not None:
            rows[-1]["anonymous_id"] = None  # no device is linked
    through = chance.choice(midnights) + chance.choice((timedelta(0), -MICRO, timedelta(hours=5)))
    return World(f"w{seed}", zone, through, rows)


def _midnight(day: date, zone: str) -> datetime:
    """The first instant of a local day, naive UTC, found by looking: not every day has a midnight."""
    time = datetime(day.year, day.month, day.day) - timedelta(hours=15)
    while _local_day(time, zone) < day:
        time += timedelta(minutes=15)
    return time


def make_condition(chance: random.Random, depth: int = 2) -> Condition:
    """Any condition of a cohort."""
    if depth and chance.random() < 0.45:
        kind = chance.choice(("all", "any", "not", "cohort"))
        if kind in {"not", "cohort"}:
            return {kind: make_condition(chance, depth - 1)}
        return {kind: [make_condition(chance, depth - 1) for _ in range(chance.choice((0, 1, 2, 2, 3)))]}
    kind = chance.choice(("did", "did", "did_not", "first_did", "first_did", "trait", "column"))
    if kind == "trait":
        return {"trait": ["plan"]} | chance.choice(({"is": "pro"}, {"is_not": "pro"}, {"is_set": False}))
    if kind == "column":
        return chance.choice(({"column": "person_id", "is": "42"}, {"column": "person_kind", "is_not": "user"}))
    found: Condition = {kind: _make_matcher(chance, depth)}
    if chance.random() < 0.7:
        found["last"] = chance.choice(("1d", "2d", "4d"))
    if kind == "did" and chance.random() < 0.5:
        found["at_least"] = chance.choice((1, 2, 3))
    return found


def _make_matcher(chance: random.Random, depth: int) -> Condition:
    found: Condition = chance.choice(
        (
            {"event": "A"},
            {"event": "B"},
            {"any": True},
            {"type": "identify"},
            {"any_of": [{"event": "B"}, {"type": "page"}]},
        )
    )
    where: list[Condition] = []
    if chance.random() < 0.3:
        where.append({"property": ["p"]} | chance.choice(({"is": "x"}, {"is_not": "x"})))
    if depth and chance.random() < 0.15:
        where.append({"cohort": make_condition(chance, depth - 1)})
    return found | ({"where": where} if where else {})
