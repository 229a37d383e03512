-- From the wish to cancel an order to its end, whatever the order is at that moment.
--
-- An order that was not sent is withdrawn without a call. One whose submission has no answer yet is looked for first:
-- it cannot be canceled by an id that nobody knows. At the broker, a cancellation is asked for, and asked for again
-- while the order is open; how the order has ended is what a look shows, since it may have been filled meanwhile.

-- Begins an attempt to cancel: says what to do, and writes down that it is wished. Answers as begin_order does; step is
--   cancel    ask the broker to cancel it, look at it, then call record_cancel
--   look_up   look for it by its client order id, then call record_lookup
--   later     nothing may be sent over this connection now
--   done      it has ended; or it is open, and its connection is closed
--   unknown_order   there is none, or not of that user
-- Callers: cancel_order, over RPC; `asked_by` is the user whose job it is, null for one of the platform's.
create function public.begin_cancel(order_id uuid, asked_by uuid default null) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    o public.orders;
    c public.broker_connections;
    step text;
    wait numeric;
begin
    select known.* into o from public.orders as known
    where known.id = begin_cancel.order_id for no key update;
    if o.id is null or o.user_id <> begin_cancel.asked_by then
        return '{"step": "unknown_order"}';
    end if;
    if o.ended_at is null and o.cancel_requested_at is null then
        update public.orders as known set cancel_requested_at = now_at, updated_at = now_at where known.id = o.id
        returning known.* into o;
    end if;
    if o.status = 'new' then
        o := public.give_up_order(o, 'canceled', 'canceled_before_sent', null);
    end if;
    c := public.lock_connection(o.broker_connection_id);
    if o.ended_at is not null or c.status <> 'active' then
        return jsonb_build_object(
            'step', 'done', 'status', o.status,
            'reason', case when o.ended_at is null then 'connection_' || c.status else o.status_reason end
        );
    end if;

    step := case when o.broker_order_id is null then 'look_up' else 'cancel' end;
    wait := (public.take_broker_calls(c.id, case when step = 'cancel' then 2 else 1 end) ->> 'wait_seconds')::numeric;
    if wait > 0 then
        return jsonb_build_object(
            'step', 'later', 'status', o.status, 'delay_seconds', wait, 'reason', 'The connection is held.'
        );
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


-- Records what became of asking. Answers {"status", "reason", "again_seconds"}; null: the job has done its work.
-- Callers: cancel_order, over RPC. told = {"order": the broker's picture or null}, or the "outcome" of a call that
-- brought no answer, as record_submission has it.
-- Guarantees: safe to repeat. An order that stays open for a day in spite of it is told to the desk.
create function public.record_cancel(order_id uuid, told jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    c public.broker_connections;
    o public.orders;
    elapsed interval;
begin
    select known.* into strict o from public.orders as known
    where known.id = record_cancel.order_id for no key update;
    c := public.lock_connection(o.broker_connection_id);
    c := public.note_broker_answer(c, told);
    if jsonb_typeof(told -> 'order') = 'object' then
        o := public.apply_broker_order(o, told -> 'order');
    end if;

    elapsed := now_at - o.cancel_requested_at;
    if o.ended_at is null and elapsed > interval '1 day' then
        perform public.tell_operators(
            'Trading', 'order_not_canceled', o.id::text,
            jsonb_build_object('order_id', o.id, 'broker_connection_id', c.id, 'user_id', o.user_id)
        );
    end if;
    return jsonb_build_object(
        'status', o.status, 'reason', o.status_reason,
        'again_seconds', case
            when o.ended_at is null and elapsed <= interval '1 day' then extract(epoch from greatest(
                interval '1 second', least(interval '1 minute', elapsed / 2),
                make_interval(secs => (told ->> 'after_seconds')::double precision), c.held_until - now_at
            ))
        end
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;

revoke all on function public.begin_cancel(uuid, uuid), public.record_cancel(uuid, jsonb)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function public.begin_cancel(uuid, uuid), public.record_cancel(uuid, jsonb) to service_role;
