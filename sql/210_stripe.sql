-- How an event from Stripe changes what users have paid for.
--
-- Events come twice, late, in any order and to several workers at once. Three rules make that harmless:
--
-- 1. An event says only that an object changed. The worker looks that object up at Stripe and writes what it found, so
--    the order of the events does not matter. The order of the looks does.
-- 2. Looks are put in order by tickets, drawn from a sequence before the look (clocks of two machines differ). A row
--    keeps the ticket of the look that it shows; a look with a lower ticket changes nothing. Nothing is missed by
--    that: every later change at Stripe sends an event, whose look draws a higher ticket.
-- 3. An event is `received` until the one transaction that writes what it led to also calls it `processed`. A worker
--    that dies in between leaves it received, and the job's next attempt starts over with a new ticket.
--
-- Locks are taken in one order (event, customer, subscription, payment), at most one row of each: no deadlocks.

create table public.stripe_events (
    id text primary key,
    type text not null,
    livemode boolean not null,
    object_id text,
    job_key text not null,
    status text not null check (status in ('received', 'processed', 'ignored', 'skipped')),
    note text,
    sent_at timestamptz not null,
    received_at timestamptz not null default public.clock_now(),
    ended_at timestamptz,
    constraint "an event has ended when it is no longer received" check ((status = 'received') = (ended_at is null))
);
create index stripe_events_open on public.stripe_events (received_at) where status = 'received';

create sequence public.stripe_tickets;

-- Notes an event: {id, type, livemode, object_id, job_key, sent_at, handled}. Answers its status and a ticket for the
-- look. Any status but `received` means that nothing is left to do. `handled` false: no one looks, it is ignored; but
-- when a later version handles its type and meets it again, it is received.
create function public.receive_stripe_event(event jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    incoming public.stripe_events := jsonb_populate_record(null::public.stripe_events, event);
    handled boolean := (event ->> 'handled')::boolean;
    now_status text;
begin
    insert into public.stripe_events as known (id, type, livemode, object_id, job_key, status, sent_at, ended_at)
    values (
        incoming.id, incoming.type, incoming.livemode, incoming.object_id, incoming.job_key,
        case when handled then 'received' else 'ignored' end, incoming.sent_at,
        case when not handled then public.clock_now() end
    )
    on conflict (id) do update
        set status = excluded.status, ended_at = null
        where known.status = 'ignored' and excluded.status = 'received';

    select e.status into now_status from public.stripe_events as e where e.id = incoming.id;
    return jsonb_build_object(
        'status', now_status, 'ticket', nextval('public.stripe_tickets')
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;

-- Whose this is, for all tables alike: `seen` as for apply_stripe_event, its customer being {id, user_id,
-- fallback_user_id}, where everything may be missing. The user whom the event's own object names goes first; then who
-- the subscription or the payment is known to belong to; then who is known by the customer; then whom Stripe's customer
-- names. So a renewal, which names nobody, never takes a subscription from the user whom its checkout named.
create function public.owner_of_stripe_objects(seen jsonb) returns uuid
language plpgsql security invoker set search_path = pg_catalog, pg_temp
as $$
declare
    customer_id constant text := seen #>> '{customer,id}';
    named constant uuid := seen #>> '{customer,user_id}';
    owner constant uuid := coalesce(
        named,
        (
            select s.user_id from public.subscriptions as s
            where s.stripe_subscription_id = seen #>> '{subscription,stripe_subscription_id}'
        ),
        (
            select p.user_id from public.payments as p
            where p.stripe_invoice_id = seen #>> '{payment,stripe_invoice_id}'
        ),
        (select c.user_id from public.billing_customers as c where c.stripe_customer_id = customer_id),
        (seen #>> '{customer,fallback_user_id}')::uuid
    );
begin
    if owner is not null and customer_id is not null then
        insert into public.billing_customers as known (stripe_customer_id, user_id) values (customer_id, owner)
        on conflict (stripe_customer_id) do update
            set user_id = excluded.user_id
            where named is not null and known.user_id <> excluded.user_id;
    end if;
    return owner;
end
$$;

create function public.write_stripe_subscription(look public.subscriptions) returns void
language sql security invoker set search_path = pg_catalog, pg_temp
as $$
insert into public.subscriptions as known (
    user_id, tier_id, status, payment_method, stripe_subscription_id, stripe_customer_id, stripe_price_id,
    current_period_start, current_period_end, trial_ends_at, cancel_at_period_end, canceled_at, ended_at, started_at,
    ticket
)
values (
    look.user_id,
    (
        select t.id from public.subscription_tiers as t
        where look.stripe_price_id in (t.stripe_price_monthly, t.stripe_price_yearly)
        order by t.active desc, t.created_at
        limit 1
    ),
    look.status, 'stripe', look.stripe_subscription_id, look.stripe_customer_id, look.stripe_price_id,
    look.current_period_start, look.current_period_end, look.trial_ends_at, look.cancel_at_period_end, look.canceled_at,
    look.ended_at, look.started_at, look.ticket
)
on conflict (stripe_subscription_id) do update set
    user_id = excluded.user_id, tier_id = excluded.tier_id, status = excluded.status,
    stripe_customer_id = excluded.stripe_customer_id, stripe_price_id = excluded.stripe_price_id,
    current_period_start = excluded.current_period_start, current_period_end = excluded.current_period_end,
    trial_ends_at = excluded.trial_ends_at, cancel_at_period_end = excluded.cancel_at_period_end,
    canceled_at = excluded.canceled_at, ended_at = excluded.ended_at, started_at = excluded.started_at,
    ticket = excluded.ticket, updated_at = public.clock_now()
where known.ticket < excluded.ticket;
$$;

create function public.write_stripe_payment(look public.payments, stripe_subscription_id text) returns void
language sql security invoker set search_path = pg_catalog, pg_temp
as $$
insert into public.payments as known (
    user_id, subscription_id, provider, status, amount, currency, stripe_invoice_id, attempt_count, next_attempt_at,
    paid_at, ticket
)
values (
    look.user_id,
    (
        select s.id from public.subscriptions as s
        where s.stripe_subscription_id = write_stripe_payment.stripe_subscription_id
    ),
    'stripe', look.status, look.amount, look.currency, look.stripe_invoice_id, look.attempt_count, look.next_attempt_at,
    look.paid_at, look.ticket
)
on conflict (stripe_invoice_id) do update set
    user_id = excluded.user_id, subscription_id = excluded.subscription_id, status = excluded.status, amount = excluded.amount,
    currency = excluded.currency, attempt_count = excluded.attempt_count, next_attempt_at = excluded.next_attempt_at,
    paid_at = excluded.paid_at, ticket = excluded.ticket, updated_at = public.clock_now()
where known.ticket < excluded.ticket;
$$;

-- Writes what a look saw and ends the event. `seen` is {customer, subscription?, payment?}: the customer as above, the
-- others by the names of their tables' columns. Answers {"status": …}: `processed`; or `unknown_user`, and nothing is
-- written and the event stays received; or what another worker made of it meanwhile, and nothing is written.
create function public.apply_stripe_event(event_id text, ticket bigint, seen jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    now_status text;
    owner uuid;
    subscription public.subscriptions := jsonb_populate_record(
        null::public.subscriptions, seen -> 'subscription'
    );
    payment public.payments := jsonb_populate_record(null::public.payments, seen -> 'payment');
begin
    select e.status into strict now_status from public.stripe_events as e where e.id = event_id for update;
    if now_status <> 'received' then
        return jsonb_build_object('status', now_status);
    end if;
    owner := public.owner_of_stripe_objects(seen);
    if owner is null then
        return jsonb_build_object('status', 'unknown_user');
    end if;
    if subscription.stripe_subscription_id is not null then
        subscription.user_id := owner;
        subscription.ticket := ticket;
        perform public.write_stripe_subscription(subscription);
    end if;
    if payment.stripe_invoice_id is not null then
        payment.user_id := owner;
        payment.ticket := ticket;
        perform public.write_stripe_payment(payment, seen #>> '{payment,stripe_subscription_id}');
    end if;
    update public.stripe_events set status = 'processed', ended_at = public.clock_now() where id = event_id;
    return jsonb_build_object('status', 'processed');
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;

-- Ends an event that leads to nothing, and says why. Answers its status, which another worker may have set meanwhile.
create function public.skip_stripe_event(event_id text, note text) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    now_status text;
begin
    update public.stripe_events as e
    set status = 'skipped', note = skip_stripe_event.note, ended_at = public.clock_now()
    where e.id = event_id and e.status = 'received';
    select e.status into strict now_status from public.stripe_events as e where e.id = event_id;
    return jsonb_build_object('status', now_status);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;

-- Access: a service key reads events and writes through the functions above; users see nothing of this.

alter table public.stripe_events enable row level security;
revoke all on public.stripe_events from public, anon, authenticated, service_role, pulse_worker;
revoke all on sequence public.stripe_tickets from public, anon, authenticated, service_role, pulse_worker;
grant select on public.stripe_events to service_role;

revoke all on function
public.receive_stripe_event(jsonb),
public.owner_of_stripe_objects(jsonb),
public.write_stripe_subscription(public.subscriptions),
public.write_stripe_payment(public.payments, text),
public.apply_stripe_event(text, bigint, jsonb),
public.skip_stripe_event(text, text)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.receive_stripe_event(jsonb),
public.apply_stripe_event(text, bigint, jsonb),
public.skip_stripe_event(text, text)
to service_role;
