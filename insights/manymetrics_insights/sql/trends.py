"""Trends: a measure of each series, by segment and bucket.

    events, flagged -> r1, r2, ... (rows of one series: person, bucket's number n, segment) -> segments ranked
                    -> s1, s2, ... (with the segment's place) -> measured -> a1, a2, ... (each place and bucket)

A ``(previous)`` series runs over the range before; its buckets are counted from 0, as those of the question's range.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from manymetrics_insights.questions.filters import Subject
from manymetrics_insights.questions.formulas import Formula, Operation, parse_formula
from manymetrics_insights.questions.models import LETTERS, OF_NUMBERS, Series, Trends
from manymetrics_insights.sql import text
from manymetrics_insights.sql.calendar import Bucket, next_end
from manymetrics_insights.sql.rendered import Rendered
from manymetrics_insights.sql.rows import Rows
from manymetrics_insights.sql.scope import Range, Scope, make_range, naming, resolve_range
from manymetrics_insights.sql.segments import Segments, combined
from manymetrics_insights.sql.sessionize import number_sessions
from manymetrics_insights.sql.statement import Statement, values

COLUMNS: Final = ("series", "segment", "bucket", "value", "incomplete")
_DOUBLES: Final = frozenset({"average", "events_per_person"})
_DECIMALS: Final = frozenset({"sum", "min", "max", "median", "p90"})
_NULL_IF_EMPTY: Final = _DOUBLES | (_DECIMALS - {"sum"})
_PERCENT: Final = {"median": 50, "p90": 90}
_AGGREGATES: Final = {
    "events": "COUNT(*)",
    "persons": "COUNT(DISTINCT person)",
    "first_ever": "COUNT(DISTINCT person)",
    "active": "COUNT(DISTINCT person)",
    "sessions": "COUNT(DISTINCT CASE WHEN session IS NOT NULL THEN ROW(person, session) END)",
    "events_per_person": "CAST(COUNT(person) AS DOUBLE) / NULLIF(COUNT(DISTINCT person), 0)",
    "sum": "COALESCE(SUM(x), CAST(0 AS DECIMAL(38, 9)))",
    "average": "CAST(SUM(x) AS DOUBLE) / NULLIF(COUNT(x), 0)",
    "min": "MIN(x)",
    "max": "MAX(x)",
    "distinct": "COUNT(DISTINCT v)",
    "median": "MIN(x) FILTER (WHERE x_rank * 100 >= x_count * 50)",
    "p90": "MIN(x) FILTER (WHERE x_rank * 100 >= x_count * 90)",
}
# What is counted once in a running total: where it is seen first.
_COUNTED_ONCE: Final = {"persons": "person", "first_ever": "person", "distinct": "v", "sessions": "person, session"}


@dataclass(frozen=True, slots=True)
class _Period:
    """The question's range, or the one it is compared with. ``suffix`` of its subqueries."""

    range: Range
    buckets: list[Bucket]
    suffix: str


@dataclass(frozen=True, slots=True)
class _Output:
    """One series of the answer. ``query``: columns place, n, value, filled."""

    label: str
    query: str
    kind: str  # int, decimal or double
    period: _Period


class TrendsSql:
    """Renders one question. Raises QuestionError."""

    def __init__(self, question: Trends, scope: Scope) -> None:
        self.question = question
        self.scope = scope
        self.statement = Statement()
        self.segments = Segments(self.statement, len(question.by), question.limit)
        self.used: set[str] = set()
        now = resolve_range(question, scope.now)
        self.current = _Period(now, self._buckets(now), "")
        self.periods = [self.current]
        if question.compare:
            earlier = _earlier(now, question.compare)
            self.periods.append(_Period(earlier, self._buckets(earlier), "_previous"))

    def render(self) -> Rendered:
        self._add_rows()
        outputs = self._outputs()
        kinds = {output.kind for output in outputs}
        kind = "DOUBLE" if "double" in kinds else "DECIMAL(38, 9)" if "decimal" in kinds else "BIGINT"
        # A double holds no sum of 24 digits: where series of both kinds meet, the exact values have a column besides.
        is_mixed = {"double", "decimal"} <= kinds
        parts = [
            f"SELECT {place} AS series_number, {text.literal(output.label)} AS series, place, n,"
            f" CAST(value AS {kind}) AS value, {self._incomplete(output.period)} AS incomplete"
            + (
                f", CAST({'NULL' if output.kind == 'double' else 'value'} AS DECIMAL(38, 9)) AS exact_value"
                if is_mixed
                else ""
            )
            + f"\nFROM ({output.query}) AS q"
            for place, output in enumerate(outputs)
        ]
        union = "\nUNION ALL\n".join(parts)
        exact = ", q.exact_value" if is_mixed else ""
        final = (
            f"SELECT q.series, g.label AS segment, b.bucket, q.value, q.incomplete{exact}\nFROM (\n{union}\n) AS q\n"
            f"JOIN {self.segments.shown()} AS g ON g.place = q.place\nJOIN buckets AS b ON b.n = q.n\n"
            "ORDER BY q.series_number, q.place, q.n"
        )
        all_buckets = [bucket for period in self.periods for bucket in period.buckets]
        return Rendered(
            self.statement.select(final),
            COLUMNS,
            self._ignored(),
            next_end(all_buckets, self.scope.complete_through),
            frozenset(self.used),
        )

    def members(self) -> tuple[Statement, str]:
        """Return the statement, and a query of series, segment, bucket and person: who is behind each value."""
        self._add_rows()
        parts = []
        for place, one in enumerate(self.question.series):
            for period in self.periods:
                label = text.literal(self._label(place, period))
                span = "b.n = r.n"
                if one.measure == "active":
                    span = f"b.n >= r.n AND b.n < r.n + {one.trailing or 1}"
                elif self.question.cumulative:
                    span = "b.n >= r.n"
                parts.append(
                    f"SELECT {label} AS series, g.label AS segment, b.bucket, r.person\n"
                    f"FROM s{place + 1}{period.suffix} AS r\nJOIN buckets AS b ON {span}\n"
                    f"JOIN {self.segments.shown()} AS g ON g.place = r.place\nWHERE r.person IS NOT NULL"
                )
        return self.statement, "\nUNION ALL\n".join(parts)

    def _buckets(self, of: Range) -> list[Bucket]:
        with naming("interval"):
            return of.calendar.buckets(of.first, of.to, self.question.interval)

    def _label(self, place: int, period: _Period) -> str:
        return (self.question.series[place].label or LETTERS[place]) + (" (previous)" if period.suffix else "")

    def _add_rows(self) -> None:
        for period in self.periods:
            rows = [f"({bucket.number}, {bucket.literal})" for bucket in period.buckets]
            self.statement.add(f"buckets{period.suffix}", values("n, bucket", rows))
        for period in self.periods:
            plain = [place for place, one in enumerate(self.question.series) if _is_plain(one)]
            if plain:
                self._read(period, plain, f"e{period.suffix}")
            for place, one in enumerate(self.question.series):
                if not _is_plain(one):
                    self._read_special(period, place, one)
        if self.segments.count:
            self._rank_segments()
        for period in self.periods:
            for place in range(len(self.question.series)):
                name = f"{place + 1}{period.suffix}"
                self.statement.add(f"s{name}", self.segments.placed(f"r{name}", "r.person, r.n, r.x, r.v, r.session"))

    def _rank_segments(self) -> None:
        """Rank the values of all series by the measure of the first."""
        first, columns = self.question.series[0], ", ".join(self.segments.columns)
        self.statement.add("first_measured", self._aggregate(first, "r1", ["seg", *self.segments.columns]))
        seen = "\nUNION ALL\n".join(
            f"SELECT seg, {columns} FROM r{place}" for place in range(1, len(self.question.series) + 1)
        )
        members = ", ".join(f"MIN(COALESCE(q.{column}, '(none)')) AS {column}" for column in self.segments.columns)
        self.segments.rank_by(
            f"SELECT q.seg, {members}, MIN(m.measure) AS measure\nFROM (\n{seen}\n) AS q\n"
            "LEFT JOIN first_measured AS m ON m.seg = q.seg\nGROUP BY q.seg"
        )

    def _rows(self, name: str) -> Rows:
        return Rows(self.statement, self.scope, self.question, name, needs_person=False)

    def _columns(self, rows: Rows, one: Series, period: _Period) -> str:
        """Add what a series needs of each row; return its select list."""
        start, end = rows.start or period.range.start, rows.end or period.range.end
        calendar, interval = period.range.calendar, self.question.interval
        bucket = rows.column(calendar.bucket("event_time", interval, start, end), "bucket")
        x, v = "CAST(NULL AS DECIMAL(38, 9))", "CAST(NULL AS VARCHAR)"
        if one.property is not None:
            subject = Subject(property=one.property)
            v = rows.value(subject)
            x = rows.number(subject) if one.measure in OF_NUMBERS else x
        breakdown = [rows.value(by) for by in self.question.by]
        members = "".join(
            f", {column} AS {name}" for column, name in zip(breakdown, self.segments.columns, strict=True)
        )
        seg = combined(breakdown) if breakdown else "CAST(NULL AS VARCHAR)"
        return f"person, event_time, {bucket} AS bucket, {x} AS x, {v} AS v, {seg} AS seg{members}"

    def _read(self, period: _Period, places: list[int], name: str) -> None:
        """Add the rows of all series that only count events of the range."""
        rows = self._rows(name)
        rows.start, rows.end = period.range.start, period.range.end
        lists = []
        for place in places:
            one = self.question.series[place]
            flag = rows.flag(one)
            lists.append((place, self._columns(rows, one, period), flag))
        rows.finish()
        self.used |= rows.used
        for place, columns, flag in lists:
            self._number(period, place, f"SELECT {columns}, CAST(NULL AS BIGINT) AS session\nFROM {name}\nWHERE {flag}")

    def _read_special(self, period: _Period, place: int, one: Series) -> None:
        name = f"{one.measure}{place + 1}{period.suffix}"
        rows = self._rows(name)
        rows.end = period.range.end
        if one.measure == "sessions":
            rows.start, rows.filtered = period.range.start, False
            rows.keep_all()
            conditions = [rows.matches(one), *map(rows.condition, self.question.where)]
            flag = rows.column(" AND ".join(conditions), "m")
            columns = self._columns(rows, one, period)
            of_session = rows.column(f"{rows.of_session()} AND person IS NOT NULL", "of_session")
            rows.finish(f"({rows.out[of_session]} OR {rows.out[flag]})")
            self.statement.add(f"{name}_rows", f"SELECT * FROM {name} WHERE {of_session}")
            number_sessions(self.statement, f"{name}_rows", f"{name}_numbered")
            self._number(
                period,
                place,
                f"SELECT {columns}, session\nFROM {name}_numbered\nWHERE {flag}\nUNION ALL\n"
                f"SELECT {columns}, CAST(NULL AS BIGINT) AS session\nFROM {name}\nWHERE {flag} AND NOT {of_session}",
            )
        else:
            if one.measure == "active":
                back = period.range.first - timedelta((one.trailing or 1) - 1)
                rows.start = period.range.calendar.midnight(back)
            flag = rows.flag(one)
            columns = self._columns(rows, one, period)
            rows.finish("person IS NOT NULL" if one.measure == "first_ever" else "")
            read = f"SELECT {columns}, CAST(NULL AS BIGINT) AS session\nFROM {name}\nWHERE {flag}"
            if one.measure == "first_ever":
                order = "ROW_NUMBER() OVER (PARTITION BY person ORDER BY event_time, tie)"
                first = self.statement.add(
                    f"{name}_first", f"SELECT {name}.*, {order} AS place_of_person\nFROM {name}\nWHERE {flag}"
                )
                read = (
                    f"SELECT {columns}, CAST(NULL AS BIGINT) AS session\nFROM {first}\n"
                    f"WHERE place_of_person = 1 AND event_time >= {text.timestamp(period.range.start)}"
                )
            self._number(period, place, read)
        self.used |= rows.used

    def _number(self, period: _Period, place: int, read: str) -> None:
        """Add the rows of a series with the number of their bucket."""
        name = f"r{place + 1}{period.suffix}"
        if self.question.interval == "day":
            first = text.day(period.range.first)
            self.statement.add(name, f"SELECT q.*, DATE_DIFF('day', {first}, bucket) AS n\nFROM (\n{read}\n) AS q")
        else:
            self.statement.add(
                name,
                f"SELECT q.*, b.n\nFROM (\n{read}\n) AS q\nJOIN buckets{period.suffix} AS b ON b.bucket = q.bucket",
            )

    def _aggregate(self, one: Series, rows: str, keys: list[str]) -> str:
        """Return a query of the keys and the measure; of ``seg``, whose first key it is, also its members."""
        group = keys[:1] if keys[0] == "seg" else keys
        selected = [
            f"MIN(COALESCE({key}, '(none)')) AS {key}" if keys[0] == "seg" and key != "seg" else key for key in keys
        ]
        name = "measure" if keys[0] == "seg" else "value"
        if one.measure in _PERCENT:
            partition = ", ".join(group)
            rows = (
                f"(SELECT {', '.join(keys)}, x, ROW_NUMBER() OVER (PARTITION BY {partition} ORDER BY x NULLS LAST) AS x_rank,"
                f" COUNT(x) OVER (PARTITION BY {partition}) AS x_count\nFROM {rows}) AS ranked"
            )
        return f"SELECT {', '.join(selected)}, {_AGGREGATES[one.measure]} AS {name}\nFROM {rows}\nGROUP BY {', '.join(group)}"

    def _measured(self, one: Series, rows: str) -> str:
        """Return a query of place, n and value, where there is any."""
        if one.measure == "active":
            return self._active(one, rows)
        if not self.question.cumulative:
            return self._aggregate(one, rows, ["place", "n"])
        if one.measure in _COUNTED_ONCE:
            once = _COUNTED_ONCE[one.measure]
            known = " AND ".join(f"{column} IS NOT NULL" for column in once.split(", "))
            firsts = f"SELECT place, MIN(n) AS n\nFROM {rows}\nWHERE {known}\nGROUP BY place, {once}"
            return f"SELECT place, n, COUNT(*) AS value\nFROM (\n{firsts}\n) AS firsts\nGROUP BY place, n"
        if one.measure in {"events", "sum", "min", "max"}:
            return self._aggregate(one, rows, ["place", "n"])
        so_far = f"(SELECT r.place, b.n, r.x, r.person\nFROM {rows} AS r\nJOIN buckets AS b ON b.n >= r.n) AS so_far"
        return self._aggregate(one, so_far, ["place", "n"])

    def _active(self, one: Series, rows: str) -> str:
        """Count the persons with an active day in the trailing ones: each day adds one person until the next takes over."""
        trailing = one.trailing or 1
        until = f"LEAST(n + {trailing}, COALESCE(LEAD(n) OVER (PARTITION BY place, person ORDER BY n), n + {trailing}))"
        days = f"SELECT DISTINCT place, person, n\nFROM {rows}\nWHERE person IS NOT NULL"
        spans = f"SELECT place, n, {until} AS until\nFROM (\n{days}\n) AS days"
        moves = (
            f"SELECT place, n, 1 AS move\nFROM (\n{spans}\n) AS begun\nUNION ALL\n"
            f"SELECT place, until AS n, -1 AS move\nFROM (\n{spans}\n) AS ended"
        )
        summed = f"SELECT place, n, SUM(move) AS moved\nFROM (\n{moves}\n) AS moves\nGROUP BY place, n"
        running = (
            f"SELECT place, n, SUM(moved) OVER (PARTITION BY place ORDER BY n) AS value\nFROM (\n{summed}\n) AS summed"
        )
        # The last count before a day holds until the next change.
        until_next = f"SELECT place, n, value, LEAD(n) OVER (PARTITION BY place ORDER BY n) AS next_n\nFROM (\n{running}\n) AS running"
        return (
            f"SELECT c.place, b.n, c.value\nFROM (\n{until_next}\n) AS c\n"
            "JOIN buckets AS b ON b.n >= c.n AND (c.next_n IS NULL OR b.n < c.next_n)"
        )

    def _outputs(self) -> list[_Output]:
        found = []
        for place, one in enumerate(self.question.series):
            kind = "double" if one.measure in _DOUBLES else "decimal" if one.measure in _DECIMALS else "int"
            for period in self.periods:
                name = f"a{place + 1}{period.suffix}"
                self.statement.add(name, self._filled(one, f"s{place + 1}{period.suffix}"))
                found.append(_Output(self._label(place, period), f"SELECT place, n, value FROM {name}", kind, period))
        for formula in self.question.formulas:
            for period in self.periods:
                label = formula + (" (previous)" if period.suffix else "")
                found.append(_Output(label, self._formula(formula, period), "double", period))
        if self.question.moving is not None:
            found = [self._moved(output, self.question.moving) for output in found]
        return found

    def _filled(self, one: Series, rows: str) -> str:
        """Return a query of each place and bucket with its value."""
        value = "m.value"
        if one.measure not in _NULL_IF_EMPTY:
            zero = "CAST(0 AS DECIMAL(38, 9))" if one.measure == "sum" else "0"
            value = f"COALESCE(m.value, {zero})"
        if self.question.cumulative:
            running = {"min": "MIN", "max": "MAX"}.get(one.measure, "SUM")
            if one.measure not in _DOUBLES and one.measure not in _PERCENT:
                value = f"{running}({value}) OVER (PARTITION BY g.place ORDER BY b.n ROWS UNBOUNDED PRECEDING)"
        return (
            f"SELECT g.place, b.n, {value} AS value\nFROM {self.segments.shown()} AS g\nCROSS JOIN buckets AS b\n"
            f"LEFT JOIN (\n{self._measured(one, rows)}\n) AS m ON m.place = g.place AND m.n = b.n"
        )

    def _formula(self, formula: str, period: _Period) -> str:
        count = len(self.question.series)
        tree = parse_formula(formula, LETTERS[:count])
        joins = [
            f"JOIN a{k}{period.suffix} AS q{k} ON q{k}.place = q1.place AND q{k}.n = q1.n" for k in range(2, count + 1)
        ]
        return "\n".join(
            [f"SELECT q1.place, q1.n, {_arithmetic(tree)} AS value", f"FROM a1{period.suffix} AS q1", *joins]
        )

    def _moved(self, output: _Output, buckets: int) -> _Output:
        frame = f"(PARTITION BY place ORDER BY n ROWS BETWEEN {buckets - 1} PRECEDING AND CURRENT ROW)"
        query = f"SELECT place, n, AVG(CAST(value AS DOUBLE)) OVER {frame} AS value\nFROM (\n{output.query}\n) AS moved"
        return _Output(output.label, query, "double", output.period)

    def _incomplete(self, period: _Period) -> str:
        """Return SQL for whether the bucket n is not over; buckets are in order of time."""
        count = len(self.current.buckets)
        first = next((one.number for one in period.buckets if one.end > self.scope.complete_through), None)
        if first is None or first >= count:
            return "FALSE"
        return f"n >= {first}" if len(period.buckets) >= count else f"(n >= {first} AND n < {len(period.buckets)})"

    def _ignored(self) -> str | None:
        counts = [
            f"(SELECT COUNT(*) FROM r{place + 1} WHERE v IS NOT NULL AND x IS NULL)"
            for place, one in enumerate(self.question.series)
            if one.measure in OF_NUMBERS
        ]
        return self.statement.select(f"SELECT {' + '.join(counts)} AS ignored") if counts else None


def _is_plain(one: Series) -> bool:
    return one.measure not in {"sessions", "first_ever", "active"}


def _arithmetic(tree: Formula) -> str:
    if isinstance(tree, str):
        return f"CAST(q{LETTERS.index(tree) + 1}.value AS DOUBLE)"
    if isinstance(tree, Decimal):
        return f"CAST({tree:f} AS DOUBLE)"
    assert isinstance(tree, Operation)
    left, right = _arithmetic(tree.left), _arithmetic(tree.right)
    return (
        f"({left} / NULLIF({right}, CAST(0 AS DOUBLE)))"
        if tree.operator == "/"
        else f"({left} {tree.operator} {right})"
    )


def _earlier(now: Range, compare: str) -> Range:
    length = now.to - now.first
    if compare == "previous":
        return make_range(now.calendar, now.first - length, now.first)
    return make_range(now.calendar, _year_before(now.first), _year_before(now.to))


def _year_before(day: date) -> date:
    return day.replace(year=day.year - 1, day=min(day.day, 28) if day.month == 2 else day.day)
