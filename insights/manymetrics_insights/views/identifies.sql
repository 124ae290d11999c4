-- One row is an identify event.
--
-- project_id: The project.
-- message_id: The event's id.
-- event_time: When it happened. UTC.
-- received_at: When the API received it. UTC.
-- user_id: The user; null if only a device was identified.
-- anonymous_id: The device or browser.
-- traits: The person's traits, as JSON text.
-- context_ip: The sender's address.
-- context_user_agent: The browser or library.
-- context_locale: context.locale
-- context_page_url: The page it was sent from.

SELECT
  project_id,
  message_id,
  event_time,
  received_at,
  user_id,
  anonymous_id,
  traits,
  context_ip,
  context_user_agent,
  context_locale,
  context_page_url
FROM events
WHERE type = 'identify'
