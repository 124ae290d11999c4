"""Paths: which nodes, page paths and custom events, follow each other.

rows of units -> from the start on (or back from the end) -> nodes without repeats, numbered -> (other) -> counted
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from manymetrics_insights.questions.base import seconds
from manymetrics_insights.questions.models import Paths
from manymetrics_insights.questions.patterns import parse_pattern
from manymetrics_insights.sql import text
from manymetrics_insights.sql.rendered import Rendered
from manymetrics_insights.sql.rows import ACTIVE, CUSTOM, PAGES, Rows
from manymetrics_insights.sql.scope import Scope, resolve_range
from manymetrics_insights.sql.segments import OTHER
from manymetrics_insights.sql.sessionize import DEFAULT_GAP_S, number_sessions
from manymetrics_insights.sql.statement import Statement

COLUMNS: Final = ("step", "from", "to", "count", "persons")
EXIT: Final = "(exit)"
ENTRY: Final = "(entry)"
DEFAULT_WINDOW: Final = "7d"
_ID: Final = "/(?:[0-9]+|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})/"


def cleaned(path: str) -> str:
    """Return SQL for a path without query, fragment and trailing slashes, with ``:id`` for numbers and UUIDs.

    Slashes are doubled while ids are replaced, so that each part of a path has two of its own.
    """
    bare = f"SPLIT_PART(SPLIT_PART({path}, '#', 1), '?', 1)"
    doubled = f"REPLACE('/' || REGEXP_REPLACE({bare}, '/+\\z', '') || '/', '/', '//')"
    named = f"REPLACE(REGEXP_REPLACE({doubled}, {text.literal(_ID)}, '/:id/'), '//', '/')"
    whole = f"SUBSTR({named}, 2, LENGTH({named}) - 2)"
    return f"CASE WHEN {whole} = '' THEN '/' ELSE {whole} END"


class PathsSql:
    """Renders one question."""

    def __init__(self, question: Paths, scope: Scope) -> None:
        self.question = question
        self.scope = scope
        self.statement = Statement()
        self.range = resolve_range(question, scope.now)
        self.used: set[str] = set()
        self.unit = ["person", "session"] if question.unit == "session" else ["person"]
        self.is_backward = question.end is not None

    def render(self) -> Rendered:
        self._add_transitions()
        sql = self.statement.select(
            'SELECT step, from_node AS "from", to_node AS "to", COUNT(*) AS "count", COUNT(DISTINCT person) AS persons\n'
            "FROM transitions\nGROUP BY step, from_node, to_node\nORDER BY step, 4 DESC, from_node, to_node"
        )
        return Rendered(sql, COLUMNS, used=frozenset(self.used))

    def members(self) -> tuple[Statement, str]:
        """Return the statement, and a query of step, from, to, figure and person."""
        self._add_transitions()
        return self.statement, (
            'SELECT step, from_node AS "from", to_node AS "to", \'persons\' AS figure, person FROM transitions'
        )

    def _add_transitions(self) -> None:
        source = self._add_unit_rows()
        unit = ", ".join(self.unit)
        order = "event_time DESC, tie DESC" if self.is_backward else "event_time, tie"
        self.statement.add(
            "node_rows",
            f"SELECT {unit}, event_time, tie, node\nFROM {source}\nWHERE (is_node OR is_anchor)",
        )
        window = f"(PARTITION BY {unit} ORDER BY {order})"
        self.statement.add(
            "changes",
            f"SELECT q.*, ROW_NUMBER() OVER {window} AS position\nFROM (\n"
            f"SELECT node_rows.*, LAG(node) OVER {window} AS node_before\nFROM node_rows\n) AS q\n"
            "WHERE node_before IS NULL OR node <> node_before",
        )
        # One more than the depth, to know where a unit ends.
        self.statement.add(
            "positions", f"SELECT {unit}, position, node\nFROM changes\nWHERE position <= {self.question.depth}"
        )
        self.statement.add(
            "node_ranks",
            "SELECT position, node, ROW_NUMBER() OVER (PARTITION BY position ORDER BY COUNT(*) DESC, node) AS node_rank\n"
            "FROM positions\nGROUP BY position, node",
        )
        shown = f"CASE WHEN r.node_rank <= {self.question.limit} THEN p.node ELSE {text.literal(OTHER)} END"
        listed = ", ".join(f"p.{column}" for column in self.unit)
        self.statement.add(
            "shown",
            f"SELECT {listed}, p.position, {shown} AS node\nFROM positions AS p\n"
            "JOIN node_ranks AS r ON r.position = p.position AND r.node = p.node",
        )
        after = f"LEAD(node) OVER (PARTITION BY {unit} ORDER BY position)"
        stop = text.literal(ENTRY if self.is_backward else EXIT)
        columns = (
            "COALESCE(next_node, {0}) AS from_node, node AS to_node"
            if self.is_backward
            else "node AS from_node, COALESCE(next_node, {0}) AS to_node"
        ).format(stop)
        self.statement.add(
            "transitions",
            f"SELECT person, position AS step, {columns}\nFROM (\nSELECT shown.*, {after} AS next_node\nFROM shown\n) AS q\n"
            f"WHERE position < {self.question.depth}",
        )

    def _add_unit_rows(self) -> str:
        """Add the rows of each unit from its anchor on, with whether they are nodes. Returns the subquery's name."""
        question = self.question
        rows = Rows(self.statement, self.scope, question, "path_rows")
        by_session = question.unit == "session"
        window_s = seconds(question.window or DEFAULT_WINDOW)
        if by_session:
            rows.start = self.range.start - timedelta(seconds=DEFAULT_GAP_S)
        else:
            rows.start = self.range.start - timedelta(seconds=window_s if self.is_backward else 0)
            rows.end = self.range.end + timedelta(seconds=window_s)
        rows.filtered = not by_session
        rows.base("type", "event", "context_page_path")
        anchor = question.start or question.end
        anchor_flag = rows.flag(anchor) if anchor is not None else None
        of_session = rows.of_session() if by_session else ""
        if not by_session:
            rows.keep(ACTIVE)
        is_page = rows.column(PAGES, "is_page")
        page = rows.column(f"CASE WHEN {PAGES} THEN context_page_path END", "page")
        other = rows.column(f"CASE WHEN type = 'screen' OR NOT {PAGES} THEN event END", "other")
        is_custom = rows.column(CUSTOM, "is_custom")
        kinds = {"pages": is_page, "events": is_custom, "both": f"({is_page} OR {is_custom})"}
        wanted = rows.column(" AND ".join(map(rows.condition, question.where)) or "TRUE", "wanted")
        rows.finish(of_session)
        self.used |= rows.used
        # Few paths are different: each is cleaned once.
        paths = f"SELECT DISTINCT {page} AS path FROM path_rows WHERE {page} IS NOT NULL"
        self.statement.add("cleaned_paths", f"SELECT path, {self._clean()} AS node\nFROM (\n{paths}\n) AS paths")
        self.statement.add(
            "named_rows",
            f"SELECT r.*, COALESCE(p.node, r.{other}) AS node\nFROM path_rows AS r\n"
            f"LEFT JOIN cleaned_paths AS p ON p.path = r.{page}",
        )
        node = "node"
        is_node = f"({kinds[question.nodes]} AND {node} IS NOT NULL)"
        anchor_sql = is_node if anchor_flag is None else f"({anchor_flag} AND {node} IS NOT NULL)"
        source = "named_rows"
        if by_session:
            numbered = number_sessions(self.statement, source, "in_sessions")
            begun = "MIN(event_time) OVER (PARTITION BY person, session) AS begun_at"
            self.statement.add("begun", f"SELECT {numbered}.*, {begun}\nFROM {numbered}")
            in_range = f"begun_at >= {text.timestamp(self.range.start)} AND begun_at < {text.timestamp(self.range.end)}"
            source = self.statement.add("unit_rows", f"SELECT * FROM begun\nWHERE {in_range} AND {wanted}")
            anchor_in_range = "TRUE"
        else:
            anchor_in_range = (
                f"event_time >= {text.timestamp(self.range.start)} AND event_time < {text.timestamp(self.range.end)}"
            )
        unit = ", ".join(self.unit)
        numbers = f"ROW_NUMBER() OVER (PARTITION BY {unit} ORDER BY event_time, tie) AS i"
        self.statement.add(
            "flagged",
            f"SELECT {unit}, event_time, tie, {node} AS node, {is_node} AS is_node,"
            f" ({anchor_sql} AND {anchor_in_range}) AS may_anchor, {numbers}\nFROM {source}",
        )
        self.statement.add(
            "anchored",
            f"SELECT flagged.*, MIN(CASE WHEN may_anchor THEN i END) OVER (PARTITION BY {unit}) AS anchor_i,"
            f" MIN(CASE WHEN may_anchor THEN event_time END) OVER (PARTITION BY {unit}) AS anchor_at\nFROM flagged",
        )
        side = "i <= anchor_i" if self.is_backward else "i >= anchor_i"
        if not by_session:
            length = text.seconds(window_s)
            side += (
                f" AND event_time >= anchor_at - {length}"
                if self.is_backward
                else f" AND event_time <= anchor_at + {length}"
            )
        return self.statement.add(
            "directed", f"SELECT anchored.*, i = anchor_i AS is_anchor\nFROM anchored\nWHERE {side}"
        )

    def _clean(self) -> str:
        clean = cleaned("path")
        if not self.question.rules:
            return clean
        whens = [
            f"WHEN REGEXP_LIKE({clean}, {text.literal(parse_pattern(rule.pattern))}) THEN {text.literal(rule.name)}"
            for rule in self.question.rules
        ]
        return f"CASE {' '.join(whens)} ELSE {clean} END"
