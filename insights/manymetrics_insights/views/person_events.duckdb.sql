-- The subqueries of person_events on DuckDB, whose lookups in maps and UNNEST are slow: joins, and `identities`.

WITH last_alias AS (
  SELECT project_id, previous_id, MAX_BY(user_id, ROW(event_time, message_id)) AS user_id
  FROM events
  WHERE type = 'alias' AND previous_id IS NOT NULL AND previous_id <> user_id
    AND COALESCE(repairs, '') NOT LIKE '%user_id_placeholder%'
    AND COALESCE(repairs, '') NOT LIKE '%previous_id_placeholder%'
  GROUP BY project_id, previous_id
),
merged AS (
  SELECT
    a1.project_id,
    a1.previous_id,
    CASE
      WHEN a8.user_id IS NOT NULL THEN LEAST(a5.user_id, a6.user_id, a7.user_id, a8.user_id)
      ELSE COALESCE(a7.user_id, a6.user_id, a5.user_id, a4.user_id, a3.user_id, a2.user_id, a1.user_id)
    END AS user_id
  FROM last_alias AS a1
  LEFT JOIN last_alias AS a2 ON a2.project_id = a1.project_id AND a2.previous_id = a1.user_id
  LEFT JOIN last_alias AS a3 ON a3.project_id = a2.project_id AND a3.previous_id = a2.user_id
  LEFT JOIN last_alias AS a4 ON a4.project_id = a3.project_id AND a4.previous_id = a3.user_id
  LEFT JOIN last_alias AS a5 ON a5.project_id = a4.project_id AND a5.previous_id = a4.user_id
  LEFT JOIN last_alias AS a6 ON a6.project_id = a5.project_id AND a6.previous_id = a5.user_id
  LEFT JOIN last_alias AS a7 ON a7.project_id = a6.project_id AND a7.previous_id = a6.user_id
  LEFT JOIN last_alias AS a8 ON a8.project_id = a7.project_id AND a8.previous_id = a7.user_id
),
device AS (
  SELECT
    project_id,
    COALESCE(anonymous_id, previous_id) AS anonymous_id,
    MAX_BY(user_id, ROW(last_seen, last_message_id)) AS user_id
  FROM identities
  GROUP BY project_id, COALESCE(anonymous_id, previous_id)
)
