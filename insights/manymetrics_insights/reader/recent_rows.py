"""Read the newest rows of one browser, without null columns, for the sample page."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from typing import Final

import duckdb

from manymetrics_insights.reader.iceberg import Source
from manymetrics_insights.reader.session import open_session

MOST_ROWS: Final = 50
ATTEMPTS: Final = 3  # maintenance may remove a snapshot's files during a read
_SQL: Final = f"""
SELECT * FROM events
WHERE project_id = ? AND anonymous_id = ? AND received_at >= ?
ORDER BY received_at DESC, _position DESC
LIMIT {MOST_ROWS}
"""  # noqa: S608  # a constant

Row = dict[str, str | int]


def newest_rows(source: Source, project_id: str, anonymous_id: str, since: datetime) -> list[Row]:
    """Return rows, newest first, without nulls; times as text, UTC. ``since``, naive UTC, limits the files to read.

    Raises LakeError, FileNotFoundError.
    """
    for attempts_left in reversed(range(ATTEMPTS)):
        try:
            return _ask(source, [project_id, anonymous_id, since])
        except FileNotFoundError:
            if not attempts_left:
                raise
    return []


def _ask(source: Source, parameters: list[object]) -> list[Row]:
    session = open_session(source)
    with closing(session.connection) as connection:
        try:
            connection.execute(_SQL, parameters)
            rows = connection.fetchall()
        except duckdb.Error as error:
            raise (session.failure() or error) from error
        names = [column[0] for column in connection.description or ()]
    return [_row(names, row) for row in rows]


def _row(names: list[str], values: tuple[object, ...]) -> Row:
    pairs = zip(names, values, strict=True)
    return {name: _shown(value) for name, value in pairs if value is not None}


def _shown(value: object) -> str | int:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds")
    return value if isinstance(value, int) else str(value)
