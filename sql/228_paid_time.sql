-- How paid time is counted: months, grace, the stages of a period, and what time of one tier is worth in another.
--
-- A period begins and ends at a moment in UTC, so no change of summer time makes it longer or shorter. It begins on
-- the anchor day, the day of the month of the first payment, or on the last day of a month that is shorter: January
-- 31st, February 28th, March 31st.

-- The moment `months` later (or earlier), on the anchor day or on the last day of a month that has none.
-- Callers: extend_paid_period, take_back_paid_period.
create function public.add_months(moment timestamptz, months integer, anchor_day integer) returns timestamptz
language sql immutable parallel safe
return (
    date_trunc('month', moment at time zone 'UTC')
    + make_interval(
        months => months,
        days => least(
            anchor_day,
            extract(
                day from date_trunc('month', moment at time zone 'UTC') + make_interval(months => months + 1)
                - interval '1 day'
            )::integer
        ) - 1
    )
    + ((moment at time zone 'UTC') - date_trunc('day', moment at time zone 'UTC'))
) at time zone 'UTC';

-- How long a subscription stays open after its end, so that a payment under way loses nothing.
-- Callers: renewal_stage, renew_subscription, extend_paid_period.
create function public.grace_period() returns interval
language sql immutable parallel safe
return interval '3 days';

-- The stage that a period with this end has reached. Callers: renew_subscription, sweep_renewals.
create function public.renewal_stage(period_end timestamptz, moment timestamptz) returns smallint
language sql immutable parallel safe
return case
    when moment < period_end - interval '7 days' then 0
    when moment < period_end - interval '3 days' then 1
    when moment < period_end - interval '1 day' then 2
    when moment < period_end then 3
    when moment < period_end + public.grace_period() then 4
    else 5
end;

-- How much time of the new tier a time of the old one is worth, by what both cost now: of the old one the cheaper way
-- to pay, of the new one the way that is paid. So none gains by going back and forth. 1 where they cannot be compared.
-- Callers: extend_paid_period, take_back_paid_period.
create function public.tier_exchange(old_tier uuid, new_tier uuid, billing_interval text) returns double precision
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select coalesce(
    (
        select
            least(o.price_monthly, o.price_yearly / 12)
            / nullif(
                case tier_exchange.billing_interval when 'year' then n.price_yearly / 12 else n.price_monthly end, 0
            )
        from public.subscription_tiers as o
        inner join public.subscription_tiers as n on o.currency = n.currency
        where o.id = tier_exchange.old_tier and n.id = tier_exchange.new_tier
    ),
    1
);
$$;


revoke all on function
public.add_months(timestamptz, integer, integer),
public.grace_period(),
public.renewal_stage(timestamptz, timestamptz),
public.tier_exchange(uuid, uuid, text)
from public, anon, authenticated, service_role, pulse_worker;
