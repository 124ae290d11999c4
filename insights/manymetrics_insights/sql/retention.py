"""Retention: who of a cohort comes back, by period.

e -> births (person, cohort c, born_at) -> returns (periods k after) -> counts (times a person and k) -> cells
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from manymetrics_insights.questions.models import Retention
from manymetrics_insights.sql import text
from manymetrics_insights.sql.rendered import Rendered
from manymetrics_insights.sql.rows import Rows
from manymetrics_insights.sql.scope import Scope, naming, resolve_range
from manymetrics_insights.sql.segments import Segments, combined
from manymetrics_insights.sql.statement import Statement, values

COLUMNS: Final = ("segment", "cohort", "size", "n", "returned", "rate", "mature")
MEAN: Final = "(mean)"
_ROLLING_S: Final = {"hour": 3_600, "day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400, "quarter": 90 * 86_400}
_BEYOND: Final = 1_000_000  # a number of periods that no cell asks for by itself


class RetentionSql:
    """Renders one question. Raises QuestionError."""

    def __init__(self, question: Retention, scope: Scope) -> None:
        self.question = question
        self.scope = scope
        self.statement = Statement()
        self.range = resolve_range(question, scope.now)
        self.segments = Segments(self.statement, len(question.by), question.limit)
        self.used: set[str] = set()
        self.cells = _cells(question)
        calendar = self.range.calendar
        with naming("interval"):
            self.buckets = calendar.buckets(self.range.first, self.range.to, question.interval)
            reach = max(high for _, _, high, _ in self.cells) + 1
            self.extended = calendar.extended(self.buckets, question.interval, reach)

    def render(self) -> Rendered:
        self._add_cells()
        return Rendered(self._answer(), COLUMNS, changes_at=self._changes_at(), used=frozenset(self.used))

    def members(self) -> tuple[Statement, str]:
        """Return the statement, and a query of segment, cohort, n, figure and person."""
        self._add_cells()
        label = "b.bucket" if self.question.mean is None else "b.label"
        born = "SELECT place, c, m.n, person, 'size' AS figure\nFROM placed_births\nCROSS JOIN cells AS m"
        returned = "SELECT h.place, h.c, h.n, h.person, 'returned' AS figure\nFROM hits AS h"
        return self.statement, (
            f"SELECT g.label AS segment, {label} AS cohort, m.n, m.figure, m.person\nFROM (\n{born}\nUNION ALL\n{returned}\n) AS m\n"
            f"JOIN buckets AS b ON b.n = m.c\nJOIN {self.segments.shown()} AS g ON g.place = m.place\n"
            "JOIN matured AS x ON x.place = m.place AND x.c = m.c AND x.n = m.n\n"
            "WHERE m.figure = 'size' OR x.mature"
        )

    def _add_cells(self) -> None:
        self._add_buckets()
        self._add_births()
        self._add_hits()
        self.statement.add(
            "sizes",
            "SELECT place, c, COUNT(*) AS size, MAX(born_at) AS last_born\nFROM placed_births\nGROUP BY place, c",
        )
        self.statement.add(
            "matured",
            f"SELECT s.place, s.c, s.size, m.n, {self._is_mature()} AS mature\nFROM sizes AS s\nCROSS JOIN cells AS m",
        )

    def _add_buckets(self) -> None:
        rows = [f"({one.number}, {one.literal}, {text.literal(_shown(one.label))})" for one in self.extended]
        self.statement.add("buckets", values("n, bucket, label", rows))
        cells = [f"({n}, {low}, {high if last else _BEYOND}, {high})" for n, low, high, last in self.cells]
        self.statement.add("cells", values("n, low, high, matures", cells))

    def _bucket(self) -> str:
        end = max(self.range.end, self.scope.complete_through) + timedelta(days=1)
        return self.range.calendar.bucket("event_time", self.question.interval, self.range.start, end)

    def _add_births(self) -> None:
        """Add ``births``: one row a cohort and person, its c the number of the cohort's bucket."""
        question = self.question
        rows = Rows(self.statement, self.scope, question, "e")
        rows.start = None if question.born_is == "ever" else self.range.start
        rows.end = max(self.range.end, self.scope.complete_through + timedelta(microseconds=1))
        born, back = rows.flag(question.born), rows.flag(question.return_)
        breakdown = [rows.value(by) for by in question.by]
        bucket = rows.column(self._bucket(), "bucket")
        rows.finish()
        self.used |= rows.used
        members = "".join(f", {value} AS b{place}" for place, value in enumerate(breakdown, 1))
        seg = combined(breakdown) if breakdown else "CAST(NULL AS VARCHAR)"
        recurring = question.born_is == "recurring"
        partition = f"person, {bucket}" if recurring else "person"
        in_range = f"event_time >= {text.timestamp(self.range.start)} AND event_time < {text.timestamp(self.range.end)}"
        before = born if question.born_is == "ever" else f"{born} AND {in_range}"
        keep = f" AND {in_range}" if question.born_is == "ever" else ""
        if breakdown:
            order = f"ROW_NUMBER() OVER (PARTITION BY {partition} ORDER BY event_time, tie) AS place_of_person"
            self.statement.add(
                "born_rows",
                f"SELECT person, event_time, {bucket} AS bucket, {seg} AS seg{members}, {order}\nFROM e\nWHERE {before}",
            )
            first = (
                f"SELECT person, event_time AS born_at, bucket, seg{''.join(f', {c}' for c in self.segments.columns)}\n"
                f"FROM born_rows\nWHERE place_of_person = 1{keep}"
            )
        else:
            grouped = f"SELECT person, MIN(event_time) AS event_time, MIN({bucket}) AS bucket\nFROM e\nWHERE {before}\nGROUP BY {partition}"
            first = f"SELECT person, event_time AS born_at, bucket, {seg} AS seg\nFROM (\n{grouped}\n) AS g\nWHERE TRUE{keep}"
        self.statement.add(
            "births",
            f"SELECT f.*, b.n AS c\nFROM (\n{first}\n) AS f\nJOIN buckets AS b ON b.bucket = f.bucket",
        )
        self.segments.rank("births", "COUNT(*)")
        self.statement.add("placed_births", self.segments.placed("births", "r.person, r.born_at, r.c"))
        returns = f"SELECT person, event_time, {bucket} AS bucket\nFROM e\nWHERE {back} AND event_time <= {text.timestamp(self.scope.complete_through)}"
        if question.period == "calendar":
            beyond = text.timestamp(self.extended[-1].end)
            after = f"CASE WHEN q.event_time >= {beyond} THEN {_BEYOND} - 1 ELSE b.n END"
            returns = (
                f"SELECT q.person, q.event_time, {after} AS n\nFROM (\n{returns}\n) AS q\n"
                f"LEFT JOIN buckets AS b ON b.bucket = q.bucket"
            )
        self.statement.add("returns", returns)

    def _add_hits(self) -> None:
        """Add ``hits``: the persons of each cell."""
        question = self.question
        if question.period == "calendar":
            k = f"CASE WHEN r.n = {_BEYOND - 1} THEN {_BEYOND - 1} ELSE r.n - b.c END"
        else:
            length = _ROLLING_S[question.interval] * 1_000_000
            since = f"({text.microseconds('r.event_time')} - {text.microseconds('b.born_at')})"
            k = f"CAST(CAST({since} - MOD({since}, {length}) AS DOUBLE) / {length} AS BIGINT)"
        self.statement.add(
            "counts",
            f"SELECT place, c, person, k, COUNT(*) AS times\nFROM (\nSELECT b.place, b.c, b.person, {k} AS k\n"
            "FROM placed_births AS b\nJOIN returns AS r ON r.person = b.person AND r.event_time >= b.born_at\n) AS q\n"
            "GROUP BY place, c, person, k",
        )
        on = (
            "m.n = q.k"
            if all(low == high and last for _, low, high, last in self.cells)
            else "q.k >= m.low AND q.k <= m.high"
        )
        self.statement.add(
            "hits",
            f"SELECT q.place, q.c, m.n, q.person\nFROM counts AS q\nJOIN cells AS m ON {on}\n"
            f"GROUP BY q.place, q.c, m.n, q.person\nHAVING SUM(q.times) >= {question.min_times}",
        )

    def _is_mature(self) -> str:
        """Return SQL for whether the last period of a cell is over, for all of its cohort."""
        if self.question.period == "rolling":
            length = _ROLLING_S[self.question.interval]
            return f"s.last_born + (m.matures + 1) * INTERVAL '{length}' SECOND <= {text.timestamp(self.scope.complete_through)}"
        over = next((one.number for one in self.extended if one.end > self.scope.complete_through), len(self.extended))
        return f"s.c + m.matures < {over}"

    def _changes_at(self) -> datetime | None:
        if self.extended[-1].end <= self.scope.complete_through and self.question.period == "calendar":
            return (
                None if self.question.when != "on_or_after" or self.question.brackets else self.scope.complete_through
            )
        return self.scope.complete_through

    def _answer(self) -> str:
        self.statement.add("found", "SELECT place, c, n, COUNT(*) AS returned\nFROM hits\nGROUP BY place, c, n")
        self.statement.add(
            "filled",
            "SELECT x.place, x.c, x.n, x.size, x.mature, CASE WHEN x.mature THEN COALESCE(f.returned, 0) END AS returned\n"
            "FROM matured AS x\nLEFT JOIN found AS f ON f.place = x.place AND f.c = x.c AND f.n = x.n",
        )
        columns = (
            "g.label AS segment, {cohort} AS cohort, q.size, q.n, q.returned,"
            " CAST(q.returned AS DOUBLE) / NULLIF(q.size, 0) AS rate, q.mature"
        )
        shown = f"JOIN {self.segments.shown()} AS g ON g.place = q.place"
        if self.question.mean is None:
            return self.statement.select(
                f"SELECT {columns.format(cohort='b.bucket')}\nFROM filled AS q\n{shown}\nJOIN buckets AS b ON b.n = q.c\n"
                "ORDER BY q.place, q.c, q.n"
            )
        self.statement.add(
            "means",
            "SELECT place, n, COALESCE(SUM(CASE WHEN mature THEN size END), 0) AS size,"
            " COUNT(CASE WHEN mature THEN 1 END) > 0 AS mature, SUM(returned) AS returned\nFROM filled\nGROUP BY place, n",
        )
        parts = (
            "SELECT place, c, n, CAST(size AS BIGINT) AS size, mature, CAST(returned AS BIGINT) AS returned FROM filled\n"
            f"UNION ALL\nSELECT place, {_BEYOND} AS c, n, CAST(size AS BIGINT) AS size, mature, CAST(returned AS BIGINT) AS returned FROM means"
        )
        cohort = f"CASE WHEN q.c = {_BEYOND} THEN {text.literal(MEAN)} ELSE b.label END"
        return self.statement.select(
            f"SELECT {columns.format(cohort=cohort)}\nFROM (\n{parts}\n) AS q\n{shown}\nLEFT JOIN buckets AS b ON b.n = q.c\n"
            "ORDER BY q.place, q.c, q.n"
        )


def _cells(question: Retention) -> list[tuple[int, int, int, bool]]:
    """Return n, first and last period of each cell, and whether it ends with the last: else it goes on."""
    if question.brackets is not None:
        return [(low, low, high, True) for low, high in question.brackets]
    periods = range(question.periods + 1)
    if question.when == "on_or_after":
        return [(n, n, n, False) for n in periods]
    return [(n, n if question.when == "on" else 0, n, True) for n in periods]


def _shown(label: object) -> str:
    assert hasattr(label, "isoformat")
    return str(label.isoformat()) + ("Z" if isinstance(label, datetime) else "")
