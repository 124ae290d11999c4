-- The newest events
select * from events where received_at > current_timestamp - interval '1' day order by received_at desc, message_id limit 100
