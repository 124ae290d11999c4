-- What went into carts in the last 30 days, and what it was worth
select json_extract_scalar(properties, '$.product') as product, count(*) as times,
  count(distinct person_kind || ':' || person_id) as people, sum(try_cast(json_extract_scalar(properties, '$.price') as double)) as worth
from person_events where event = 'Added to Cart' and received_at > current_timestamp - interval '30' day
group by json_extract_scalar(properties, '$.product') order by times desc, product
