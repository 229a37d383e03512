-- One delivery, told once: begun before anything leaves us, recorded when it is known what became of it.
--
-- Between the two a worker may die, and then nobody knows whether the provider has it. So every send is a row first:
-- it has a number (the fence of what is recorded), and a time by which it is over. While that time runs nobody else
-- sends; after it, what may have arrived is sent again once at most, or as often as it takes where the provider takes
-- the same message twice as one.
--
-- Lock order: the delivery, its lanes (the target's before the channel's), what is told of it, and last the limit.

-- Why a delivery that was wanted when it was routed is not sent after all; null: nothing has changed.
-- Callers: close_delivery, await_turn.
create function public.delivery_objection(delivery public.alert_deliveries) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    target public.alert_targets;
    alert public.alerts;
begin
    if (delivery).target_id is not null then
        select t.* into target from public.alert_targets as t where t.id = (delivery).target_id;
        if target.id is null or target.user_id is distinct from (delivery).user_id then
            return 'target_removed';
        elsif target.status <> 'active' then
            return 'target_disabled';
        end if;
    elsif not exists (
        select from public.targets_of((delivery).user_id) as t
        where t.target_id is null and t.channel = (delivery).channel and t.address = (delivery).address
    ) then
        return 'target_removed';        -- the user has another address by now, or is no user any more
    end if;
    if (delivery).alert_id is not null then
        select a.* into alert from public.alerts as a where a.id = (delivery).alert_id;
    end if;
    return coalesce(
        public.not_wanted(alert, (delivery).channel),
        case
            when (delivery).channel = 'email'
                then public.mail_suppressed(coalesce((delivery).address, target.address), (delivery).digest_id is not null)
        end
    );
end
$$;


-- Whether an earlier send of a delivery may have arrived. What died as a dead letter in the midst of a send is failed,
-- and bears the time of that send. Callers: begin_delivery, close_delivery, await_turn.
create function public.may_have_arrived(delivery public.alert_deliveries) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
return (delivery).status = 'sending' or (delivery).is_unsent and (delivery).sending_until is not null;


-- The answer for a delivery that is not to be sent, now or at all, whoever's turn it is; null: it is.
-- Callers: begin_delivery.
create function public.close_delivery(delivery public.alert_deliveries, pace jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    is_resend constant boolean := public.may_have_arrived(delivery);
    objection text;
begin
    if is_resend and (delivery).sending_until > now_at then
        return public.later((delivery).sending_until - now_at, 'another attempt may be sending it');
    elsif is_resend and (delivery).resends >= 1 and (pace ->> 'repeatable')::boolean is not true then
        return public.end_delivery(delivery, 'unknown', coalesce((delivery).reason, 'cut_off'));
    elsif now_at >= (delivery).give_up_at and not (delivery).is_unsent then
        return public.end_delivery(delivery, case when is_resend then 'unknown' else 'failed' end, 'too_old');
    elsif (delivery).digest_id is not null and (pace ->> 'digests')::boolean is not true then
        return public.end_delivery(delivery, 'suppressed', 'no_digests');
    end if;
    objection := public.delivery_objection(delivery);
    if objection is not null then
        -- What may have arrived already is not called suppressed.
        return public.end_delivery(delivery, case when is_resend then 'unknown' else 'suppressed' end, objection);
    end if;
    return null;
end
$$;


-- The answer for a delivery whose turn has not come: quiet hours, its lane, the limit of the channel; null: it has.
-- Callers: begin_delivery.
create function public.await_turn(delivery public.alert_deliveries, pace jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    lasts constant interval := make_interval(secs => (pace ->> 'limit_seconds')::numeric);
    one_at_a_time constant boolean := coalesce((pace ->> 'one_at_a_time')::boolean, false);
    allowed constant integer := (pace ->> 'allowed')::integer;
    per constant numeric := (pace ->> 'per_seconds')::numeric;
    answer jsonb;
    wait interval := (
        select public.quiet_until(now_at, a.user_id, a.severity) - now_at from public.alerts as a
        where a.id = (delivery).alert_id
    );
begin
    if wait is not null then
        update public.alert_deliveries as d
        set not_before = now_at + wait, give_up_at = now_at + wait + interval '1 day'
        where d.id = (delivery).id;
        return public.later(wait, 'quiet hours');
    end if;

    wait := public.enter_lane(delivery, (delivery).channel, false, lasts);
    if wait = interval '0' then
        wait := public.enter_lane(delivery, public.lane_of(delivery), one_at_a_time, lasts);
    end if;
    if wait > interval '0' then
        update public.alert_deliveries as d set not_before = now_at + wait where d.id = (delivery).id;
        return public.later(wait, 'its turn comes later');
    end if;
    if one_at_a_time then
        -- The one before it in the lane may have heard, while this one waited for it, that the target is gone.
        answer := public.close_delivery(delivery, pace);
        if answer is not null then
            return answer;
        end if;
    end if;
    if allowed is not null then
        wait := public.take_calls('deliver:' || (delivery).channel, 1, allowed, make_interval(secs => per));
        if wait > interval '0' then
            perform public.leave_lane(delivery);
            return public.later(
                public.next_turn((delivery).channel, now_at + wait, make_interval(secs => per / allowed)),
                'the limit of the channel'
            );
        end if;
    end if;
    return null;
end
$$;


-- Begins a send. Answers {"step": "send", "send": its number, "resend", "delivery_id", "channel", "alert", "digest_id",
-- "target", "reader"}, or {"step": "later", "delay_seconds", "reason"}, or {"step": "done", "status", "reason"}.
-- Callers: the channels' handlers (handlers/clients/alerts/delivery.py), over RPC. begun_by names the attempt of the
-- job; pace is {"limit_seconds": by when the send is over, "one_at_a_time", "repeatable", "digests", "allowed",
-- "per_seconds"}.
-- Guarantees: safe to repeat, by the same attempt; and of two attempts one sends.
create function public.begin_delivery(delivery_id uuid, begun_by text, pace jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    delivery public.alert_deliveries;
    answer jsonb;
begin
    select d.* into delivery from public.alert_deliveries as d where d.id = begin_delivery.delivery_id for update;
    if delivery.id is null then
        return '{"step": "done", "status": "gone", "reason": "its alert was deleted"}';
    elsif delivery.status = 'sending' and delivery.begun_by = begin_delivery.begun_by then
        return public.delivery_words(delivery);
    elsif delivery.status not in ('pending', 'sending') and not delivery.is_unsent then
        return jsonb_build_object('step', 'done', 'status', delivery.status, 'reason', delivery.reason);
    end if;
    answer := coalesce(public.close_delivery(delivery, pace), public.await_turn(delivery, pace));
    if answer is not null then
        return answer;
    end if;
    update public.alert_deliveries as d
    set
        status = 'sending', sends = d.sends + 1, resends = d.resends + public.may_have_arrived(delivery)::integer,
        begun_by = begin_delivery.begun_by, is_unsent = false, reason = null, words = null,
        sending_until = public.clock_now() + make_interval(secs => (pace ->> 'limit_seconds')::numeric)
    where d.id = delivery.id
    returning d.* into delivery;
    return public.delivery_words(delivery);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- The answer to one who is to wait. Callers: close_delivery, await_turn.
create function public.later(wait interval, reason text) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
return jsonb_build_object('step', 'later', 'delay_seconds', extract(epoch from wait), 'reason', reason);


-- Writes down how a delivery ended before it was sent, and answers so. Callers: close_delivery, await_turn.
create function public.end_delivery(delivery public.alert_deliveries, status text, reason text) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    update public.alert_deliveries as d
    set status = end_delivery.status, reason = end_delivery.reason, is_unsent = false
    where d.id = (delivery).id;
    perform public.leave_lane(delivery);
    return jsonb_build_object('step', 'done', 'status', end_delivery.status, 'reason', end_delivery.reason);
end
$$;


-- All that a channel needs to send. Callers: begin_delivery.
create function public.delivery_words(delivery public.alert_deliveries) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    target public.alert_targets;
    secret text;
begin
    select t.* into target from public.alert_targets as t where t.id = (delivery).target_id;
    if target.secret_id is not null then
        select s.decrypted_secret into secret from vault.decrypted_secrets as s where s.id = target.secret_id;
    end if;
    return jsonb_build_object(
        'step', 'send',
        'send', (delivery).sends,
        'resend', (delivery).resends > 0,
        'delivery_id', (delivery).id,
        'channel', (delivery).channel,
        'alert', (
            select to_jsonb(a) - 'dedupe_key' - 'read_at' from public.alerts as a
            where a.id = (delivery).alert_id
        ),
        'digest_id', (delivery).digest_id,
        'target', jsonb_build_object(
            'id', target.id, 'address', coalesce((delivery).address, target.address), 'kind', target.kind,
            'label', target.label, 'secret', secret
        ),
        'reader', coalesce((
            select jsonb_build_object('locale', p.locale, 'timezone', p.timezone)
            from public.notification_preferences as p
            where p.user_id = (delivery).user_id
        ), '{}')
    );
end
$$;


revoke all on function
public.delivery_objection(public.alert_deliveries),
public.may_have_arrived(public.alert_deliveries),
public.close_delivery(public.alert_deliveries, jsonb),
public.await_turn(public.alert_deliveries, jsonb),
public.begin_delivery(uuid, text, jsonb),
public.later(interval, text),
public.end_delivery(public.alert_deliveries, text, text),
public.delivery_words(public.alert_deliveries)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function public.begin_delivery(uuid, text, jsonb) to service_role;
