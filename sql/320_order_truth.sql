-- How orders follow their broker: what is made of what a look saw (318_order_looks.sql says who looks, and when).
--
-- Pictures are applied by apply_broker_order, which lets nothing go back. Here they find their orders, ours or not, and
-- executions are booked beside them, each once.


-- Writes down what a look saw. `told` is {"orders": [seen …], "missing": [ids of orders that the broker does not know],
-- "looked_for": [ids that record_lookup has judged], "fills": [{"broker_fill_id", "broker_order_id", "quantity",
-- "price", "commission", "filled_at", "symbol"}], "ends"}; "orders" are all open ones and those looked for one by one,
-- ours or not, in the words of apply_broker_order. "unasked" says that there are more strangers than were looked for.
-- Answers {"orders" (adopted: those that nobody knew), "fills" (new ones), "strangers"}. Strangers are orders that
-- executions speak of and nobody knows, as {"broker_order_id", "symbol"}. "ends" is yes (the look is over), no, or
-- unless_strangers: then they are looked for, and told by a second call. Their executions are asked for again, for a
-- day, until they are known.
-- Callers: monitor_orders, over RPC.
-- Guarantees: safe to repeat, and to be overtaken: what it writes only grows, and misses are counted for the current
-- look alone.
create function public.record_orders_seen(broker_connection_id uuid, look integer, told jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    looks public.broker_looks;
    connection public.broker_connections;
    one record;
    known public.orders;
    touched uuid[] := '{}';
    adopted integer := 0;
    booked uuid[];
    strangers jsonb;
    unknown_since timestamptz;
begin
    select c.* into strict connection from public.broker_connections as c
    where c.id = record_orders_seen.broker_connection_id;
    select l.* into strict looks from public.broker_looks as l where l.broker_connection_id = connection.id;

    -- All of them before the first look_soon: see the lock order.
    perform from public.orders as o
    where
        o.broker_connection_id = connection.id
        and (
            o.broker_order_id in (
                select w.words ->> 'broker_order_id' from jsonb_array_elements((told -> 'orders') || (told -> 'fills')) as w (words)
            )
            or o.client_order_id in (
                select w.words ->> 'client_order_id' from jsonb_array_elements(told -> 'orders') as w (words)
            )
            or o.id in (
                select w.id::uuid from jsonb_array_elements_text((told -> 'missing') || (told -> 'looked_for')) as w (id)
            )
            or (o.ended_at is not null and o.next_check_at is not null)
        )
    order by o.id
    for no key update;
    connection := public.lock_connection(connection.id);
    if told ->> 'ends' <> 'no' then                     -- else some of its calls brought no answer
        connection := public.note_broker_answer(connection, '{}');
    end if;

    for one in
        select s.words as seen, ours.id
        from jsonb_array_elements(told -> 'orders') as s (words)
        left join lateral (
            select o.id from public.orders as o
            where
                o.broker_connection_id = connection.id
                and (
                    o.broker_order_id = s.words ->> 'broker_order_id'
                    or (o.broker_order_id is null and o.client_order_id = s.words ->> 'client_order_id')
                )
            order by o.broker_order_id nulls last
            limit 1
        ) as ours on true
        order by ours.id nulls last, s.words ->> 'broker_order_id'
    loop
        if one.id is null then
            one.id := public.adopt_order(connection, one.seen);
            adopted := adopted + (one.id is not null)::integer;
        else
            select o.* into strict known from public.orders as o where o.id = one.id;
            perform public.apply_broker_order(known, one.seen);
        end if;
        touched := array_remove(touched || one.id, null);
    end loop;

    if looks.look = record_orders_seen.look and looks.looking_until is not null then
        perform public.miss_order(o.id) from public.orders as o
        where
            o.broker_connection_id = connection.id
            and o.id in (select m.id::uuid from jsonb_array_elements_text(told -> 'missing') as m (id))
            and o.status in ('accepted', 'partially_filled');
    end if;

    booked := public.book_fills(connection.id, told -> 'fills');
    -- Executed, and not looked at by this look.
    update public.orders as o set next_check_at = least(o.next_check_at, public.clock_now())
    where o.id = any (booked) and o.id <> all (touched) and o.ended_at is null;
    perform public.check_order_again(o.id, looks.began_at) from (
        select t.id from unnest(touched) as t (id)
        union
        select b.id from unnest(booked) as b (id)
        where exists (select from public.orders as o where o.id = b.id and o.ended_at is not null)
        union
        select m.id::uuid from jsonb_array_elements_text((told -> 'missing') || (told -> 'looked_for')) as m (id)
        union
        -- What has ended is looked at by its executions alone.
        select due.id from public.orders as due
        where
            due.broker_connection_id = connection.id and due.ended_at is not null
            and due.next_check_at <= looks.began_at + interval '1 second' and due.hinted_at is null
        order by 1
    ) as o;

    select
        jsonb_agg(distinct jsonb_build_object('broker_order_id', f.broker_order_id, 'symbol', f.symbol)),
        min(f.filled_at) filter (where f.filled_at > public.clock_now() - interval '1 day')
    into strangers, unknown_since
    from jsonb_to_recordset(told -> 'fills') as f (broker_order_id text, symbol text, filled_at timestamptz)
    where not exists (
        select from public.orders as o
        where o.broker_connection_id = connection.id and o.broker_order_id = f.broker_order_id
    );
    if told ->> 'ends' <> 'no' or told -> 'fills' <> '[]' then      -- else they were not read
        update public.broker_looks as l set strangers_since = unknown_since
        where l.broker_connection_id = connection.id and l.look = record_orders_seen.look;
    end if;
    select l.* into looks from public.broker_looks as l where l.broker_connection_id = connection.id for update;
    if looks.look = record_orders_seen.look and looks.looking_until is not null
        and (told ->> 'ends' = 'yes' or told ->> 'ends' = 'unless_strangers' and strangers is null) then
        perform public.end_look(connection.id);
        if (told -> 'unasked')::boolean then
            perform public.look_soon(connection.id, public.clock_now() + interval '1 minute', true);
        end if;
    end if;
    return jsonb_build_object(
        'orders', cardinality(touched), 'adopted', adopted, 'fills', cardinality(booked),
        'strangers', coalesce(strangers, '[]')
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Makes an order of one that was placed at the broker: by hand, or by another program. Answers its id, or null if it
-- cannot be told in our words; operators hear of that, and of an order that carries the id of one of ours: it was
-- placed twice. Callers: record_orders_seen.
create function public.adopt_order(connection public.broker_connections, seen jsonb) returns uuid
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    is_over constant boolean := seen ->> 'status' in ('filled', 'canceled', 'rejected', 'expired');
    ours uuid;
    made uuid;
begin
    select o.id into ours from public.orders as o
    where
        o.broker_connection_id = connection.id and o.client_order_id = seen ->> 'client_order_id'
        and o.source = 'platform';
    if ours is not null then
        perform public.tell_operators(
            'Trading', 'order_twice_at_broker', format('%s:%s', ours, seen ->> 'broker_order_id'),
            jsonb_build_object(
                'order_id', ours, 'broker_connection_id', connection.id, 'broker_order_id', seen ->> 'broker_order_id'
            )
        );
    end if;
    insert into public.orders (
        user_id, broker_connection_id, source, client_order_id, broker_order_id, symbol, side, order_type,
        time_in_force, quantity, limit_price, stop_price, status, status_reason, filled_quantity, filled_avg_price,
        broker_updated_at, accepted_at, ended_at
    )
    select
        connection.user_id, connection.id, 'broker',
        case
            when exists (
                select from public.orders as o
                where o.broker_connection_id = connection.id and o.client_order_id = s.client_order_id
            ) then 'broker:' || s.broker_order_id
            else coalesce(s.client_order_id, 'broker:' || s.broker_order_id)
        end,
        s.broker_order_id, s.symbol, s.side, s.order_type, s.time_in_force, s.quantity, s.limit_price, s.stop_price,
        s.status, s.reason, s.filled_quantity, s.filled_avg_price, s.updated_at, least(s.updated_at, now_at),
        case when is_over then now_at end
    from jsonb_to_record(seen) as s (
        client_order_id text, broker_order_id text, symbol text, side text, order_type text, time_in_force text,
        quantity numeric, limit_price numeric, stop_price numeric, status text, reason text, filled_quantity numeric,
        filled_avg_price numeric, updated_at timestamptz
    )
    returning id into made;
    return made;
exception when check_violation or not_null_violation or unique_violation then
    perform public.tell_operators(
        'Trading', 'order_unreadable', format('%s:%s', connection.id, seen ->> 'broker_order_id'),
        jsonb_build_object(
            'broker_connection_id', connection.id, 'broker_order_id', seen ->> 'broker_order_id', 'why', sqlerrm
        )
    );
    return null;
end
$$;


-- Counts that the broker did not know an order it had accepted. The fifth time in a row is told; nothing is ever made
-- of it, since only the broker can say that an order has ended. Callers: record_orders_seen.
create function public.miss_order(order_id uuid) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    o public.orders;
begin
    update public.orders as k set missing = k.missing + 1 where k.id = miss_order.order_id returning k.* into o;
    if o.missing = 5 then
        perform public.tell_operators(
            'Trading', 'order_missing', o.id::text,
            jsonb_build_object(
                'order_id', o.id, 'broker_connection_id', o.broker_connection_id, 'broker_order_id', o.broker_order_id
            )
        );
        perform public.tell_trader(
            o.user_id, 'order_missing', o.id::text, 'An order cannot be found',
            format(
                'Your broker does not show the order to %s %s %s any more. Nothing was changed. Please look at your account.',
                o.side, trim_scale(o.quantity), o.symbol
            ),
            jsonb_build_object('order_id', o.id)
        );
    end if;
end
$$;


-- Books executions, each once. Answers the orders that have new ones. Callers: record_orders_seen.
create function public.book_fills(broker_connection_id uuid, fills jsonb) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    booked uuid[];
begin
    with made as (
        insert into public.order_fills as known (
            broker_connection_id, broker_fill_id, order_id, quantity, price, commission, filled_at
        )
        select o.broker_connection_id, f.broker_fill_id, o.id, f.quantity, f.price, f.commission, f.filled_at
        from jsonb_to_recordset(book_fills.fills) as f (
            broker_fill_id text, broker_order_id text, quantity numeric, price numeric, commission numeric,
            filled_at timestamptz
        )
        inner join public.orders as o
            on o.broker_connection_id = book_fills.broker_connection_id and f.broker_order_id = o.broker_order_id
        where f.quantity > 0 and f.price > 0
        order by f.broker_fill_id
        on conflict do nothing
        returning known.order_id
    )

    select coalesce(array_agg(distinct m.order_id), '{}') into booked from made as m;
    update public.orders as o
    set commission = (select sum(f.commission) from public.order_fills as f where f.order_id = o.id)
    where o.id = any (booked);
    return booked;
end
$$;


-- Sets when an order is looked at next; at once, if news of it came after the look had begun.
-- Callers: record_orders_seen.
create function public.check_order_again(order_id uuid, began_at timestamptz) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
update public.orders as o
set
    hinted_at = case when o.hinted_at > check_order_again.began_at then o.hinted_at end,
    next_check_at = case
        when o.hinted_at > check_order_again.began_at then public.clock_now()
        else public.clock_now() + public.order_check_after(
            o, (select coalesce(sum(f.quantity), 0) from public.order_fills as f where f.order_id = o.id),
            public.clock_now()
        )
    end
where o.id = check_order_again.order_id;
$$;

revoke all on function
public.record_orders_seen(uuid, integer, jsonb),
public.adopt_order(public.broker_connections, jsonb),
public.miss_order(uuid),
public.book_fills(uuid, jsonb),
public.check_order_again(uuid, timestamptz)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.record_orders_seen(uuid, integer, jsonb)
to service_role;
