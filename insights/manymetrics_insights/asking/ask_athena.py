"""Ask a question of the tables on AWS in Athena. The SQL is that of DuckDB.

Athena can't pin the snapshot that a view reads, so the newest one is read before and after, and a move is noted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from manymetrics.tables import EVENTS
from manymetrics_insights.asking.answer import Answer
from manymetrics_insights.asking.ask import Context, choose_project, settle
from manymetrics_insights.asking.athena import AthenaResult
from manymetrics_insights.questions.models import AnyQuestion
from manymetrics_insights.reader.iceberg import Source, read_snapshot_id

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

    settled = settle(question, choose_project(question, lambda sql: list(run(sql).rows)), context)
    rows = list(run(settled.rendered.sql).rows)
    ignored = run(settled.rendered.ignored).rows if settled.rendered.ignored is not None else ((0,),)
    after = read_snapshot_id(source, EVENTS.name)
    return settled.to_answer(
        rows,
        ignored=int(str(ignored[0][0])),
        engine="athena",
        snapshot=before,
        began=began,
        notes=_moved(before, after),
        bytes_read=sum(result.bytes_scanned for result in spent),
        price=sum(result.price_usd for result in spent),
    )


def _moved(before: int | None, after: int | None) -> tuple[str, ...]:
    if before == after:
        return ()
    return (f"the events moved from snapshot {before} to {after} while Athena answered: it may have read either",)
