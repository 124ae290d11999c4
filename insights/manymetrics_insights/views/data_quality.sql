-- One row is a UTC day of a project, by received_at: the events received that day, their lateness and their defects.
-- Duplicates are not included, since no table stores them: see the ledger (`manymetrics doctor`).
--
-- project_id: The project; null for unreadable records.
-- day: The UTC day of received_at.
-- events: How many events were stored.
-- late_events: How many of them happened over an hour before they were received.
-- late_share: late_events / events, from 0 to 1; null if there are no events.
-- settled_late_events: How many happened over 72 hours before they were received: they change days that had settled.
-- lag_p50_ms: The median of received_at - event_time, in milliseconds, nearest rank.
-- lag_p95_ms: The 95th percentile of received_at - event_time, in milliseconds.
-- repaired_events: How many events were repaired.
-- placeholder_ids: How many events had a user or anonymous id that names nobody, such as "undefined".
-- dead_letters: How many events could not be stored.
-- dead_letters_not_an_object: How many of them for the reason not_an_object.
-- dead_letters_invalid_json: How many of them for the reason invalid_json.
-- dead_letters_too_large: How many of them for the reason too_large.
-- dead_letters_too_deep: How many of them for the reason too_deep.
-- dead_letters_unknown_type: How many of them for the reason unknown_type.
-- dead_letters_no_identity: How many of them for the reason no_identity.
-- dead_letters_no_event_name: How many of them for the reason no_event_name.
-- dead_letters_invalid_id: How many of them for the reason invalid_id.
-- dead_letters_id_too_long: How many of them for the reason id_too_long.
-- dead_letters_invalid_event_name: How many of them for the reason invalid_event_name.
-- dead_letters_event_name_too_long: How many of them for the reason event_name_too_long.
-- dead_letters_unreadable_record: How many of them for the reason unreadable_record.
-- dead_letters_unprocessable: How many of them for the reason unprocessable.
-- dead_letters_unstorable: How many of them for the reason unstorable.
-- dead_letters_erased: How many of them for the reason erased.
-- replayed_dead_letters: How many of the day's dead letters were replayed since.

WITH lag_counts AS (
  SELECT
    project_id,
    CAST(received_at AS date) AS day,
    CAST(ROUND((TO_UNIXTIME(received_at) - TO_UNIXTIME(event_time)) * 1000) AS bigint) AS lag_ms,
    COUNT(*) AS events,
    COUNT(*) FILTER (WHERE event_time < received_at - INTERVAL '1' HOUR) AS late_events,
    COUNT(*) FILTER (WHERE event_time < received_at - INTERVAL '72' HOUR) AS settled_late_events,
    COUNT(repairs) AS repaired_events,
    COUNT(*) FILTER (
      WHERE repairs LIKE '%user_id_placeholder%' OR repairs LIKE '%anonymous_id_placeholder%'
    ) AS placeholder_ids
  FROM events
  GROUP BY
    project_id,
    CAST(received_at AS date),
    CAST(ROUND((TO_UNIXTIME(received_at) - TO_UNIXTIME(event_time)) * 1000) AS bigint)
),
ranked AS (
  SELECT
    lag_counts.*,
    SUM(events) OVER (PARTITION BY project_id, day ORDER BY lag_ms ROWS UNBOUNDED PRECEDING) AS rank_of_last,
    SUM(events) OVER (PARTITION BY project_id, day) AS events_of_day
  FROM lag_counts
),
stored AS (
  SELECT
    project_id,
    day,
    CAST(SUM(events) AS bigint) AS events,
    CAST(SUM(late_events) AS bigint) AS late_events,
    CAST(SUM(settled_late_events) AS bigint) AS settled_late_events,
    CAST(SUM(repaired_events) AS bigint) AS repaired_events,
    CAST(SUM(placeholder_ids) AS bigint) AS placeholder_ids,
    MIN(lag_ms) FILTER (WHERE rank_of_last * 100 >= events_of_day * 50) AS lag_p50_ms,
    MIN(lag_ms) FILTER (WHERE rank_of_last * 100 >= events_of_day * 95) AS lag_p95_ms
  FROM ranked
  GROUP BY project_id, day
),
refused AS (
  SELECT
    project_id,
    CAST(received_at AS date) AS day,
    COUNT(*) FILTER (WHERE stage = 'event') AS dead_letters,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'not_an_object') AS dead_letters_not_an_object,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'invalid_json') AS dead_letters_invalid_json,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'too_large') AS dead_letters_too_large,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'too_deep') AS dead_letters_too_deep,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'unknown_type') AS dead_letters_unknown_type,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'no_identity') AS dead_letters_no_identity,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'no_event_name') AS dead_letters_no_event_name,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'invalid_id') AS dead_letters_invalid_id,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'id_too_long') AS dead_letters_id_too_long,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'invalid_event_name') AS dead_letters_invalid_event_name,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'event_name_too_long') AS dead_letters_event_name_too_long,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'unreadable_record') AS dead_letters_unreadable_record,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'unprocessable') AS dead_letters_unprocessable,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'unstorable') AS dead_letters_unstorable,
    COUNT(*) FILTER (WHERE stage = 'event' AND reason = 'erased') AS dead_letters_erased,
    COUNT(DISTINCT dead_letter_id) FILTER (WHERE stage = 'replayed') AS replayed_dead_letters
  FROM dead_letters
  GROUP BY project_id, CAST(received_at AS date)
)
SELECT
  COALESCE(stored.project_id, refused.project_id) AS project_id,
  COALESCE(stored.day, refused.day) AS day,
  COALESCE(stored.events, 0) AS events,
  COALESCE(stored.late_events, 0) AS late_events,
  CAST(stored.late_events AS double) / CAST(stored.events AS double) AS late_share,
  COALESCE(stored.settled_late_events, 0) AS settled_late_events,
  stored.lag_p50_ms,
  stored.lag_p95_ms,
  COALESCE(stored.repaired_events, 0) AS repaired_events,
  COALESCE(stored.placeholder_ids, 0) AS placeholder_ids,
  COALESCE(refused.dead_letters, 0) AS dead_letters,
  COALESCE(refused.dead_letters_not_an_object, 0) AS dead_letters_not_an_object,
  COALESCE(refused.dead_letters_invalid_json, 0) AS dead_letters_invalid_json,
  COALESCE(refused.dead_letters_too_large, 0) AS dead_letters_too_large,
  COALESCE(refused.dead_letters_too_deep, 0) AS dead_letters_too_deep,
  COALESCE(refused.dead_letters_unknown_type, 0) AS dead_letters_unknown_type,
  COALESCE(refused.dead_letters_no_identity, 0) AS dead_letters_no_identity,
  COALESCE(refused.dead_letters_no_event_name, 0) AS dead_letters_no_event_name,
  COALESCE(refused.dead_letters_invalid_id, 0) AS dead_letters_invalid_id,
  COALESCE(refused.dead_letters_id_too_long, 0) AS dead_letters_id_too_long,
  COALESCE(refused.dead_letters_invalid_event_name, 0) AS dead_letters_invalid_event_name,
  COALESCE(refused.dead_letters_event_name_too_long, 0) AS dead_letters_event_name_too_long,
  COALESCE(refused.dead_letters_unreadable_record, 0) AS dead_letters_unreadable_record,
  COALESCE(refused.dead_letters_unprocessable, 0) AS dead_letters_unprocessable,
  COALESCE(refused.dead_letters_unstorable, 0) AS dead_letters_unstorable,
  COALESCE(refused.dead_letters_erased, 0) AS dead_letters_erased,
  COALESCE(refused.replayed_dead_letters, 0) AS replayed_dead_letters
FROM stored
FULL JOIN refused ON refused.project_id = stored.project_id AND refused.day = stored.day
