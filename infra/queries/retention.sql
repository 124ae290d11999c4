-- Of the people who came first in a week, how many came again one to four weeks later
with weeks as (
  select distinct person_kind || ':' || person_id as person, cast(date_trunc('week', event_time) as date) as week
  from person_events where person_id is not null and received_at > current_timestamp - interval '70' day
),
arrivals as (select person, min(week) as first_week from weeks group by person)
select first_week, count(case when week = first_week then 1 end) as people,
  count(case when week = first_week + interval '7' day then 1 end) as after_1_week,
  count(case when week = first_week + interval '14' day then 1 end) as after_2_weeks,
  count(case when week = first_week + interval '21' day then 1 end) as after_3_weeks,
  count(case when week = first_week + interval '28' day then 1 end) as after_4_weeks
from weeks join arrivals on arrivals.person = weeks.person
group by first_week order by first_week
