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
-- traits: The traits of the last identify that had any (an object with keys), JSON text; null if there was none.
-- traits_at: event_time of that identify.

SELECT
  project_id,
  person_id,
  person_kind,
  MIN(event_time) AS first_seen,
  MAX(event_time) AS last_seen,
  COUNT(*) AS events,
  COUNT(*) FILTER (WHERE type = 'track') AS tracks,
  COUNT(*) FILTER (WHERE type IN ('page', 'screen')) AS pages,
  COUNT(DISTINCT anonymous_id) FILTER (WHERE COALESCE(repairs, '') NOT LIKE '%anonymous_id_placeholder%') AS devices,
  MAX_BY(traits, ROW(event_time, message_id)) FILTER (WHERE type = 'identify' AND traits LIKE '{%"%') AS traits,
  MAX(event_time) FILTER (WHERE type = 'identify' AND traits LIKE '{%"%') AS traits_at
FROM person_events
WHERE person_id IS NOT NULL
GROUP BY project_id, person_id, person_kind
