-- What is forgotten of what people were told, and when.

-- Forgets alerts and digests after a year, with their deliveries; devices that were not registered anew for 270 days
-- (Firebase takes those for gone); and lanes that are free. Deliveries that nobody will end are ended. Answers how
-- many, of the kind that had more.
-- Callers: prune, at most max_rows of each per call. What is locked is left for the next call.
create function public.forget_alerts(max_rows integer) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    alerts integer;
    digests integer;
    devices integer;
    lanes integer;
    deliveries constant integer := public.explain_open_deliveries(forget_alerts.max_rows);
begin
    delete from public.alerts as a
    where
        a.id = any (
            array(
                select old.id from public.alerts as old
                where old.created_at < now_at - interval '1 year'
                limit forget_alerts.max_rows
                for update skip locked
            )
        );
    get diagnostics alerts = row_count;

    delete from public.digests as d
    where
        d.id = any (
            array(
                select old.id from public.digests as old
                where old.created_at < now_at - interval '1 year'
                limit forget_alerts.max_rows
                for update skip locked
            )
        );
    get diagnostics digests = row_count;

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
    return greatest(alerts, digests, devices, lanes, deliveries);
end
$$;

revoke all on function public.forget_alerts(integer) from public, anon, authenticated, service_role, pulse_worker;
