-- From something told to who is told where: an alert, a delivery per target, and a job per delivery.
--
-- All of one transaction: an alert without its deliveries never was. What a user does not want becomes a delivery too,
-- `suppressed` with the reason, so that every alert is either delivered or explained, and what was decided once is not
-- decided again when the job that told it runs twice.

-- When quiet hours end that hold at this moment; null outside of them.
-- They begin and end when the local clock says so. A time that comes twice that night, since clocks are set back, is
-- the second one; one that is left out, since clocks are set forward, is as much later as they jump.
-- Callers: quiet_until.
create function public.quiet_end(
    at timestamptz, timezone text, quiet_from time, quiet_until time
) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select night.ends_at
from generate_series(-1, 0) as n (days)
cross join lateral (select (quiet_end.at at time zone quiet_end.timezone)::date + n.days as evening) as day
cross join lateral (
    select
        (day.evening + quiet_end.quiet_from) at time zone quiet_end.timezone as begins_at,
        (
            day.evening + (quiet_end.quiet_until <= quiet_end.quiet_from)::integer + quiet_end.quiet_until
        ) at time zone quiet_end.timezone as ends_at
) as night
where quiet_end.at >= night.begins_at and quiet_end.at < night.ends_at
order by night.ends_at desc
limit 1;
$$;


-- When this user may be told again of what does not bypass quiet hours; null: now.
-- Callers: write_deliveries, await_turn.
create function public.quiet_until(at timestamptz, user_id uuid, severity text) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select public.quiet_end(quiet_until.at, p.timezone, p.quiet_from, p.quiet_until)
from public.notification_preferences as p
where
    p.user_id = quiet_until.user_id
    and p.quiet_from is not null
    and public.severity_rank(quiet_until.severity) < public.severity_rank(p.quiet_bypass);
$$;


-- Why a user does not want this alert on this channel, as a word; null: it is wanted.
-- Callers: write_deliveries, delivery_objection.
create function public.not_wanted(alert public.alerts, channel text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select case
    when exists (
        select from public.notification_preferences as p
        where p.user_id = (alert).user_id and (alert).alert_type = any (p.muted_types)
    ) then 'muted'
    when exists (
        select from public.channel_preferences as c
        where c.user_id = (alert).user_id and c.channel = not_wanted.channel and not c.enabled
    ) then 'channel_off'
    when exists (
        select from public.channel_preferences as c
        where
            c.user_id = (alert).user_id and c.channel = not_wanted.channel
            and public.severity_rank((alert).severity) < public.severity_rank(c.min_severity)
    ) then 'below_minimum'
end;
$$;


-- Whether mail to this address is held back, and why: of digests, or of all mail.
-- Callers: write_deliveries, route_digest, delivery_objection.
create function public.mail_suppressed(address text, is_digest boolean) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select s.reason from public.email_suppressions as s
where s.address = lower(mail_suppressed.address) and (s.scope = 'all' or mail_suppressed.is_digest)
order by s.scope
limit 1;
$$;


-- Where a user is told: all targets that work, and the user's own confirmed address. user_id null: the operators'.
-- Callers: write_deliveries, route_digest, delivery_objection.
create function public.targets_of(user_id uuid) returns table (channel text, target_id uuid, address text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
with own as (
    select u.email::text as address
    from auth.users as u
    where u.id = targets_of.user_id and u.email_confirmed_at is not null and u.deleted_at is null and u.email <> ''
)

select 'email', null, o.address from own as o
union all
select t.channel, t.id, case when t.channel = 'email' then t.address end
from public.alert_targets as t
where
    t.user_id is not distinct from targets_of.user_id and t.status = 'active'
    and not exists (select from own as o where t.channel = 'email' and lower(o.address) = lower(t.address));
$$;


-- The alert that was told: its row, made at the first time. Null if it names one that is not there, or another user's.
-- Callers: route_alert.
create function public.write_alert(job_key text, told jsonb) returns public.alerts
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    whose constant uuid := case when told ->> 'audience' = 'operators' then null else (told ->> 'user_id')::uuid end;
    key constant text := coalesce('told:' || (told ->> 'dedupe_key'), 'job:' || write_alert.job_key);
    alert public.alerts;
begin
    if told ->> 'title' is not null then
        insert into public.alerts as a (
            id, user_id, alert_type, severity, title, message, metadata, dedupe_key
        )
        values (
            coalesce((told ->> 'alert_id')::uuid, gen_random_uuid()), whose, coalesce(told ->> 'alert_type', 'message'),
            coalesce(told ->> 'severity', 'info'), told ->> 'title', coalesce(told ->> 'message', ''),
            coalesce(told -> 'metadata', '{}'), key
        )
        on conflict do nothing
        returning a.* into alert;
        if alert.id is not null then
            return alert;
        end if;
    end if;
    select a.* into alert from public.alerts as a
    where
        a.id = (told ->> 'alert_id')::uuid
        and (told ->> 'title' is null and told ->> 'user_id' is null or a.user_id is not distinct from whose)
        or told ->> 'title' is not null and a.user_id is not distinct from whose and a.dedupe_key = key
    order by a.id = (told ->> 'alert_id')::uuid desc nulls last
    limit 1;
    return alert;
end
$$;


-- Makes the deliveries of an alert, and the jobs of those that are wanted. Callers: route_alert.
-- Guarantees: safe to repeat; what was decided once stays.
create function public.write_deliveries(alert public.alerts, channels text[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    quiet_end constant timestamptz := public.quiet_until(public.clock_now(), (alert).user_id, (alert).severity);
begin
    insert into public.alert_deliveries (
        alert_id, user_id, channel, target_id, address, status, reason, not_before, give_up_at
    )
    select
        (alert).id, (alert).user_id, t.channel, t.target_id, t.address,
        case when why.reason is null then 'pending' else 'suppressed' end, why.reason,
        quiet_end, coalesce(quiet_end, public.clock_now()) + interval '1 day'
    from public.targets_of((alert).user_id) as t
    cross join lateral (
        select coalesce(
            public.not_wanted(alert, t.channel),
            case when t.channel = 'email' then public.mail_suppressed(t.address, false) end
        ) as reason
    ) as why
    where write_deliveries.channels is null or t.channel = any (write_deliveries.channels)
    order by t.channel, t.target_id
    on conflict do nothing;

    perform public.enqueue_deliveries(array(
        select d.id from public.alert_deliveries as d
        where d.alert_id = (alert).id and d.status = 'pending' and d.sends = 0
        order by d.id
    ));
end
$$;


-- Makes an alert and its deliveries. Answers {"alert_id", "deliveries": how many will be sent, "suppressed": how many
-- not, "reason": why none is sent (no_target, muted, channel_off, …; null: some are)}; "alert_id" is null where
-- write_alert finds none.
-- Callers: notify, and a channel whose job says words, over RPC; told is {"user_id" | "audience": "operators",
-- "alert_type", "title", "message", "severity"?, "metadata"?, "alert_id"?, "dedupe_key"?}, or "alert_id" alone.
-- channels: only these; null: all that the user has.
-- Guarantees: the same job, or the same dedupe_key of one user, is the same alert, and a target is told of it once.
create function public.route_alert(job_key text, told jsonb, channels text[] default null) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    alert constant public.alerts := public.write_alert(job_key, told);
    answer jsonb;
begin
    if alert.id is null then
        return '{"alert_id": null}';
    end if;
    perform public.write_deliveries(alert, route_alert.channels);
    select jsonb_build_object(
        'alert_id', alert.id,
        'deliveries', count(*) filter (where d.status <> 'suppressed'),
        'suppressed', count(*) filter (where d.status = 'suppressed'),
        'reason', case
            when count(*) = 0 then 'no_target'
            when bool_and(d.status = 'suppressed') then min(d.reason)
        end
    ) into answer
    from public.alert_deliveries as d
    where d.alert_id = alert.id and (route_alert.channels is null or d.channel = any (route_alert.channels));
    return answer;
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Inserts the jobs of deliveries, each once: the type is the channel's name, and what is severe goes first.
-- Callers: write_deliveries, route_digest.
create function public.enqueue_deliveries(deliveries uuid[]) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
insert into public.jobs (queue, type, data, user_id, priority, run_at, max_attempts, idempotency_key)
select
    'alerts', d.channel, jsonb_build_object('deliveryId', d.id), d.user_id,
    case a.severity when 'critical' then 20 when 'error' then 10 else 0 end,
    greatest(d.not_before, public.clock_now()), 6, 'delivery:' || d.id
from public.alert_deliveries as d
left join public.alerts as a on d.alert_id = a.id
where d.id = any (enqueue_deliveries.deliveries)
order by d.id
on conflict do nothing;
$$;


revoke all on function
public.quiet_end(timestamptz, text, time, time),
public.quiet_until(timestamptz, uuid, text),
public.not_wanted(public.alerts, text),
public.mail_suppressed(text, boolean),
public.targets_of(uuid),
public.write_alert(text, jsonb),
public.write_deliveries(public.alerts, text[]),
public.route_alert(text, jsonb, text[]),
public.enqueue_deliveries(uuid[])
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function public.route_alert(text, jsonb, text[]) to service_role;
