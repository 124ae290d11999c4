-- One row is a person of a project, known or not. Events whose ids name nobody are left out.
--
-- project_id: The project.
-- person_id: The person, as in person_events.
-- person_kind: user or anonymous.
-- first_seen: event_time of the person's first event.
-- last_seen: event_time of the last one.
-- events: How many events, of all types.
-- tracks: How many track events.
-- pages: How many page and screen events.
-- devices: How many different anonymous_ids.
-- traits: For each key of the traits, its latest value that is not null: a JSON object, sorted by key; null if there is none.
-- traits_at: event_time of the latest identify that set any of these values.

WITH texts AS (
  SELECT
    project_id,
    person_id,
    person_kind,
    traits,
    MAX(event_time) AS event_time,
    MAX_BY(message_id, ROW(event_time, message_id)) AS message_id
  FROM person_events
  WHERE type = 'identify' AND traits LIKE '{%"%' AND person_id IS NOT NULL
  GROUP BY project_id, person_id, person_kind, traits
),
objects AS (
  SELECT
    project_id,
    person_id,
    person_kind,
    event_time,
    message_id,
    CASE WHEN TRY(JSON_PARSE(traits)) IS NOT NULL THEN TRY_CAST(JSON_EXTRACT(traits, '$') AS MAP(VARCHAR, JSON)) END AS pairs
  FROM texts
),
pairs AS (
  SELECT
    project_id,
    person_id,
    person_kind,
    event_time,
    message_id,
    key,
    JSON_FORMAT(ELEMENT_AT(pairs, key)) AS value
  FROM objects
  CROSS JOIN UNNEST(MAP_KEYS(pairs)) AS keys (key)
),
latest AS (
  SELECT
    project_id,
    person_id,
    person_kind,
    key,
    JSON_FORMAT(CAST(ARRAY[key] AS JSON)) AS key_in_brackets,
    MAX(event_time) AS event_time,
    MAX_BY(value, ROW(event_time, message_id, value)) AS value
  FROM pairs
  WHERE value <> 'null'
  GROUP BY project_id, person_id, person_kind, key
),
arrays AS (
  SELECT
    project_id,
    person_id,
    person_kind,
    '[{' || ARRAY_JOIN(
      ARRAY_AGG(SUBSTR(key_in_brackets, 2, LENGTH(key_in_brackets) - 2) || ':' || value ORDER BY key), ','
    ) || '}]' AS traits,
    MAX(event_time) AS traits_at
  FROM latest
  GROUP BY project_id, person_id, person_kind
),
persons AS (
  SELECT
    project_id,
    person_id,
    person_kind,
    MIN(event_time) AS first_seen,
    MAX(event_time) AS last_seen,
    COUNT(*) AS events,
    COUNT(*) FILTER (WHERE type = 'track') AS tracks,
    COUNT(*) FILTER (WHERE type IN ('page', 'screen')) AS pages,
    COUNT(DISTINCT anonymous_id) FILTER (WHERE COALESCE(repairs, '') NOT LIKE '%anonymous_id_placeholder%') AS devices
  FROM person_events
  WHERE person_id IS NOT NULL
  GROUP BY project_id, person_id, person_kind
)
SELECT
  p.project_id,
  p.person_id,
  p.person_kind,
  p.first_seen,
  p.last_seen,
  p.events,
  p.tracks,
  p.pages,
  p.devices,
  JSON_FORMAT(ELEMENT_AT(CAST(JSON_EXTRACT(t.traits, '$') AS JSON ARRAY), 1)) AS traits,
  t.traits_at
FROM persons AS p
LEFT JOIN arrays AS t
  ON t.project_id = p.project_id AND t.person_id = p.person_id AND t.person_kind = p.person_kind
