-- Where people came from in the last 30 days
select context_campaign_source as source, context_campaign_medium as medium, context_campaign_name as campaign,
  count(distinct anonymous_id) as visitors
from events where received_at > current_timestamp - interval '30' day and context_campaign_source is not null
group by context_campaign_source, context_campaign_medium, context_campaign_name order by visitors desc
