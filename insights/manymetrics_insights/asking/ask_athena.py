"""Ask a question of the tables on AWS in Athena. The SQL is that of DuckDB.

Athena can't pin the snapshot that a view reads, so the newest one is read before and after, and a move is noted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from manymetrics.tables import EVENTS
from manymetrics_insights.asking.answer import Answer
from manymetrics_insights.asking.ask import choose_project, context_of, settle
from manymetrics_insights.asking.athena import AthenaResult
from manymetrics_insights.definitions.models import Definitions
from manymetrics_insights.questions.models import AnyQuestion
from manymetrics_insights.reader.iceberg import Source, TableHead, read_head

RunSql = Callable[[str], AthenaResult]


def ask_athena(
    question: AnyQuestion,
    source: Source,
    now: datetime,
    run_sql: RunSql,
    definitions: Definitions | None = None,
) -> Answer:
    """Answer in Athena. ``now``: naive UTC. ``bytes_read`` and ``price`` are of all statements.

    Raises QuestionError, LakeError, AthenaError.
    """
    began = time.perf_counter()
    before = _read_head(source)
    spent: list[AthenaResult] = []

    def run(sql: str) -> AthenaResult:
        spent.append(run_sql(sql))
        return spent[-1]

    project = choose_project(question, lambda sql: list(run(sql).rows))
    # Of the state before Athena reads: what it reads is at least as complete.
    settled = settle(question, project, context_of(before.properties, now, definitions=definitions))
    rows = list(run(settled.rendered.sql).rows)
    ignored = run(settled.rendered.ignored).rows if settled.rendered.ignored is not None else ((0,),)
    after = _read_head(source)
    return settled.to_answer(
        rows,
        ignored=int(str(ignored[0][0])),
        engine="athena",
        snapshot=before.snapshot_id,
        began=began,
        notes=_moved(before.snapshot_id, after.snapshot_id),
        bytes_read=sum(result.bytes_scanned for result in spent),
        price=sum(result.price_usd for result in spent),
    )


def _read_head(source: Source) -> TableHead:
    return read_head(source, EVENTS.name) or TableHead(None, {})


def _moved(before: int | None, after: int | None) -> tuple[str, ...]:
    if before == after:
        return ()
    return (f"the events moved from snapshot {before} to {after} while Athena answered: it may have read either",)
