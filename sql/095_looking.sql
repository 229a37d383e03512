-- What an operator looks at: lists of jobs and of dead letters, and one job with its history.
--
-- All of it is bounded, whatever the tables hold: a list looks at so many rows at most and says where it stopped, so
-- that the caller goes on there. Nothing here waits, locks or changes anything, and what a job carries is told only
-- where a caller asks for it.
--
-- The settings: ids grow with time, so all lists walk down a primary key, newest first, and no index serves them
-- alone. Planned while a table is empty, a walk may become a sort of the whole table; with all other ways off there
-- is only the index.

-- The jobs with these ids, newest first: what stands in their rows, without what they carry. Of their progress only
-- the numbers: the note is for the user whose job it is.
-- Callers: the functions of this file.
create function public.tell_jobs(ids bigint[]) returns json
language sql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
as $$
select coalesce(
    json_agg(
        json_build_object(
            'id', j.id,
            'queue', j.queue,
            'type', j.type,
            'status', j.status,
            'user_id', j.user_id,
            'priority', j.priority,
            'run_at', j.run_at,
            'attempt', j.attempt,
            'counted', j.attempt - j.uncounted,
            'max_attempts', j.max_attempts,
            'worker_id', j.worker_id,
            'lease_expires_at', j.lease_expires_at,
            'cancel_requested', j.cancel_requested,
            'progress', j.progress - 'note',
            'last_outcome', j.last_outcome,
            'last_error', j.last_error,
            'woken_by', j.woken_by,
            'created_at', j.created_at,
            'updated_at', j.updated_at,
            'finished_at', j.finished_at
        ) order by j.id desc
    ), '[]'
)
from public.jobs as j
where j.id = any (tell_jobs.ids);
$$;


-- The ids of running jobs, the longest ones first, at most so many.
-- Callers: list_jobs. They are few, and only the index of leases knows where they are.
create function public.running_jobs(queue text, max_jobs integer) returns bigint[]
language sql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
set enable_indexscan = off
set enable_bitmapscan = on
as $$
select array(
    select j.id
    from public.jobs as j
    where
        j.status = 'running'
        and j.lease_expires_at > '-infinity'
        and (running_jobs.queue is null or j.queue = running_jobs.queue)
    order by j.id desc
    limit running_jobs.max_jobs
);
$$;


-- The next so many jobs below an id, newest first, as a list reads them: of one queue, or of all.
-- Callers: list_jobs. Failed jobs are few among many, and each has a dead letter by which it is found.
create function public.jobs_below(id bigint, queue text, status text, max_jobs integer)
returns table (job_id bigint, job_queue text, job_type text, job_status text, job_user uuid, made_at timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
begin
    if jobs_below.status = 'failed' then
        return query
        select f.job_id, j.queue, j.type, j.status, j.user_id, coalesce(j.created_at, f.failed_at)
        from (
            select dead.job_id, dead.failed_at from public.failed_jobs as dead
            where dead.job_id < jobs_below.id
            order by dead.job_id desc
            limit jobs_below.max_jobs
        ) as f
        left join lateral (select * from public.jobs as own where own.id = f.job_id limit 1) as j on true;
    elsif jobs_below.queue is null then
        return query
        select j.id, j.queue, j.type, j.status, j.user_id, j.created_at
        from public.jobs as j
        where j.id < jobs_below.id
        order by j.id desc
        limit jobs_below.max_jobs;
    else
        -- In words of its own, so that one partition is walked and not all.
        return query
        select j.id, j.queue, j.type, j.status, j.user_id, j.created_at
        from public.jobs as j
        where j.queue = jobs_below.queue and j.id < jobs_below.id
        order by j.id desc
        limit jobs_below.max_jobs;
    end if;
end
$$;


-- Looks through jobs, newest first, and answers {"now", "jobs": […], "before"}: those that match, and the id below
-- which to look on, null when there is nothing more.
-- Callers: `pulse jobs` and its like, over RPC. A page may hold less than max_jobs, or nothing, and still have a
-- "before": no call looks at more than 20,000 rows. Running jobs and jobs named by id are all looked at at once.
create function public.list_jobs(
    queue text default null,
    type text default null,
    status text default null,
    user_id uuid default null,
    within_seconds double precision default null,
    ids bigint[] default null,
    before bigint default null,
    max_jobs integer default 20
) returns json
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
as $$
declare
    now_at constant timestamptz := public.clock_now();
    since constant timestamptz := now_at - make_interval(secs => list_jobs.within_seconds);
    below bigint := coalesce(list_jobs.before, 9223372036854775807);
    few constant bigint[] := case
        when list_jobs.ids is not null then list_jobs.ids
        when list_jobs.status = 'running' then public.running_jobs(list_jobs.queue, 10000)
    end;
    step integer := list_jobs.max_jobs;
    looked integer := 0;
    found bigint[] := '{}';
    seen record;
begin
    if (list_jobs.max_jobs between 1 and 1000) is not true then
        raise exception using errcode = 'invalid_parameter_value', message = 'max_jobs must be from 1 to 1000';
    end if;

    loop
        select
            count(*) as rows, min(s.job_id) as lowest, max(s.made_at) as newest,
            array_agg(distinct s.job_id order by s.job_id desc) filter (
                where (list_jobs.queue is null or s.job_queue = list_jobs.queue)
                and (list_jobs.type is null or s.job_type = list_jobs.type)
                and (list_jobs.status is null or s.job_status = list_jobs.status)
                and (list_jobs.user_id is null or s.job_user = list_jobs.user_id)
                and (since is null or s.made_at >= since)
            ) as matching
        into seen
        from (
            select b.* from public.jobs_below(below, list_jobs.queue, list_jobs.status, step) as b where few is null
            union all
            select j.id, j.queue, j.type, j.status, j.user_id, j.created_at
            from public.jobs as j
            where j.id = any (few) and j.id < below
        ) as s;

        found := found || coalesce(seen.matching, '{}');
        looked := looked + seen.rows;
        below := seen.lowest;
        -- A thousand rows that are all too old: what follows is older.
        exit when cardinality(found) >= list_jobs.max_jobs
            or looked >= 20000
            or few is not null or seen.rows < step
            or step >= 1000 and seen.newest < since;
        step := least(greatest(step, 1000), 20000 - looked);
    end loop;

    if cardinality(found) > list_jobs.max_jobs then
        below := found[list_jobs.max_jobs];
    elsif few is not null or seen.rows < step or step >= 1000 and seen.newest < since then
        below := null;
    end if;
    return json_build_object(
        'now', now_at, 'jobs', public.tell_jobs(found[:list_jobs.max_jobs]), 'before', below
    );
end
$$;


-- Looks through the dead letters that a replay would take, newest first, and answers {"now", "dead_letters": […],
-- "before"}, as list_jobs does: not replayed yet, and their job has not moved on since.
-- Callers: `pulse retry`, over RPC. No call looks at more than 5,000 rows.
create function public.list_dead_letters(
    queue text default null,
    type text default null,
    error_class text default null,
    user_id uuid default null,
    within_seconds double precision default null,
    job_ids bigint[] default null,
    before bigint default null,
    max_letters integer default 100
) returns json
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    most_rows constant integer := 5000;
    now_at constant timestamptz := public.clock_now();
    since constant timestamptz := now_at - make_interval(secs => list_dead_letters.within_seconds);
    below constant bigint := coalesce(list_dead_letters.before, 9223372036854775807);
    found json[];
    last_id bigint;
begin
    if (list_dead_letters.max_letters between 1 and 1000) is not true then
        raise exception using errcode = 'invalid_parameter_value', message = 'max_letters must be from 1 to 1000';
    end if;

    found := array(
        select
            json_build_object(
                'id', f.id, 'job_id', f.job_id, 'queue', f.job_type, 'type', j.type, 'attempts', f.attempts,
                'error_class', f.error_class, 'error_message', f.error_message, 'user_id', f.user_id,
                'failed_at', f.failed_at
            )
        from (
            (
                select dead.* from public.failed_jobs as dead
                where list_dead_letters.job_ids is null and dead.id < below
                order by dead.id desc
                limit most_rows
            )
            union all
            select dead.* from public.failed_jobs as dead
            where dead.job_id = any (list_dead_letters.job_ids) and dead.id < below
        ) as f
        -- The type is asked of the job: what the letter carries may be large. A look-up with a limit stays one.
        cross join lateral (
            select own.type from public.jobs as own
            where own.id = f.job_id and own.status = 'failed' and own.attempt = f.attempt
            limit 1
        ) as j
        where
            f.replayed_at is null
            and (list_dead_letters.queue is null or f.job_type = list_dead_letters.queue)
            and (list_dead_letters.type is null or j.type = list_dead_letters.type)
            and (list_dead_letters.error_class is null or f.error_class = list_dead_letters.error_class)
            and (list_dead_letters.user_id is null or f.user_id = list_dead_letters.user_id)
            and (since is null or f.failed_at >= since)
        limit list_dead_letters.max_letters
    );

    last_id := (found[list_dead_letters.max_letters] ->> 'id')::bigint;
    if last_id is null and list_dead_letters.job_ids is null then
        select dead.id into last_id
        from (
            select d.id, d.failed_at from public.failed_jobs as d
            where d.id < below
            order by d.id desc
            offset most_rows - 1
            limit 1
        ) as dead
        where since is null or dead.failed_at >= since - interval '1 hour';
    end if;
    return json_build_object(
        'now', now_at, 'dead_letters', coalesce(array_to_json(found), '[]'), 'before', last_id
    );
end
$$;


-- One job with what is kept beside it: {"now", "job", "dead_letters": […], "stale_outcomes": […]}. The job is null
-- when there is none of that id (any more); what is kept beside it may have outlived it.
-- Callers: `pulse show`, over RPC. What the job carries, its result and its idempotency key are told only with_data.
create function public.job_history(job_id bigint, with_data boolean default false) returns json
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
as $$
declare
    carried json;
begin
    if job_history.with_data then
        select
            json_build_object('data', j.data, 'result', j.result, 'idempotency_key', j.idempotency_key)
        into carried
        from public.jobs as j
        where j.id = job_history.job_id;
    end if;
    return json_build_object(
        'now', public.clock_now(),
        'job', public.tell_jobs(array[job_history.job_id]) -> 0,
        'carried', carried,
        'dead_letters', (
            select coalesce(json_agg(to_json(f) order by f.id), '[]')
            from (
                select d.id, d.attempts, d.attempt, d.error_class, d.error_message, d.error_stack, d.failed_at,
                    d.replayed_at
                from public.failed_jobs as d
                where d.job_id = job_history.job_id
                order by d.attempt desc
                limit 50
            ) as f
        ),
        'stale_outcomes', (
            select coalesce(json_agg(to_json(s) order by s.told_at), '[]')
            from (
                select o.attempt, o.kind, o.job_attempt, o.job_status, o.told_at
                from public.stale_outcomes as o
                where o.job_id = job_history.job_id
                order by o.attempt desc
                limit 50
            ) as s
        )
    );
end
$$;

revoke all on function
public.tell_jobs(bigint[]),
public.running_jobs(text, integer),
public.jobs_below(bigint, text, text, integer),
public.list_jobs(text, text, text, uuid, double precision, bigint[], bigint, integer),
public.list_dead_letters(text, text, text, uuid, double precision, bigint[], bigint, integer),
public.job_history(bigint, boolean)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.tell_jobs(bigint[]),
public.running_jobs(text, integer),
public.jobs_below(bigint, text, text, integer),
public.list_jobs(text, text, text, uuid, double precision, bigint[], bigint, integer),
public.list_dead_letters(text, text, text, uuid, double precision, bigint[], bigint, integer),
public.job_history(bigint, boolean)
to service_role;
