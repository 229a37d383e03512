-- From a dead letter back to a job.

-- Replays dead letters, by id or by filter, and answers {"replayed": [{"failed_job_id", "job_id"}, …],
-- "skipped": [failed_job_id, …]}.
-- Callers: people and their tools, over RPC. Without ids all that match job_type (the queue) and type,
-- oldest first, up to max_jobs; the filters also narrow a list of ids.
-- Guarantees: a dead letter is replayed at most once, so a call with ids may be repeated; one without finds
-- whatever has failed by then. It is the same job again, same id and same key, with a fresh allowance of
-- attempts and due at once. Skipped are ids replayed before, whose job is gone or has moved on, or unknown.
create function public.replay(
    failed_job_ids bigint[] default null,
    job_type text default null,
    type text default null,
    max_jobs integer default 1000
) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
set enable_indexscan = off
set enable_bitmapscan = on
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    now_at constant timestamptz := public.clock_now();
    answer jsonb;
begin
    with asked as materialized (
        select f.id, f.job_id, f.job_type as queue, f.attempt
        from public.failed_jobs as f
        where
            f.replayed_at is null
            and (replay.failed_job_ids is null or f.id = any (replay.failed_job_ids))
            and (replay.job_type is null or f.job_type = replay.job_type)
            and (replay.type is null or f.job_data ->> 'type' = replay.type)
            and (
                replay.failed_job_ids is not null
                or exists (
                    select from public.jobs as j
                    where j.id = f.job_id and j.status = 'failed' and j.attempt = f.attempt
                )
            )
        order by f.id
        limit replay.max_jobs
        for update
    ),

    -- Locked by id, like everywhere.
    known as materialized (
        select a.id, a.job_id, a.queue, coalesce(j.status = 'failed' and j.attempt = a.attempt, false) as replayable
        from (select * from asked order by job_id) as a
        left join lateral (
            select locked.status, locked.attempt
            from public.jobs as locked
            where locked.id = a.job_id
            for no key update
        ) as j on true
    ),

    changed as (
        update public.jobs as j
        set
            status = 'pending',
            run_at = now_at,
            uncounted = j.attempt,
            cancel_requested = false,
            finished_at = null,
            updated_at = now_at
        from known as k
        where k.replayable and j.id = k.job_id
    ),

    marked as (
        update public.failed_jobs as f
        set replayed_at = now_at
        from known as k
        where k.replayable and f.id = k.id
    ),

    named as (
        select k.id, k.job_id, k.replayable from known as k
        union all
        select w.id, null, false
        from unnest(replay.failed_job_ids) as w (id)
        where not exists (select from asked as a where a.id = w.id)
    )

    select jsonb_build_object(
        'replayed', coalesce(
            jsonb_agg(jsonb_build_object('failed_job_id', n.id, 'job_id', n.job_id) order by n.id)
            filter (where n.replayable), '[]'
        ),
        'skipped', coalesce(jsonb_agg(distinct n.id) filter (where not n.replayable), '[]')
    ) into answer
    from named as n;
    return answer;
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;
