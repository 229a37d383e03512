-- From a payment to paid time, and from the end of that time to a notice, grace and expiry.
--
-- Only for subscriptions that we bill ourselves (crypto, manual): a user has at most one such row, which an expired
-- user's next payment revives. Those billed by Stripe are extended by Stripe; the sweep only has them looked at again
-- when their period is over and no event has said what came next.
--
-- Stages of a period: 1, 2, 3 = seven, three and one day before its end; 4 = its end, from when grace runs for three
-- days; 5 = grace is over. A row keeps the stage whose notice is out, and only moves on, whoever looks and however
-- often. A look that comes late (nobody worked for days) goes to the latest stage and sends that notice alone.

create unique index one_subscription_that_we_bill on public.subscriptions (user_id) where payment_method <> 'stripe';
create index subscriptions_by_end on public.subscriptions (current_period_end) where status in ('active', 'past_due');


-- Sells one interval to a user who has paid at `paid_at`; answers {"subscription_id", "period_start", "period_end"}.
-- Callers: whoever records a payment of crypto or by hand, in that same transaction, once per payment.
-- Paid in time (grace included), the new period begins where the old one ends; later, or for the first time, it begins
-- with the payment, whose day becomes the anchor. The tier is the one that was paid for last; what is left of another
-- one is turned into as much of it as it is worth, and the new period begins behind that.
-- Guarantees: two payments at once extend twice; a cancellation that was asked for stays, and moves to the new end.
create function public.extend_paid_period(
    user_id uuid, tier_id uuid, payment_method text, billing_interval text, paid_at timestamptz
) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    months constant integer := case extend_paid_period.billing_interval when 'year' then 12 else 1 end;
    now_at constant timestamptz := public.clock_now();
    known public.subscriptions;
    goes_on boolean;
    exchanged boolean;
    begins timestamptz;
    anchor integer;
    ends timestamptz;
begin
    -- Made first if missing, without a period, so that there is a row to lock whoever else is paying.
    insert into public.subscriptions as s (
        user_id, tier_id, status, payment_method, billing_interval, anchor_day, started_at, current_period_end
    )
    values (
        extend_paid_period.user_id, extend_paid_period.tier_id, 'expired', extend_paid_period.payment_method,
        extend_paid_period.billing_interval, 1, extend_paid_period.paid_at, '-infinity'
    )
    on conflict (user_id) where payment_method <> 'stripe' do nothing;

    select * into strict known
    from public.subscriptions as s
    where s.user_id = extend_paid_period.user_id and s.payment_method <> 'stripe'
    for no key update;

    -- Where nothing is left that was paid for (all was taken back), there is nothing to go on from.
    goes_on := extend_paid_period.paid_at <= known.current_period_end + public.grace_period()
        and known.current_period_end > known.started_at
        and known.status <> 'canceled';
    exchanged := goes_on and known.tier_id <> extend_paid_period.tier_id and now_at < known.current_period_end;
    begins := case
        when exchanged
            then now_at + (known.current_period_end - now_at)
                * public.tier_exchange(known.tier_id, extend_paid_period.tier_id, extend_paid_period.billing_interval)
        when goes_on then known.current_period_end
        else extend_paid_period.paid_at
    end;
    anchor := case
        when goes_on and not exchanged then known.anchor_day else extract(day from begins at time zone 'UTC')
    end;
    ends := public.add_months(begins, months, anchor);

    update public.subscriptions as s
    set
        status = 'active',
        tier_id = extend_paid_period.tier_id,
        payment_method = extend_paid_period.payment_method,
        billing_interval = extend_paid_period.billing_interval,
        anchor_day = anchor,
        current_period_start = case
            when goes_on and known.status = 'active' and now_at < begins then known.current_period_start else begins
        end,
        current_period_end = ends,
        started_at = case when goes_on then known.started_at else begins end,
        cancel_at_period_end = goes_on and known.cancel_at_period_end,
        canceled_at = case when goes_on then known.canceled_at end,
        ended_at = null,
        grace_until = null,
        notice_stage = 0,
        updated_at = now_at
    where s.id = known.id;

    if not goes_on then
        perform public.tell_payer(
            extend_paid_period.user_id, 'subscription_activated',
            known.id || ':' || extract(epoch from begins), public.renewal_words(known.id)
        );
    end if;
    return jsonb_build_object('subscription_id', known.id, 'period_start', begins, 'period_end', ends);
end
$$;


-- Takes back the time that a payment had bought, after the payment turned out not to exist (a chain was reorganised).
-- Callers: whoever sets payments.status to 'reversed', in that same transaction, once.
-- A subscription that has nothing left of what was ever paid for has expired, without grace; any other goes through the
-- same steps as at any end. What an earlier life of the subscription had used cannot be taken back from a later one.
create function public.take_back_paid_period(payment_id uuid) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    taken public.payments;
    known public.subscriptions;
    tier uuid;
    ends timestamptz;
begin
    select * into strict taken from public.payments as p where p.id = take_back_paid_period.payment_id;
    perform public.lock_open_requests(taken.user_id);
    select * into known from public.subscriptions as s where s.id = taken.subscription_id for no key update;
    if not found or taken.period_end is null or taken.period_start < known.started_at then
        return;
    end if;

    -- The last period is known to the second; if others were bought behind it, all move forward by as many months, or
    -- by what they were worth when the tier was another one.
    select r.tier_id into tier from public.crypto_payments as r where r.id = taken.crypto_payment_id;
    ends := case
        when known.current_period_end = taken.period_end then taken.period_start
        when tier <> known.tier_id
            then known.current_period_end - (taken.period_end - taken.period_start)
                * public.tier_exchange(tier, known.tier_id, known.billing_interval)
        else public.add_months(
            known.current_period_end,
            case when taken.period_end - taken.period_start > interval '60 days' then -12 else -1 end,
            known.anchor_day
        )
    end;
    update public.subscriptions as s
    set
        status = case when ends <= s.started_at then 'expired' else s.status end,
        ended_at = case when ends <= s.started_at then public.clock_now() else s.ended_at end,
        current_period_start = least(s.current_period_start, ends),
        current_period_end = ends,
        notice_stage = 0,
        updated_at = public.clock_now()
    where s.id = known.id;
    perform public.renew_subscription(known.id);
end
$$;


-- What a notice about a subscription tells: its tier, price and the end of its period.
-- Callers: extend_paid_period, renew_subscription.
create function public.renewal_words(subscription_id uuid) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
    'subscription_id', s.id,
    'tier', t.name,
    'amount', (case s.billing_interval when 'year' then t.price_yearly else t.price_monthly end)::text,
    'currency', t.currency,
    'period_end', s.current_period_end,
    'grace_until', s.grace_until
)
from public.subscriptions as s
left join public.subscription_tiers as t on s.tier_id = t.id
where s.id = renewal_words.subscription_id;
$$;


-- Locks the requests of a user that a renewal may end, before it locks the subscription: in the order in which whoever
-- finds a payment takes them. Callers: renew_subscription, take_back_paid_period,
-- open_crypto_request.
create function public.lock_open_requests(user_id uuid) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
select p.id from public.crypto_payments as p
where p.user_id = lock_open_requests.user_id and p.status in ('awaiting', 'pending', 'confirming', 'underpaid')
order by p.id
for update;
$$;


-- Brings one subscription to the stage that its period has reached, with the notice of that stage.
-- Callers: subscription_renewal, over RPC; take_back_paid_period. Answers {"outcome", …}, the outcome being
--   unknown     there is no such subscription;
--   stripe      billed by Stripe: nothing was changed, {"stripe_subscription_id"} says what to look up;
--   unchanged   its stage is out already, or it has ended;
--   noticed     the user was told of the end to come; · past_due · expired · canceled
-- Guarantees: safe to repeat and to run twice at once: a stage is entered once, its notice sent with it or not at all.
create function public.renew_subscription(subscription_id uuid) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    known public.subscriptions;
    stage smallint;
    outcome text;
    kind text;
begin
    select * into known from public.subscriptions as s where s.id = renew_subscription.subscription_id;
    perform public.lock_open_requests(known.user_id);
    select * into known from public.subscriptions as s
    where s.id = renew_subscription.subscription_id for no key update;
    if not found then
        return '{"outcome": "unknown"}';
    end if;
    if known.payment_method = 'stripe' then
        return jsonb_build_object('outcome', 'stripe', 'stripe_subscription_id', known.stripe_subscription_id);
    end if;
    stage := public.renewal_stage(known.current_period_end, now_at);
    if known.status not in ('active', 'past_due') or stage <= known.notice_stage then
        return '{"outcome": "unchanged"}';
    end if;

    outcome := case
        when known.cancel_at_period_end and stage >= 4 then 'canceled'
        when stage = 5 then 'expired'
        when stage = 4 then 'past_due'
        else 'noticed'
    end;
    kind := case
        when outcome in ('expired', 'canceled') then 'subscription_expired'
        when outcome = 'past_due' then 'renewal_overdue'
        when not known.cancel_at_period_end then 'renewal_required'
    end;

    update public.subscriptions as s
    set
        status = case outcome when 'noticed' then 'active' else outcome end,
        grace_until = case when outcome = 'past_due' then s.current_period_end + public.grace_period() end,
        ended_at = case when outcome in ('expired', 'canceled') then now_at end,
        notice_stage = stage,
        updated_at = now_at
    where s.id = known.id;

    if kind is not null then
        perform public.tell_payer(
            known.user_id, kind, concat_ws(':', known.id, extract(epoch from known.current_period_end), stage),
            public.renewal_words(known.id) || jsonb_build_object(
                'crypto_payment_id', case
                    when known.payment_method = 'crypto' and kind in ('renewal_required', 'renewal_overdue')
                        then public.renew_crypto_request(known.id)
                end
            )
        );
    end if;
    return jsonb_build_object('outcome', outcome, 'stage', stage);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Enqueues one subscription_renewal job for each subscription that has a step to take: {"enqueued", "more"}.
-- Callers: subscription_renewal without an id, over RPC. The key of such a job names the subscription, the end of its
-- period, the stage and the day, so any number of sweeps make one; and a step that was not taken, since its job was
-- given up or ran while the clock was back, has another one the next day. Stripe's are looked at a day after a period
-- whose end nobody has told us about, once a day from then on.
create function public.sweep_renewals(max_jobs integer default 1000) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    wanted jsonb;
    found integer;
    answer jsonb;
begin
    with due as (
        select
            s.id, s.user_id,
            concat_ws(
                ':', 'renew', s.id, extract(epoch from s.current_period_end),
                case
                    when s.payment_method <> 'stripe' then public.renewal_stage(s.current_period_end, now_at)::text
                end,
                'day ' || floor(extract(epoch from now_at - s.current_period_end) / 86400)
            ) as key
        from public.subscriptions as s
        where
            s.status in ('active', 'past_due')
            and s.current_period_end < now_at + interval '7 days'
            and case
                when s.payment_method = 'stripe' then s.current_period_end < now_at - interval '1 day'
                else public.renewal_stage(s.current_period_end, now_at) > s.notice_stage
            end
        order by s.current_period_end, s.id
    ),

    -- Those that have their job already may not stand before those that have none.
    wanting as (
        select d.id, d.user_id, d.key
        from due as d
        where not exists (
            select from public.jobs as j where j.queue = 'payment' and j.idempotency_key = d.key
        )
        limit sweep_renewals.max_jobs
    )

    select
        count(*),
        jsonb_agg(
            jsonb_build_object(
                'queue', 'payment', 'type', 'subscription_renewal', 'user_id', w.user_id,
                'data', jsonb_build_object('subscription_id', w.id), 'idempotency_key', w.key
            )
        )
    into found, wanted
    from wanting as w;

    answer := public.enqueue(coalesce(wanted, '[]'));
    return jsonb_build_object(
        'enqueued', (select count(*) from jsonb_array_elements(answer) as a (job) where (a.job -> 'created')::boolean),
        'more', found >= sweep_renewals.max_jobs
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


revoke all on function
public.extend_paid_period(uuid, uuid, text, text, timestamptz),
public.lock_open_requests(uuid),
public.take_back_paid_period(uuid),
public.renewal_words(uuid),
public.renew_subscription(uuid),
public.sweep_renewals(integer)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function public.renew_subscription(uuid), public.sweep_renewals(integer) to service_role;
