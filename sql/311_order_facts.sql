-- From what a broker says of an order to its row: the only way in for that word, whoever brings it.
--
-- Pictures of an order arrive late, twice and in any order: from the attempt that sent it, from one that was frozen for
-- an hour, from looks and callbacks. An accepted order is a fact whoever tells it. So each picture is laid over what is
-- known, and the result does not depend on the order in which they come:
--
-- 1. What was executed only grows. A newer picture (by the broker's clock) decides the rest, an older one nothing else.
-- 2. What has ended at the broker stays ended, however old the picture is that shows it: clocks of brokers go back, and
--    some leave a time out. Only `filled`, with more filled than was known, comes after it.
-- 3. What we ended ourselves, without the broker (rejected, expired, canceled), yields to any word of the broker's.

-- "buy 5 AAPL". Callers: the functions that tell people of an order.
create function public.order_in_words(o public.orders) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select concat_ws(' ', (o).side, trim_scale((o).quantity), (o).symbol);
$$;


-- Lays a broker's picture of an order over the row, which the caller has locked, and answers the row as it is then.
-- Callers: all who hear of an order: record_submission, record_lookup, record_cancel, those of 320_order_truth.sql.
-- seen = {"broker_order_id", "status", "filled_quantity", "filled_avg_price", "updated_at", "reason"}, in text.
-- Guarantees: the same pictures in any order, any number of times, lead to the same row; the user is told of each
-- transition once.
create function public.apply_broker_order(o public.orders, seen jsonb) returns public.orders
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    ends constant text[] := array['filled', 'canceled', 'rejected', 'expired'];
    now_at constant timestamptz := public.clock_now();
    was constant public.orders := o;
    word constant text := seen ->> 'status';
    seen_at constant timestamptz := (seen ->> 'updated_at')::timestamptz;
    filled constant numeric := coalesce((seen ->> 'filled_quantity')::numeric, 0);
    avg_price constant numeric := (          -- that of a combination may be negative: no price of ours
        select p.price from (values ((seen ->> 'filled_avg_price')::numeric)) as p (price) where p.price > 0
    );
    unheard constant boolean := was.broker_order_id is null;    -- until now, all that is known was our own word
    older constant boolean := coalesce(seen_at < was.broker_updated_at, false);
begin
    if was.broker_order_id <> seen ->> 'broker_order_id' then
        perform public.tell_operators(
            'Trading', 'order_twice_at_broker', concat_ws(':', was.id, seen ->> 'broker_order_id'),
            jsonb_build_object(
                'order_id', was.id, 'broker_connection_id', was.broker_connection_id,
                'broker_order_ids', jsonb_build_array(was.broker_order_id, seen ->> 'broker_order_id')
            )
        );
        return was;
    end if;

    if unheard then
        perform public.take_over_stranger(was, seen ->> 'broker_order_id');
    end if;

    o.broker_order_id := seen ->> 'broker_order_id';
    o.filled_quantity := greatest(was.filled_quantity, filled);
    if filled > was.filled_quantity or filled = was.filled_quantity and not older then
        o.filled_avg_price := coalesce(avg_price, was.filled_avg_price);
    end if;
    o.status := case
        when not unheard and was.status = any (ends) then
            case when word = 'filled' and filled > was.filled_quantity then 'filled' else was.status end
        when word = any (ends) then word
        when o.filled_quantity >= was.quantity then 'filled'
        when o.filled_quantity > 0 then 'partially_filled'
        else 'accepted'
    end;
    if o.status <> was.status then
        o.status_reason := seen ->> 'reason';
        o.status_words := null;
    end if;
    o.broker_updated_at := greatest(was.broker_updated_at, seen_at);
    o.accepted_at := coalesce(was.accepted_at, now_at);
    o.ended_at := case when o.status = any (ends) then coalesce(case when not unheard then was.ended_at end, now_at) end;
    if (o.status, o.filled_quantity, o.filled_avg_price, o.broker_order_id) is distinct from
        (was.status, was.filled_quantity, was.filled_avg_price, was.broker_order_id) then
        o.updated_at := now_at;
    end if;
    o.next_check_at := now_at + public.order_check_after(
        o, (select coalesce(sum(f.quantity), 0) from public.order_fills as f where f.order_id = o.id), now_at
    );

    update public.orders as known
    set
        broker_order_id = o.broker_order_id,
        filled_quantity = o.filled_quantity,
        filled_avg_price = o.filled_avg_price,
        status = o.status,
        status_reason = o.status_reason,
        status_words = o.status_words,
        broker_updated_at = o.broker_updated_at,
        accepted_at = o.accepted_at,
        ended_at = o.ended_at,
        next_check_at = o.next_check_at,
        missing = 0,
        misses = 0,                                     -- found: no submission is in question any more
        settles_at = null,
        unexplained = false,
        ends_as = null,
        updated_at = o.updated_at                       -- when something changed, not when it was looked at
    where known.id = was.id
    returning known.* into o;
    perform public.tell_of_order(was, o);
    if o.next_check_at is not null then
        perform public.look_soon(o.broker_connection_id, o.next_check_at);
    end if;
    return o;
end
$$;


-- A look may have met an order before its submission was told, at a broker that does not show our ids in its lists, and
-- taken it for one that was placed by hand. Now it is known whose it is: its executions are this order's.
-- Callers: apply_broker_order.
create function public.take_over_stranger(o public.orders, broker_order_id text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    stranger public.orders;
begin
    select known.* into stranger from public.orders as known
    where
        known.broker_connection_id = o.broker_connection_id
        and known.broker_order_id = take_over_stranger.broker_order_id
        and known.source = 'broker'
    for update;
    if found then
        update public.order_fills as f set order_id = o.id where f.order_id = stranger.id;
        update public.orders as known set commission = stranger.commission where known.id = o.id;
        delete from public.orders as known where known.id = stranger.id;
    end if;
end
$$;


-- Tells what has become of an order: its user at each transition, and the desk when it lives on that we had given up.
-- Callers: apply_broker_order, end_order.
create function public.tell_of_order(was public.orders, o public.orders) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    kind text;
    fate text;
begin
    if was.broker_order_id is null and o.broker_order_id is not null
        and was.status in ('in_doubt', 'rejected', 'expired', 'canceled') then
        perform public.tell_operators(
            'Trading', 'order_found', o.id::text,
            jsonb_build_object('order_id', o.id, 'was', was.status, 'status', o.status, 'user_id', o.user_id)
        );
        if o.cancel_requested_at is not null and o.ended_at is null then
            perform public.enqueue_cancel(o, 'found');
        end if;
    end if;

    select t.kind, t.fate into kind, fate
    from (
        values
        ('filled', 'order_filled', 'was filled'),
        ('partially_filled', 'order_partially_filled', 'is being filled'),
        ('rejected', 'order_rejected', 'was not accepted'),
        ('canceled', 'order_canceled', 'was canceled by the broker'),
        ('expired', 'order_expired', 'has expired'),
        ('accepted', 'order_found', 'is at the broker after all')
    ) as t (status, kind, fate)
    where t.status = o.status and o.status <> was.status;
    if kind is null
        or o.status = 'canceled' and o.cancel_requested_at is not null      -- as the user has asked
        or o.status = 'accepted' and was.status not in ('in_doubt', 'rejected', 'expired', 'canceled')
        and not (was.status = 'unknown' and was.submitting_at < public.clock_now() - interval '15 minutes') then
        return;
    end if;
    perform public.tell_trader(
        o.user_id, kind, o.id::text, 'O' || substr(replace(kind, '_', ' '), 2),
        concat_ws(
            ' ',
            format('Your order to %s %s%s.', public.order_in_words(o), fate, case
                when o.filled_quantity = 0 then ''
                when o.status = 'filled' then ' at ' || trim_scale(o.filled_avg_price)
                else format('; %s of it filled', trim_scale(o.filled_quantity))
            end),
            o.status_words
        ),
        jsonb_build_object(
            'order_id', o.id, 'symbol', o.symbol, 'side', o.side, 'quantity', o.quantity::text, 'status', o.status,
            'reason', o.status_reason, 'filled_quantity', o.filled_quantity::text,
            'filled_avg_price', o.filled_avg_price::text
        )
    );
end
$$;


-- Inserts the job that cancels an order; `key` says which wish that is.
-- Callers: tell_of_order, halt_trading, resume_orders.
create function public.enqueue_cancel(o public.orders, key text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
select public.enqueue(jsonb_build_array(jsonb_build_object(
    'queue', 'broker',
    'type', 'cancel_order',
    'user_id', (o).user_id,
    'data', jsonb_build_object('order_id', (o).id),
    'priority', 10,
    'idempotency_key', concat_ws(':', 'cancel', (o).id, enqueue_cancel.key)
)));
$$;

revoke all on function
public.order_in_words(public.orders),
public.apply_broker_order(public.orders, jsonb),
public.take_over_stranger(public.orders, text),
public.tell_of_order(public.orders, public.orders),
public.enqueue_cancel(public.orders, text)
from public, anon, authenticated, service_role, pulse_worker;
