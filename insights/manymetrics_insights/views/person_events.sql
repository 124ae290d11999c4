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
  SELECT project_id, previous_id, MAX_BY(user_id, ROW(last_seen, last_message_id)) AS user_id
  FROM identities
  WHERE previous_id IS NOT NULL AND previous_id <> user_id
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
