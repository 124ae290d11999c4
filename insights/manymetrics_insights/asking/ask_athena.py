"""Ask a question of the tables on AWS in Athena. The SQL is that of DuckDB.

Athena can't pin the snapshot that a view reads, so the newest one is read before and after, and a move is noted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from manymetrics.tables import EVENTS
from manymetrics_insights.asking.answer import Answer, shape
from manymetrics_insights.asking.ask import Context, is_broken_down
from manymetrics_insights.asking.athena import AthenaResult
from manymetrics_insights.questions.models import AnyQuestion, Persons, QuestionError, normal_form, question_hash
from manymetrics_insights.reader.iceberg import Source, read_snapshot_id
from manymetrics_insights.sql.render import render
from manymetrics_insights.sql.scope import Scope

RunSql = Callable[[str], AthenaResult]


def ask_athena(question: AnyQuestion, source: Source, context: Context, run_sql: RunSql) -> Answer:
    """Answer in Athena. ``bytes_read`` and ``price`` are of all statements.

    Raises QuestionError, LakeError, AthenaError.
    """
    began = time.perf_counter()
    before = read_snapshot_id(source, EVENTS.name)
    spent: list[AthenaResult] = []

    def run(sql: str) -> AthenaResult:
        spent.append(run_sql(sql))
        return spent[-1]

    project = _choose_project(question, run)
    scope = Scope(project, context.complete_through or context.now, context.now, definitions=context.definitions)
    rendered = render(question, scope)
    rows = run(rendered.sql).rows
    ignored = run(rendered.ignored).rows if rendered.ignored is not None else ((0,),)
    after = read_snapshot_id(source, EVENTS.name)
    several = is_broken_down(question)
    return Answer(
        question=normal_form(question) | {"project": project},
        hash=question_hash(question),
        engine="athena",
        snapshot=before,
        complete_through=context.complete_through,
        sql=rendered.sql,
        ms=(time.perf_counter() - began) * 1000,
        bytes_read=sum(result.bytes_scanned for result in spent),
        price=sum(result.price_usd for result in spent),
        ignored=int(str(ignored[0][0])),
        columns=rendered.columns,
        rows=[shape(rendered.columns, row, rendered.digits, several=several) for row in rows],
        notes=(*context.notes, *_moved(before, after)),
    )


def _moved(before: int | None, after: int | None) -> tuple[str, ...]:
    if before == after:
        return ()
    return (f"the events moved from snapshot {before} to {after} while Athena answered: it may have read either",)


def _choose_project(question: AnyQuestion, run: RunSql) -> str:
    """Return the project that a question is about. Raises QuestionError if it must be named."""
    asked = question.project
    if asked is None and isinstance(question, Persons):
        asked = question.of.project
    if asked is not None:
        return asked
    found = run("SELECT DISTINCT project_id FROM events ORDER BY 1 LIMIT 100").rows
    if len(found) > 1:
        names = ", ".join(str(name) for (name,) in found)
        raise QuestionError([(["project"], f"there are several, name one: {names}")])
    return str(found[0][0]) if found else ""
