-- How fast pages were to people in the last 30 days: of a hundred page loads, how many were good
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
from ratings group by page order by loads desc, page limit 50
