"""The events of a question: one subquery that reads ``person_events``, filters, and computes what the question needs.

    person_events -> inner: project, time, bots, candidates by type and name; values out of JSON
                  -> outer: filters, flags of matchers, numbers

JSON is only read of rows that the inner conditions leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from manymetrics_insights.questions.base import Scalar
from manymetrics_insights.questions.filters import (
    AllOf,
    AnyCohort,
    AnyOf,
    Condition,
    Filter,
    InCohort,
    Matcher,
    Not,
    Subject,
    column_type,
    is_time,
    parse_instant,
)
from manymetrics_insights.questions.models import QuestionError, Ranged
from manymetrics_insights.questions.patterns import parse_pattern
from manymetrics_insights.sql import text
from manymetrics_insights.sql.scope import PERSON_EVENTS, PERSON_OF_ALL, Scope
from manymetrics_insights.sql.statement import Statement

BY_THE_PAGE: Final = ("Page Left", "Web Vitals", "Error", "Dead Click")  # told without the person acting
AUTOCAPTURED: Final = ("Element Clicked", "Form Submitted", "Field Changed", "Rage Click")
MAX_AHEAD: Final = timedelta(hours=24)  # an event_time is at most so far ahead of received_at


def _names(names: Sequence[str]) -> str:
    return f"({', '.join(map(text.literal, names))})"


PAGES: Final = "type IN ('page', 'screen')"
ACTIVE: Final = f"({PAGES} OR type = 'track' AND COALESCE(event, '') NOT IN {_names(BY_THE_PAGE)})"
OF_SESSIONS: Final = (
    f"({PAGES} OR type = 'track' AND (COALESCE(event, '') = 'Page Left'"
    f" OR COALESCE(event, '') NOT IN {_names(BY_THE_PAGE)}))"
)
CUSTOM: Final = f"(type = 'track' AND COALESCE(event, '') NOT IN {_names([*BY_THE_PAGE, *AUTOCAPTURED])})"


@dataclass(slots=True)
class Rows:
    """Builds the subquery ``name``: its columns are person, event_time, and those that the methods return."""

    statement: Statement
    scope: Scope
    question: Ranged
    name: str = "e"
    needs_person: bool = True
    start: datetime | None = None  # [start, end), naive UTC; None: all time
    end: datetime | None = None
    filtered: bool = True  # by the question's `where`
    raw: dict[str, str] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    candidates: list[str] | None = field(default_factory=list)  # None: all rows
    traits: dict[str, str] = field(default_factory=dict)
    used_by_cohorts: set[str] = field(default_factory=set)

    def base(self, *columns: str) -> None:
        """Read columns of ``person_events``."""
        for column in columns:
            self.raw[column] = column

    def keep(self, condition: str) -> None:
        """Keep rows that meet this condition on columns of ``person_events``, besides those that a matcher may match."""
        if self.candidates is not None:
            self.candidates.append(condition)

    def keep_all(self) -> None:
        """Keep all rows."""
        self.candidates = None

    def flag(self, matcher: Matcher) -> str:
        """Add a boolean column, never null: whether the matcher matches. Keeps such rows."""
        self.keep(self._head(matcher))
        return self.column(self.matches(matcher), "m")

    def value(self, subject: Subject) -> str:
        """Add a column with the subject's text, null where it is not set."""
        return self.column(self.text(subject), "v")

    def number(self, subject: Subject) -> str:
        """Add a column with the subject's number, null where it is none."""
        return self.column(text.number(self.text(subject)), "x")

    def column(self, sql: str, prefix: str = "c") -> str:
        """Add a column of this SQL over the inner columns."""
        for name, known in self.out.items():
            if known == sql:
                return name
        name = f"{prefix}{len(self.out) + 1}"
        self.out[name] = sql
        return name

    def of_session(self) -> str:
        """Return a condition over the inner columns: whether a row is part of a session. Keeps such rows."""
        self.base("type", "event")
        has_device = self.scope.events.has_device
        self.raw["has_device"] = has_device
        self.keep(f"({OF_SESSIONS} AND {has_device})")
        return f"({OF_SESSIONS} AND has_device)"

    def engaged(self) -> str:
        """Return the inner column with the text of `engagedMs` of a `Page Left`."""
        self.raw["engaged_text"] = self.scope.events.engaged
        return "engaged_text"

    @property
    def used(self) -> set[str]:
        """What it reads of ``person_events``: columns, ``properties`` for any, ``person_id`` for a person's name."""
        derived = {"has_device", "engaged_text"}
        found = {name if sql == name or name in derived else "properties" for name, sql in self.raw.items()}
        return found | self.used_by_cohorts | ({"person_id"} if self.traits else set())

    def finish(self, condition: str = "") -> str:
        """Add the subquery to the statement and return its name. ``condition``: over the inner columns."""
        conditions = [self.condition(one) for one in self.question.where] if self.filtered else []
        if condition:
            conditions.append(condition)
        conditions += self._population()
        if self.needs_person:
            conditions.append("person IS NOT NULL")
        events = self.scope.events
        inner = [f"{events.person} AS person", "event_time", "message_id AS tie"]
        inner += [
            sql if sql == name else f"{sql} AS {name}"
            for name, sql in self.raw.items()
            if name not in {"event_time", "tie"}
        ]
        source = f"SELECT {', '.join(inner)}\nFROM {events.relation}\nWHERE {' AND '.join(self._row_conditions())}"
        outer = ["person", "event_time", "tie", *(f"{sql} AS {name}" for name, sql in self.out.items())]
        joins = ""
        if self.traits:
            joins = f"\nLEFT JOIN {self.add_traits()} AS traits_of ON traits_of.trait_person = rows_of.person"
        where = f"\nWHERE {' AND '.join(conditions)}" if conditions else ""
        self.statement.add(self.name, f"SELECT {', '.join(outer)}\nFROM (\n{source}\n) AS rows_of{joins}{where}")
        return self.name

    def _population(self) -> list[str]:
        """Return conditions over the inner columns: internal persons, and bots by the question's own rules."""
        question, found = self.question, []
        rules = [self.condition(one) for one in question.bot_rows or ()]
        if question.bots == "exclude" and rules:
            found.append(f"NOT ({' OR '.join(rules)})")
        if question.bots == "only" and rules:
            self.base("bot_kind")
            found.append(f"(bot_kind IS NOT NULL OR {' OR '.join(rules)})")
        if question.internal != "include":
            if question.internal_cohort is None:
                raise QuestionError([(["internal"], "no internal users are defined")])
            internal = self._in_cohort(question.internal_cohort)
            found.append(internal if question.internal == "only" else f"NOT {internal}")
        return found

    def _in_cohort(self, cohort: AnyCohort) -> str:
        from manymetrics_insights.sql.cohorts import add_cohort  # which is made of rows, too

        name, used = add_cohort(self.statement, self.scope, self.question, cohort)
        self.used_by_cohorts |= used
        return f"COALESCE(person IN (SELECT person FROM {name}), FALSE)"

    def _row_conditions(self) -> list[str]:
        found = ["TRUE" if self.scope.is_view else f"project_id = {text.literal(self.scope.project)}"]
        if self.start is not None:
            found.append(f"event_time >= {text.timestamp(self.start)}")
            found.append(f"received_at >= {text.timestamp(self.start - MAX_AHEAD)}")
        if self.end is not None:
            found.append(f"event_time < {text.timestamp(self.end)}")
        if self.question.bots == "exclude":
            found.append("bot_kind IS NULL")
        if self.question.bots == "only" and not self.question.bot_rows:
            found.append("bot_kind IS NOT NULL")
        if self.candidates:
            found.append(f"({' OR '.join(dict.fromkeys(self.candidates))})")
        return found

    def _head(self, matcher: Matcher) -> str:
        """Return a condition on columns that all events of the matcher meet."""
        if matcher.any_of is not None:
            return " OR ".join(self._head(one) for one in matcher.any_of)
        if matcher.event is not None:
            return f"(type = 'track' AND event = {text.literal(matcher.event)})"
        if matcher.page is not None:
            return f"(type = 'page' AND context_page_path = {text.literal(matcher.page)})"
        return ACTIVE if matcher.any else f"type = '{matcher.type}'"

    def matches(self, matcher: Matcher) -> str:
        """Return a condition, never null, over the inner columns."""
        if matcher.any_of is not None:
            head = f"({' OR '.join(self.matches(one) for one in matcher.any_of)})"
        elif matcher.definition is not None:
            raise QuestionError([([], f"there is no definition of an event {matcher.definition!r}")])
        else:
            self.base("type")
            if matcher.event is not None or matcher.any:
                self.base("event")
            if matcher.page is not None:
                self.base("context_page_path")
            head = f"COALESCE({self._head(matcher)}, FALSE)"
        return " AND ".join([head, *map(self.condition, matcher.where)]) if matcher.where else head

    def condition(self, one: Filter) -> str:
        """Return a filter as a condition, never null, over the inner columns."""
        if isinstance(one, AllOf):
            return f"({' AND '.join(map(self.condition, one.all)) or 'TRUE'})"
        if isinstance(one, AnyOf):
            return f"({' OR '.join(map(self.condition, one.any)) or 'FALSE'})"
        if isinstance(one, Not):
            return f"NOT {self.condition(one.not_)}"
        if isinstance(one, InCohort):
            if isinstance(one.cohort, str):
                raise QuestionError([([], f"there is no cohort {one.cohort!r}")])
            return self._in_cohort(one.cohort)
        return self._operation(one)

    def _operation(self, one: Condition) -> str:
        operator = one.operator
        operand = getattr(one, operator)
        if is_time(one):
            assert one.column is not None
            self.base(one.column)
            return _time_operation(one.column, operator, operand)
        value = self.text(one)
        if operator == "is_set":
            return f"({value} IS {'NOT ' if operand else ''}NULL)"
        if operator == "is_":
            return _true(_equal(value, operand))
        if operator == "is_not":
            return f"NOT {_true(_equal(value, operand))}"
        if operator == "in_":
            return _true(" OR ".join(_equal(value, item) for item in operand))
        if operator == "between":
            low, high = operand
            return _true(f"{_compared(value, '>=', low)} AND {_compared(value, '<=', high)}")
        if operator in _COMPARISONS:
            return _true(_compared(value, _COMPARISONS[operator], operand))
        return _true(_text_operation(value, operator, operand))

    def text(self, subject: Subject) -> str:
        """Return the inner column with the subject's text."""
        if subject.column is not None:
            if subject.column == "person_id":
                self.base("person_id")
                return "person_id"
            self.base(subject.column)
            if column_type(subject.column) == "string":
                return subject.column
            return f"CAST({subject.column} AS VARCHAR)"
        if subject.property is not None:
            return self._raw(text.json_value("properties", subject.property), "p")
        assert subject.trait is not None
        return self._trait(subject.trait)

    def _raw(self, sql: str, prefix: str) -> str:
        for name, known in self.raw.items():
            if known == sql:
                return name
        name = f"{prefix}_{len(self.raw) + 1}"
        self.raw[name] = sql
        return name

    def _trait(self, keys: tuple[str, ...]) -> str:
        column = self.traits.setdefault(keys[0], f"trait_{len(self.traits) + 1}")
        value = f"CASE WHEN {column} IS NOT NULL THEN JSON_EXTRACT_SCALAR({column}, {text.json_path(keys[1:])}) END"
        if len(keys) > 1:
            value = text.json_value(column, keys[1:])
        return f"({value})"

    def add_traits(self) -> str:
        """Add the subquery with each person's latest non-null value, as JSON text, of each trait in use."""
        columns = [f"{_json_text('traits', key)} AS {column}" for key, column in self.traits.items()]
        latest = [
            f"MAX_BY({column}, ROW(event_time, message_id)) FILTER (WHERE {column} IS NOT NULL AND {column} <> 'null')"
            f" AS {column}"
            for column in self.traits.values()
        ]
        person = PERSON_OF_ALL if self.scope.is_view else PERSON_EVENTS.person
        of_project = "" if self.scope.is_view else f"project_id = {text.literal(self.scope.project)} AND "
        return self.statement.add(
            f"traits_of_{self.name}",
            f"SELECT trait_person, {', '.join(latest)}\nFROM (\n"
            f"SELECT {person} AS trait_person, event_time, message_id, {', '.join(columns)}\n"
            f"FROM person_events\nWHERE {of_project}type = 'identify'"
            " AND person_id IS NOT NULL AND traits IS NOT NULL\n) AS identified\nGROUP BY trait_person",
        )


def _json_text(column: str, key: str) -> str:
    """Return the JSON text of an object's key; null for malformed JSON and what is no object."""
    return (
        f"CASE WHEN TRY(JSON_PARSE({column})) IS NOT NULL AND LTRIM({column}) LIKE '{{%'"
        f" THEN JSON_FORMAT(JSON_EXTRACT({column}, {text.json_path((key,))})) END"
    )


_COMPARISONS: Final = {"less": "<", "at_most": "<=", "more": ">", "at_least": ">="}


def _true(condition: str) -> str:
    return f"COALESCE({condition}, FALSE)"


def _equal(value: str, operand: Scalar) -> str:
    if isinstance(operand, bool):
        return f"{value} = '{'true' if operand else 'false'}'"
    return _compared(value, "=", operand)


def _compared(value: str, comparison: str, operand: Scalar | Decimal) -> str:
    if isinstance(operand, str):
        return f"{value} {comparison} {text.literal(operand)}"
    number = text.decimal(operand)
    if number is not None:
        return f"({text.number(value)}) {comparison} {number}"
    # Beyond all numbers: only an inequality can be true, for any number.
    if comparison in ({"<", "<="} if operand > 0 else {">", ">="}):
        return f"({text.number(value)}) IS NOT NULL"
    return "FALSE"


def _text_operation(value: str, operator: str, operand: str) -> str:
    sought = text.literal(operand)
    if operator == "contains":
        return f"STRPOS({value}, {sought}) > 0" if operand else f"{value} IS NOT NULL"
    if operator == "starts_with":
        return f"STARTS_WITH({value}, {sought})" if operand else f"{value} IS NOT NULL"
    if operator == "ends_with":
        if not operand:
            return f"{value} IS NOT NULL"
        length = len(operand)
        return f"LENGTH({value}) >= {length} AND SUBSTR({value}, LENGTH({value}) - {length - 1}) = {sought}"
    return f"REGEXP_LIKE({value}, {text.literal(parse_pattern(operand))})"


def _time_operation(column: str, operator: str, operand: object) -> str:
    if operator == "is_set":
        return f"({column} IS {'NOT ' if operand else ''}NULL)"
    if operator == "between":
        assert isinstance(operand, tuple)
        low, high = (text.timestamp(parse_instant(one)) for one in operand)
        return _true(f"{column} >= {low} AND {column} <= {high}")
    return _true(f"{column} {_COMPARISONS[operator]} {text.timestamp(parse_instant(operand))}")
