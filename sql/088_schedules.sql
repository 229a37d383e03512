-- Schedules: jobs that come by the clock, and what operators do with them.
--
-- A row is a schedule, wherever it comes from: declared in code (`@every`, `@cron`) or written here by hand. Its rule
-- names moments, the slots; for each slot that has come one job is inserted, whatever the number of processes. Which
-- moments those are is reckoned by `listener/timetable.py`, and 092_slots.sql turns them into jobs. A row remembers
-- how far its slots are settled, so that nothing depends on jobs, which are forgotten after a while.

create table public.schedules (
    name text primary key,
    -- What is inserted.
    queue text not null,
    type text not null,
    data jsonb not null default '{}',
    slot_as text,                                               -- the key of data that tells a job its slot; null: none
    -- When: one of the first two.
    cron text,
    every_seconds integer,                                      -- the multiples since 1970 in UTC
    timezone text not null default 'UTC',                       -- whose clock `cron` speaks of
    missed text not null default 'once',                        -- what becomes of slots that nobody was there for
    overlap text not null default 'allow',                      -- what becomes of a slot whose last job is not done
    paused boolean not null default false,
    -- Kept by the functions only.
    origin text not null default 'table',
    declared jsonb,                                             -- what code said last; null: it never did
    declared_at timestamptz,
    edition integer not null default 1,                         -- grows with each change of the above: the fence
    settled_to timestamptz not null default public.clock_now(), -- slots up to here were run, or left out
    next_slot timestamptz,                                      -- null: not reckoned yet
    last_slot timestamptz,                                      -- the last that was run
    last_job_id bigint,
    left_out bigint not null default 0,                         -- slots that got no job, by `missed` or `overlap`
    problem text,                                               -- why its slots do not become jobs
    refusals integer not null default 0,
    retry_at timestamptz,                                       -- nobody tries before
    created_at timestamptz not null default public.clock_now(),
    updated_at timestamptz not null default public.clock_now(),
    constraint "name must be 1 to 100 letters, digits and . _ : -"
    check (name ~ '^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$'),
    constraint "type must be a lower-case word, for example sync_positions"
    check (type ~ '^[a-z][a-z0-9_]{0,99}$'),
    constraint "data must be a JSON object, for example {}"
    check (jsonb_typeof(data) = 'object'),
    constraint "slot_as must be a key of data, 1 to 100 characters"
    check (length(slot_as) between 1 and 100),
    constraint "say either cron or every_seconds"
    check (num_nonnulls(cron, every_seconds) = 1),
    constraint "every_seconds must be from 1 to 31622400, a year"
    check (every_seconds between 1 and 31622400),
    constraint "every_seconds has no timezone: its slots are in UTC"
    check (every_seconds is null or timezone = 'UTC'),
    constraint "missed is skip, once or all"
    check (missed in ('skip', 'once', 'all')),
    constraint "overlap is allow or skip"
    check (overlap in ('allow', 'skip')),
    constraint "origin is code or table"
    check (origin in ('code', 'table'))
) with (fillfactor = 50);

alter table public.schedules enable row level security;
revoke all on public.schedules from public, anon, authenticated, service_role, pulse_worker;
grant select, delete on public.schedules to service_role;
grant insert (name, queue, type, data, slot_as, cron, every_seconds, timezone, missed, overlap, paused)
on public.schedules to service_role;
grant update (queue, type, data, slot_as, cron, every_seconds, timezone, missed, overlap, paused)
on public.schedules to service_role;


-- What is wrong with a cron expression, as words; null: nothing that can be seen here. A date that never comes, such as
-- the 31st of February, is found when its slots are reckoned.
-- Callers: check_schedule.
create function public.cron_problem(cron text) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    fields constant text[] := array['minute', 'hour', 'day of the month', 'month', 'day of the week'];
    lows constant integer[] := array[0, 0, 1, 1, 0];
    highs constant integer[] := array[59, 23, 31, 12, 7];
    names constant text[] := array[
        '', '', '', 'jan feb mar apr may jun jul aug sep oct nov dec', 'sun mon tue wed thu fri sat'
    ];
    words constant text[] := regexp_split_to_array(lower(btrim(cron_problem.cron, E' \t')), '[ \t]+');
    part text;
    found text[];
    name record;
begin
    if cron_problem.cron is null then
        return null;
    end if;
    if cardinality(words) <> 5 then
        return 'cron has five fields: minute, hour, day of the month, month, day of the week';
    end if;
    for n in 1..5 loop
        foreach part in array string_to_array(words[n], ',') loop
            continue when n = 3 and part in ('l', 'lw') or n = 5 and part ~ '^[0-7]l$';
            for name in
                select w.word, w.place - 1 + lows[n] as number
                from unnest(string_to_array(names[n], ' ')) with ordinality as w (word, place)
            loop
                part := regexp_replace(part, '\m' || name.word || '\M', name.number::text, 'g');
            end loop;
            continue when n = 5 and part ~ '^[0-7]#[1-5]$';
            found := regexp_match(part, '^(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/[1-9]\d{0,2})?$');
            if found is null
                or found[1]::integer < lows[n]
                or coalesce(found[2], found[1])::integer not between found[1]::integer and highs[n] then
                return format(
                    'the %s in cron is not understood: write *, */n, or numbers from %s to %s as a list or range',
                    fields[n], lows[n], highs[n]
                );
            end if;
        end loop;
    end loop;
    return null;
end
$$;


-- Refuses a schedule that cannot be meant, in a sentence that names it, and begins anew what was changed: slots of the
-- time before belong to the old rule, and those of a pause to nobody.
-- Callers: the table, at inserts and at updates of what operators write.
create function public.check_schedule() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    wrong text;
begin
    -- What was wrong before keeps nobody from pausing it.
    if tg_op = 'INSERT' or (new.queue, new.cron, new.timezone) is distinct from (old.queue, old.cron, old.timezone) then
        wrong := case
            when public.cron_problem(new.cron) is not null then public.cron_problem(new.cron)
            when not public.is_timezone(new.timezone) then 'timezone must be the name of one, such as Europe/Berlin'
            when new.queue !~ '^[a-z][a-z0-9_]{0,39}$' or new.queue = 'unknown_queue'
                or to_regclass(format('public.%I', 'jobs_' || new.queue)) is null
                then 'its queue does not exist: select create_queue(''name'') makes one'
        end;
        if wrong is not null then
            raise exception using errcode = 'PT422', message = format('schedule %s: %s', new.name, wrong);
        end if;
    end if;
    if tg_op = 'UPDATE' then
        if (new.cron, new.every_seconds, new.timezone) is distinct from (old.cron, old.every_seconds, old.timezone)
            or (old.paused and not new.paused) then
            new.settled_to := public.clock_now();
            new.next_slot := null;
        end if;
        new.edition := old.edition + 1;
        new.problem := null;
        new.refusals := 0;
        new.retry_at := null;
        new.updated_at := public.clock_now();
    end if;
    return new;
end
$$;

create trigger check_insert before insert on public.schedules
for each row execute function public.check_schedule();

create trigger check_update
before update of queue, type, data, slot_as, cron, every_seconds, timezone, missed, overlap, paused on public.schedules
for each row execute function public.check_schedule();


-- Holds a schedule: none of its slots becomes a job until it is resumed. What runs already goes on.
-- Callers: people, over RPC. Answers as schedule_states does, for this one. Safe to repeat.
create function public.pause_schedule(name text) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update public.schedules as s set paused = true where s.name = pause_schedule.name and not s.paused;
    return public.schedule_state(pause_schedule.name);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Lets a schedule go on with the first slot after now: those of the pause are not made up for. One whose slots are
-- settled into the future, since the clock of the database was set back, begins anew with now too.
-- Callers: people, over RPC. Answers as schedule_states does, for this one. Safe to repeat.
create function public.resume_schedule(name text) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update public.schedules as s
    set
        paused = false,
        settled_to = least(s.settled_to, public.clock_now()),
        next_slot = case when s.settled_to <= public.clock_now() then s.next_slot end
    where s.name = resume_schedule.name and (s.paused or s.problem is not null or s.settled_to > public.clock_now());
    return public.schedule_state(resume_schedule.name);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Inserts a job of a schedule now, besides its slots, paused or not. Answers {"job_id"}.
-- Callers: people, over RPC. Each call is a job, unless it carries a key that was used before.
create function public.run_schedule(name text, idempotency_key text default null) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    known public.schedules;
    job_id bigint;
begin
    select s.* into known from public.schedules as s where s.name = run_schedule.name for update;
    if known.name is null then
        raise exception using errcode = 'PT422', message = format('there is no schedule %s', run_schedule.name);
    end if;
    insert into public.jobs (queue, type, data, idempotency_key)
    values (
        known.queue, known.type, public.slot_data(known, date_trunc('second', public.clock_now())),
        run_schedule.idempotency_key
    )
    on conflict do nothing
    returning id into job_id;
    if job_id is null then
        select j.id into job_id from public.jobs as j
        where j.queue = known.queue and j.idempotency_key = run_schedule.idempotency_key;
    end if;
    update public.schedules as s set last_job_id = job_id where s.name = known.name;
    return jsonb_build_object('job_id', job_id);
exception
    when deadlock_detected or serialization_failure then
        raise exception using
            errcode = 'PT503',
            message = 'met another transaction: ' || sqlerrm,
            hint = 'Nothing was changed. Call again.';
    -- Said again without the failing row, which the server would write into its log.
    when integrity_constraint_violation then
        raise exception using errcode = sqlstate, message = sqlerrm;
end
$$;


revoke all on function
public.cron_problem(text),
public.check_schedule(),
public.pause_schedule(text),
public.resume_schedule(text),
public.run_schedule(text, text)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.cron_problem(text),
public.pause_schedule(text),
public.resume_schedule(text),
public.run_schedule(text, text)
to service_role;
