"""Cohorts: the persons who meet a condition, as a subquery with one column, ``person``.

    rows of the population -> flags of what was done -> counted by person -> condition over counts and traits

All parts of a condition are counted in one pass. A person belongs to a cohort or not, so no part is ever unknown; who
has no row of the population (bots are out, as the question says) is in no cohort.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from manymetrics_insights.questions.base import Model, days
from manymetrics_insights.questions.filters import (
    AllOfCohorts,
    AnyCohort,
    AnyOfCohorts,
    Did,
    DidNot,
    FirstDid,
    InCohort,
    Matcher,
    NotCohort,
    OfPerson,
)
from manymetrics_insights.questions.models import QuestionError, Ranged
from manymetrics_insights.sql import text
from manymetrics_insights.sql.calendar import Calendar
from manymetrics_insights.sql.rows import Rows
from manymetrics_insights.sql.scope import Scope
from manymetrics_insights.sql.statement import Statement

_KEY_LENGTH: Final = 10


def add_cohort(statement: Statement, scope: Scope, question: Ranged, cohort: AnyCohort) -> tuple[str, set[str]]:
    """Add the persons of a cohort; return the subquery's name, and the columns of ``person_events`` that it reads.

    ``question``: for its population and zone. Equal cohorts of one statement are one subquery. Raises QuestionError.
    """
    while isinstance(cohort, InCohort) and not isinstance(cohort.cohort, str):
        cohort = cohort.cohort
    cohort_sql = CohortSql(statement, scope, question, cohort, f"cohort_{_key(question, cohort)}")
    return cohort_sql.add(), cohort_sql.used


def changes_at(question: Ranged, scope: Scope) -> datetime | None:
    """Return when the days that a question's cohorts count move on: at the next local midnight, naive UTC; else None."""
    if not _counts_days(question):
        return None
    calendar = Calendar(question.zone, question.week_start)
    return calendar.midnight(calendar.local_day(scope.complete_through) + timedelta(1))


def _counts_days(part: object) -> bool:
    if isinstance(part, tuple):
        return any(map(_counts_days, part))
    if not isinstance(part, Model):
        return False
    if isinstance(part, Did | DidNot | FirstDid) and part.last is not None:
        return True
    return any(_counts_days(getattr(part, name)) for name in type(part).model_fields)


def _key(question: Ranged, cohort: AnyCohort) -> str:
    """Return a key of the condition and the population, so that a name stands for one subquery."""
    rules = [rule.model_dump(mode="json", by_alias=True, exclude_none=True) for rule in question.bot_rows or ()]
    form = [cohort.model_dump(mode="json", by_alias=True, exclude_none=True), question.bots, rules]
    return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()[:_KEY_LENGTH]


@dataclass(slots=True)
class CohortSql:
    """Adds one cohort. ``counts``: SQL of the aggregates over a person's rows, by name."""

    statement: Statement
    scope: Scope
    question: Ranged
    cohort: AnyCohort
    name: str
    rows: Rows = field(init=False)
    people: Rows = field(init=False)
    counts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Who is internal is not asked here: it is a cohort itself.
        population = self.question.model_copy(update={"internal": "include", "where": ()})
        self.rows = Rows(self.statement, self.scope, population, f"{self.name}_rows", filtered=False)
        self.people = Rows(self.statement, self.scope, population, f"{self.name}_people")

    @property
    def used(self) -> set[str]:
        """The columns of ``person_events`` that it reads."""
        return self.rows.used | self.people.used

    def add(self) -> str:
        """Add the subqueries and return the name of the last."""
        if _may_have_no_row(self.cohort):
            self.rows.keep_all()
        else:
            self._bound(self.cohort)
        condition = self._condition(self.cohort)
        ids: list[str] = [name for name in ("person_id", "person_kind") if name in self.people.raw]
        self.rows.base(*ids)
        ids = [f"MIN({self.rows.column(name)}) AS {name}" for name in ids]
        rows = self.rows.finish()
        selected = ", ".join(["person", *(f"{sql} AS {name}" for name, sql in self.counts.items()), *ids])
        counted = f"SELECT {selected}\nFROM {rows}\nGROUP BY person"
        traits = ""
        if self.people.traits:
            traits = f"\nLEFT JOIN {self.people.add_traits()} AS traits_of ON traits_of.trait_person = counted.person"
        return self.statement.add(
            self.name, f"SELECT person\nFROM (\n{counted}\n) AS counted{traits}\nWHERE {condition}"
        )

    def _bound(self, cohort: AnyCohort) -> None:
        """Read only the days that matter, if all that is asked lies in the last ones."""
        starts = [None if isinstance(one, FirstDid) or one.last is None else one.last for one in _done(cohort)]
        if starts and all(starts) and not self.scope.is_view:
            spans = [self._span(last) for last in starts if last is not None]
            self.rows.start, self.rows.end = min(start for start, _ in spans), max(end for _, end in spans)

    def _span(self, last: str) -> tuple[datetime, datetime]:
        """Return the instants of whole local days up to, with, that of complete-through; naive UTC."""
        calendar = Calendar(self.question.zone, self.question.week_start)
        after = calendar.local_day(self.scope.complete_through) + timedelta(1)
        return calendar.midnight(after - days(last)), calendar.midnight(after)

    def _within(self, last: str | None, time: str) -> str:
        if last is None:
            return "TRUE"
        if self.scope.is_view:
            today = "CAST(CURRENT_TIMESTAMP AT TIME ZONE 'UTC' AS DATE)"
            start = f"CAST({today} - INTERVAL '{days(last).days - 1}' DAY AS TIMESTAMP)"
            end = f"CAST({today} + INTERVAL '1' DAY AS TIMESTAMP)"
        else:
            start, end = map(text.timestamp, self._span(last))
        return f"{time} >= {start} AND {time} < {end}"

    def _condition(self, one: AnyCohort) -> str:
        """Return a condition, never null, over counts and traits."""
        if isinstance(one, AllOfCohorts):
            return f"({' AND '.join(map(self._condition, one.all)) or 'TRUE'})"
        if isinstance(one, AnyOfCohorts):
            return f"({' OR '.join(map(self._condition, one.any)) or 'FALSE'})"
        if isinstance(one, NotCohort):
            return f"NOT {self._condition(one.not_)}"
        if isinstance(one, Did):
            return f"({self._count(one.did, one.last)} >= {one.at_least})"
        if isinstance(one, DidNot):
            return f"({self._count(one.did_not, one.last)} = 0)"
        if isinstance(one, FirstDid):
            first = self._aggregate("first", f"MIN(CASE WHEN {self.rows.flag(one.first_did)} THEN event_time END)")
            return f"({first} IS NOT NULL AND {self._within(one.last, first)})"
        if isinstance(one, OfPerson):
            return self.people.condition(one)
        if isinstance(one.cohort, str):
            raise QuestionError([([], f"there is no cohort {one.cohort!r}")])
        return self._condition(one.cohort)

    def _count(self, matcher: Matcher, last: str | None) -> str:
        within = self._within(last, "event_time")
        return self._aggregate("times", f"COUNT(CASE WHEN {self.rows.flag(matcher)} AND {within} THEN 1 END)")

    def _aggregate(self, prefix: str, sql: str) -> str:
        for name, known in self.counts.items():
            if known == sql:
                return name
        name = f"{prefix}_{len(self.counts) + 1}"
        self.counts[name] = sql
        return name


def _may_have_no_row(cohort: AnyCohort) -> bool:
    """Return whether a person without any row that a matcher names may belong to it."""
    if isinstance(cohort, AllOfCohorts):
        return all(map(_may_have_no_row, cohort.all))
    if isinstance(cohort, AnyOfCohorts):
        return any(map(_may_have_no_row, cohort.any))
    if isinstance(cohort, InCohort):
        return isinstance(cohort.cohort, str) or _may_have_no_row(cohort.cohort)
    return not isinstance(cohort, Did | FirstDid)


def _done(cohort: AnyCohort) -> list[Did | DidNot | FirstDid]:
    if isinstance(cohort, Did | DidNot | FirstDid):
        return [cohort]
    if isinstance(cohort, AllOfCohorts | AnyOfCohorts):
        members = cohort.all if isinstance(cohort, AllOfCohorts) else cohort.any
        return [one for member in members for one in _done(member)]
    if isinstance(cohort, NotCohort):
        return _done(cohort.not_)
    if isinstance(cohort, InCohort) and not isinstance(cohort.cohort, str):
        return _done(cohort.cohort)
    return []
