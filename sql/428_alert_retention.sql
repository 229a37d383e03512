-- What is forgotten of what people were told, and when.

-- Forgets alerts and digests after a year, with their deliveries; devices that were not registered anew for 270 days
-- (Firebase takes those for gone); and lanes that are free. Answers {"alerts", "digests", "alert_deliveries",
-- "alert_targets", "delivery_lanes"}.
-- Callers: prune, at most max_rows of each per call, and what hangs on them. What is locked is left for the next call.
create function public.forget_alerts(max_rows integer) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
set enable_bitmapscan = on -- prune does without; the index by age is read this way only
as $$
declare
    now_at constant timestamptz := public.clock_now();
    old_alerts constant uuid[] := array(
        select old.id from public.alerts as old
        where old.created_at < now_at - interval '1 year'
        limit forget_alerts.max_rows
        for update skip locked
    );
    old_digests constant uuid[] := array(
        select old.id from public.digests as old
        where old.created_at < now_at - interval '1 year'
        limit forget_alerts.max_rows
        for update skip locked
    );
    deliveries integer;
    devices integer;
    lanes integer;
begin
    -- Counted under the locks of what they hang on: none can come any more.
    deliveries := (
        select count(*) from public.alert_deliveries as d
        where d.alert_id = any (old_alerts)
    ) + (
        select count(*) from public.alert_deliveries as d
        where d.digest_id = any (old_digests)
    );

    delete from public.alerts as a
    where a.id = any (old_alerts);

    delete from public.digests as d
    where d.id = any (old_digests);

    delete from public.alert_targets as t
    where
        t.id = any (
            array(
                select old.id from public.alert_targets as old
                where old.channel = 'push' and old.last_seen_at < now_at - interval '270 days'
                limit forget_alerts.max_rows
                for update skip locked
            )
        );
    get diagnostics devices = row_count;

    delete from public.delivery_lanes as l
    where
        l.lane = any (
            array(
                select old.lane from public.delivery_lanes as old
                where
                    greatest(old.held_until, old.busy_until, old.turn_at, '-infinity') < now_at - interval '1 day'
                limit forget_alerts.max_rows
                for update skip locked
            )
        );
    get diagnostics lanes = row_count;

    return jsonb_build_object(
        'alerts', cardinality(old_alerts),
        'digests', cardinality(old_digests),
        'alert_deliveries', deliveries,
        'alert_targets', devices,
        'delivery_lanes', lanes
    );
end
$$;


-- How many rows forget_alerts would delete, counted up to so many of each. Callers: count_prunable.
create function public.forgettable_alerts(most integer) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
    'alerts', (
        select count(*) from (
            select from public.alerts as old
            where old.created_at < public.clock_now() - interval '1 year'
            limit forgettable_alerts.most
        ) as counted
    ),
    'digests', (
        select count(*) from (
            select from public.digests as old
            where old.created_at < public.clock_now() - interval '1 year'
            limit forgettable_alerts.most
        ) as counted
    ),
    'alert_deliveries', (
        select count(*) from (
            select from public.alert_deliveries as d
            inner join public.alerts as old on d.alert_id = old.id
            where old.created_at < public.clock_now() - interval '1 year'
            union all
            select from public.alert_deliveries as d
            inner join public.digests as old on d.digest_id = old.id
            where old.created_at < public.clock_now() - interval '1 year'
            limit forgettable_alerts.most
        ) as counted
    ),
    'alert_targets', (
        select count(*) from (
            select from public.alert_targets as old
            where old.channel = 'push' and old.last_seen_at < public.clock_now() - interval '270 days'
            limit forgettable_alerts.most
        ) as counted
    ),
    'delivery_lanes', (
        select count(*) from (
            select from public.delivery_lanes as old
            where
                greatest(old.held_until, old.busy_until, old.turn_at, '-infinity')
                < public.clock_now() - interval '1 day'
            limit forgettable_alerts.most
        ) as counted
    )
);
$$;

revoke all on function
public.forget_alerts(integer),
public.forgettable_alerts(integer)
from public, anon, authenticated, service_role, pulse_worker;
