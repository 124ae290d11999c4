-- How far people came in the last 30 days: a page, the cart, an order
with steps as (
  select person_kind, person_id,
    min(case when type = 'page' then event_time end) as page_at,
    min(case when event = 'Added to Cart' then event_time end) as cart_at,
    max(case when event = 'Order Completed' then event_time end) as order_at
  from person_events where received_at > current_timestamp - interval '30' day and person_id is not null
  group by person_kind, person_id
)
select count(page_at) as saw_a_page,
  count(case when cart_at >= page_at then 1 end) as added_to_cart,
  count(case when order_at >= cart_at and cart_at >= page_at then 1 end) as ordered
from steps
