"""Lifecycle: of each bucket, who is new, comes back, stays, or is gone. Stickiness: on how many days people are active."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from manymetrics_insights.questions.models import Lifecycle, QuestionError, Stickiness
from manymetrics_insights.sql import text
from manymetrics_insights.sql.calendar import Bucket, next_end
from manymetrics_insights.sql.rendered import Rendered
from manymetrics_insights.sql.rows import Rows
from manymetrics_insights.sql.scope import Scope, naming, resolve_range
from manymetrics_insights.sql.statement import Statement, values

COLUMNS: Final = ("bucket", "new", "returning", "resurrecting", "dormant", "active", "incomplete")
STATES: Final = ("new", "returning", "resurrecting", "dormant")


class LifecycleSql:
    """Renders one question. Bucket -1 is the one before the range. Raises QuestionError."""

    def __init__(self, question: Lifecycle, scope: Scope) -> None:
        self.question = question
        self.scope = scope
        self.statement = Statement()
        self.range = resolve_range(question, scope.now)
        self.used: set[str] = set()
        with naming("interval"):
            self.buckets = self._buckets()

    def _buckets(self) -> list[Bucket]:
        """Return the buckets of the range, and the one before as the first."""
        calendar, interval = self.range.calendar, self.question.interval
        first = calendar.first_day(self.range.first, interval)
        back = calendar.first_day(first - timedelta(1), interval)
        found = calendar.buckets(back, self.range.to, interval)
        start = next(place for place, one in enumerate(found) if one.start >= calendar.midnight(first))
        return [Bucket(number, one.label, one.start, one.end) for number, one in enumerate(found[start - 1 :], -1)]

    def render(self) -> Rendered:
        self._add_states()
        counts = ", ".join(f"COUNT(CASE WHEN s.state = '{state}' THEN 1 END) AS {text.name(state)}" for state in STATES)
        open_from = next((one.number for one in self.buckets if one.end > self.scope.complete_through), None)
        incomplete = "FALSE" if open_from is None else f"n >= {open_from}"
        self.statement.add(
            "counted",
            f"SELECT b.n, b.bucket, {counts}\nFROM buckets AS b\nLEFT JOIN states AS s ON s.n = b.n\n"
            "WHERE b.n >= 0\nGROUP BY b.n, b.bucket",
        )
        sql = self.statement.select(
            'SELECT bucket, "new", "returning", "resurrecting", "dormant",'
            f' "new" + "returning" + "resurrecting" AS active, {incomplete} AS incomplete\nFROM counted\nORDER BY n'
        )
        changes_at = next_end(self.buckets, self.scope.complete_through)
        return Rendered(sql, COLUMNS, changes_at=changes_at, used=frozenset(self.used))

    def members(self) -> tuple[Statement, str]:
        """Return the statement, and a query of bucket, figure and person."""
        self._add_states()
        shown = "JOIN buckets AS b ON b.n = s.n\nWHERE b.n >= 0"
        return self.statement, (
            f"SELECT b.bucket, s.state AS figure, s.person\nFROM states AS s\n{shown}\nUNION ALL\n"
            f"SELECT b.bucket, 'active' AS figure, s.person\nFROM states AS s\n{shown} AND s.state <> 'dormant'"
        )

    def _add_states(self) -> None:
        """Add ``states``: person, n, and what the person is in bucket n."""
        rows = [f"({one.number}, {one.literal}, {text.timestamp(one.start)})" for one in self.buckets]
        self.statement.add("buckets", values("n, bucket, starts", rows))
        begin, end = self.buckets[0].start, self.buckets[-1].end
        events = Rows(self.statement, self.scope, self.question, "e")
        events.start = None if self.question.new == "active" else begin
        events.end = end
        flag = events.flag(self.question.event)
        bucket = events.column(self.range.calendar.bucket("event_time", self.question.interval, begin, end), "bucket")
        events.finish()
        self.used |= events.used
        self.statement.add(
            "active_days",
            f"SELECT DISTINCT person, {bucket} AS bucket\nFROM e\nWHERE {flag} AND event_time >= {text.timestamp(begin)}",
        )
        if self.question.new == "active":
            self.statement.add(
                "firsts", f"SELECT person, MIN(event_time) AS first_at\nFROM e\nWHERE {flag}\nGROUP BY person"
            )
        else:
            created = Rows(self.statement, self.scope, self.question, "created")
            created.end, created.filtered = end, False
            created.keep_all()
            created.finish()
            self.statement.add("firsts", "SELECT person, MIN(event_time) AS first_at\nFROM created\nGROUP BY person")
        self.statement.add(
            "actives",
            "SELECT a.person, b.n, b.starts, LAG(b.n) OVER (PARTITION BY a.person ORDER BY b.n) AS n_before,"
            " LEAD(b.n) OVER (PARTITION BY a.person ORDER BY b.n) AS n_after\n"
            "FROM active_days AS a\nJOIN buckets AS b ON b.bucket = a.bucket",
        )
        self.statement.add(
            "states",
            "SELECT a.person, a.n, CASE WHEN f.first_at >= a.starts THEN 'new'"
            " WHEN a.n_before = a.n - 1 THEN 'returning' ELSE 'resurrecting' END AS state\n"
            "FROM actives AS a\nJOIN firsts AS f ON f.person = a.person\nUNION ALL\n"
            "SELECT person, n + 1 AS n, 'dormant' AS state\nFROM actives\nWHERE n_after IS NULL OR n_after > n + 1",
        )


class StickinessSql:
    """Renders one question."""

    def __init__(self, question: Stickiness, scope: Scope) -> None:
        self.question = question
        self.scope = scope
        self.statement = Statement()
        self.range = resolve_range(question, scope.now)
        self.used: set[str] = set()

    def render(self) -> Rendered:
        self._add_persons()
        count = (self.range.to - self.range.first).days
        if count > 2_000:
            raise QuestionError([(["from"], "the range has more than 2000 days: choose a shorter one")])
        self.statement.add("day_numbers", values("days", [f"({one})" for one in range(1, count + 1)]))
        sql = self.statement.select(
            "SELECT d.days, COUNT(p.person) AS persons\nFROM day_numbers AS d\n"
            "LEFT JOIN active_persons AS p ON p.days = d.days\nGROUP BY d.days\nORDER BY d.days"
        )
        return Rendered(sql, ("days", "persons"), used=frozenset(self.used))

    def members(self) -> tuple[Statement, str]:
        """Return the statement, and a query of days, figure and person."""
        self._add_persons()
        return self.statement, "SELECT days, 'persons' AS figure, person FROM active_persons"

    def _add_persons(self) -> None:
        events = Rows(self.statement, self.scope, self.question, "e")
        events.start, events.end = self.range.start, self.range.end
        flag = events.flag(self.question.event)
        day = events.column(self.range.calendar.bucket("event_time", "day", self.range.start, self.range.end), "bucket")
        events.finish()
        self.used |= events.used
        self.statement.add(
            "active_persons",
            f"SELECT person, COUNT(DISTINCT {day}) AS days\nFROM e\nWHERE {flag}\nGROUP BY person",
        )
