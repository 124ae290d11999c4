-- The pages that were looked at most in the last 30 days
select context_page_path as page, count(*) as views, count(distinct anonymous_id) as visitors
from events where type = 'page' and received_at > current_timestamp - interval '30' day
group by context_page_path order by views desc limit 50
