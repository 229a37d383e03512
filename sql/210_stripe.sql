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
-- `211_stripe_rows.sql` has the rows that a look leads to. Locks are taken in one order (event, customer, subscription,
-- payment, the keys of notices), of one customer after the other: no deadlocks.

create table public.stripe_events (
    id text primary key,
    type text not null,
    livemode boolean not null,
    object_id text,
    job_key text not null,
    status text not null check (status in ('received', 'processed', 'ignored', 'skipped')),
    note text,
    waits_for text, -- the customer whose user nobody knew when it was followed
    sent_at timestamptz not null,
    received_at timestamptz not null default public.clock_now(),
    ended_at timestamptz,
    constraint "an event has ended when it is no longer received" check ((status = 'received') = (ended_at is null))
);
create index stripe_events_open on public.stripe_events (received_at) where status = 'received';
create index stripe_events_waiting on public.stripe_events (waits_for) where waits_for is not null;

create index stripe_events_ended on public.stripe_events (ended_at) where ended_at is not null;

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

-- Draws a ticket for a look that no event asked for: {"ticket": 7}.
create function public.draw_stripe_ticket() returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return jsonb_build_object('ticket', nextval('public.stripe_tickets'));
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;

-- Writes what a look saw, as write_stripe_look does, and ends the event. Answers {"status": …}: `processed`, `skipped`;
-- or `unknown_user`, and nothing is written and the event stays received; or what another worker made of it meanwhile,
-- and nothing is written. Events of the same customer that waited for its user are enqueued once more, however long ago
-- their own jobs were given up.
create function public.apply_stripe_event(event_id text, ticket bigint, seen jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    now_status text;
    outcome jsonb;
begin
    select e.status into strict now_status from public.stripe_events as e where e.id = event_id for update;
    if now_status <> 'received' then
        return jsonb_build_object('status', now_status);
    end if;
    outcome := public.write_stripe_look(ticket, seen);
    if outcome ->> 'status' = 'unknown_user' then
        update public.stripe_events set waits_for = seen #>> '{customer,id}' where id = event_id;
        return outcome;
    end if;
    update public.stripe_events
    set status = outcome ->> 'status', note = outcome ->> 'note', waits_for = null, ended_at = public.clock_now()
    where id = event_id;
    perform public.follow_waiting_stripe_events(array[seen #>> '{customer,id}']);
    return outcome;
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;

-- Enqueues the events that waited for the users of these customers, where the user is known now; answers how many.
-- Callers: apply_stripe_event, enqueue_lost_stripe_events. An event that is just being followed is left alone. What is
-- enqueued says what the event was about, which is all that is read of any event.
create function public.follow_waiting_stripe_events(customers text[]) returns integer
language plpgsql security invoker set search_path = pg_catalog, pg_temp
as $$
declare
    jobs jsonb;
begin
    with waiting as (
        select e.id
        from public.stripe_events as e
        inner join public.billing_customers as c on e.waits_for = c.stripe_customer_id
        where e.waits_for = any (customers) and e.status = 'received'
        for update of e skip locked
    ),

    followed as (
        update public.stripe_events as e set waits_for = null
        from waiting as w
        where e.id = w.id
        returning e.id, e.type, e.livemode, e.sent_at, e.object_id
    )

    select
        jsonb_agg(jsonb_build_object(
            'queue', 'payment', 'type', 'stripe_webhook', 'idempotency_key', concat_ws(':', f.id, 'user known'),
            'data', jsonb_build_object(
                'id', f.id, 'type', f.type, 'livemode', f.livemode, 'created', f.sent_at,
                'data', jsonb_build_object('object', jsonb_build_object('id', f.object_id))
            )
        ))
    into jobs
    from followed as f;
    return case when jobs is null then 0 else jsonb_array_length(public.enqueue(jobs)) end;
end
$$;

-- Writes what looks saw that no event asked for, all of them of one ticket: {"looks", "mended", "unknown"}. `mended`
-- are those whose row said something else before; `unknown` those of customers whom nobody named as a user of ours.
create function public.sync_stripe_subscriptions(ticket bigint, looks jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    one jsonb;
    outcome jsonb;
    mended integer := 0;
    unknown integer := 0;
begin
    for one in
        select look.seen
        from jsonb_array_elements(looks) as look (seen)
        order by look.seen #>> '{customer,id}', look.seen #>> '{subscription,stripe_subscription_id}'
    loop
        outcome := public.write_stripe_look(ticket, one);
        mended := mended + coalesce((outcome ->> 'changed')::boolean, false)::integer;
        unknown := unknown + (outcome ->> 'status' = 'unknown_user')::integer;
    end loop;
    return jsonb_build_object('looks', jsonb_array_length(looks), 'mended', mended, 'unknown', unknown);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;

-- Enqueues those of Stripe's events that never arrived, as their webhook would have, and those that waited for a user
-- who is known by now: {"lost": 2, "waited": 0}.
create function public.enqueue_lost_stripe_events(events jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    jobs jsonb;
    answer jsonb;
begin
    select
        coalesce(
            jsonb_agg(jsonb_build_object(
                'queue', 'payment', 'type', 'stripe_webhook', 'data', listed.event,
                'idempotency_key', listed.event ->> 'id'
            )),
            '[]'
        )
    into jobs
    from jsonb_array_elements(events) as listed (event)
    where not exists (select from public.stripe_events as known where known.id = listed.event ->> 'id');

    answer := public.enqueue(jobs);
    return jsonb_build_object(
        'lost', jsonb_array_length(jsonb_path_query_array(answer, '$[*] ? (@.created == true)')),
        'waited', public.follow_waiting_stripe_events(
            array(select distinct e.waits_for from public.stripe_events as e where e.waits_for is not null)
        )
    );
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

-- Forgets events that were followed forty days ago; answers {"stripe_events"}. Stripe shows and sends one for thirty,
-- so nobody can come with one of these again.
-- Callers: prune, at most max_rows per call. What is locked is left for the next call.
create function public.forget_stripe_events(max_rows integer) returns jsonb
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    forgotten integer;
begin
    delete from public.stripe_events as e
    where
        e.id = any (
            array(
                select old.id from public.stripe_events as old
                where old.ended_at < public.clock_now() - interval '40 days'
                limit forget_stripe_events.max_rows
                for update skip locked
            )
        );
    get diagnostics forgotten = row_count;
    return jsonb_build_object('stripe_events', forgotten);
end
$$;

-- How many events forget_stripe_events would delete, counted up to so many. Callers: count_prunable.
create function public.forgettable_stripe_events(most integer) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object('stripe_events', count(*))
from (
    select from public.stripe_events as old
    where old.ended_at < public.clock_now() - interval '40 days'
    limit forgettable_stripe_events.most
) as counted;
$$;

revoke all on function
public.receive_stripe_event(jsonb),
public.draw_stripe_ticket(),
public.apply_stripe_event(text, bigint, jsonb),
public.follow_waiting_stripe_events(text[]),
public.sync_stripe_subscriptions(bigint, jsonb),
public.enqueue_lost_stripe_events(jsonb),
public.forget_stripe_events(integer),
public.forgettable_stripe_events(integer)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.receive_stripe_event(jsonb),
public.draw_stripe_ticket(),
public.apply_stripe_event(text, bigint, jsonb),
public.sync_stripe_subscriptions(bigint, jsonb),
public.enqueue_lost_stripe_events(jsonb)
to service_role;
