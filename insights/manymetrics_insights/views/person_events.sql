-- One row is an event, of any type, with the person who did it: the event's user_id; else the user last seen on the
-- device (also for earlier events); else the device itself. Two users of one device stay separate. Only an alias
-- merges two users: the last alias of a previous_id applies, through chains of up to seven. A cycle of up to four
-- aliases is one person, named by the least id of the cycle. An id that names nobody, such as "undefined", is
-- ignored: an event without another id belongs to nobody.
--
-- *: events
-- person_id: The person: a user_id, or an anonymous_id if no user is known; null if its ids name nobody.
-- person_kind: user, anonymous, or unknown if person_id is null. An anonymous "42" is not the user "42": count persons by both columns.

WITH last_alias AS (
  SELECT project_id, previous_id, MAX_BY(user_id, ROW(event_time, message_id)) AS user_id
  FROM events
  WHERE type = 'alias' AND previous_id IS NOT NULL AND previous_id <> user_id
    AND COALESCE(repairs, '') NOT LIKE '%user_id_placeholder%'
    AND COALESCE(repairs, '') NOT LIKE '%previous_id_placeholder%'
  GROUP BY project_id, previous_id
),
aliases AS (
  SELECT project_id, MAP_AGG(previous_id, user_id) AS next_id
  FROM last_alias
  GROUP BY project_id
),
followed AS (
  SELECT
    project_id,
    next_id,
    previous_id,
    COALESCE(
      ELEMENT_AT(next_id, ELEMENT_AT(next_id, ELEMENT_AT(next_id, previous_id))),
      ELEMENT_AT(next_id, ELEMENT_AT(next_id, previous_id)),
      ELEMENT_AT(next_id, previous_id)
    ) AS user_id,
    ELEMENT_AT(next_id, ELEMENT_AT(next_id, ELEMENT_AT(next_id, ELEMENT_AT(next_id, previous_id)))) AS fourth_id
  FROM aliases
  CROSS JOIN UNNEST(MAP_KEYS(next_id)) AS ids (previous_id)
),
merged AS (
  SELECT
    -- Not the plain column: else Trino joins all events of a project in one task, as the map is made by project.
    COALESCE(project_id, '') AS project_id,
    previous_id,
    CASE
      WHEN ELEMENT_AT(next_id, ELEMENT_AT(next_id, ELEMENT_AT(next_id, ELEMENT_AT(next_id, fourth_id)))) IS NOT NULL
      THEN LEAST(
        ELEMENT_AT(next_id, fourth_id),
        ELEMENT_AT(next_id, ELEMENT_AT(next_id, fourth_id)),
        ELEMENT_AT(next_id, ELEMENT_AT(next_id, ELEMENT_AT(next_id, fourth_id))),
        ELEMENT_AT(next_id, ELEMENT_AT(next_id, ELEMENT_AT(next_id, ELEMENT_AT(next_id, fourth_id))))
      )
      ELSE COALESCE(
        ELEMENT_AT(next_id, ELEMENT_AT(next_id, ELEMENT_AT(next_id, fourth_id))),
        ELEMENT_AT(next_id, ELEMENT_AT(next_id, fourth_id)),
        ELEMENT_AT(next_id, fourth_id),
        fourth_id,
        user_id
      )
    END AS user_id
  FROM followed
),
device AS (
  SELECT project_id, id AS anonymous_id, MAX_BY(user_id, ROW(event_time, message_id)) AS user_id
  FROM events
  CROSS JOIN UNNEST(ARRAY[
    CASE WHEN COALESCE(repairs, '') NOT LIKE '%anonymous_id_placeholder%' THEN anonymous_id END,
    CASE WHEN type = 'alias' AND COALESCE(repairs, '') NOT LIKE '%previous_id_placeholder%' THEN previous_id END
  ]) AS ids (id)
  WHERE user_id IS NOT NULL AND id IS NOT NULL AND COALESCE(repairs, '') NOT LIKE '%user_id_placeholder%'
  GROUP BY project_id, id
)
SELECT
  e.*,
  COALESCE(
    m.user_id,
    CASE WHEN e.repairs LIKE '%user_id_placeholder%' THEN NULL ELSE e.user_id END,
    d.user_id,
    CASE WHEN e.repairs LIKE '%anonymous_id_placeholder%' THEN NULL ELSE e.anonymous_id END
  ) AS person_id,
  CASE
    WHEN COALESCE(CASE WHEN e.repairs LIKE '%user_id_placeholder%' THEN NULL ELSE e.user_id END, d.user_id) IS NOT NULL THEN 'user'
    WHEN CASE WHEN e.repairs LIKE '%anonymous_id_placeholder%' THEN NULL ELSE e.anonymous_id END IS NOT NULL THEN 'anonymous'
    ELSE 'unknown'
  END AS person_kind
FROM events AS e
LEFT JOIN device AS d
  ON CASE WHEN e.repairs LIKE '%user_id_placeholder%' THEN NULL ELSE e.user_id END IS NULL
  AND d.project_id = e.project_id
  AND d.anonymous_id = CASE WHEN e.repairs LIKE '%anonymous_id_placeholder%' THEN NULL ELSE e.anonymous_id END
LEFT JOIN merged AS m
  ON m.project_id = e.project_id
  AND m.previous_id = COALESCE(CASE WHEN e.repairs LIKE '%user_id_placeholder%' THEN NULL ELSE e.user_id END, d.user_id)
