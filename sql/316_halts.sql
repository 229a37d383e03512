-- The kill switch, and orders that nobody sends any more.
--
-- The switch is strict: after halt_trading has returned, no submission begins. Each begin_order holds two locks in
-- shared mode until it commits, one for everybody and one for its user; halt_trading takes one of the two alone. So it
-- waits for all that were being begun, and all that come later see its row. A submission that had begun by then may
-- still leave within 5 s: `in_flight` counts those, and with cancel_open they are canceled as they are found.

-- Waits while trading is being halted, and keeps a halt waiting until the end of the transaction.
-- Callers: begin_order, as its first lock.
create function public.pass_kill_switch(user_id uuid) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
select
    pg_advisory_xact_lock_shared(hashtextextended('trading', 0)),
    pg_advisory_xact_lock_shared(hashtextextended('trading:' || pass_kill_switch.user_id, 0));
$$;


-- Halts trading for a user, or (null) for everybody. Answers {"in_flight", "cancelling"}.
-- Callers: people and the app's server, over RPC. With cancel_open, all orders that have not ended are canceled.
create function public.halt_trading(user_id uuid, reason text, cancel_open boolean default false) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    in_flight integer;
    cancelling integer := 0;
begin
    perform pg_advisory_xact_lock(hashtextextended(concat_ws(':', 'trading', halt_trading.user_id), 0));
    insert into public.trading_halts (user_id, reason) values (halt_trading.user_id, halt_trading.reason)
    on conflict on constraint trading_halts_user_id_key do update set reason = excluded.reason;

    select count(*) into in_flight from public.orders as o
    where o.status = 'submitting' and (halt_trading.user_id is null or o.user_id = halt_trading.user_id);
    if halt_trading.cancel_open then
        with live as (
            select o.id from public.orders as o
            where
                o.ended_at is null
                and (halt_trading.user_id is null or o.user_id = halt_trading.user_id)
            order by o.id
            for no key update
        ),

        wished as (
            update public.orders as o
            set cancel_requested_at = coalesce(o.cancel_requested_at, now_at), updated_at = now_at
            from live
            where o.id = live.id
            returning public.enqueue_cancel(o, extract(epoch from now_at)::text)
        )

        select count(*) into cancelling from wished;
    end if;
    return jsonb_build_object('in_flight', in_flight, 'cancelling', cancelling);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Takes a halt away; one of everybody and one of a user are two. Answers {"resumed"}. Callers: as above.
create function public.resume_trading(user_id uuid) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from public.trading_halts as h where h.user_id is not distinct from resume_trading.user_id;
    return jsonb_build_object('resumed', found);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Enqueues again what nobody sends or looks for any more, since its job was given up or canceled: {"resumed"}; and
-- cancels again what is open in spite of a wish, whose job may have met a connection that was closed: each hour.
-- Callers: sweep_orders_to_check, every few minutes. Each order waits a minute first; a hundred at a time.
create function public.resume_orders() returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    hour constant text := to_char(now_at at time zone 'utc', 'YYYY-MM-DD HH24');
    resumed integer;
begin
    with left_alone as materialized (
        select o.id from public.orders as o
        where
            o.status in ('new', 'submitting', 'unknown', 'in_doubt')
            and o.updated_at < now_at - interval '1 minute'
            and (o.status <> 'in_doubt' or o.submitting_at > now_at - interval '7 days')
            and not exists (
                select from public.jobs as j
                where j.queue = 'broker' and j.id = o.job_id and j.status in ('pending', 'running')
            )
        order by o.updated_at
        limit 100
        for no key update skip locked
    )

    select count(public.enqueue_order(o, extract(epoch from now_at)::text)) into resumed
    from public.orders as o
    where o.id in (select id from left_alone);
    perform public.enqueue_cancel(o, hour) from (
        select wished.* from public.orders as wished
        inner join public.broker_connections as c on wished.broker_connection_id = c.id
        where
            wished.ended_at is null and wished.broker_order_id is not null
            and wished.cancel_requested_at between now_at - interval '7 days' and now_at - interval '5 minutes'
            and c.status = 'active'
            and not exists (
                select from public.jobs as j
                where j.queue = 'broker' and j.idempotency_key = concat_ws(':', 'cancel', wished.id, hour)
            )
        order by wished.cancel_requested_at
        limit 100
    ) as o;
    return jsonb_build_object('resumed', resumed);
end
$$;


-- Ends an order in doubt, when a person has seen that the broker does not have it. Answers {"status"}.
-- Callers: people and the app's server, over RPC. `words` are shown to the user.
create function public.close_order_in_doubt(order_id uuid, words text) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    o public.orders;
begin
    select known.* into o from public.orders as known
    where known.id = close_order_in_doubt.order_id for no key update;
    if o.status = 'in_doubt' then
        o := public.end_order(o, 'rejected', 'not_at_broker', close_order_in_doubt.words);
    end if;
    return jsonb_build_object('status', o.status);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;

revoke all on function
public.pass_kill_switch(uuid),
public.halt_trading(uuid, text, boolean),
public.resume_trading(uuid),
public.resume_orders(),
public.close_order_in_doubt(uuid, text)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.halt_trading(uuid, text, boolean),
public.resume_trading(uuid),
public.close_order_in_doubt(uuid, text)
to service_role;
