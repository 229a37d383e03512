-- How orders follow their broker: who looks, and when. What is made of what was seen is in 320_order_truth.sql.
--
-- A look is one monitor_orders job of one connection. It asks the broker for all open orders, for each due order that
-- is not among them, and for the executions since the last ones known. Three things keep it to one look at a time per
-- connection, and never a pile of them, whoever asks for it and how often:
--
-- 1. look_soon is the only way to ask. It leaves one pending job per connection: that job serves whoever asks for a
--    later time, and is replaced for who asks for an earlier one.
-- 2. A look holds its connection until it ends. Its end asks for the next one, when the next order is due.
-- 3. News that come while it is under way are noted (hinted_at, wanted_at) and outlive it: what it saw may be older.
--
-- The lock order is: orders by id, their connection, its looks, jobs.

create table public.broker_looks (
    broker_connection_id uuid primary key references public.broker_connections (id),
    look integer not null default 0,                    -- how many have begun: the fence of each
    began_at timestamptz,                               -- the latest
    looking_job_id bigint,                              -- who looks now
    looking_until timestamptz,                          -- and until when it holds the connection, should it vanish
    next_job_id bigint,                                 -- the one job that waits
    asked integer not null default 0,                   -- how many were asked for: the key of each
    wanted_at timestamptz,                              -- news of who knows which order
    strangers_since timestamptz,                        -- the earliest execution of an order that is not known yet
    looked_at timestamptz                               -- when the latest has ended well
);


-- How long until the broker is asked again about an order; null: never. What has just changed may change again: the
-- delay grows with the time since then, from 5 seconds to 60, and is 5 minutes for what has rested for an hour. Only a
-- new order is looked at sooner: one that executes at once is known to have after a second. Orders of which nobody has
-- heard yet have jobs of their own, which look for them.
-- Callers: apply_broker_order, check_order_again. `booked` is the quantity of the executions that are known.
create function public.order_check_after(o public.orders, booked numeric, now_at timestamptz) returns interval
language sql immutable
set search_path = pg_catalog, pg_temp
return case
    when (o).status in ('accepted', 'partially_filled')
        then
            case
                when (o).missing >= 5 then interval '5 minutes'
                when (o).accepted_at = now_at or booked > (o).filled_quantity then interval '1 second'
                when now_at > (o).updated_at + interval '1 hour' then interval '5 minutes'
                else least(greatest((now_at - (o).updated_at) / 10, interval '5 seconds'), interval '1 minute')
            end
    -- It has ended, and brokers may tell of its executions later.
    when (o).filled_quantity > booked then case
        when now_at < (o).ended_at + interval '10 seconds' then interval '1 second'
        when now_at < (o).ended_at + interval '1 minute' then interval '10 seconds'
        when now_at < (o).ended_at + interval '1 hour' then interval '5 minutes'
    end
end;


-- Asks for a look at a connection at a time, or for a moment sooner. Answers whether a job had to be made.
-- Callers: whatever sets an order's next_check_at, and hints; with `wanted` it looks even if no order is due.
-- Locks: the looks of the connection, until the end of the transaction; so it comes after the orders of one.
create function public.look_soon(broker_connection_id uuid, at timestamptz, wanted boolean default false)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    looks public.broker_looks;
    waiting record;
begin
    insert into public.broker_looks (broker_connection_id) values (look_soon.broker_connection_id)
    on conflict do nothing;
    select l.* into looks from public.broker_looks as l
    where l.broker_connection_id = look_soon.broker_connection_id
    for update;
    if look_soon.wanted then
        update public.broker_looks as l set wanted_at = now_at
        where l.broker_connection_id = look_soon.broker_connection_id;
    end if;
    if looks.looking_until > now_at then
        return false;                                   -- its end sees to it
    end if;

    select j.id, j.run_at into waiting from public.jobs as j
    where j.queue = 'broker' and j.id = looks.next_job_id and j.status = 'pending'
    for no key update;
    if waiting.run_at <= look_soon.at + interval '1 second' then
        return false;
    elsif waiting.id is not null then
        perform public.cancel(array[waiting.id]);
    elsif exists (
        select from public.jobs as j
        where j.queue = 'broker' and j.id = looks.next_job_id and j.status = 'running'
    ) then
        return false;                                   -- it has not begun to look yet, or will be tried again
    end if;
    update public.broker_looks as l
    set
        asked = l.asked + 1,
        next_job_id = (
            public.enqueue(jsonb_build_array(jsonb_build_object(
                'queue', 'broker',
                'type', 'monitor_orders',
                'user_id', c.user_id,
                'data', jsonb_build_object('broker_connection_id', c.id),
                'run_at', look_soon.at,
                'idempotency_key', format('look:%s:%s', c.id, l.asked + 1)
            ))) #>> '{0,id}'
        )::bigint
    from public.broker_connections as c
    where l.broker_connection_id = look_soon.broker_connection_id and c.id = l.broker_connection_id;
    return true;
end
$$;


-- Asks for a look at every connection that has an order to be looked at before the next sweep. It mends what was
-- lost: as long as looks end well, each asks for the next one by itself; and orders that nobody sends or looks for any
-- more get a job again. Answers {"connections", "enqueued", "last"};
-- "last" is null when there are no more, else the one to go on after.
-- Callers: monitor_orders with {}, over RPC, again while "last" is not null.
create function public.sweep_orders_to_check(
    after uuid default '00000000-0000-0000-0000-000000000000', max_connections integer default 500
) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    one record;
    found integer := 0;
    enqueued integer := 0;
    last uuid;
begin
    if sweep_orders_to_check.after = '00000000-0000-0000-0000-000000000000' then
        perform public.resume_orders();
    end if;
    for one in
        select o.broker_connection_id as id, min(o.next_check_at) as at
        from public.orders as o
        inner join public.broker_connections as c on o.broker_connection_id = c.id
        where
            c.status = 'active'
            and o.broker_connection_id > sweep_orders_to_check.after
            and o.next_check_at < now_at + interval '5 minutes'
        group by o.broker_connection_id
        order by o.broker_connection_id
        limit sweep_orders_to_check.max_connections
    loop
        found := found + 1;
        last := one.id;
        enqueued := enqueued + public.look_soon(one.id, greatest(one.at, now_at))::integer;
    end loop;
    return jsonb_build_object(
        'connections', found, 'enqueued', enqueued,
        'last', case when found = sweep_orders_to_check.max_connections then last end
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Notes that there is news of these orders, and asks for looks now. Orders that nobody knows are left out.
-- Answers {"orders", "enqueued"}. Callers: monitor_orders with order_ids, over RPC; note_callback.
create function public.hint_orders(order_ids uuid[]) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    hinted uuid[];
    connections uuid[];
    enqueued integer;
begin
    hinted := array(
        select o.id from public.orders as o
        inner join public.broker_connections as c on o.broker_connection_id = c.id
        where
            o.id = any (hint_orders.order_ids) and c.status = 'active'
            and (o.broker_order_id is not null or o.status in ('unknown', 'in_doubt'))
        order by o.id
        for no key update of o
    );
    update public.orders as o set next_check_at = now_at, hinted_at = now_at where o.id = any (hinted);
    connections := array(
        select distinct o.broker_connection_id from public.orders as o
        where o.id = any (hinted)
        order by o.broker_connection_id
    );
    select count(*) filter (where public.look_soon(asked.id, now_at)) into enqueued
    from unnest(connections) as asked (id);
    return jsonb_build_object('orders', cardinality(hinted), 'enqueued', enqueued);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Begins a look. Answers {"outcome"}: "look" along with what to look for, or
--   unknown (no such connection) · inactive · busy (another job looks, and its end looks again) · nothing (is due)
-- With "look": {"look", "began_at", "connection", "orders", "fills_since"}. The orders are those that are open or due:
-- {"id", "client_order_id", "broker_order_id", "symbol", "status", "submission", "alone" (not by its executions only)}.
-- Callers: monitor_orders, over RPC; `job_id` is its job, whose next attempt takes over from one that vanished.
create function public.take_orders_to_check(
    broker_connection_id uuid, job_id bigint, max_orders integer default 500
) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    connection public.broker_connections;
    looks public.broker_looks;
    due jsonb;
begin
    select c.* into connection from public.broker_connections as c
    where c.id = take_orders_to_check.broker_connection_id;
    if connection.status is distinct from 'active' then
        return jsonb_build_object('outcome', case when connection.id is null then 'unknown' else 'inactive' end);
    end if;
    insert into public.broker_looks (broker_connection_id) values (connection.id) on conflict do nothing;
    select l.* into looks from public.broker_looks as l where l.broker_connection_id = connection.id for update;
    if looks.looking_until > now_at and looks.looking_job_id <> take_orders_to_check.job_id then
        update public.broker_looks as l set wanted_at = now_at where l.broker_connection_id = connection.id;
        return '{"outcome": "busy"}';
    end if;

    select
        jsonb_agg(
            jsonb_build_object(
                'id', o.id,
                'client_order_id', o.client_order_id,
                'broker_order_id', o.broker_order_id,
                'symbol', o.symbol,
                'status', o.status,
                'submission', o.submission,
                'alone', o.ended_at is null or o.hinted_at is not null
            )
            order by o.next_check_at, o.id
        )
    into due
    from (
        select o.* from public.orders as o
        where
            o.broker_connection_id = connection.id
            and (
                o.next_check_at <= now_at + interval '1 second'
                -- Not among the open ones any more? That is news, whenever it was to be looked at.
                or (o.status in ('accepted', 'partially_filled') and o.missing = 0)
            )
        order by o.next_check_at, o.id
        limit take_orders_to_check.max_orders
    ) as o;
    if looks.wanted_at is null and looks.next_job_id = take_orders_to_check.job_id and not exists (
        select from public.orders as o
        where o.broker_connection_id = connection.id and o.next_check_at <= now_at + interval '1 second'
    ) then
        perform public.end_look(connection.id);
        return '{"outcome": "nothing"}';
    end if;
    update public.broker_looks as l
    set
        look = l.look + 1,
        began_at = now_at,
        looking_job_id = take_orders_to_check.job_id,
        looking_until = now_at + interval '3 minutes',
        -- Whoever inserted another job than ours wants a look: still, if this one comes to nothing.
        wanted_at = case when l.next_job_id = take_orders_to_check.job_id then l.wanted_at else now_at end
    where l.broker_connection_id = connection.id
    returning l.* into looks;
    return jsonb_build_object(
        'outcome', 'look',
        'look', looks.look,
        'began_at', looks.began_at,
        'connection', public.connection_as_told(connection),
        'orders', coalesce(due, '[]'),
        'fills_since', public.fills_wanted_since(connection.id, connection.created_at)
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Since when executions are asked for: a while before the latest that is known, since they may be told out of order,
-- and from the beginning of each order that lacks some; and those of orders that nobody knows, for a day.
-- Callers: take_orders_to_check.
create function public.fills_wanted_since(broker_connection_id uuid, created_at timestamptz) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select least(
    coalesce(
        (
            select max(f.filled_at) from public.order_fills as f
            where f.broker_connection_id = fills_wanted_since.broker_connection_id
        ),
        fills_wanted_since.created_at
    ),
    (
        select min(o.accepted_at) from public.orders as o
        where
            o.broker_connection_id = fills_wanted_since.broker_connection_id
            and o.next_check_at is not null
            and o.filled_quantity > (
                select coalesce(sum(f.quantity), 0) from public.order_fills as f
                where f.order_id = o.id
            )
    ),
    (
        select l.strangers_since from public.broker_looks as l
        where l.broker_connection_id = fills_wanted_since.broker_connection_id
    )
) - interval '10 minutes';
$$;


-- Ends a look: the connection is free, and the next look is asked for when its next order is due.
-- Callers: take_orders_to_check, record_orders_seen; both have locked the looks of the connection.
create function public.end_look(broker_connection_id uuid) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    looks public.broker_looks;
    next_at timestamptz;
begin
    update public.broker_looks as l
    set
        looking_job_id = null, looking_until = null, looked_at = now_at,
        next_job_id = case when l.next_job_id <> l.looking_job_id then l.next_job_id end,
        wanted_at = case when l.wanted_at > l.began_at then l.wanted_at end
    where l.broker_connection_id = end_look.broker_connection_id
    returning l.* into looks;
    select min(o.next_check_at) into next_at from public.orders as o
    where o.broker_connection_id = end_look.broker_connection_id;
    if looks.wanted_at is not null or next_at is not null then
        perform public.look_soon(
            end_look.broker_connection_id,
            case when looks.wanted_at is not null then now_at else greatest(next_at, now_at) end
        );
    end if;
end
$$;

alter table public.broker_looks enable row level security;
revoke all on public.broker_looks from public, anon, authenticated, service_role, pulse_worker;
grant select on public.broker_looks to service_role;

revoke all on function
public.order_check_after(public.orders, numeric, timestamptz),
public.look_soon(uuid, timestamptz, boolean),
public.sweep_orders_to_check(uuid, integer),
public.hint_orders(uuid[]),
public.take_orders_to_check(uuid, bigint, integer),
public.fills_wanted_since(uuid, timestamptz),
public.end_look(uuid)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.sweep_orders_to_check(uuid, integer),
public.hint_orders(uuid[]),
public.take_orders_to_check(uuid, bigint, integer)
to service_role;
