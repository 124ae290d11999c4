"""Persons behind a cell of an answer, and the timeline of one person."""

from __future__ import annotations

from typing import Any, Final

from manymetrics_insights.questions.base import Scalar, nearest
from manymetrics_insights.questions.filters import Subject, parse_instant
from manymetrics_insights.questions.models import Persons, QuestionError, Ranged, Sessions, Timeline
from manymetrics_insights.sql import text
from manymetrics_insights.sql.funnel import FunnelSql
from manymetrics_insights.sql.lifecycle import LifecycleSql, StickinessSql
from manymetrics_insights.sql.paths import PathsSql
from manymetrics_insights.sql.rendered import Rendered
from manymetrics_insights.sql.retention import RetentionSql
from manymetrics_insights.sql.rows import OF_SESSIONS, Rows
from manymetrics_insights.sql.scope import PERSON_EVENTS, Scope, resolve_range
from manymetrics_insights.sql.sessionize import number_sessions
from manymetrics_insights.sql.sessions import SessionsSql
from manymetrics_insights.sql.statement import Statement
from manymetrics_insights.sql.trends import TrendsSql

COLUMNS: Final = ("person_id", "person_kind", "first_seen", "last_seen", "events", "traits")
TIMELINE_COLUMNS: Final = ("event_time", "type", "event", "session", "message_id", "summary")
KEYS: Final = {
    "trends": ("series", "segment", "bucket"),
    "funnel": ("segment", "bucket", "step"),
    "retention": ("segment", "cohort", "n"),
    "lifecycle": ("bucket",),
    "stickiness": ("days",),
    "sessions": ("segment", "bucket"),
    "paths": ("step", "from", "to"),
}
"""The key columns of each insight's answer."""
FIGURES: Final = {
    "trends": ("value",),
    "funnel": ("persons", "dropped", "immature"),
    "retention": ("returned", "size"),
    "lifecycle": ("active", "new", "returning", "resurrecting", "dormant"),
    "stickiness": ("persons",),
    "sessions": ("persons", "sessions", "bounced", "engaged", "converted"),
    "paths": ("persons",),
}
"""The columns that count persons; the first one is the default."""
_NUMBERS: Final = frozenset({"step", "n", "days"})
RENDERERS: Final[dict[str, Any]] = {
    "trends": TrendsSql,
    "funnel": FunnelSql,
    "retention": RetentionSql,
    "lifecycle": LifecycleSql,
    "stickiness": StickinessSql,
    "sessions": SessionsSql,
    "paths": PathsSql,
}


def render_persons(question: Persons, scope: Scope) -> Rendered:
    """Render the list of a cell. Raises QuestionError."""
    of = question.of
    insight = of.insight
    figures = FIGURES[insight]
    figure = question.figure or figures[0]
    if figure not in (*figures, *(("persons",) if insight == "trends" else ())):
        raise QuestionError(
            [
                (
                    ["figure"],
                    f"{insight} has no figure {figure!r} that counts persons{nearest(figure, figures) or ': ' + ', '.join(figures)}",
                )
            ]
        )
    renderer = RENDERERS[insight](of, scope)
    statement, members = renderer.members()
    conditions = [] if insight == "trends" else [f"figure = '{figure}'"]
    for key, value in question.cell.items():
        if key not in KEYS[insight]:
            hint = nearest(key, KEYS[insight]) or f": {', '.join(KEYS[insight])}"
            raise QuestionError([(["cell", key], f"{insight} has no key column {key!r}{hint}")])
        conditions.append(_key_condition(key, value))
    where = f"\nWHERE {' AND '.join(conditions)}" if conditions else ""
    statement.add("members", members)
    statement.add("chosen", f"SELECT DISTINCT person\nFROM members{where}")
    order, join = "person_id, person_kind", ""
    if question.order_by is not None:
        _add_measured(statement, scope, of, question)
        join = "\nLEFT JOIN measured AS m ON m.person = c.person"
        # A sum or a count of nothing is 0; what else has no value comes last.
        measure = "COALESCE(m.measure, 0)" if question.order_by.measure in {"events", "sum"} else "m.measure"
        order = f"CASE WHEN {measure} IS NULL THEN 1 ELSE 0 END, {measure} DESC, person_id, person_kind"
    users = f"SELECT {PERSON_EVENTS.person} AS user_person, known.*\nFROM users AS known\nWHERE project_id = {text.literal(scope.project)}"
    limit = f"\nLIMIT {question.limit}" if question.limit is not None else ""
    sql = statement.select(
        f"SELECT u.person_id, u.person_kind, u.first_seen, u.last_seen, u.events, u.traits\nFROM chosen AS c\n"
        f"JOIN (\n{users}\n) AS u ON u.user_person = c.person{join}\nORDER BY {order}{limit}"
    )
    return Rendered(sql, COLUMNS, used=frozenset({"person_id"}))


def _key_condition(key: str, value: Scalar | tuple[str, ...] | None) -> str:
    column = text.name(key)
    if value is None:
        return f"{column} IS NULL"
    if isinstance(value, tuple):
        if key != "segment":
            raise QuestionError([(["cell", key], "must be a single value")])
        return f"{column} = JSON_FORMAT(CAST(ARRAY[{', '.join(map(text.literal, value))}] AS JSON))"
    if key in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int):
            raise QuestionError([(["cell", key], "must be a whole number")])
        return f"{column} = {value}"
    if not isinstance(value, str):
        raise QuestionError([(["cell", key], "must be a text, as in the answer")])
    if key not in {"bucket", "cohort"}:
        return f"{column} = {text.literal(value)}"
    if key == "cohort" and value.startswith("("):
        raise QuestionError([(["cell", key], f"{value} is an average over cohorts: it counts nobody by itself")])
    try:
        time = parse_instant(value)
    except ValueError as error:
        raise QuestionError([(["cell", key], str(error))]) from None
    return f"CAST({column} AS TIMESTAMP) = {text.timestamp(time)}"


def _add_measured(statement: Statement, scope: Scope, of: Ranged, question: Persons) -> None:
    """Add ``measured``: each person's measure over the events of the range."""
    order_by = question.order_by
    assert order_by is not None
    rows = Rows(statement, scope, of, "measured_rows")
    within = resolve_range(of, scope.now)
    rows.start, rows.end = within.start, within.end
    rows.filtered = not isinstance(of, Sessions)  # there, where keeps sessions
    rows.keep_all()
    x = rows.number(Subject(property=order_by.property)) if order_by.property is not None else "1"
    rows.finish()
    function = {
        "events": "COUNT(*)",
        "sum": f"SUM({x})",
        "average": f"CAST(SUM({x}) AS DOUBLE) / NULLIF(COUNT({x}), 0)",
        "min": f"MIN({x})",
        "max": f"MAX({x})",
    }[order_by.measure]
    statement.add("measured", f"SELECT person, {function} AS measure\nFROM measured_rows\nGROUP BY person")


def render_timeline(question: Timeline, scope: Scope) -> Rendered:
    """Render everything that a person did, newest first; ``session`` is the instant at which it began."""
    statement = Statement()
    whose = [
        f"project_id = {text.literal(scope.project)}",
        f"person_id = {text.literal(question.person_id)}",
        f"person_kind = '{question.person_kind}'",
    ]
    statement.add(
        "mine",
        f"SELECT {PERSON_EVENTS.person} AS person, event_time, message_id AS tie, type, event, {_SUMMARY} AS summary,"
        f" ({OF_SESSIONS} AND {PERSON_EVENTS.has_device} AND bot_kind IS NULL) AS of_session\nFROM person_events\nWHERE {' AND '.join(whose)}",
    )
    statement.add("of_sessions", "SELECT person, event_time, tie FROM mine WHERE of_session")
    number_sessions(statement, "of_sessions", "in_sessions")
    statement.add("begun", "SELECT tie, MIN(event_time) OVER (PARTITION BY session) AS session\nFROM in_sessions")
    before = f"\nWHERE m.event_time < {text.timestamp(parse_instant(question.before))}" if question.before else ""
    sql = statement.select(
        "SELECT m.event_time, m.type, m.event, b.session, m.tie AS message_id, m.summary\n"
        f"FROM mine AS m\nLEFT JOIN begun AS b ON b.tie = m.tie{before}\n"
        f"ORDER BY m.event_time DESC, m.tie DESC\nLIMIT {question.limit}"
    )
    return Rendered(sql, TIMELINE_COLUMNS, used=frozenset({"person_id"}))


_SUMMARY: Final = (
    "CASE WHEN type IN ('page', 'screen') THEN COALESCE(context_page_path, event)"
    " WHEN type = 'identify' THEN traits WHEN type = 'alias' THEN previous_id || ' is ' || user_id"
    " WHEN type = 'group' THEN group_id ELSE properties END"
)
