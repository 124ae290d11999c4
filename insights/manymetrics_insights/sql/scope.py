"""What a question is asked of, apart from its own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

from manymetrics_insights.questions.base import days
from manymetrics_insights.questions.models import QuestionError, Ranged
from manymetrics_insights.sql import text
from manymetrics_insights.sql.calendar import Calendar

DEFAULT_LAST: Final = "30d"


@dataclass(frozen=True, slots=True)
class Events:
    """A relation with the rows of ``person_events``, and SQL over it.

    ``person``: one value that names the person, or null. ``has_device``: whether the anonymous_id names anybody.
    ``engaged``: the text of `engagedMs` of a `Page Left`.
    """

    relation: str = "person_events"
    person: str = "CASE WHEN person_kind = 'user' THEN 'u' ELSE 'a' END || person_id"
    has_device: str = "(anonymous_id IS NOT NULL AND COALESCE(repairs, '') NOT LIKE '%anonymous_id_placeholder%')"
    engaged: str = (
        f"CASE WHEN type = 'track' AND event = 'Page Left' THEN {text.json_value('properties', ('engagedMs',))} END"
    )


PERSON_EVENTS: Final = Events()
PERSON_OF_ALL: Final = f"CAST(LENGTH(project_id) AS VARCHAR) || ':' || project_id || {PERSON_EVENTS.person}"
"""One value that names a person among those of all projects."""


@dataclass(frozen=True, slots=True)
class Scope:
    """``project``: whose events. ``complete_through``, ``now``: naive UTC. ``events``: where from.

    ``is_view``: the SQL is of a view, over all projects, which counts days back from when it is read, in UTC.
    """

    project: str
    complete_through: datetime
    now: datetime
    events: Events = PERSON_EVENTS
    is_view: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """Local days [first, to), and their instants [start, end), naive UTC."""

    first: date
    to: date
    start: datetime
    end: datetime
    calendar: Calendar = field(repr=False)


@contextmanager
def naming(field_name: str) -> Iterator[None]:
    """Turn a ValueError of the calendar into a QuestionError about a field of the question."""
    try:
        yield
    except ValueError as error:
        raise QuestionError([([field_name], str(error))]) from None


def resolve_range(question: Ranged, now: datetime) -> Range:
    """Resolve the days of a question; ``now`` is naive UTC."""
    calendar = Calendar(question.zone, question.week_start)
    tomorrow = calendar.local_day(now) + timedelta(1)
    if question.from_ is not None:
        first = date.fromisoformat(question.from_)
        to = date.fromisoformat(question.to) if question.to is not None else max(tomorrow, first + timedelta(1))
    else:
        first, to = tomorrow - days(question.last or DEFAULT_LAST), tomorrow
    return make_range(calendar, first, to)


def make_range(calendar: Calendar, first: date, to: date) -> Range:
    return Range(first, to, calendar.midnight(first), calendar.midnight(to), calendar)
