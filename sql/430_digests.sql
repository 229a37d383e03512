-- Digests: what happened in a period, told to a user once, when the local clock shows the time that the user chose.
--
-- A digest is a row before anybody is told. Its key is the local date on which it is due, so whatever the number of
-- schedulers and restarts, and whichever way clocks are set, there is one per date. Its window begins where that of the
-- digest before it ended, and ends at the moment it was due: what happened is in exactly one. After an outage there is
-- one digest of all the time since, not one for each day that was missed.

-- When a digest was due last: the local date, and the moment. A time that is left out, since clocks are set forward, is
-- as much later as they jump; of one that comes twice it is the second.
-- Callers: open_digest, sweep_digests.
create function public.digest_due(
    at timestamptz, timezone text, period text, digest_at time, digest_weekday integer
) returns table (period_key date, due_at timestamptz)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select day.key, moment.due_at
from generate_series(0, 7) as n (days)
cross join lateral (select (digest_due.at at time zone digest_due.timezone)::date - n.days as key) as day
cross join lateral (select (day.key + digest_due.digest_at) at time zone digest_due.timezone as due_at) as moment
where
    moment.due_at <= digest_due.at
    and (digest_due.period = 'daily' or extract(isodow from day.key) = digest_due.digest_weekday)
order by day.key desc
limit 1;
$$;


-- Makes the digest that was due last for a user, and the job that tells it; null when it is there already, or nothing
-- has been due since the one before. The first digest of a user covers one period.
-- Callers: sweep_digests. is_asked_for: a first digest is made although it was due long ago.
-- Guarantees: safe to repeat and to run at once; windows of one user and period neither overlap nor leave anything out.
create function public.open_digest(user_id uuid, period text, is_asked_for boolean) returns uuid
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    longest constant interval := interval '31 days';        -- of what was switched off for long, nobody asks
    likes public.notification_preferences;
    due record;
    before timestamptz;
    digest uuid;
begin
    if open_digest.period not in ('daily', 'weekly') then
        raise exception using errcode = 'PT422', message = 'period must be daily or weekly';
    end if;
    -- One at a time per user: the window of the next begins where this one ends.
    perform pg_advisory_xact_lock(hashtextextended('digest:' || open_digest.user_id || open_digest.period, 0));
    select p.* into likes from public.notification_preferences as p where p.user_id = open_digest.user_id;
    select d.* into due from public.digest_due(
        now_at, coalesce(likes.timezone, 'UTC'), open_digest.period,
        coalesce(likes.digest_at, '08:00'), coalesce(likes.digest_weekday, 1)
    ) as d;
    select max(d.window_end) into before from public.digests as d
    where d.user_id = open_digest.user_id and d.period = open_digest.period;
    if before >= due.due_at or before is null and not open_digest.is_asked_for and due.due_at < now_at - interval '1 hour' then
        return null;
    end if;

    insert into public.digests (user_id, period, period_key, window_start, window_end)
    values (
        open_digest.user_id, open_digest.period, due.period_key,
        greatest(
            coalesce(before, (
                select d.due_at from public.digest_due(
                    due.due_at - interval '1 microsecond', coalesce(likes.timezone, 'UTC'), open_digest.period,
                    coalesce(likes.digest_at, '08:00'), coalesce(likes.digest_weekday, 1)
                ) as d
            )),
            due.due_at - longest
        ),
        due.due_at
    )
    on conflict on constraint digests_user_id_period_period_key_key do nothing
    returning id into digest;
    if digest is not null then
        -- A minute later: what began before the window ended is written by then.
        insert into public.jobs (queue, type, data, user_id, run_at, idempotency_key)
        values (
            'alerts', 'aggregate', jsonb_build_object('digestId', digest), open_digest.user_id,
            greatest(due.due_at + interval '1 minute', now_at), 'digest:' || digest
        )
        on conflict do nothing;
    end if;
    return digest;
end
$$;


-- Makes digests that are due, or the one of this user: {"digests": how many, "more": whether some were left}. At most
-- 500 in one call: each holds a lock until its end, and most users want theirs at the same time of the day.
-- Callers: aggregate, over RPC, every quarter of an hour, and at once while there are more.
-- Guarantees: safe to repeat and to run at once.
create function public.sweep_digests(user_id uuid default null, period text default null) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    most constant integer := 500;
    wanted record;
    seen integer := 0;
    made integer := 0;
begin
    if sweep_digests.user_id is not null then
        made := (public.open_digest(sweep_digests.user_id, sweep_digests.period, true) is not null)::integer;
        return jsonb_build_object('digests', made, 'more', false);
    end if;
    for wanted in
        select p.user_id, t.period
        from public.notification_preferences as p
        cross join lateral (values ('daily', p.digest_daily), ('weekly', p.digest_weekly)) as t (period, is_on)
        cross join lateral public.digest_due(
            public.clock_now(), p.timezone, t.period, p.digest_at, p.digest_weekday
        ) as due
        where
            t.is_on
            and not exists (
                select from public.digests as d
                where
                    d.user_id = p.user_id and d.period = t.period
                    and (d.period_key = due.period_key or d.window_end >= due.due_at)
            )
            -- Of others open_digest makes none, and they would stand before those who are due.
            and (
                due.due_at >= public.clock_now() - interval '1 hour'
                or exists (
                    select from public.digests as d
                    where d.user_id = p.user_id and d.period = t.period
                )
            )
        order by p.user_id, t.period
        limit most
    loop
        seen := seen + 1;
        made := made + (public.open_digest(wanted.user_id, wanted.period, false) is not null)::integer;
    end loop;
    return jsonb_build_object('digests', made, 'more', seen = most);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- What a digest says, summed: {"period", "period_key", "window_start", "window_end", "reader", "severities": {severity:
-- count}, "groups": [{"alert_type", "severity", "title" of the newest, "count", "last_at"}, …] most severe first,
-- "chart": [{"starts_at" (local), "severities"}, …], "trades": [{"symbol", "side", "fills", "quantity", "value",
-- "commission"}, …], "orders": {status: count of those that ended}, "payments": [{"currency", "status", "count",
-- "amount"}, …]}. Quantities and money are text.
-- Callers: route_digest; and the channels' handlers, over RPC.
create function public.digest_facts(digest_id uuid) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    digest public.digests;
    likes public.notification_preferences;
    zone text;
    step interval;
begin
    select d.* into strict digest from public.digests as d where d.id = digest_facts.digest_id;
    select p.* into likes from public.notification_preferences as p where p.user_id = digest.user_id;
    zone := coalesce(likes.timezone, 'UTC');
    step := case when digest.window_end - digest.window_start > interval '2 days' then '1 day' else '3 hours' end;

    return jsonb_build_object(
        'period', digest.period,
        'period_key', digest.period_key,
        'window_start', digest.window_start,
        'window_end', digest.window_end,
        'reader', jsonb_build_object('locale', coalesce(likes.locale, 'en_US'), 'timezone', zone),
        'severities', public.count_severities(digest.user_id, digest.window_start, digest.window_end),
        'groups', (
            select coalesce(jsonb_agg(to_jsonb(g) - 'rank' order by g.rank desc, g.count desc, g.last_at desc), '[]')
            from (
                select
                    a.alert_type, a.severity, public.severity_rank(a.severity) as rank, count(*) as count,
                    max(a.created_at) as last_at, (array_agg(a.title order by a.created_at desc))[1] as title
                from public.alerts as a
                where
                    a.user_id = digest.user_id
                    and a.created_at >= digest.window_start and a.created_at < digest.window_end
                group by a.alert_type, a.severity
                order by 3 desc, 4 desc, 5 desc
                limit 20
            ) as g
        ),
        'chart', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'starts_at', b.starts_at,
                'severities', public.count_severities(
                    digest.user_id,
                    greatest(b.starts_at at time zone zone, digest.window_start),
                    least((b.starts_at + step) at time zone zone, digest.window_end)
                )
            ) order by b.starts_at), '[]')      -- on the night when clocks are set back, a window may have no bar
            from generate_series(
                date_bin(step, digest.window_start at time zone zone, timestamp '2000-01-01'),
                digest.window_end at time zone zone - interval '1 microsecond', step
            ) as b (starts_at)
        ),
        'trades', (
            select coalesce(jsonb_agg(to_jsonb(t) order by t.symbol, t.side), '[]')
            from (
                select
                    o.symbol, o.side, count(*) as fills,
                    trim_scale(sum(f.quantity))::text as quantity,
                    trim_scale(sum(f.quantity * f.price))::text as value,
                    trim_scale(sum(coalesce(f.commission, 0)))::text as commission
                from public.order_fills as f
                inner join public.orders as o on f.order_id = o.id
                where
                    o.user_id = digest.user_id
                    and f.filled_at >= digest.window_start and f.filled_at < digest.window_end
                group by o.symbol, o.side
            ) as t
        ),
        'orders', (
            select coalesce(jsonb_object_agg(e.status, e.count), '{}')
            from (
                select o.status, count(*) as count from public.orders as o
                where
                    o.user_id = digest.user_id
                    and o.ended_at >= digest.window_start and o.ended_at < digest.window_end
                group by o.status
            ) as e
        ),
        'payments', (
            select coalesce(jsonb_agg(to_jsonb(m) order by m.currency), '[]')
            from (
                select
                    p.currency, count(*) as count, trim_scale(sum(p.amount))::text as amount
                from public.payments as p
                where
                    p.user_id = digest.user_id and p.status = 'succeeded'
                    and p.paid_at >= digest.window_start and p.paid_at < digest.window_end
                group by p.currency
            ) as m
        )
    );
end
$$;


-- How many alerts of each severity a user had between two moments. Callers: digest_facts.
create function public.count_severities(user_id uuid, since timestamptz, until timestamptz) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select coalesce(jsonb_object_agg(c.severity, c.count), '{}')
from (
    select a.severity, count(*) as count from public.alerts as a
    where
        a.user_id = count_severities.user_id
        and a.created_at >= count_severities.since and a.created_at < count_severities.until
    group by a.severity
) as c;
$$;


-- Sends a digest on its way: a delivery and a job per target of the channels that the user chose; or, when there is
-- nothing to say, nothing. Answers {"status": sent | empty, "deliveries", "suppressed"}.
-- Callers: aggregate, over RPC.
-- Guarantees: safe to repeat; each target is told once.
create function public.route_digest(digest_id uuid) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    digest public.digests;
    facts jsonb;
    answer jsonb;
begin
    select d.* into digest from public.digests as d where d.id = route_digest.digest_id for update;
    if digest.id is null then
        return '{"status": "gone", "deliveries": 0, "suppressed": 0}';
    end if;
    if digest.status = 'due' then
        facts := public.digest_facts(digest.id);
        update public.digests as d
        set
            status = case
                when facts -> 'groups' = '[]' and facts -> 'trades' = '[]' and facts -> 'payments' = '[]'
                    and facts -> 'orders' = '{}' then 'empty'
                else 'sent'
            end,
            sent_at = public.clock_now()
        where d.id = digest.id
        returning d.* into digest;
        if digest.status = 'sent' then
            insert into public.alert_deliveries (digest_id, user_id, channel, target_id, address, status, reason)
            select
                digest.id, digest.user_id, t.channel, t.target_id, t.address,
                case when why.reason is null then 'pending' else 'suppressed' end, why.reason
            from public.targets_of(digest.user_id) as t
            cross join lateral (
                select case when t.channel = 'email' then public.mail_suppressed(t.address, true) end as reason
            ) as why
            where t.channel = any (coalesce((
                select p.digest_channels from public.notification_preferences as p
                where p.user_id = digest.user_id
            ), '{email}'))
            order by t.channel, t.target_id
            on conflict do nothing;
            perform public.enqueue_deliveries(array(
                select d.id from public.alert_deliveries as d
                where d.digest_id = digest.id and d.status = 'pending'
                order by d.id
            ));
        end if;
    end if;
    select jsonb_build_object(
        'status', digest.status,
        'deliveries', count(*) filter (where d.status <> 'suppressed'),
        'suppressed', count(*) filter (where d.status = 'suppressed')
    ) into answer
    from public.alert_deliveries as d where d.digest_id = digest.id;
    return answer;
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


revoke all on function
public.digest_due(timestamptz, text, text, time, integer),
public.open_digest(uuid, text, boolean),
public.sweep_digests(uuid, text),
public.digest_facts(uuid),
public.count_severities(uuid, timestamptz, timestamptz),
public.route_digest(uuid)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.sweep_digests(uuid, text),
public.digest_facts(uuid),
public.route_digest(uuid)
to service_role;
