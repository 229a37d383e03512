-- What is forgotten, and when; and the canary, whose rows are forgotten soonest.

-- Reads the next thousand jobs behind an id: up to which id it has read (null: there were none), since when the oldest
-- of them exists, and which of them ended long ago: completed and canceled ones before completed_before, failed ones
-- before failed_before.
-- Callers: prune, count_prunable. No index serves them alone: ids grow with time, so they walk up the primary key
-- and end at the first thousand jobs that are too young to have ended before the limit.
create function public.next_old_jobs(
    behind bigint, completed_before timestamptz, failed_before timestamptz,
    out done_to bigint, out oldest timestamptz, out ended bigint[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
set enable_indexscan = on
set enable_bitmapscan = off
set enable_sort = off
as $$
begin
    select
        max(head.id), min(head.created_at),
        array_agg(head.id) filter (
            where head.finished_at < next_old_jobs.completed_before and head.status in ('completed', 'cancelled')
            or head.finished_at < next_old_jobs.failed_before and head.status = 'failed'
        )
    into next_old_jobs.done_to, next_old_jobs.oldest, next_old_jobs.ended
    from (
        select j.id, j.status, j.created_at, j.finished_at
        from public.jobs as j
        where j.id > next_old_jobs.behind
        order by j.id
        limit 1000
    ) as head;
end
$$;


-- How many dead letters and stale outcomes are older than a moment, counted among the first `most` of each, and which
-- of the two may be more.
-- Callers: count_prunable. Dead letters are numbered in their order, stale outcomes in that of their jobs.
create function public.old_letters(
    failed_before timestamptz, most integer, out counted jsonb, out at_least jsonb
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
set enable_indexscan = on
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
    letters integer;
    outcomes integer;
    looked integer;
begin
    select count(*) into letters
    from (
        select f.failed_at from public.failed_jobs as f
        order by f.id
        limit old_letters.most
    ) as head
    where head.failed_at < old_letters.failed_before;

    select count(*) filter (where head.told_at < old_letters.failed_before), count(*) into outcomes, looked
    from (
        select s.told_at from public.stale_outcomes as s
        order by s.job_id
        limit old_letters.most
    ) as head;

    old_letters.counted := jsonb_build_object('failed_jobs', letters, 'stale_outcomes', outcomes);
    old_letters.at_least := case when looked = old_letters.most then '["stale_outcomes"]' else '[]' end;
end
$$;


-- Deletes what ended long ago and answers how many rows of which table, {"jobs", "failed_jobs", …, "more"}: each table
-- that it may delete from is named.
-- Callers: the maintenance queue, over RPC, again while "more" is true. count_prunable tells before what would go.
-- Completed and cancelled jobs go after completed_days; failed jobs, their dead letters and stale outcomes
-- after failed_days; jobs that have not ended, never. What the families forget goes by their own rules. At most
-- max_jobs of each per call, and what hangs on them.
-- Guarantees: never waits, what is locked is left for the next call.
create function public.prune(
    completed_days double precision default 7, failed_days double precision default 90, max_jobs integer default 5000
) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
set enable_indexscan = on
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
    now_at constant timestamptz := public.clock_now();
    completed_before constant timestamptz := now_at - make_interval(secs => 86400 * prune.completed_days);
    failed_before constant timestamptz := now_at - make_interval(secs => 86400 * prune.failed_days);
    head record;
    jobs integer := 0;
    failed_jobs integer;
    stale_outcomes integer;
    explained integer;
    gone jsonb;
begin
    if (prune.max_jobs >= 1) is not true then
        raise exception using errcode = 'invalid_parameter_value', message = 'max_jobs must be 1 or more';
    end if;

    head := public.next_old_jobs(0, completed_before, failed_before);
    loop
        with gone as (
            delete from public.jobs as j
            where
                j.id = any (
                    array(
                        select locked.id from public.jobs as locked
                        where locked.id = any (head.ended[1:prune.max_jobs - jobs]) and locked.finished_at is not null
                        for update skip locked
                    )
                )
            returning j.id
        )

        select jobs + count(*) into jobs from gone;

        exit when head.done_to is null
            or head.oldest > greatest(completed_before, failed_before)
            or jobs >= prune.max_jobs;
        head := public.next_old_jobs(head.done_to, completed_before, failed_before);
    end loop;

    with gone as (
        delete from public.failed_jobs as f
        where
            f.id = any (
                array(
                    select old.id from public.failed_jobs as old
                    where old.failed_at < failed_before
                    order by old.id
                    limit prune.max_jobs
                    for update skip locked
                )
            )
        returning f.id
    )

    select count(*) into failed_jobs from gone;

    with gone as (
        delete from public.stale_outcomes as s
        using (
            select old.job_id, old.attempt, old.kind, old.queue from public.stale_outcomes as old
            where old.told_at < failed_before
            order by old.job_id
            limit prune.max_jobs
            for update skip locked
        ) as old
        where
            (s.job_id, s.attempt, s.kind, s.queue) = (old.job_id, old.attempt, old.kind, old.queue)
        returning s.job_id
    )

    select count(*) into stale_outcomes from gone;

    explained := public.explain_open_deliveries(prune.max_jobs);
    gone := jsonb_build_object('jobs', jobs, 'failed_jobs', failed_jobs, 'stale_outcomes', stale_outcomes)
        || public.forget_calls(prune.max_jobs)
        || public.forget_broker_traces(prune.max_jobs)
        || public.forget_alerts(prune.max_jobs)
        || public.forget_stripe_events(prune.max_jobs);

    return gone || jsonb_build_object(
        'more',
        explained >= prune.max_jobs
        or exists (select from jsonb_each_text(gone) as g where g.value::integer >= prune.max_jobs)
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Writes one row that Realtime has to deliver and answers {"unannounced"}: what keeps the database from broadcasting
-- it and all other inserts, with the mend, or null.
-- Callers: a worker that wants to know whether it would still hear an insert. Rows older than ten minutes
-- go away on the same occasion.
create function public.canary(token text) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from public.realtime_canary as c
    where
        c.id = any (
            array(
                select old.id from public.realtime_canary as old
                where old.created_at < public.clock_now() - interval '10 minutes'
                for update skip locked
            )
        );
    insert into public.realtime_canary (token) values (canary.token);
    return jsonb_build_object('unannounced', public.announce_problem());
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;
