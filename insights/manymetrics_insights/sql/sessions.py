"""Sessions: visits of persons, their length, and whether they were engaged.

session_rows (all events of sessions) -> numbered -> sessions (one row each) -> kept (begun in the range) -> answer
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from manymetrics_insights.questions.base import seconds
from manymetrics_insights.questions.models import Sessions
from manymetrics_insights.sql import text
from manymetrics_insights.sql.calendar import Bucket, next_end
from manymetrics_insights.sql.rendered import Rendered
from manymetrics_insights.sql.rows import CUSTOM, PAGES, Rows
from manymetrics_insights.sql.scope import Scope, naming, resolve_range
from manymetrics_insights.sql.segments import Segments, combined
from manymetrics_insights.sql.sessionize import number_sessions
from manymetrics_insights.sql.statement import Statement, values

COLUMNS: Final = (
    "segment", "bucket", "sessions", "persons", "bounced", "engaged", "converted", "pages", "events",
    "duration_average_s", "duration_median_s", "incomplete",
)  # fmt: skip
DETAIL_COLUMNS: Final = (
    "person_id", "person_kind", "start", "end", "entry_page", "exit_page", "source", "campaign", "pages", "events",
    "engaged", "converted",
)  # fmt: skip
ENGAGED_MS: Final = 10_000
PAGE: Final = f"CASE WHEN {PAGES} THEN COALESCE(context_page_path, CASE WHEN type = 'screen' THEN event END) END"
# Columns of a session that are the first of its events that is not null.
_FIRST_OF: Final = {
    "source": "COALESCE(source, context_campaign_source)",
    "campaign": "context_campaign_name",
    "browser": "browser_name",
    "os": "os_name",
    "device": "device_type",
    "country": "geo_country",
}
_COLUMNS_OF: Final = {"source": ("source", "context_campaign_source")}


class SessionsSql:
    """Renders one question. Raises QuestionError."""

    def __init__(self, question: Sessions, scope: Scope) -> None:
        self.question = question
        self.scope = scope
        self.statement = Statement()
        self.range = resolve_range(question, scope.now)
        self.segments = Segments(self.statement, len(question.by), min(question.limit, 1_000))
        self.used: set[str] = set()
        with naming("interval"):
            self.buckets = self.range.calendar.buckets(self.range.first, self.range.to, question.interval)

    def render(self) -> Rendered:
        self._add_sessions()
        if self.question.detail:
            return Rendered(self._detail(), DETAIL_COLUMNS, used=frozenset(self.used))
        self._place()
        changes_at = next_end(self.buckets, self.scope.complete_through)
        return Rendered(self._answer(), COLUMNS, changes_at=changes_at, used=frozenset(self.used))

    def members(self) -> tuple[Statement, str]:
        """Return the statement, and a query of segment, bucket, figure and person."""
        self._add_sessions()
        self._place()
        conditions = {
            "sessions": "TRUE",
            "persons": "TRUE",
            "bounced": "NOT k.engaged",
            "engaged": "k.engaged",
            "converted": "k.converted",
        }
        parts = [
            f"SELECT g.label AS segment, b.bucket, '{figure}' AS figure, k.person\nFROM placed AS k\n"
            f"JOIN buckets AS b ON b.n = k.n\nJOIN {self.segments.shown()} AS g ON g.place = k.place\nWHERE {condition}"
            for figure, condition in conditions.items()
        ]
        return self.statement, "\nUNION ALL\n".join(parts)

    def _add_sessions(self) -> None:
        question = self.question
        rows = Rows(self.statement, self.scope, question, "session_rows")
        if question.source == "gap":
            rows.start = self.range.start - timedelta(seconds=seconds(question.gap))
        rows.filtered = False
        of_session = rows.of_session()
        wanted: set[str] = set(DETAIL_COLUMNS) if question.detail else {str(by.column) for by in question.by}
        selected = [f"{rows.column(PAGES)} AS is_page", f"{rows.column(CUSTOM)} AS is_custom"]
        if wanted & {"entry_page", "exit_page"}:
            rows.base("context_page_path")
            selected.append(f"{rows.column(PAGE)} AS page")
        for name, sql in _FIRST_OF.items():
            if name in wanted:
                rows.base(*_COLUMNS_OF.get(name, (sql,)))
                selected.append(f"{rows.column(sql)} AS {text.name(name)}")
        selected.append(f"{rows.column(text.number(rows.engaged()))} AS engaged_ms")
        where = " AND ".join(map(rows.condition, question.where)) or "TRUE"
        selected.append(f"{rows.column(where)} AS wanted")
        converted = rows.matches(question.converted) if question.converted is not None else "CAST(NULL AS BOOLEAN)"
        selected.append(f"{rows.column(converted)} AS converted")
        day = ""
        if question.cut_at_midnight:
            lower = rows.start or datetime(1970, 1, 1)  # noqa: DTZ001  # naive UTC
            upper = max(self.range.end, self.scope.complete_through) + timedelta(days=2)
            day = "day"
            selected.append(f"{rows.column(self.range.calendar.bucket('event_time', 'day', lower, upper))} AS day")
        if question.source == "sdk":
            rows.base("session_id")
            selected.append("session_id")
            rows.out["session_id"] = "session_id"
        rows.finish(of_session)
        self.used |= rows.used | ({"person_id"} if question.detail else set())
        source = self.statement.add(
            "visit_rows", f"SELECT person, event_time, tie, {', '.join(selected)}\nFROM session_rows"
        )
        if question.source == "sdk":
            key = "session_id" + (", day" if day else "")
            source = self.statement.add("in_sessions", "SELECT * FROM visit_rows WHERE session_id IS NOT NULL")
        else:
            key = "session"
            source = number_sessions(self.statement, source, "in_sessions", seconds(question.gap), day=day)
        self._aggregate(source, key, wanted)

    def _aggregate(self, source: str, key: str, wanted: set[str]) -> None:
        """Add ``sessions``: those that began in the range, one row each."""
        order = "ROW(event_time, tie)"
        columns = [
            "MIN(event_time) AS start_at",
            "MAX(event_time) AS end_at",
            "COUNT(*) AS events",
            "COUNT(CASE WHEN is_page THEN 1 END) AS pages",
            "COUNT(CASE WHEN is_custom THEN 1 END) AS customs",
            "SUM(engaged_ms) AS engaged_ms",
            "COUNT(CASE WHEN wanted THEN 1 END) AS wanted",
            f"{'MAX(CASE WHEN converted THEN 1 ELSE 0 END) = 1' if self.question.converted else 'CAST(NULL AS BOOLEAN)'} AS converted",
        ]
        firsts = {name: ("MIN_BY", text.name(name)) for name in _FIRST_OF}
        firsts |= {"entry_page": ("MIN_BY", "page"), "exit_page": ("MAX_BY", "page")}
        columns += [
            f"{function}({column}, {order}) FILTER (WHERE {column} IS NOT NULL) AS {text.name(name)}"
            for name, (function, column) in firsts.items()
            if name in wanted
        ]
        self.statement.add(
            "visits", f"SELECT person, {key}, {', '.join(columns)}\nFROM {source}\nGROUP BY person, {key}"
        )
        lasted = f"{text.microseconds('end_at')} - {text.microseconds('start_at')}"
        long_enough = f"CASE WHEN engaged_ms IS NOT NULL THEN engaged_ms >= {ENGAGED_MS} ELSE lasted_us >= {ENGAGED_MS * 1_000} END"
        self.statement.add(
            "sessions",
            f"SELECT v.*, (pages >= 2 OR customs >= 1 OR {long_enough}) AS engaged\nFROM (SELECT visits.*, {lasted} AS lasted_us FROM visits) AS v\n"
            f"WHERE wanted > 0 AND start_at >= {text.timestamp(self.range.start)} AND start_at < {text.timestamp(self.range.end)}",
        )

    def _detail(self) -> str:
        person = "SUBSTR(person, 2) AS person_id, CASE SUBSTR(person, 1, 1) WHEN 'u' THEN 'user' ELSE 'anonymous' END AS person_kind"
        limit = f"\nLIMIT {self.question.limit}" if "limit" in self.question.model_fields_set else ""
        return self.statement.select(
            f'SELECT {person}, start_at AS start, end_at AS "end", entry_page, exit_page, source, campaign, pages, events,'
            f" engaged, converted\nFROM sessions\nORDER BY start_at, person_kind, person_id{limit}"
        )

    def _place(self) -> None:
        """Add ``placed``: sessions with their bucket's number n and their segment's place."""
        rows = [f"({one.number}, {one.literal}, {self._is_open(one)})" for one in self.buckets]
        self.statement.add("buckets", values("n, bucket, incomplete", rows))
        names = [text.name(by.column) for by in self.question.by]
        members = "".join(f", {name} AS {column}" for name, column in zip(names, self.segments.columns, strict=True))
        seg = combined(names) if names else "CAST(NULL AS VARCHAR)"
        bucket = self.range.calendar.bucket("start_at", self.question.interval, self.range.start, self.range.end)
        self.statement.add(
            "segmented",
            f"SELECT q.*, b.n\nFROM (SELECT sessions.*, {bucket} AS bucket, {seg} AS seg{members} FROM sessions) AS q\n"
            "JOIN buckets AS b ON b.bucket = q.bucket",
        )
        self.segments.rank("segmented", "COUNT(*)")
        columns = "r.person, r.n, r.pages, r.events, r.lasted_us, r.engaged, r.converted"
        self.statement.add("placed", self.segments.placed("segmented", columns))

    def _is_open(self, bucket: Bucket) -> str:
        return "TRUE" if bucket.end > self.scope.complete_through else "FALSE"

    def _answer(self) -> str:
        self.statement.add(
            "ranked",
            "SELECT placed.*, ROW_NUMBER() OVER (PARTITION BY place, n ORDER BY lasted_us) AS lasted_rank,"
            " COUNT(*) OVER (PARTITION BY place, n) AS lasted_count\nFROM placed",
        )
        self.statement.add(
            "counted",
            "SELECT place, n, COUNT(*) AS sessions, COUNT(DISTINCT person) AS persons,"
            " COUNT(CASE WHEN NOT engaged THEN 1 END) AS bounced, COUNT(CASE WHEN engaged THEN 1 END) AS engaged,"
            " COUNT(CASE WHEN converted THEN 1 END) AS converted, CAST(SUM(pages) AS BIGINT) AS pages,"
            " CAST(SUM(events) AS BIGINT) AS events,"
            " CAST(SUM(lasted_us) AS DOUBLE) / COUNT(*) / CAST(1000000 AS DOUBLE) AS duration_average_s,"
            " CAST(MIN(CASE WHEN lasted_rank * 100 >= lasted_count * 50 THEN lasted_us END) AS DOUBLE)"
            " / CAST(1000000 AS DOUBLE) AS duration_median_s\nFROM ranked\nGROUP BY place, n",
        )
        counts = ", ".join(f"COALESCE(c.{name}, 0) AS {name}" for name in ("sessions", "persons", "bounced", "engaged"))
        converted = "COALESCE(c.converted, 0)" if self.question.converted else "CAST(NULL AS BIGINT)"
        return self.statement.select(
            f"SELECT g.label AS segment, b.bucket, {counts}, {converted} AS converted, COALESCE(c.pages, 0) AS pages,"
            " COALESCE(c.events, 0) AS events, c.duration_average_s, c.duration_median_s, b.incomplete\n"
            f"FROM {self.segments.shown()} AS g\nCROSS JOIN buckets AS b\n"
            "LEFT JOIN counted AS c ON c.place = g.place AND c.n = b.n\nORDER BY g.place, b.n"
        )
