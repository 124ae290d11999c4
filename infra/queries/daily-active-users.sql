-- People a day, over the last 30 days
select cast(event_time as date) as day, count(distinct person_kind || ':' || person_id) as people, count(*) as events
from person_events where received_at > current_timestamp - interval '30' day
group by cast(event_time as date) order by day
