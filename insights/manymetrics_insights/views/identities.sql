-- One row is a link between two ids of a project, derived from events: either a device and the user seen on it
-- (anonymous_id and user_id), or an alias (previous_id and the user_id that replaces it). Ids that name nobody, such as
-- "undefined", link nothing (repairs).
--
-- project_id: The project.
-- anonymous_id: The device or browser; null on an alias.
-- previous_id: The id that user_id replaces; null unless an alias. It may have named a user or a device.
-- user_id: The user.
-- first_seen: event_time of the first event that showed the link.
-- last_seen: event_time of the last one.
-- last_message_id: Its message_id, the greatest if several share that time: the tie-breaker between links.
-- events: How many events showed the link.

SELECT
  project_id,
  anonymous_id,
  CAST(NULL AS varchar) AS previous_id,
  user_id,
  MIN(event_time) AS first_seen,
  MAX(event_time) AS last_seen,
  MAX_BY(message_id, ROW(event_time, message_id)) AS last_message_id,
  COUNT(*) AS events
FROM events
WHERE anonymous_id IS NOT NULL AND user_id IS NOT NULL
  AND COALESCE(repairs, '') NOT LIKE '%user_id_placeholder%'
  AND COALESCE(repairs, '') NOT LIKE '%anonymous_id_placeholder%'
GROUP BY project_id, anonymous_id, user_id
UNION ALL
SELECT
  project_id,
  CAST(NULL AS varchar) AS anonymous_id,
  previous_id,
  user_id,
  MIN(event_time) AS first_seen,
  MAX(event_time) AS last_seen,
  MAX_BY(message_id, ROW(event_time, message_id)) AS last_message_id,
  COUNT(*) AS events
FROM events
WHERE type = 'alias' AND previous_id IS NOT NULL AND user_id IS NOT NULL
  AND COALESCE(repairs, '') NOT LIKE '%user_id_placeholder%'
  AND COALESCE(repairs, '') NOT LIKE '%previous_id_placeholder%'
GROUP BY project_id, previous_id, user_id
