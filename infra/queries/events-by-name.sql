-- How often each event came in the last 30 days
select type, event, count(*) as events, count(distinct person_kind || ':' || person_id) as people
from person_events where received_at > current_timestamp - interval '30' day
group by type, event order by events desc
