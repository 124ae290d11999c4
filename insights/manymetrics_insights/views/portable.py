"""SQL with the same result on Trino and DuckDB: patterns for the README, and a note on SQL that only DuckDB accepts."""

from __future__ import annotations

import re
import sys
from typing import Final

# By purpose. Tests run them on both engines.
PATTERNS: Final[dict[str, str]] = {
    "A row for each item of a JSON array. Extract what you need from `properties` first: next to the unnest, each item "
    "carries the whole text (6.1 s instead of 2.1 for 800,000 items, two cores). Other values have no items.": """\
WITH orders AS (
    SELECT json_extract_scalar(properties, '$.country') AS country,
           TRY_CAST(json_extract(properties, '$.products') AS JSON ARRAY) AS products
    FROM events
    WHERE event = 'Order Completed'
)
SELECT country, json_extract_scalar(product, '$.sku') AS sku,
       SUM(CAST(json_extract_scalar(product, '$.quantity') AS INTEGER)) AS quantity
FROM orders CROSS JOIN UNNEST(products) AS item (product)
GROUP BY 1, 2
ORDER BY 1, 2""",
    "A date as text: day, month and hour. `date_trunc('month', event_time)` is a timestamp on both.": """\
SELECT CAST(CAST(event_time AS DATE) AS VARCHAR) AS day,
       substr(CAST(CAST(event_time AS DATE) AS VARCHAR), 1, 7) AS month,
       lpad(CAST(hour(event_time) AS VARCHAR), 2, '0') AS hour,
       COUNT(*) AS events
FROM events
GROUP BY 1, 2, 3
ORDER BY 1, 3""",
    "Date arithmetic. In DuckDB a date plus an interval is a timestamp, and `date_diff` of timestamps counts "
    "differently: cast to DATE.": """\
SELECT message_id,
       CAST(CAST(event_time AS DATE) + INTERVAL '7' DAY AS DATE) AS a_week_later,
       event_time + day_of_trial * INTERVAL '1' DAY AS end_of_trial,
       date_diff('day', CAST(event_time AS DATE), CAST(received_at AS DATE)) AS days_late
FROM events CROSS JOIN (VALUES (14), (30)) AS trial (day_of_trial)
ORDER BY 1, 3""",
    "The last event of each user, without QUALIFY.": """\
SELECT user_id, event, event_time
FROM (
    SELECT user_id, event, event_time,
           row_number() OVER (PARTITION BY project_id, user_id ORDER BY event_time DESC, message_id DESC) AS place
    FROM events
    WHERE user_id IS NOT NULL
) AS ranked
WHERE place = 1
ORDER BY user_id""",
}

_TEXT_OR_COMMENT = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_WHOLE = r"(?:\d+|COUNT\s*\([^()]*\))"
_ONLY_DUCKDB: Final = {
    "QUALIFY": (re.compile(r"\bQUALIFY\b", re.IGNORECASE), "row_number() in a subquery, and WHERE around it"),
    "::": (re.compile("::"), "CAST(x AS type)"),
    "->>": (re.compile("->"), "json_extract_scalar(properties, '$.name')"),
    "GROUP BY ALL": (re.compile(r"\b(?:GROUP|ORDER)\s+BY\s+ALL\b", re.IGNORECASE), "the columns, or their numbers"),
    "/ of whole numbers": (
        re.compile(rf"(?<![\w.*/])(?<![*/] ){_WHOLE}\s*/\s*{_WHOLE}(?![\w.])", re.IGNORECASE),
        "CAST(x AS DOUBLE) / y, since Athena truncates",
    ),
}


def note_what_only_duckdb_takes(sql: str) -> None:
    """Write a note to standard error on what Athena rejects in ``sql`` or computes differently, if anything."""
    code = _TEXT_OR_COMMENT.sub("''", sql)
    found = [f"{name} (write {cure})" for name, (pattern, cure) in _ONLY_DUCKDB.items() if pattern.search(code)]
    if found:
        sys.stderr.write(f"note: not the same on Athena: {'; '.join(found)}\n")
