-- What is forgotten, and when; and the canary, whose rows are forgotten soonest.

-- Deletes what ended long ago and answers {"jobs", "failed_jobs", "stale_outcomes", "more"}.
-- Callers: the maintenance queue, over RPC, again while "more" is true.
-- Completed and cancelled jobs go after completed_days; failed jobs, their dead letters and stale outcomes
-- after failed_days; jobs that have not ended, never. At most max_jobs of each per call. Keys of call_limits that
-- mean nothing any more, traces of brokers, old alerts and old events of Stripe go uncounted.
-- No index serves this alone: ids grow with time, so the walk goes up the primary key and ends at the
-- first thousand rows that are too young to have ended before the limit.
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
    done_to bigint := 0;
    oldest timestamptz;
    ended bigint[];
    jobs integer := 0;
    failed_jobs integer;
    stale_outcomes integer;
    keys integer;
    traces integer;
    alerts integer;
    events integer;
begin
    if (prune.max_jobs >= 1) is not true then
        raise exception using errcode = 'invalid_parameter_value', message = 'max_jobs must be 1 or more';
    end if;

    loop
        select
            max(head.id), min(head.created_at),
            array_agg(head.id) filter (
                where head.finished_at < completed_before and head.status in ('completed', 'cancelled')
                or head.finished_at < failed_before and head.status = 'failed'
            )
        into done_to, oldest, ended
        from (
            select j.id, j.status, j.created_at, j.finished_at
            from public.jobs as j
            where j.id > done_to
            order by j.id
            limit 1000
        ) as head;

        with gone as (
            delete from public.jobs as j
            where
                j.id = any (
                    array(
                        select locked.id from public.jobs as locked
                        where locked.id = any (ended[1:prune.max_jobs - jobs]) and locked.finished_at is not null
                        for update skip locked
                    )
                )
            returning j.id
        )

        select jobs + count(*) into jobs from gone;

        exit when done_to is null
            or oldest > greatest(completed_before, failed_before)
            or jobs >= prune.max_jobs;
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

    keys := public.forget_calls(prune.max_jobs);
    traces := public.forget_broker_traces(prune.max_jobs);
    alerts := public.forget_alerts(prune.max_jobs);
    events := public.forget_stripe_events(prune.max_jobs);

    return jsonb_build_object(
        'jobs', jobs,
        'failed_jobs', failed_jobs,
        'stale_outcomes', stale_outcomes,
        'more', prune.max_jobs in (jobs, failed_jobs, stale_outcomes, keys, traces, alerts, events)
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
