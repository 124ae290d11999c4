"""Number the sessions of persons: by gaps in time, or by the SDK's session_id."""

from __future__ import annotations

from manymetrics_insights.sql import text
from manymetrics_insights.sql.statement import Statement

DEFAULT_GAP_S = 1_800


def number_sessions(statement: Statement, rows: str, name: str, gap_s: int = DEFAULT_GAP_S, *, day: str = "") -> str:
    """Add ``rows`` with ``session``: counts the sessions of a person, from 1; together with person it is unique.

    A gap of exactly ``gap_s`` goes on. ``day``: a column with the local day, at whose change a session is cut.
    """
    window = "(PARTITION BY person ORDER BY event_time, tie)"
    before = f", LAG({day}) OVER {window} AS day_before" if day else ""
    begins = f"time_before IS NULL OR event_time > time_before + {text.seconds(gap_s)}"
    if day:
        begins += f" OR {day} <> day_before"
    statement.add(f"{name}_gaps", f"SELECT {rows}.*, LAG(event_time) OVER {window} AS time_before{before}\nFROM {rows}")
    return statement.add(
        name,
        f"SELECT {name}_gaps.*, SUM(CASE WHEN {begins} THEN 1 ELSE 0 END)"
        f" OVER (PARTITION BY person ORDER BY event_time, tie ROWS UNBOUNDED PRECEDING) AS session\nFROM {name}_gaps",
    )
