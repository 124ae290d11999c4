-- What could not be stored as an event in the last 7 days, and why
select reason, detail, count(*) as events, max(received_at) as last_received_at
from dead_letters where received_at > current_timestamp - interval '7' day
group by reason, detail order by events desc
