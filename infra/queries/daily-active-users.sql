-- People a day, over the last 30 days
select cast(event_time as date) as day, count(distinct coalesce(user_id, anonymous_id)) as people, count(*) as events
from events where received_at > current_timestamp - interval '30' day
group by cast(event_time as date) order by day
