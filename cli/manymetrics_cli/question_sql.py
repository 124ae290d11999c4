"""Render a question as the SQL that asking it would run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manymetrics_insights.questions.models import AnyQuestion
    from manymetrics_insights.reader.complete_through import StreamState
    from manymetrics_insights.reader.iceberg import Source


def read_stream(source: Source, properties: Mapping[str, str]) -> StreamState | None:
    """Compare the local stream with the books of the table; None for tables on AWS."""
    from manymetrics_cli.one_machine import stream_state
    from manymetrics_insights.reader.folder import Folder

    return stream_state(source.data_dir, properties) if isinstance(source, Folder) else None


def question_sql(question: AnyQuestion, source: Source) -> str:
    """Return the SQL of a question without names. Raises QuestionError, LakeError."""
    from manymetrics_insights.asking.ask import choose_project, make_context, now_utc, settle
    from manymetrics_insights.reader.session import open_session

    now = now_utc()
    session = open_session(source)
    with closing(session.connection):
        context = make_context(session, now, lambda properties: read_stream(source, properties))
        project = choose_project(question, lambda sql: session.connection.execute(sql).fetchall())
        return settle(question, project, context).rendered.sql
