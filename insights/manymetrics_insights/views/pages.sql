-- One row is a page event: a page view.
--
-- project_id: The project.
-- message_id: The event's id.
-- event_time: When it happened. UTC.
-- received_at: When the API received it. UTC.
-- user_id: The user; null if unknown.
-- anonymous_id: The device or browser.
-- session_id: The session, if our browser SDK sent it.
-- name: The page's name, if the site sends one.
-- url: The page's address.
-- path: Its path.
-- title: Its title.
-- search: Its query string, with the question mark.
-- referrer: The previous page, on any site.
-- context_campaign_name: utm_campaign
-- context_campaign_source: utm_source
-- context_campaign_medium: utm_medium
-- context_campaign_term: utm_term
-- context_campaign_content: utm_content
-- context_user_agent: The browser.
-- context_locale: Its language.
-- properties: All properties of the page, as JSON text.

SELECT
  project_id,
  message_id,
  event_time,
  received_at,
  user_id,
  anonymous_id,
  session_id,
  event AS name,
  context_page_url AS url,
  context_page_path AS path,
  context_page_title AS title,
  context_page_search AS search,
  context_page_referrer AS referrer,
  context_campaign_name,
  context_campaign_source,
  context_campaign_medium,
  context_campaign_term,
  context_campaign_content,
  context_user_agent,
  context_locale,
  properties
FROM events
WHERE type = 'page'
