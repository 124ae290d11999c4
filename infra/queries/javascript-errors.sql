-- What went wrong in pages' scripts in the last 30 days, and for how many people
select json_extract_scalar(properties, '$.name') as error, json_extract_scalar(properties, '$.message') as message,
  count(distinct person_kind || ':' || person_id) as people, count(*) as times, max(event_time) as last_at
from person_events where event = 'Error' and received_at > current_timestamp - interval '30' day
group by json_extract_scalar(properties, '$.name'), json_extract_scalar(properties, '$.message')
order by people desc, times desc limit 50
