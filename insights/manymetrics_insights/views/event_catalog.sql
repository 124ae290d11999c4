-- One row is a kind of event of a project: a type and a name.
--
-- project_id: The project.
-- type: track, identify, page, screen, group or alias.
-- event: The event's, page's or screen's name; null if it has none.
-- first_seen: event_time of the first one.
-- last_seen: event_time of the last one.
-- events: How many there are.
-- events_30_days: How many happened in the last 30 days.
-- persons: How many persons did it, in total.

SELECT
  project_id,
  type,
  event,
  MIN(event_time) AS first_seen,
  MAX(event_time) AS last_seen,
  COUNT(*) AS events,
  COUNT(*) FILTER (
    WHERE event_time >= CAST(CURRENT_TIMESTAMP AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '30' DAY
  ) AS events_30_days,
  COUNT(DISTINCT person_id) FILTER (WHERE person_kind = 'user')
    + COUNT(DISTINCT person_id) FILTER (WHERE person_kind = 'anonymous') AS persons
FROM person_events
GROUP BY project_id, type, event
