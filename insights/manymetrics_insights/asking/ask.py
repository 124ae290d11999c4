"""Ask a question of the tables: settle what it leaves open, render it, run it, and return the answer with its receipt.

    question -> settled (names, project, dates, as_of) -> SQL -> rows -> Answer

``answer`` runs it on an open DuckDB session; ``snapshot`` keeps what several questions share; ``ask_athena`` has Athena
run the same SQL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import duckdb

from manymetrics_insights.asking.answer import Answer, shape, show_time
from manymetrics_insights.definitions.inline import inline
from manymetrics_insights.definitions.models import Definitions
from manymetrics_insights.questions.base import nearest
from manymetrics_insights.questions.filters import Matcher, parse_instant
from manymetrics_insights.questions.models import (
    AnyQuestion,
    Persons,
    QuestionError,
    Ranged,
    Timeline,
    normal_form,
    question_hash,
)
from manymetrics_insights.reader.complete_through import StreamState, complete_through
from manymetrics_insights.reader.session import Session
from manymetrics_insights.sql import text
from manymetrics_insights.sql.render import render
from manymetrics_insights.sql.rendered import Rendered
from manymetrics_insights.sql.scope import Scope, resolve_range

PROJECTS: Final = "SELECT DISTINCT project_id FROM events ORDER BY 1 LIMIT 100"
ReadStream = Callable[[Mapping[str, str]], StreamState | None]
"""Compares the local stream with the table's properties; see ``reader.complete_through``."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an answer depends on besides question and tables. Times are naive UTC.

    ``complete_through``: None if unknown, which counts as ``now``. ``notes``: on it, for the answer.
    """

    now: datetime
    complete_through: datetime | None
    notes: tuple[str, ...] = ()
    definitions: Definitions | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A question that leaves nothing open, and its SQL."""

    question: AnyQuestion
    rendered: Rendered
    context: Context
    scope: Scope

    @property
    def is_broken_down(self) -> bool:
        """Whether segments are of several values."""
        return not isinstance(self.question, Persons) and len(getattr(self.question, "by", ())) > 1

    def to_answer(
        self,
        rows: list[tuple[Any, ...]],
        *,
        ignored: int,
        engine: str,
        snapshot: int | None,
        began: float,
        notes: tuple[str, ...] = (),
        bytes_read: int | None = None,
        price: float | None = None,
    ) -> Answer:
        """Return the answer. ``began``: of ``time.perf_counter``."""
        columns = self.rendered.columns
        return Answer(
            question=normal_form(self.question),
            hash=question_hash(self.question),
            engine=engine,
            snapshot=snapshot,
            complete_through=self.context.complete_through,
            sql=self.rendered.sql,
            ms=(time.perf_counter() - began) * 1000,
            bytes_read=bytes_read,
            price=price,
            ignored=ignored,
            columns=columns,
            rows=[shape(columns, row, several=self.is_broken_down) for row in rows],
            notes=(*self.context.notes, *notes),
        )


def make_context(session: Session, now: datetime, read_stream: ReadStream) -> Context:
    """Return the context of a session. ``now``: naive UTC, taken before the session was opened."""
    properties = session.events.properties if session.events else {}
    return context_of(properties, now, read_stream(properties))


def context_of(
    properties: Mapping[str, str],
    now: datetime,
    local_stream: StreamState | None = None,
    definitions: Definitions | None = None,
) -> Context:
    """Return the context of a state of the table of events. ``now``: naive UTC, taken before it was read."""
    through, notes = complete_through(properties, now.replace(tzinfo=UTC), local_stream)
    return Context(now, None if through is None else through.replace(tzinfo=None), tuple(notes), definitions)


def answer(question: AnyQuestion, session: Session, context: Context) -> Answer:
    """Answer on an open session. Raises QuestionError, duckdb.Error."""
    began = time.perf_counter()
    connection = session.connection
    settled = settle(question, choose_project(question, lambda sql: connection.execute(sql).fetchall()), context)
    rows, ignored = run(settled.rendered, connection)
    return settled.to_answer(
        rows,
        ignored=ignored,
        engine="duckdb",
        snapshot=session.events.snapshot_id if session.events else None,
        began=began,
        notes=unseen_events(settled.question, connection),
    )


def run(rendered: Rendered, connection: duckdb.DuckDBPyConnection) -> tuple[list[tuple[Any, ...]], int]:
    """Run a question on DuckDB; return its rows, and how many values were ignored."""
    rows = connection.execute(rendered.sql).fetchall()
    ignored = connection.execute(rendered.ignored).fetchone() if rendered.ignored else None
    return rows, int(ignored[0]) if ignored else 0


def settle(question: AnyQuestion, project: str, context: Context) -> Settled:
    """Write into a question what it leaves open and what its names stand for, and render it. Raises QuestionError."""
    question = inline(question, context.definitions)
    through = context.complete_through or context.now
    as_of = getattr(question.of if isinstance(question, Persons) else question, "as_of", None)
    if as_of is not None:
        through = min(through, parse_instant(as_of))
    settled = _fix(question, project, context.now, through)
    scope = Scope(project, through, context.now)
    return Settled(settled, render(settled, scope), context, scope)


def _fix(question: AnyQuestion, project: str, now: datetime, through: datetime) -> AnyQuestion:
    if isinstance(question, Timeline):
        return question.model_copy(update={"project": project})
    if isinstance(question, Persons):
        return question.model_copy(update={"project": project, "of": _fix(question.of, project, now, through)})
    days = resolve_range(question, now)
    fixed = {
        "project": project,
        "from_": days.first.isoformat(),
        "to": days.to.isoformat(),
        "last": None,
        "as_of": show_time(through),
    }
    return question.model_copy(update=fixed)


def choose_project(question: AnyQuestion, run: Callable[[str], list[Any]]) -> str:
    """Return the project that a question is about; ``run`` executes SQL. Raises QuestionError if it must be named."""
    asked = question.project
    if asked is None and isinstance(question, Persons):
        asked = question.of.project
    if asked is not None:
        return asked
    found = run(PROJECTS)
    if len(found) > 1:
        names = ", ".join(str(row[0]) for row in found)
        raise QuestionError([(["project"], f"there are several, name one: {names}")])
    return str(found[0][0]) if found else ""


def unseen_events(
    question: AnyQuestion, connection: duckdb.DuckDBPyConnection, relation: str = "events"
) -> tuple[str, ...]:
    """Return a note on each event of a question that the project never received, with the nearest that it did."""
    names = sorted({matcher.event for matcher in _matchers(question) if matcher.event is not None})
    if not names:
        return ()
    of_project = f"FROM {relation} WHERE project_id = {text.literal(question.project or '')} AND type = 'track'"
    asked = ", ".join(map(text.literal, names))
    seen = {
        row[0] for row in connection.execute(f"SELECT DISTINCT event {of_project} AND event IN ({asked})").fetchall()
    }
    unseen = [name for name in names if name not in seen]
    if not unseen:
        return ()
    known = [
        row[0] for row in connection.execute(f"SELECT DISTINCT event {of_project}").fetchall() if row[0] is not None
    ]
    return tuple(f"no event {name!r} was ever received{nearest(name, known)}" for name in unseen)


def _matchers(part: object) -> list[Matcher]:
    """Return all matchers in a question."""
    if isinstance(part, Matcher):
        return [part, *_matchers(part.any_of)]
    if isinstance(part, tuple):
        return [matcher for one in part for matcher in _matchers(one)]
    if isinstance(part, Ranged | Persons):
        return [matcher for name in type(part).model_fields for matcher in _matchers(getattr(part, name))]
    return []


def now_utc() -> datetime:
    """Return the time, naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)
