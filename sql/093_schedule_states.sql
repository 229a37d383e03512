-- How schedules stand: last and next runs, and for each that brings no jobs the reason.

-- How one schedule stands, as schedule_states tells it.
-- Callers: schedule_states, and the functions that change one.
create function public.schedule_state(name text) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    s public.schedules;
    code public.schedules;
    job record;
    problem text;
begin
    select k.* into s from public.schedules as k where k.name = schedule_state.name;
    if s.name is null then
        raise exception using errcode = 'PT422', message = format('there is no schedule %s', schedule_state.name);
    end if;
    code := jsonb_populate_record(null::public.schedules, '{"overlap": "allow"}' || s.declared);
    select j.id, j.status, j.run_at, j.finished_at, j.attempt into job from public.jobs as j where j.id = s.last_job_id;
    problem := case
        when s.paused then null
        when s.origin = 'code' and s.declared_at <= now_at - interval '1 day' then format(
            'no process has declared it since %s: it has no more slots. Start one that has its code, or delete the row',
            to_char(s.declared_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
        )
        when s.problem is not null then s.problem
        when s.settled_to > now_at + interval '1 minute' then format(
            'its slots are settled up to %s: the clock of the database was set back; resume_schedule begins anew',
            to_char(s.settled_to at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
        )
        when coalesce(s.next_slot, s.updated_at) < now_at - interval '1 minute'
            then 'it stands still: no scheduler has looked for a minute; is a `pulse worker` running?'
        when exists (select from public.workers as w where w.seen_at > now_at - interval '1 minute') and not exists (
            select from public.workers as w
            where w.seen_at > now_at - interval '1 minute' and w.types -> s.queue ? s.type
        ) then format('no running worker has a handler %s of the queue %s', s.type, s.queue)
        when job.status = 'failed' then format('its last job %s failed', job.id)
        when job.status = 'pending' and job.attempt = 0 and job.run_at < now_at - interval '5 minutes'
            then format(
                'its last job %s has been due for %s, and nobody runs it', job.id, date_trunc('second', now_at - job.run_at)
            )
    end;
    return jsonb_build_object(
        'name', s.name, 'origin', s.origin, 'queue', s.queue, 'type', s.type, 'cron', s.cron,
        'every_seconds', s.every_seconds, 'timezone', s.timezone, 'missed', s.missed, 'overlap', s.overlap,
        'paused', s.paused,
        'changed', s.declared is not null and (
            s.queue, s.type, s.data, s.slot_as, s.cron, s.every_seconds, s.timezone, s.missed, s.overlap
        ) is distinct from (
            code.queue, code.type, code.data, code.slot_as, code.cron, code.every_seconds, code.timezone, code.missed,
            code.overlap
        ),
        'last_slot', s.last_slot, 'next_slot', case when not s.paused then s.next_slot end, 'left_out', s.left_out,
        'last_job', case when job.id is not null then jsonb_build_object(
            'id', job.id, 'status', job.status, 'run_at', job.run_at, 'finished_at', job.finished_at
        ) end,
        'problem', problem
    );
end
$$;


-- How the schedules stand: [{"name", "origin", "queue", "type", "cron", "every_seconds", "timezone", "missed",
-- "overlap", "paused", "changed" (an operator changed what code declares), "last_slot", "next_slot", "left_out",
-- "last_job": {"id", "status", "run_at", "finished_at"} or null, "problem": a sentence or null}, …], by name.
-- Callers: people, over RPC. No data of jobs is in it.
create function public.schedule_states() returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
select coalesce(jsonb_agg(public.schedule_state(s.name) order by s.name), '[]') from public.schedules as s;
$$;


revoke all on function
public.schedule_states(),
public.schedule_state(text)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function public.schedule_states() to service_role;
