-- From a wish to a submission: an order is placed, weighed by every rule, and begun to be sent.
--
-- An order must reach its broker once, over a network that loses answers, from workers that crash, freeze and thaw. No
-- transaction spans us and a broker; so it is written down before the call what is about to happen, and what nobody
-- knows afterwards is looked for, not repeated:
--
-- 1. Only an order that is `new` is sent. begin_order makes it `submitting` and counts the submission before the call:
--    of two attempts at once, one sends.
-- 2. Its id at the broker, client_order_id, is made with the row. What may have arrived can be found, and where a
--    broker refuses an id that it has seen, it can be sent again under that id.
-- 3. The call begins within 5 s of begin_order, by the caller's monotonic clock, or never: a worker that was frozen
--    thaws into silence. It ends within 15 s. So 20 s after the submission began, all that was sent has left.
-- 4. What nobody knows is `unknown` until it is found, or was looked for in vain often enough after the broker's own
--    settle time (312_submissions.sql). Only then, and only where that is safe, it is `new` again.
-- 5. All rules are asked in the transaction of 1., again for each submission.
--
-- Locks are taken in one order: the kill switch (shared), the order, its connection, the pace of the connection, jobs.

-- Places an order: the row and the job that sends it, in one transaction. Answers {"order_id", "job_id", "created"}.
-- Callers: the app's server, over RPC. placed = {"user_id", "broker_connection_id", "symbol", "side", "order_type",
-- "quantity", "time_in_force"?, "limit_price"?, "stop_price"?, "reference_price"?, "when_closed"?, "idempotency_key"?}.
-- Guarantees: the same idempotency key of a user is the same order; another order under it is refused.
create function public.place_order(placed jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    wish public.orders;
    o public.orders;
begin
    perform public.check_placed(placed);
    wish := jsonb_populate_record(null::public.orders, placed);
    wish.id := gen_random_uuid();
    insert into public.orders (
        id, user_id, broker_connection_id, client_order_id, idempotency_key, symbol, side, order_type, time_in_force,
        quantity, limit_price, stop_price, reference_price, when_closed
    ) values (
        wish.id, wish.user_id, wish.broker_connection_id, 'pe' || replace(wish.id::text, '-', ''),
        wish.idempotency_key, wish.symbol, wish.side, wish.order_type, coalesce(wish.time_in_force, 'day'),
        wish.quantity, wish.limit_price, wish.stop_price, wish.reference_price, coalesce(wish.when_closed, 'wait')
    )
    on conflict (user_id, idempotency_key) do nothing
    returning * into o;
    if found then
        return jsonb_build_object('order_id', o.id, 'job_id', public.enqueue_order(o, null), 'created', true);
    end if;

    select known.* into strict o from public.orders as known
    where known.user_id = wish.user_id and known.idempotency_key = wish.idempotency_key;
    if (o.broker_connection_id, o.symbol, o.side, o.order_type, o.quantity, o.limit_price, o.stop_price, o.time_in_force)
        is distinct from (
            wish.broker_connection_id, wish.symbol, wish.side, wish.order_type, wish.quantity, wish.limit_price,
            wish.stop_price, coalesce(wish.time_in_force, 'day')
        ) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'this idempotency_key is that of another order',
            hint = 'The same key is the same order. Nothing was placed.';
    end if;
    return jsonb_build_object('order_id', o.id, 'job_id', o.job_id, 'created', false);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Refuses a wish that would be misread in silence, or is for somebody else's account.
-- Callers: place_order.
create function public.check_placed(placed jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    known constant text[] := array[
        'user_id', 'broker_connection_id', 'symbol', 'side', 'order_type', 'time_in_force', 'quantity', 'limit_price',
        'stop_price', 'reference_price', 'when_closed', 'idempotency_key'
    ];
    stranger text;
begin
    select min(word.key) into stranger from jsonb_object_keys(placed) as word (key)
    where word.key <> all (known);
    if stranger is not null then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('"%s" is nothing that an order says', stranger),
            hint = format('It says %s.', array_to_string(known, ', '));
    end if;
    if not exists (
        select from public.broker_connections as c
        where
            c.id = (placed ->> 'broker_connection_id')::uuid
            and c.user_id = (placed ->> 'user_id')::uuid
    ) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'this user has no such account at a broker',
            hint = 'broker_connection_id is the id of a row of broker_connections with the same user_id.';
    end if;
end
$$;


-- Inserts the job that sends an order or looks for it, and answers its id; `again` says which further one it is.
-- Callers: place_order, resume_orders.
create function public.enqueue_order(o public.orders, again text) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    made bigint;
begin
    made := (public.enqueue(jsonb_build_array(jsonb_build_object(
        'queue', 'broker',
        'type', 'execute_order',
        'user_id', o.user_id,
        'data', jsonb_build_object('order_id', o.id),
        'idempotency_key', concat_ws(':', 'order', o.id, again)
    ))) #>> '{0,id}')::bigint;
    update public.orders as known set job_id = made where known.id = o.id;
    return made;
end
$$;


-- Begins an attempt: says what to do about an order, and writes down that it is about to be done.
-- Callers: execute_order, over RPC.
-- Answers {"step", "status", "reason", "delay_seconds", "begun_at", "order", "connection"}; step is
--   submit    every rule held, a call of the broker's pace was taken, and the order is `submitting`: begin the call
--             within 5 s, counted from before this call, or not at all; then call record_submission
--   look_up   an earlier submission may have arrived: look for it by its client order id, then call record_lookup
--   later     nothing may be sent over this connection now: come back after delay_seconds
--   done      nothing is left to do: it is at the broker, has ended, a rule ended it just now, or it has been in doubt
--             for a week
--   unknown_order
-- Guarantees: of all that call at once, one is told to submit; after halt_trading has returned, none is.
create function public.begin_order(order_id uuid) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    o public.orders;
    c public.broker_connections;
    step text := 'look_up';
    broken jsonb;
    wait numeric;
begin
    select known.* into o from public.orders as known where known.id = begin_order.order_id;
    if not found then
        return '{"step": "unknown_order"}';
    end if;
    perform public.pass_kill_switch(o.user_id);
    select known.* into strict o from public.orders as known where known.id = o.id for no key update;
    c := public.lock_connection(o.broker_connection_id);

    if o.status = 'new' then
        broken := public.broken_rule(o, c);
        if broken is null then
            step := 'submit';
        else
            o := public.give_up_order(o, broken ->> 'ends_as', broken ->> 'reason', broken ->> 'words');
        end if;
    elsif o.status in ('submitting', 'unknown') and c.status <> 'active' then
        o := public.doubt_order(o, 'connection_' || c.status);
    end if;
    if o.status not in ('new', 'submitting', 'unknown', 'in_doubt')
        or o.status = 'in_doubt' and o.submitting_at <= now_at - interval '7 days' then
        return jsonb_build_object('step', 'done', 'status', o.status, 'reason', o.status_reason);
    end if;

    wait := case when c.status = 'active'
        then (public.take_broker_calls(c.id, 1) ->> 'wait_seconds')::numeric else 3600 end;
    if wait > 0 then
        return jsonb_build_object(
            'step', 'later', 'status', o.status, 'delay_seconds', wait,
            'reason', case when c.status = 'active' then 'The connection is held.' else 'The connection is closed.' end
        );
    end if;
    if c.failures >= 3 then     -- one tries whether the broker answers again, the others wait for its word
        update public.broker_connections as known set held_until = now_at + interval '20 seconds' where known.id = c.id;
    end if;

    if step = 'submit' then
        update public.orders as known
        set
            status = 'submitting',
            status_reason = null,
            status_words = null,
            submission = known.submission + 1,
            submitting_at = now_at,
            sent_with = c.credentials_version,
            settles_at = null,
            misses = 0,
            updated_at = now_at
        where known.id = o.id
        returning known.* into o;
    end if;
    return jsonb_build_object(
        'step', step, 'status', o.status, 'begun_at', now_at,
        'order', public.order_as_told(o), 'connection', public.connection_as_told(c)
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Which rule keeps an order from being sent now: {"ends_as", "reason", "words"}, null if none.
-- Callers: begin_order, which holds the kill switch and both rows.
create function public.broken_rule(o public.orders, c public.broker_connections) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    rules public.trading_rules;
    age interval := public.clock_now() - greatest(o.created_at, o.opens_at);
    price numeric;
    broken text[];
begin
    select r.* into strict rules from public.trading_rules as r where r.environment = c.environment;
    if o.cancel_requested_at is not null then
        return '{"ends_as": "canceled", "reason": "canceled_before_sent"}';
    elsif age > (
        case when o.order_type = 'market' then rules.market_order_good_for else rules.order_good_for end
    ) then
        return jsonb_build_object(
            'ends_as', 'expired', 'reason', 'too_old', 'words', 'It could not be sent in time, and was not sent at all.'
        );
    end if;

    if exists (select from public.trading_halts as h where h.user_id = o.user_id or h.user_id is null) then
        broken := array['trading_halted', 'Trading is halted.'];
    elsif c.status <> 'active' then
        broken := array['connection_' || c.status, 'The account at the broker is not connected.'];
    elsif rules.needs_subscription and not exists (
        select from public.subscriptions as s
        where s.user_id = o.user_id and s.status in ('active', 'trialing', 'past_due')
    ) then
        broken := array['no_subscription', 'Trading needs a subscription.'];
    elsif coalesce(rules.max_order_notional, rules.max_position_notional) is not null then
        price := public.order_price(o);
        if price is null then
            broken := array['no_reference_price', 'A market order needs a reference price, to be held against the limits.'];
        elsif o.quantity * price > rules.max_order_notional then
            broken := array['order_too_large', 'It is worth more than an order may be.'];
        elsif public.exposure_after(o) * price > rules.max_position_notional then
            broken := array['position_too_large', 'With it, the position would be worth more than one may be.'];
        end if;
    end if;
    return case
        when broken is not null
            then jsonb_build_object('ends_as', 'rejected', 'reason', broken[1], 'words', broken[2])
    end;
end
$$;


-- The price that an order is weighed by: the dearest of what it names and what its account was last told.
-- Callers: broken_rule.
create function public.order_price(o public.orders) returns numeric
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select case
    when coalesce((o).limit_price, (o).stop_price, (o).reference_price) is not null
        then greatest((o).limit_price, (o).stop_price, (o).reference_price, (
            select p.current_price from public.positions as p
            where p.broker_connection_id = (o).broker_connection_id and p.symbol = (o).symbol
        ))
end;
$$;


-- How much of its symbol an account would hold on the side of this order (long for a buy, short for a sale) if it, and
-- all that is under way on that side, were filled. Negative: it would still be on the other side.
-- Callers: broken_rule. What an account holds now is what no order explains, and what orders have filled.
create function public.exposure_after(o public.orders) returns numeric
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select
    (o).quantity
    + coalesce(sum(known.quantity - known.filled_quantity) filter (
        where
        known.side = (o).side and known.id <> (o).id
        and known.status in ('submitting', 'unknown', 'in_doubt', 'accepted', 'partially_filled')
    ), 0)
    + coalesce(sum(case when known.side = (o).side then known.filled_quantity else - known.filled_quantity end), 0)
    + coalesce((
        select case when (o).side = 'buy' then p.unexplained else - p.unexplained end
        from public.positions as p
        where p.broker_connection_id = (o).broker_connection_id and p.symbol = (o).symbol
    ), 0)
from public.orders as known
where known.broker_connection_id = (o).broker_connection_id and known.symbol = (o).symbol;
$$;


-- An order and a connection as the worker reads them. Callers: whatever has a broker asked: begin_order, begin_cancel,
-- take_orders_to_check, begin_position_sync.
create function public.order_as_told(o public.orders) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
    'id', (o).id,
    'client_order_id', (o).client_order_id,
    'broker_order_id', (o).broker_order_id,
    'symbol', (o).symbol,
    'side', (o).side,
    'order_type', (o).order_type,
    'time_in_force', (o).time_in_force,
    'quantity', (o).quantity::text,
    'limit_price', (o).limit_price::text,
    'stop_price', (o).stop_price::text,
    'when_closed', (o).when_closed,
    'submission', (o).submission
);
$$;

create function public.connection_as_told(c public.broker_connections) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
    'id', (c).id,
    'user_id', (c).user_id,
    'broker', (c).broker,
    'environment', (c).environment,
    'settings', (c).settings,
    'credentials_version', (c).credentials_version,
    'credentials_env', (c).credentials_env
);
$$;

revoke all on function
public.place_order(jsonb),
public.check_placed(jsonb),
public.enqueue_order(public.orders, text),
public.begin_order(uuid),
public.broken_rule(public.orders, public.broker_connections),
public.order_price(public.orders),
public.exposure_after(public.orders),
public.order_as_told(public.orders),
public.connection_as_told(public.broker_connections)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function public.place_order(jsonb), public.begin_order(uuid) to service_role;
