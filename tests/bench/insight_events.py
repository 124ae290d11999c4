"""A table of events for the bench of insights: persons of skewed activity, in visits, over 60 days.

Two of a hundred come up to two days late. Written day by day with PyIceberg, sorted as the committer sorts.
"""

from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from manymetrics_processor.lake.lake import Lake, local_catalog

DAYS = 60
FIRST_DAY = date(2026, 9, 1)
_A_DAY = """
WITH numbers AS (SELECT range AS i, range // 8 AS visit, range % 8 AS place FROM range(?)),
hashed AS (
  SELECT i, visit, place, hash(visit, $day) AS h1, hash(visit, $day, 7) AS h2, hash(i, $day, 9) AS h3 FROM numbers
),
placed AS (
  SELECT *, CAST(floor(pow((h1 % 1000003) / 1000003.0, 3) * 300000) AS BIGINT) AS person, h3 % 100 AS kind,
    $day + to_microseconds(
      CAST(floor((h2 % 1000003) / 1000003.0 * 82000) * 1000000 + place * 40000000 + h3 % 30000000 AS BIGINT)
    ) AS event_time
  FROM hashed
)
SELECT 'm-' || i || '-' || CAST(h3 % 1000000007 AS VARCHAR) || '-' || CAST(CAST($day AS DATE) AS VARCHAR) AS message_id,
  'shop' AS project_id,
  CASE WHEN kind < 50 THEN 'page' WHEN kind = 99 THEN 'identify' ELSE 'track' END AS type,
  event_time + INTERVAL 1 SECOND + CASE WHEN h2 % 50 = 0 THEN to_days(CAST(h2 % 3 AS INTEGER)) ELSE INTERVAL 0 DAY END
    AS received_at,
  event_time,
  CASE
    WHEN kind < 50 THEN NULL WHEN kind < 70 THEN 'Element Clicked' WHEN kind < 78 THEN 'Page Left'
    WHEN kind < 86 THEN 'Product Viewed' WHEN kind < 91 THEN 'Product Added' WHEN kind < 94 THEN 'Checkout Started'
    WHEN kind < 96 THEN 'Order Completed' WHEN kind < 99 THEN 'Search'
  END AS event,
  CASE WHEN person % 3 = 0 THEN 'u-' || person END AS user_id,
  'a-' || person || '-' || CAST(hash(person) % 1000000000 AS VARCHAR) AS anonymous_id,
  '/products/' || (h3 % 500) AS context_page_path,
  CASE WHEN place = 0 AND h1 % 4 = 0 THEN 'google' END AS context_campaign_source,
  's-' || visit || '-' || CAST(h1 % 1000 AS VARCHAR) AS session_id,
  '{"country":"' || ['GB', 'DE', 'FR', 'US', 'NP'][CAST(1 + h1 % 5 AS INTEGER)]
    || '","plan":"' || ['free', 'pro', 'team'][CAST(1 + h2 % 3 AS INTEGER)] || '","price":' || (h3 % 10000) / 100
    || CASE WHEN kind >= 70 AND kind < 78 THEN ',"engagedMs":' || h3 % 60000 ELSE '' END || '}' AS properties,
  CASE WHEN kind = 99 THEN '{"plan":"' || ['free', 'pro', 'team'][CAST(1 + h2 % 3 AS INTEGER)] || '"}' END AS traits,
  ['Chrome', 'Safari', 'Firefox'][CAST(1 + h1 % 3 AS INTEGER)] AS browser_name,
  'bench' AS _stream, '0' AS _shard, CAST(i AS VARCHAR) AS _sequence, 0 AS _position
FROM placed
ORDER BY project_id, event, event_time
"""


def make_events(data_dir: Path, count: int) -> None:
    """Fill the table of a data directory with about ``count`` events."""
    lake = Lake(local_catalog(data_dir))
    lake.ensure_tables()
    table = local_catalog(data_dir).load_table("manymetrics.events")
    schema = table.schema().as_arrow()
    connection = duckdb.connect()
    for number in range(DAYS):
        day = FIRST_DAY + timedelta(number)
        sql = _A_DAY.replace("?", str(count // DAYS)).replace("$day", f"TIMESTAMP '{day} 00:00:00'")
        made = connection.sql(sql).to_arrow_table()
        columns = [
            made[field.name].cast(field.type)
            if field.name in made.column_names
            else pa.nulls(made.num_rows, field.type)
            for field in schema
        ]
        table.append(pa.Table.from_arrays(columns, schema=schema))
