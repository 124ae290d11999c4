"""Ask a question of the tables: parse, render, run on DuckDB, and return the answer with its receipt."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import duckdb

from manymetrics_insights.asking.answer import Answer, shape
from manymetrics_insights.questions.models import AnyQuestion, Persons, QuestionError, normal_form, question_hash
from manymetrics_insights.reader.iceberg import Source
from manymetrics_insights.reader.session import Session, open_session
from manymetrics_insights.sql.render import render
from manymetrics_insights.sql.rendered import Rendered
from manymetrics_insights.sql.scope import Definitions, Scope

ATTEMPTS: Final = 3  # maintenance may remove a snapshot's files between planning and reading


@dataclass(frozen=True, slots=True)
class Context:
    """``now``, ``complete_through``: naive UTC, the latter None if unknown; ``notes`` on it."""

    now: datetime
    complete_through: datetime | None
    notes: tuple[str, ...] = ()
    definitions: Definitions | None = None


def ask(question: AnyQuestion, source: Source, context: Context) -> Answer:
    """Answer on the newest snapshot. Raises QuestionError, LakeError, FileNotFoundError, duckdb.Error."""
    for attempts_left in reversed(range(ATTEMPTS)):
        session = open_session(source)
        with closing(session.connection):
            try:
                return answer(question, session, context)
            except duckdb.Error as error:
                failure = session.failure()
                if isinstance(failure, FileNotFoundError) and attempts_left:
                    continue
                raise failure or error from error
    raise AssertionError("unreachable")


def answer(question: AnyQuestion, session: Session, context: Context) -> Answer:
    """Answer on an open session."""
    began = time.perf_counter()
    project = choose_project(question, session)
    scope = Scope(project, context.complete_through or context.now, context.now, definitions=context.definitions)
    rendered = render(question, scope)
    rows, ignored = run(rendered, session)
    several = is_broken_down(question)
    return Answer(
        normal_form(question) | {"project": project},
        question_hash(question),
        "duckdb",
        session.snapshot,
        context.complete_through,
        rendered.sql,
        (time.perf_counter() - began) * 1000,
        None,
        None,
        ignored,
        rendered.columns,
        [shape(rendered.columns, row, several=several) for row in rows],
        context.notes,
    )


def run(rendered: Rendered, session: Session) -> tuple[list[tuple[Any, ...]], int]:
    """Run a question; return its rows and how many values were ignored."""
    rows = session.connection.execute(rendered.sql).fetchall()
    if rendered.ignored is None:
        return rows, 0
    counted = session.connection.execute(rendered.ignored).fetchone()
    return rows, int(counted[0]) if counted else 0


def is_broken_down(question: AnyQuestion) -> bool:
    """Return whether segments are of several values."""
    return not isinstance(question, Persons) and len(getattr(question, "by", ())) > 1


def choose_project(question: AnyQuestion, session: Session) -> str:
    """Return the project that a question is about. Raises QuestionError if it must be named."""
    asked = question.project
    if asked is None and isinstance(question, Persons):
        asked = question.of.project
    if asked is not None:
        return asked
    found = session.connection.execute("SELECT DISTINCT project_id FROM events ORDER BY 1 LIMIT 100").fetchall()
    if len(found) > 1:
        names = ", ".join(str(name) for (name,) in found)
        raise QuestionError([(["project"], f"there are several, name one: {names}")])
    return str(found[0][0]) if found else ""


def now_utc() -> datetime:
    """Return the time, naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)
