-- Which processes run jobs, as they themselves say: for people who look, never for the queue.
--
-- Each process tells every 15 s how it is, and once more when it begins to end. Nothing that a claim, a sweep or
-- a lease does depends on it: a process that says nothing works as well, and one that says nonsense harms only
-- what people read here. Ages travel and not times, so a process whose clock is wrong is not told wrongly, and
-- how wrong its clock is can be told too.

create table public.workers (
    worker_id text primary key check (length(worker_id) between 1 and 200),
    host text not null,
    version text not null,
    queues text[] not null,
    types jsonb not null,                       -- {queue: [type, …]}: what it has handlers for
    places integer not null,                    -- how many jobs of each queue it runs at once
    running integer not null,                   -- how many it runs now, over all its queues
    hearing boolean not null,                   -- whether Realtime announces inserts to it
    deaf_since timestamptz,                     -- null while it hears
    problems jsonb not null,                    -- why it is not ready, a sentence each
    clock_off_seconds double precision,         -- how far its clock is ahead of the database's
    started_at timestamptz not null,
    seen_at timestamptz not null,
    leaves_at timestamptz,                      -- set by its last word: it claims nothing more, and is gone by then
    check (jsonb_typeof(types) = 'object' and jsonb_typeof(problems) = 'array')
) with (fillfactor = 50);

alter table public.workers enable row level security;
revoke all on public.workers from public, anon, authenticated, service_role, pulse_worker;
grant select on public.workers to service_role;


-- Notes what a process says of itself, and forgets those that have said nothing for a day.
-- worker = {worker_id, host, version, queues, types, places, running, deaf_seconds (null: it hears), problems,
-- up_seconds, clock (its own time), leaves_in_seconds (null: it stays)}.
-- Callers: worker processes, over RPC. Answers {}. Guarantees: never waits for a row that somebody forgets.
create function public.tell_worker(worker jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
begin
    if octet_length(tell_worker.worker::text) > 100000 then
        raise exception using errcode = 'invalid_parameter_value', message = 'worker must be at most 100 kB as JSON text';
    end if;

    insert into public.workers as w (
        worker_id, host, version, queues, types, places, running, hearing, deaf_since, problems, clock_off_seconds,
        started_at, seen_at, leaves_at
    )
    select
        o.worker_id, o.host, o.version, o.queues, o.types, o.places, o.running, o.deaf_seconds is null,
        now_at - make_interval(secs => o.deaf_seconds), o.problems, extract(epoch from o.clock - now_at),
        now_at - make_interval(secs => o.up_seconds), now_at, now_at + make_interval(secs => o.leaves_in_seconds)
    from jsonb_to_record(tell_worker.worker) as o (
        worker_id text, host text, version text, queues text[], types jsonb, places integer, running integer,
        deaf_seconds double precision, problems jsonb, up_seconds double precision, clock timestamptz,
        leaves_in_seconds double precision
    )
    on conflict (worker_id) do update set
        running = excluded.running, hearing = excluded.hearing, deaf_since = excluded.deaf_since,
        problems = excluded.problems, clock_off_seconds = excluded.clock_off_seconds, seen_at = excluded.seen_at,
        leaves_at = excluded.leaves_at;

    delete from public.workers as w
    where
        w.worker_id = any (
            array(
                select old.worker_id from public.workers as old
                where old.seen_at < now_at - interval '1 day'
                for update skip locked
            )
        );
    return '{}';
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;

revoke all on function public.tell_worker(jsonb) from public, anon, authenticated, service_role, pulse_worker;
grant execute on function public.tell_worker(jsonb) to service_role, pulse_worker;
