-- A dozen questions to begin with, for Athena and `manymetrics query`. In Athena, each is a saved query already.

-- campaigns: Where people came from in the last 30 days
select context_campaign_source as source, context_campaign_medium as medium, context_campaign_name as campaign,
  count(distinct anonymous_id) as visitors
from events where received_at > current_timestamp - interval '30' day and context_campaign_source is not null
group by context_campaign_source, context_campaign_medium, context_campaign_name order by visitors desc;

-- daily-active-users: People a day, over the last 30 days
select cast(event_time as date) as day, count(distinct person_kind || ':' || person_id) as people, count(*) as events
from person_events where received_at > current_timestamp - interval '30' day
group by cast(event_time as date) order by day;

-- dead-letters: What could not be stored as an event in the last 7 days, and why
select reason, detail, count(*) as events, max(received_at) as last_received_at
from dead_letters where received_at > current_timestamp - interval '7' day
group by reason, detail order by events desc;

-- events-by-name: How often each event came in the last 30 days
select type, event, count(*) as events, count(distinct person_kind || ':' || person_id) as people
from person_events where received_at > current_timestamp - interval '30' day
group by type, event order by events desc;

-- funnel: How far people came in the last 30 days: a page, the cart, an order
with steps as (
  select person_kind, person_id,
    min(case when type = 'page' then event_time end) as page_at,
    min(case when event = 'Added to Cart' then event_time end) as cart_at,
    max(case when event = 'Order Completed' then event_time end) as order_at
  from person_events where received_at > current_timestamp - interval '30' day and person_id is not null
  group by person_kind, person_id
)
select count(page_at) as saw_a_page,
  count(case when cart_at >= page_at then 1 end) as added_to_cart,
  count(case when order_at >= cart_at and cart_at >= page_at then 1 end) as ordered
from steps;

-- javascript-errors: What went wrong in pages' scripts in the last 30 days, and for how many people
select json_extract_scalar(properties, '$.name') as error, json_extract_scalar(properties, '$.message') as message,
  count(distinct person_kind || ':' || person_id) as people, count(*) as times, max(event_time) as last_at
from person_events where event = 'Error' and received_at > current_timestamp - interval '30' day
group by json_extract_scalar(properties, '$.name'), json_extract_scalar(properties, '$.message')
order by people desc, times desc limit 50;

-- newest-events: The newest events
select * from events where received_at > current_timestamp - interval '1' day order by received_at desc, message_id limit 100;

-- products: What went into carts in the last 30 days, and what it was worth
select json_extract_scalar(properties, '$.product') as product, count(*) as times,
  count(distinct person_kind || ':' || person_id) as people, sum(try_cast(json_extract_scalar(properties, '$.price') as double)) as worth
from person_events where event = 'Added to Cart' and received_at > current_timestamp - interval '30' day
group by json_extract_scalar(properties, '$.product') order by times desc, product;

-- retention: Of the people who came first in a week, how many came again one to four weeks later
with weeks as (
  select distinct person_kind || ':' || person_id as person, cast(date_trunc('week', event_time) as date) as week
  from person_events where person_id is not null and received_at > current_timestamp - interval '70' day
),
arrivals as (select person, min(week) as first_week from weeks group by person)
select first_week, count(case when week = first_week then 1 end) as people,
  count(case when week = first_week + interval '7' day then 1 end) as after_1_week,
  count(case when week = first_week + interval '14' day then 1 end) as after_2_weeks,
  count(case when week = first_week + interval '21' day then 1 end) as after_3_weeks,
  count(case when week = first_week + interval '28' day then 1 end) as after_4_weeks
from weeks join arrivals on arrivals.person = weeks.person
group by first_week order by first_week;

-- sessions: Sessions a day in the last 30 days: how many, how long, and how many saw no second page
with sessions as (
  select session_id, min(event_time) as began_at, max(event_time) as ended_at,
    count(case when type = 'page' then 1 end) as pages
  from events where received_at > current_timestamp - interval '30' day and session_id is not null
  group by session_id
)
select cast(began_at as date) as day, count(*) as sessions,
  round(avg(to_unixtime(ended_at) - to_unixtime(began_at)), 1) as average_seconds,
  count(case when pages <= 1 then 1 end) as of_one_page
from sessions group by cast(began_at as date) order by day;

-- top-pages: The pages that were looked at most in the last 30 days
select context_page_path as page, count(*) as views, count(distinct anonymous_id) as visitors
from events where type = 'page' and received_at > current_timestamp - interval '30' day
group by context_page_path order by views desc limit 50;

-- web-vitals: How fast pages were to people in the last 30 days: of a hundred page loads, how many were good
with loads as (
  select json_extract_scalar(properties, '$.pageLoadId') as load, max(context_page_path) as page,
    max_by(properties, cast(json_extract_scalar(properties, '$.report') as integer)) as said
  from events where event = 'Web Vitals' and received_at > current_timestamp - interval '30' day
  group by json_extract_scalar(properties, '$.pageLoadId')
),
ratings as (
  select page, json_extract_scalar(said, '$.lcpRating') as lcp, json_extract_scalar(said, '$.inpRating') as inp,
    json_extract_scalar(said, '$.clsRating') as cls
  from loads
)
select page, count(*) as loads,
  round(100 * cast(count(case when lcp = 'good' then 1 end) as double) / nullif(cast(count(lcp) as double), 0)) as good_lcp,
  round(100 * cast(count(case when inp = 'good' then 1 end) as double) / nullif(cast(count(inp) as double), 0)) as good_inp,
  round(100 * cast(count(case when cls = 'good' then 1 end) as double) / nullif(cast(count(cls) as double), 0)) as good_cls
from ratings group by page order by loads desc, page limit 50;
