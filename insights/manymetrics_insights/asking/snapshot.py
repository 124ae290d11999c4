"""One state of the tables, and what its questions share: answers, and a narrow copy of the events in memory.

The copy has a number for each person and the columns that most questions read, compressed: 35 MB for 1M events. It is
made with the second question that it can answer, as it costs about as much as two, and only once nothing was committed
for a while: a table that grows every few seconds is read from its files. Questions about other columns, and
those that name persons, read the files. The SQL is the same but for the relation that it reads first. All of it goes
with the state: the next commit, or an erasure, leaves nothing of it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import duckdb

from manymetrics.tables import TABLES
from manymetrics_insights.asking.answer import Answer
from manymetrics_insights.asking.ask import (
    PROJECTS,
    ReadStream,
    Settled,
    choose_project,
    make_context,
    run,
    settle,
    unseen_events,
)
from manymetrics_insights.questions.models import AnyQuestion, question_hash
from manymetrics_insights.reader.iceberg import Source
from manymetrics_insights.reader.session import Session, open_session
from manymetrics_insights.sql.render import render
from manymetrics_insights.sql.scope import PERSON_EVENTS, Events

MAX_ANSWERS: Final = 200
MAX_CACHED_ROWS: Final = 20_000  # of one answer
QUIET_FOR_S: Final = 30  # since the last commit, before the copy is made
FRESH_FOR: Final = timedelta(minutes=1)  # how long to return an answer that the passing of time changes a little
NARROW_COLUMNS: Final = (
    "project_id", "event_time", "received_at", "message_id", "type", "event", "bot_kind", "context_page_path",
    "session_id",
)  # fmt: skip
NARROW: Final = Events("warm.narrow", "person", "has_device", "engaged_text")
_USABLE: Final = frozenset({*NARROW_COLUMNS, "has_device", "engaged_text"})
_PERSONS: Final = """CREATE TABLE warm.persons AS
SELECT CAST(ROW_NUMBER() OVER () AS INTEGER) AS person, project_id, person_kind, person_id
FROM (SELECT DISTINCT project_id, person_kind, person_id FROM person_events WHERE person_id IS NOT NULL)"""
_NARROW: Final = f"""CREATE TABLE warm.narrow AS
SELECT p.person, e.* EXCLUDE (person_kind, person_id)
FROM (
  SELECT {", ".join(NARROW_COLUMNS)}, {PERSON_EVENTS.has_device} AS has_device, {PERSON_EVENTS.engaged} AS engaged_text,
    person_kind, person_id
  FROM person_events
) AS e
LEFT JOIN warm.persons AS p USING (project_id, person_kind, person_id)"""  # noqa: S608  # constants


@dataclass(slots=True)
class _Kept:
    answer: Answer
    until: datetime | None  # naive UTC; None: as long as the state


@dataclass(slots=True)
class Snapshot:
    """Open it with ``open_snapshot``. Threads may ask at the same time, each with a cursor of its own."""

    source: Source
    session: Session
    read_stream: ReadStream
    locations: tuple[str | None, ...]
    _answers: OrderedDict[str, _Kept] = field(default_factory=OrderedDict)
    _projects: list[Any] | None = None
    _asked: int = 0
    _narrow: bool | None = None  # None: not made yet; False: it can't be made
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_current(self) -> bool:
        """Return whether nothing was committed since. Raises LakeError, sqlite3.Error."""
        return self.locations == _locations(self.source)

    def answer(self, question: AnyQuestion, now: datetime, cursor: duckdb.DuckDBPyConnection) -> Answer:
        """Answer on ``cursor``, a connection of the session. Raises QuestionError, duckdb.Error."""
        began = time.perf_counter()
        context = make_context(self.session, now, self.read_stream)
        project = choose_project(question, lambda _sql: self._list_projects(cursor))
        settled = settle(question, project, context)
        key = question_hash(settled.question)
        kept = self._answers.get(key)
        if kept is not None and (kept.until is None or now < kept.until):
            return replace(kept.answer, ms=(time.perf_counter() - began) * 1000)
        rendered = settled.rendered
        if rendered.used <= _USABLE and self._has_narrow(cursor):
            rendered = render(settled.question, replace(settled.scope, events=NARROW))
        rows, ignored = run(rendered, cursor)
        found = settled.to_answer(
            rows,
            ignored=ignored,
            engine="duckdb",
            snapshot=self.session.events.snapshot_id if self.session.events else None,
            began=began,
            notes=unseen_events(settled.question, cursor, NARROW.relation if self._narrow else "events"),
        )
        self._keep(key, found, settled, now)
        return found

    def _list_projects(self, cursor: duckdb.DuckDBPyConnection) -> list[Any]:
        if self._projects is None:
            self._projects = cursor.execute(PROJECTS).fetchall()
        return self._projects

    def _has_narrow(self, cursor: duckdb.DuckDBPyConnection) -> bool:
        """Return whether the narrow copy is there; make it for the second question."""
        with self._lock:
            self._asked += 1
            if self._asked > 1 and self._is_quiet():
                self.prepare(cursor)
            return self._narrow is True

    def _is_quiet(self) -> bool:
        state = self.session.events
        last = max((one.timestamp_ms for one in state.snapshots), default=0) if state else 0
        return time.time() - last / 1_000 >= QUIET_FOR_S

    def prepare(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Make the narrow copy, if that was not tried before."""
        if self._narrow is not None:
            return
        try:
            cursor.execute("ATTACH IF NOT EXISTS ':memory:' AS warm (COMPRESS)")
            cursor.execute("DROP TABLE IF EXISTS warm.persons")
            cursor.execute("DROP TABLE IF EXISTS warm.narrow")
            cursor.execute(_PERSONS)
            cursor.execute(_NARROW)
            cursor.execute("CHECKPOINT warm")  # compresses
            self._narrow = True
        except duckdb.OutOfMemoryException:
            self._narrow = False

    def forget_answers(self) -> None:
        """Forget the answers, not the narrow copy."""
        with self._lock:
            self._answers.clear()

    def _keep(self, key: str, found: Answer, settled: Settled, now: datetime) -> None:
        if len(found.rows) > MAX_CACHED_ROWS:
            return
        changes_at = settled.rendered.changes_at
        until = None if changes_at is None else max(changes_at, now + FRESH_FOR)
        with self._lock:
            self._answers[key] = _Kept(found, until)
            self._answers.move_to_end(key)
            while len(self._answers) > MAX_ANSWERS:
                self._answers.popitem(last=False)


def open_snapshot(source: Source, read_stream: ReadStream) -> Snapshot:
    """Open the newest state. Raises LakeError, FileNotFoundError, sqlite3.Error."""
    locations = _locations(source)
    return Snapshot(source, open_session(source), read_stream, locations)


def _locations(source: Source) -> tuple[str | None, ...]:
    return tuple(source.metadata_location(table.name) for table in TABLES)
