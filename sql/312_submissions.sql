-- From what became of a submission to the order's next state: told, looked for, sent again, or handed to a person.
--
-- What a caller reports names its submission. A report of an older one changes nothing, with one exception: an order
-- that the broker shows is a fact, whoever shows it (311_order_facts.sql).
--
-- A look says that there is no order only if it began after the settle time, since an order may land late and a look
-- may be frozen; and only after several such looks, each begun a second after the one before was recorded. Until then
-- the order is `unknown`. Then:
--
--     the broker refuses an id                 looks show ended orders          they do not
--     it has ever seen (account)               new: sent again, same id         new, and it stays unexplained
--     of an open order (open_orders)           new: sent again, same id         in_doubt
--     never (none)                             in_doubt                         in_doubt
--     and we had a last no, or a wish to cancel    so it ends                   in_doubt
--     and it may have gone to another account      in_doubt                     in_doubt

-- Records what became of a submission. Answers {"status", "reason", "again_seconds"}; null: the job has done its work.
-- Callers: execute_order, over RPC. told = {"outcome", "order"?, "code"?, "words"?, "after_seconds"?, "traits"?}:
--   accepted   the broker showed the order
--   refused    for certain: there is no order of this submission
--   duplicate  refused since its id is taken: there is one, of an earlier submission
--   not_sent   for certain, and it may be sent later: `code` says why (too_fast, bad_credentials, no_connection,
--              not_opened, market_closed, busy, late, stopped), `after_seconds` or `opens_at` when
--   unknown    all else
-- Guarantees: safe to repeat; never counts against the job.
create function public.record_submission(order_id uuid, submission integer, told jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    settled_from constant timestamptz := now_at + public.told_settle(told);
    after interval := make_interval(secs => (told ->> 'after_seconds')::double precision);
    market_opens_at timestamptz;
    c public.broker_connections;
    o public.orders;
    is_current boolean;
begin
    select known.* into strict o from public.orders as known
    where known.id = record_submission.order_id for no key update;
    c := public.lock_connection(o.broker_connection_id);
    is_current := o.submission = record_submission.submission and o.broker_order_id is null
    and o.status in ('submitting', 'unknown', 'in_doubt');
    c := public.note_broker_answer(c, told);

    if told ->> 'outcome' = 'accepted' then
        o := public.apply_broker_order(o, told -> 'order');
    elsif is_current and told ->> 'outcome' = 'refused' then
        o := public.give_up_order(o, 'rejected', told ->> 'code', told ->> 'words', settled_from);
    elsif is_current and told ->> 'outcome' = 'not_sent' then
        if told ->> 'code' = 'market_closed' then       -- calendars change: asked again after 6 hours
            market_opens_at := (told ->> 'opens_at')::timestamptz;
            after := least(coalesce(market_opens_at - now_at, interval '1 hour'), interval '6 hours');
        end if;
        update public.orders as known
        set
            status = 'new',
            status_reason = told ->> 'code',
            status_words = null,
            settles_at = null,
            opens_at = coalesce(market_opens_at, known.opens_at),
            updated_at = now_at
        where known.id = o.id
        returning known.* into o;
        return jsonb_build_object(
            'status', o.status, 'reason', o.status_reason,
            'again_seconds', extract(epoch from greatest(after, c.held_until - now_at, interval '1 second'))
        );
    elsif is_current and o.status <> 'in_doubt' then
        update public.orders as known
        set
            status = 'unknown',
            status_reason = case when told ->> 'outcome' = 'duplicate' then 'duplicate' else 'no_answer' end,
            status_words = 'It is not known yet whether the broker has this order. It is being looked for.',
            ends_as = case when told ->> 'outcome' = 'duplicate' then 'in_doubt' end,
            settles_at = settled_from,
            misses = 0,
            updated_at = now_at
        where known.id = o.id
        returning known.* into o;
    end if;
    return public.order_progress(o, c);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Records what a look by the client order id found. Answers as record_submission does.
-- Callers: execute_order and cancel_order, over RPC. told = {"found": the broker's picture or null, "begun_at" (of
-- begin_order's answer), "traits"}, or {"outcome": "unknown" | "not_sent", "code"?, "after_seconds"?} for no answer.
-- Guarantees: a look that began before the settle time, or was frozen while others looked, counts for nothing. An order
-- of which nobody can say anything for a quarter of an hour is told to its user and to the desk.
create function public.record_lookup(order_id uuid, submission integer, told jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    c public.broker_connections;
    o public.orders;
begin
    select known.* into strict o from public.orders as known
    where known.id = record_lookup.order_id for no key update;
    c := public.lock_connection(o.broker_connection_id);
    c := public.note_broker_answer(c, told);

    if jsonb_typeof(told -> 'found') = 'object' then
        o := public.apply_broker_order(o, told -> 'found');
    elsif told ->> 'outcome' is null and o.submission = record_lookup.submission
        and o.status in ('submitting', 'unknown') then
        update public.orders as known
        set
            status = 'unknown',
            -- Of one that ended without a word: in 20 s all has left that would be sent.
            settles_at = coalesce(
                known.settles_at, known.submitting_at + interval '20 seconds' + public.told_settle(told)
            ),
            updated_at = now_at
        where known.id = o.id
        returning known.* into o;
        if (told ->> 'begun_at')::timestamptz >= o.settles_at then
            update public.orders as known
            set misses = known.misses + 1, settles_at = now_at + interval '1 second'
            where known.id = o.id
            returning known.* into o;
        end if;
        if o.misses >= (told #>> '{traits,misses}')::integer then
            -- Other credentials may open another account: that it is not there says nothing of the first one.
            o := case
                when o.sent_with <> c.credentials_version then public.doubt_order(o, 'credentials_changed')
                else public.conclude_missing(o, told -> 'traits')
            end;
        end if;
    elsif o.status in ('submitting', 'unknown') and o.submitting_at < now_at - interval '15 minutes' then
        perform public.tell_of_doubt(o);
    end if;
    return public.order_progress(o, c);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- What follows when an order was looked for in vain: the table above.
-- Callers: record_lookup.
create function public.conclude_missing(o public.orders, traits jsonb) returns public.orders
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    shows_closed constant boolean := (traits ->> 'shows_closed')::boolean;
    dedupe constant text := traits ->> 'dedupe';
    verdict constant text := case when o.cancel_requested_at is not null and o.ends_as is null
        then 'canceled' else o.ends_as end;
begin
    if verdict = 'in_doubt' then
        return public.doubt_order(o, 'duplicate');
    elsif verdict is not null and shows_closed then
        return public.end_order(
            o, verdict, case when o.ends_as is null then 'canceled_before_sent' else o.status_reason end,
            case when o.ends_as is not null then o.status_words end
        );
    elsif verdict is not null or not (dedupe = 'account' or dedupe = 'open_orders' and shows_closed) then
        return public.doubt_order(o, 'not_found');
    end if;
    update public.orders as known
    set
        status = 'new',
        status_reason = 'not_found',
        status_words = null,
        unexplained = true,
        settles_at = null,
        updated_at = public.clock_now()
    where known.id = o.id
    returning known.* into o;
    return o;
end
$$;


-- Ends an order that is not at its broker. Callers: give_up_order, conclude_missing, close_order_in_doubt.
create function public.end_order(
    o public.orders, ends_as text, reason text, words text
) returns public.orders
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    was constant public.orders := o;
begin
    update public.orders as known
    set
        status = end_order.ends_as,
        status_reason = end_order.reason,
        status_words = end_order.words,
        ends_as = null,
        settles_at = null,
        next_check_at = null,
        ended_at = public.clock_now(),
        updated_at = public.clock_now()
    where known.id = o.id
    returning known.* into o;
    perform public.tell_of_order(was, o);
    return o;
end
$$;


-- Ends an order by a last no; or, while an earlier submission of it is unexplained, has it looked for first.
-- Callers: begin_order, begin_cancel, record_submission.
create function public.give_up_order(
    o public.orders, ends_as text, reason text, words text, settles_at timestamptz default public.clock_now()
) returns public.orders
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if not o.unexplained then
        return public.end_order(o, give_up_order.ends_as, give_up_order.reason, give_up_order.words);
    end if;
    update public.orders as known
    set
        status = 'unknown',
        ends_as = give_up_order.ends_as,
        status_reason = give_up_order.reason,
        status_words = give_up_order.words,
        settles_at = give_up_order.settles_at,
        misses = 0,
        updated_at = public.clock_now()
    where known.id = o.id
    returning known.* into o;
    return o;
end
$$;


-- Hands an order to a person, and says so. It is still looked for, slowly.
-- Callers: begin_order, record_lookup, conclude_missing.
create function public.doubt_order(o public.orders, reason text) returns public.orders
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    update public.orders as known
    set
        status = 'in_doubt',
        status_reason = doubt_order.reason,
        status_words = 'It is not known whether the broker has this order. A person is looking into it.',
        updated_at = public.clock_now()
    where known.id = o.id
    returning known.* into o;
    perform public.tell_of_doubt(o);
    return o;
end
$$;


-- Tells its user and the desk, once per submission, that nobody knows where an order is.
-- Callers: doubt_order, record_lookup.
create function public.tell_of_doubt(o public.orders) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform public.tell_trader(
        o.user_id, 'order_in_doubt', concat_ws(':', o.id, o.submission), 'Order in doubt',
        format('Your order to %s: it is not known whether the broker has it. A person is looking into it. ',
            public.order_in_words(o)) || 'Look at your account at the broker before you place it again.',
        jsonb_build_object('order_id', o.id, 'symbol', o.symbol, 'side', o.side, 'quantity', o.quantity::text)
    );
    perform public.tell_operators(
        'Trading', 'order_in_doubt', concat_ws(':', o.id, o.submission),
        jsonb_build_object(
            'order_id', o.id, 'broker_connection_id', o.broker_connection_id, 'user_id', o.user_id,
            'client_order_id', o.client_order_id, 'reason', o.status_reason
        )
    );
end
$$;


-- How an order stands, and when its job comes back. Callers: the functions that record.
create function public.order_progress(o public.orders, c public.broker_connections) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
    'status', (o).status, 'reason', (o).status_reason, 'again_seconds', extract(epoch from greatest(
        case
            when (o).status = 'new' then interval '0'
            when (o).status = 'unknown' and t.now_at < (o).settles_at then least(
                (o).settles_at - t.now_at,
                greatest(interval '1 second', least(interval '10 seconds', t.elapsed / 2))
            )
            when (o).status = 'unknown' then greatest(
                interval '1 second', least(interval '1 minute', (t.now_at - (o).settles_at) / 4)
            )
            when (o).status = 'submitting'
                then greatest(interval '1 second', least(interval '1 minute', t.elapsed / 2))
            when (o).status = 'in_doubt' and t.elapsed < interval '7 days'
                then greatest(interval '5 minutes', least(interval '1 hour', t.elapsed / 4))
        end,
        case when (o).status in ('new', 'submitting', 'unknown', 'in_doubt') then (c).held_until - t.now_at end
    ))
)
from (
    select public.clock_now() as now_at, public.clock_now() - (o).submitting_at as elapsed
) as t;
$$;


-- The settle time that a report carries. Callers: record_submission, record_lookup.
create function public.told_settle(told jsonb) returns interval
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
select make_interval(secs => coalesce((told #>> '{traits,settle_seconds}')::double precision, 60));
$$;

revoke all on function
public.record_submission(uuid, integer, jsonb),
public.record_lookup(uuid, integer, jsonb),
public.conclude_missing(public.orders, jsonb),
public.end_order(public.orders, text, text, text),
public.give_up_order(public.orders, text, text, text, timestamptz),
public.doubt_order(public.orders, text),
public.tell_of_doubt(public.orders),
public.order_progress(public.orders, public.broker_connections),
public.told_settle(jsonb)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.record_submission(uuid, integer, jsonb),
public.record_lookup(uuid, integer, jsonb)
to service_role;
