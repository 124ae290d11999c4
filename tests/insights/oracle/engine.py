"""Asks the engine, of many worlds in one lake; compares its answers with the oracle's, and shrinks what differs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from math import isclose
from typing import cast

from manymetrics_insights.asking.answer import Answer
from manymetrics_insights.asking.ask import Context, answer
from manymetrics_insights.questions.models import parse_question
from manymetrics_insights.reader.session import Session
from tests.insights.oracle import oracle
from tests.insights.oracle.ground import Question
from tests.insights.oracle.people import Row
from tests.insights.oracle.worlds import World

Cells = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """An answer that is not the oracle's, in the smallest world found that shows it."""

    question: Question
    rows: list[Row]
    complete_through: datetime
    only_engine: list[Cells]
    only_oracle: list[Cells]

    def __str__(self) -> str:
        events = [{name: value for name, value in row.items() if value is not None} for row in self.rows]
        lines = [f"question: {json.dumps(self.question, ensure_ascii=False)}", f"complete: {self.complete_through}"]
        lines += [f"event:    {event}" for event in events]
        lines += [f"engine:   {row}" for row in self.only_engine[:8]]
        lines += [f"oracle:   {row}" for row in self.only_oracle[:8]]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Engine:
    """A session whose persons are found once for all questions. Without that a question takes 0.2 s, with it 0.02."""

    session: Session

    def hold(self, project: str | None = None, message_ids: Sequence[str] = ()) -> None:
        """Hold all events in memory, or some of a project."""
        connection = self.session.connection
        chosen = "" if project is None else " WHERE project_id = $1 AND list_contains($2, message_id)"
        arguments = [] if project is None else [project, list(message_ids)]
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE events AS SELECT * FROM {self.lake}.events{chosen}", arguments
        )
        self._view()

    def put(self, rows: list[Row]) -> None:
        """Hold rows that are in no lake."""
        connection = self.session.connection
        connection.execute(f"CREATE OR REPLACE TEMP TABLE events AS SELECT * FROM {self.lake}.events WHERE false")
        for row in rows:
            names, places = ", ".join(row), ", ".join("?" for _ in row)
            connection.execute(f"INSERT INTO temp.events ({names}) VALUES ({places})", list(row.values()))
        self._view()

    def _view(self) -> None:
        for view in self.session.views:
            kind = "TABLE" if view.name == "person_events" else "VIEW"
            self.session.connection.execute(f"CREATE OR REPLACE TEMP {kind} {view.name} AS {view.duckdb_sql}")

    @property
    def lake(self) -> str:
        """The schema that has all events; ``main`` alone would be that of what is held, too."""
        found = self.session.connection.execute("SELECT current_database()").fetchone()
        assert found is not None
        return f'"{found[0]}".main'

    def ask(self, question: Question, complete_through: datetime) -> Answer:
        context = Context(now=complete_through, complete_through=complete_through)
        return answer(parse_question(question), self.session, context)

    def differ(self, question: Question, rows: list[Row], complete_through: datetime) -> Difference | None:
        """How the answers differ on what is held, which are these rows and maybe other projects."""
        found = self.ask(question, complete_through)
        answered = oracle.answer(question, rows, complete_through)
        insight = question["insight"]
        engine = [plain(insight, row) for row in without_noise(found.rows, answered)]
        expected = [plain(insight, row) for row in answered]
        engine.append(("ignored", found.ignored))
        expected.append(("ignored", oracle.ignored(question, rows, complete_through)))
        if question.get("detail"):  # sessions of one person may begin at once
            engine, expected = _settle_ties(engine), _settle_ties(expected)
        if engine == expected:
            return None
        ours, theirs = Counter(expected), Counter(engine)
        only_engine, only_oracle = list((theirs - ours).elements()), list((ours - theirs).elements())
        if not only_engine and not only_oracle:
            only_engine, only_oracle = [("order", *engine)], [("order", *expected)]
        return Difference(question, rows, complete_through, only_engine, only_oracle)

    def shrink(self, difference: Difference, world: World) -> Difference:
        """Drop events for as long as the answers still differ."""
        for row in list(difference.rows):
            fewer = [kept for kept in difference.rows if kept is not row]
            self.hold(world.project_id, [str(kept["message_id"]) for kept in fewer])
            difference = self.differ(difference.question, fewer, difference.complete_through) or difference
        self.hold()
        return difference


def _settle_ties(rows: list[Cells]) -> list[Cells]:
    """Sort neighbours that have the same person and start."""
    return [row for _, tied in groupby(rows, key=lambda row: row[:3]) for row in sorted(tied, key=str)]


def without_noise(rows: list[Cells], expected: list[Cells]) -> list[Cells]:
    """The engine's rows with the oracle's doubles where they differ in the twelfth digit: half is a matter of order."""
    if len(rows) != len(expected):
        return rows
    return [tuple(map(_without_noise, row, other)) for row, other in zip(rows, expected, strict=True)]


def _without_noise(value: object, expected: object) -> object:
    is_near = isinstance(expected, float) and isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return expected if is_near and isclose(float(str(value)), float(str(expected)), rel_tol=1e-11) else value


def plain(insight: str, row: Sequence[object]) -> Cells:
    """A row as it is compared: whole numbers as int, other doubles and decimals as text; traits as sorted JSON."""
    cells = [_plain(value) for value in row]
    if insight == "persons" and cells[5] is not None:
        cells[5] = json.dumps(json.loads(str(row[5])), sort_keys=True)
    if insight == "timeline":
        cells[3] = cells[5] = None  # how a session and an event are told is not the oracle's to say
    return tuple(cells)


def _plain(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return tuple(cast("list[object]", value)) if isinstance(value, list) else value
    exact = Decimal(str(value))
    return int(exact) if exact == exact.to_integral_value() else format(exact.normalize(), "f")
