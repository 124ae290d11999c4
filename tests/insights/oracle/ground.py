"""What all insights stand on: the events of the question's population, matchers, filters, the range and segments."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any, TypeVar

from tests.insights.oracle import values, zones
from tests.insights.oracle.people import Person, Row, find_persons, find_traits, moment

Question = dict[str, Any]
Matcher = dict[str, Any]
Filter = dict[str, Any]
Key = tuple[str | None, ...]
Segment = str | tuple[str, ...] | None
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Operand = str | int | float | Decimal | bool

TOLD_BY_THE_PAGE = ("Page Left", "Web Vitals", "Error", "Dead Click")
NOT_CUSTOM = (*TOLD_BY_THE_PAGE, "Element Clicked", "Form Submitted", "Field Changed", "Rage Click")
MATCHER_KEYS = ("event", "page", "type", "definition", "any", "any_of", "where")
VIEWS = ("page", "screen")


@dataclass(frozen=True, eq=False, slots=True)
class Event:
    row: Row
    person: Person | None
    time: datetime
    message_id: str
    properties: object

    @property
    def order(self) -> tuple[datetime, str]:
        return self.time, self.message_id

    @property
    def type(self) -> str:
        return str(self.row["type"])

    @property
    def name(self) -> str | None:
        value = self.row.get("event")
        return None if value is None else str(value)

    def column(self, name: str) -> str | None:
        if name in ("person_id", "person_kind"):
            person = self.person or (None, "unknown")
            return person[name == "person_kind"]
        value = self.row.get(name)
        return None if value is None else str(value)

    @property
    def is_active(self) -> bool:
        return self.type in VIEWS or (self.type == "track" and self.name not in TOLD_BY_THE_PAGE)

    @property
    def is_view(self) -> bool:
        return self.type in VIEWS

    @property
    def is_custom(self) -> bool:
        return self.type == "track" and self.name not in NOT_CUSTOM


@dataclass(slots=True)
class Ground:
    """A question over the rows of its project."""

    question: Question
    rows: list[Row]
    complete_through: datetime
    definitions: Mapping[str, Any] = field(default_factory=dict)
    now: datetime | None = None

    all_events: list[Event] = field(init=False)  # of every type and of nobody too, in order
    events: list[Event] = field(init=False)  # those of the population
    traits: dict[Person, dict[str, object]] = field(init=False)
    start: date = field(init=False)
    stop: date = field(init=False)
    found: dict[str, Any] = field(init=False, default_factory=dict)  # what is found once

    def __post_init__(self) -> None:
        project = self.question.get("project")
        rows = sorted((r for r in self.rows if project in (None, r["project_id"])), key=moment)
        persons = find_persons(rows)
        self.traits = find_traits(rows, persons)
        self.all_events = [_event(row, person) for row, person in zip(rows, persons, strict=True)]
        self.events = [event for event in self.all_events if self._in_population(event)]
        self.start, self.stop = self._range()

    def _range(self) -> tuple[date, date]:
        if "last" in self.question:
            today = zones.local_day(self.now or self.complete_through, self.zone)
            count = zones.duration(self.question["last"]).days
            return today - timedelta(days=count - 1), today + timedelta(days=1)
        if "from" not in self.question:
            return date.min, date.max
        return date.fromisoformat(self.question["from"]), date.fromisoformat(self.question["to"])

    @property
    def zone(self) -> str:
        return str(self.question.get("zone") or "UTC")

    @property
    def week_start(self) -> str:
        return str(self.question.get("week_start") or "monday")

    # population

    def _in_population(self, event: Event) -> bool:
        is_bot = event.row.get("bot_kind") is not None
        is_internal = "internal" in self.definitions and self.in_cohort(event.person, self.definitions["internal"])
        return _allowed(is_bot, self.question.get("bots", "exclude")) and _allowed(
            is_internal, self.question.get("internal", "include")
        )

    def in_cohort(self, person: Person | None, cohort: Mapping[str, Any]) -> bool:
        """Whether the person is in a cohort as it is defined: a filter on traits."""
        return person is not None and self.holds_for_person(person, cohort)

    def holds_for_person(self, person: Person, condition: Mapping[str, Any]) -> bool:
        if "all" in condition:
            return all(self.holds_for_person(person, each) for each in condition["all"])
        if "any" in condition:
            return any(self.holds_for_person(person, each) for each in condition["any"])
        if "not" in condition:
            return not self.holds_for_person(person, condition["not"])
        return satisfies(self.trait(person, condition["trait"]), dict(condition))

    # matchers and filters

    def kept(self, event: Event) -> bool:
        """Whether the question's ``where`` keeps the event."""
        return all(self.holds(event, each) for each in self.question.get("where", []))

    def matches(self, event: Event, matcher: Matcher) -> bool:
        return self._matches_kind(event, matcher) and all(self.holds(event, each) for each in matcher.get("where", []))

    def _matches_kind(self, event: Event, matcher: Matcher) -> bool:
        if "event" in matcher:
            return event.type == "track" and bool(event.name == matcher["event"])
        if "page" in matcher:
            return event.type == "page" and bool(event.column("context_page_path") == matcher["page"])
        if "type" in matcher:
            return bool(event.type == matcher["type"])
        if "definition" in matcher:
            return self.matches(event, self.definitions["events"][matcher["definition"]])
        if "any_of" in matcher:
            return any(self.matches(event, each) for each in matcher["any_of"])
        assert matcher.get("any") is True, matcher
        return event.is_active

    def matching(self, matcher: Matcher) -> list[Event]:
        """The events that match and that ``where`` keeps, in order, also those of nobody and out of the range."""
        return [event for event in self.events if self.kept(event) and self.matches(event, matcher)]

    def holds(self, event: Event, condition: Filter) -> bool:
        if "all" in condition:
            return all(self.holds(event, each) for each in condition["all"])
        if "any" in condition:
            return any(self.holds(event, each) for each in condition["any"])
        if "not" in condition:
            return not self.holds(event, condition["not"])
        if "cohort" in condition:
            return self.in_cohort(event.person, self.definitions["cohorts"][condition["cohort"]])
        return satisfies(self.value(event, condition), condition)

    def value(self, event: Event, of: Mapping[str, Any]) -> str | None:
        """The text of a property, column or trait; None where it is not set."""
        if "property" in of:
            return values.text(values.value_at(event.properties, of["property"]))
        if "column" in of:
            return event.column(of["column"])
        return None if event.person is None else self.trait(event.person, of["trait"])

    def trait(self, person: Person, path: list[str]) -> str | None:
        return values.text(values.value_at(self.traits.get(person, {}), path))

    # range and buckets

    def in_range(self, event: Event) -> bool:
        return self.start <= zones.local_day(event.time, self.zone) < self.stop

    def bucket(self, time: datetime, interval: str) -> zones.Bucket:
        return zones.bucket_of(time, interval, self.zone, self.week_start)

    def buckets(self, interval: str) -> tuple[zones.Bucket, ...]:
        return zones.buckets(self.start, self.stop, interval, self.zone, self.week_start)

    def is_incomplete(self, bucket: zones.Bucket, interval: str) -> bool:
        return zones.end_of(bucket, interval, self.zone) > self.complete_through

    # segments

    @property
    def by(self) -> list[Mapping[str, Any]]:
        return list(self.question.get("by") or [])

    def key(self, event: Event) -> Key:
        return tuple(self.value(event, each) for each in self.by)

    def segments(self, measured: Mapping[Key, Any]) -> Segments:
        return Segments(len(self.by), int(self.question.get("limit", 10)), dict(measured))


@dataclass(slots=True)
class Segments:
    """The top N keys by their measure, ``(none)`` besides them, and the rest as ``(other)``."""

    members: int
    limit: int
    measured: dict[Key, Any]
    top: list[Key] = field(init=False)

    def __post_init__(self) -> None:
        named = [key for key in self.measured if not self._is_none(key)]
        self.top = sorted(named, key=lambda key: (_descending(self.measured[key]), _texts(key)))[: self.limit]

    def _is_none(self, key: Key) -> bool:
        return all(member is None for member in key)

    def of(self, key: Key) -> Segment:
        if self.members and not self._is_none(key) and key not in self.top:
            return self._shown(("(other)",) * self.members)
        return self._shown(_texts(key))

    def _shown(self, texts: tuple[str, ...]) -> Segment:
        if not self.members:
            return None
        return texts[0] if self.members == 1 else texts

    def all(self) -> list[Segment]:
        """In the order of the answer."""
        if not self.members:
            return [None]
        rest = [key for key in self.measured if key not in self.top]
        in_order = [*self.top, *sorted(rest, key=lambda key: not self._is_none(key))]
        return list(dict.fromkeys(self.of(key) for key in in_order))


def _texts(key: Key) -> tuple[str, ...]:
    return tuple("(none)" if member is None else member for member in key)


def _descending(measure: Any) -> tuple[bool, Any]:  # noqa: ANN401  # any number, or None
    return (True, 0) if measure is None else (False, -measure)


def _event(row: Row, person: Person | None) -> Event:
    time, message_id = moment(row)
    return Event(row, person, time, message_id, values.parse(row.get("properties")))


def _allowed(is_one: bool, option: str) -> bool:
    return bool({"include": True, "exclude": not is_one, "only": is_one}[option])


def satisfies(value: str | None, condition: Filter) -> bool:
    """Whether a value's text passes the operators of a filter."""
    return all(_passes(value, name, condition[name]) for name in condition if name in _OPERATORS)


def _passes(value: str | None, name: str, operand: Any) -> bool:  # noqa: ANN401  # as in the question
    if name == "is_set":
        return bool((value is not None) == operand)
    if name == "is_not":
        return not (value is not None and _equal(value, operand))
    return value is not None and bool(_OPERATORS[name](value, operand))


def _equal(value: str, operand: Operand) -> bool:
    if isinstance(operand, bool):
        return value == ("true" if operand else "false")
    if isinstance(operand, str):
        return value == operand
    return values.number(value) == values.rounded(Decimal(str(operand)))


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[str, Any], bool]:
    def run(value: str, operand: Operand) -> bool:
        if isinstance(operand, str):
            return test(value, operand)
        number = values.number(value)
        return number is not None and test(number, values.rounded(Decimal(str(operand))))

    return run


_at_most = _compare(lambda value, operand: value <= operand)
_at_least = _compare(lambda value, operand: value >= operand)

_OPERATORS: dict[str, Callable[[str, Any], bool]] = {
    "is": _equal,
    "is_not": _equal,
    "in": lambda value, operands: any(_equal(value, each) for each in operands),
    "contains": lambda value, operand: operand in value,
    "starts_with": lambda value, operand: value.startswith(operand),
    "ends_with": lambda value, operand: value.endswith(operand),
    "matches": lambda value, operand: re.search(operand, value) is not None,
    "is_set": lambda value, operand: True,  # noqa: ARG005  # see _passes
    "<": _compare(lambda value, operand: value < operand),
    "<=": _at_most,
    ">": _compare(lambda value, operand: value > operand),
    ">=": _at_least,
    "between": lambda value, operands: _at_least(value, operands[0]) and _at_most(value, operands[1]),
}


# figures


def nearest_rank(numbers: list[Any], share: str) -> Any:  # noqa: ANN401  # one of the numbers, or None
    """The value at position ceil(p n) of the sorted ones."""
    if not numbers:
        return None
    return sorted(numbers)[ceil(Fraction(share) * len(numbers)) - 1]


def ratio(part: Decimal | Fraction | int, whole: int) -> float | None:
    return None if whole == 0 else values.digits12(float(Fraction(part) / whole))


def seconds(span: timedelta) -> Fraction:
    return Fraction(span // timedelta(microseconds=1), 1_000_000)


def seconds12(span: Fraction | None) -> float | None:
    return None if span is None else values.digits12(float(span))


def by_person(events: Iterable[Event]) -> dict[Person, list[Event]]:
    """The events of each person in their order; events of nobody are left out."""
    found: dict[Person, list[Event]] = {}
    for event in events:
        if event.person is not None:
            found.setdefault(event.person, []).append(event)
    return found


def grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    found: dict[K, list[V]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found
