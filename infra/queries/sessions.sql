-- Sessions a day in the last 30 days: how many, how long, and how many saw no second page
with sessions as (
  select session_id, min(event_time) as began_at, max(event_time) as ended_at,
    count(case when type = 'page' then 1 end) as pages
  from events where received_at > current_timestamp - interval '30' day and session_id is not null
  group by session_id
)
select cast(began_at as date) as day, count(*) as sessions,
  round(avg(to_unixtime(ended_at) - to_unixtime(began_at)), 1) as average_seconds,
  count(case when pages <= 1 then 1 end) as of_one_page
from sessions group by cast(began_at as date) order by day
