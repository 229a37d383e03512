-- From what a channel saw to what becomes of a delivery, and of its target.

-- Writes down what a channel saw. Answers {"status", "reason"}, with "delay_seconds" when it is to come back, and with
-- "stale" when that send had been overtaken and nothing was changed.
-- Callers: the channels' handlers, over RPC. `send` is the number that begin_delivery answered; told is {"outcome":
-- sent | refused | later | not_sent | unknown, "reason"?, "words"?, "provider_id"?, "delay_seconds"?, "target"?: keep |
-- disable | remove, "suppress"?, "is_ours"?: operators have to mend it, and what hold_lanes reads}; is_last: the job
-- has no further attempt.
-- Guarantees: safe to repeat.
create function public.record_delivery(delivery_id uuid, send integer, told jsonb, is_last boolean) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    outcome constant text := told ->> 'outcome';
    delay interval := make_interval(secs => coalesce((told ->> 'delay_seconds')::numeric, 0));
    delivery public.alert_deliveries;
begin
    select d.* into delivery from public.alert_deliveries as d where d.id = record_delivery.delivery_id for update;
    if delivery.id is null then
        return '{"status": "gone", "stale": true}';
    elsif delivery.sends <> record_delivery.send then
        return jsonb_build_object('status', delivery.status, 'reason', delivery.reason, 'stale', true);
    elsif delivery.status not in ('sending', 'pending')
        and not (outcome = 'sent' and (delivery.status = 'unknown' or delivery.is_unsent)) then
        -- It was recorded and the answer was lost; or it was given up meanwhile. Only that it has arrived is news then.
        return jsonb_strip_nulls(jsonb_build_object('status', delivery.status, 'reason', delivery.reason));
    end if;

    if outcome = 'unknown' then
        delay := delay * power(2, least(delivery.resends, 6));      -- what nobody answers for is asked less and less
    end if;
    perform public.leave_lane(delivery);
    perform public.hold_lanes(delivery, told);
    delivery := public.write_outcome(delivery, told, delay, record_delivery.is_last);
    if outcome = 'refused' then
        perform public.give_up_target(delivery, told);
    elsif (told ->> 'is_ours')::boolean then
        perform public.tell_operators(
            'Alerts', 'channel_is_refused', concat_ws(':', delivery.channel, delivery.reason, now_at::date),
            jsonb_build_object('channel', delivery.channel, 'reason', delivery.reason, 'words', delivery.words)
        );
    end if;
    return jsonb_strip_nulls(jsonb_build_object(
        'status', delivery.status, 'reason', delivery.reason, 'send', delivery.sends,
        'delay_seconds', case when outcome in ('later', 'unknown') then extract(epoch from delay) end
    ));
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Writes an outcome into the row of its delivery: the row as it is then. `delay`: how long it waits, if it does.
-- Callers: record_delivery.
create function public.write_outcome(
    delivery public.alert_deliveries, told jsonb, delay interval, is_last boolean
) returns public.alert_deliveries
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
update public.alert_deliveries as d
set
    status = case
        when o.outcome = 'sent' then 'sent'
        when o.outcome = 'refused' then 'failed'
        when o.outcome = 'unknown' then case when write_outcome.is_last then 'unknown' else 'sending' end
        when o.outcome = 'not_sent' and write_outcome.is_last then 'failed'
        else 'pending'
    end,
    is_unsent = o.outcome = 'not_sent' and write_outcome.is_last,
    sending_until = case when o.outcome = 'unknown' then o.now_at end,
    not_before = case when o.outcome in ('later', 'unknown') then o.now_at + write_outcome.delay end,
    sent_at = case when o.outcome = 'sent' then o.now_at end,
    provider_id = coalesce(write_outcome.told ->> 'provider_id', d.provider_id),
    reason = write_outcome.told ->> 'reason',
    words = write_outcome.told ->> 'words'
from (values (write_outcome.told ->> 'outcome', public.clock_now())) as o (outcome, now_at)
where d.id = (write_outcome.delivery).id
returning d.*;
$$;


-- What a refusal means for the target: it is disabled and its users are told by their other channels; or forgotten; or
-- its address gets no mail any more. Callers: record_delivery.
create function public.give_up_target(delivery public.alert_deliveries, told jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    target public.alert_targets;
    address text := (delivery).address;
begin
    select t.* into target from public.alert_targets as t where t.id = (delivery).target_id;
    if told ->> 'target' = 'remove' then
        perform public.forget_target(target.id, target.user_id);
    elsif told ->> 'target' = 'disable' then
        for target in
            update public.alert_targets as t
            set status = 'disabled', status_reason = told ->> 'reason'
            where
                t.channel = target.channel and t.address = target.address and t.status = 'active'
                -- Ids of webhooks are no secrets: whoever registers one with a wrong token loses their own alone.
                and t.secret_mark is not distinct from target.secret_mark
            returning t.*
        loop
            perform public.tell_target_disabled(target, told ->> 'words');
        end loop;
    end if;
    if told ->> 'suppress' is not null then
        insert into public.email_suppressions (address, reason)
        values (lower(coalesce(address, target.address)), told ->> 'suppress')
        on conflict do nothing;
    end if;
end
$$;


-- Tells the user, by the other channels, that a target takes no alerts any more. Callers: give_up_target.
create function public.tell_target_disabled(target public.alert_targets, words text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
select public.route_alert(
    concat_ws(':', 'target_disabled', (target).id, extract(epoch from (target).last_seen_at)),
    jsonb_strip_nulls(jsonb_build_object(
        'user_id', (target).user_id,
        'audience', case when (target).user_id is null then 'operators' else 'user' end,
        'alert_type', 'target_disabled',
        'severity', 'warning',
        'title', concat_ws(' ', initcap((target).channel), quote_literal((target).label), 'takes no alerts any more'),
        'message', concat_ws(' ', words, 'Nothing more is sent there until it is registered again.'),
        'metadata', jsonb_build_object('channel', (target).channel, 'target_id', (target).id)
    ))
);
$$;

revoke all on function
public.record_delivery(uuid, integer, jsonb, boolean),
public.write_outcome(public.alert_deliveries, jsonb, interval, boolean),
public.give_up_target(public.alert_deliveries, jsonb),
public.tell_target_disabled(public.alert_targets, text)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function public.record_delivery(uuid, integer, jsonb, boolean) to service_role;
