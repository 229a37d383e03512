-- How the queues are, in numbers: what whoever is on call looks at first.

-- Answers, for every queue, {"payment": {"due", "oldest_seconds", "held", "paused", "running", "dead"}, …}.
--   due             jobs that are due and that no limit holds, whatever their type.
--   oldest_seconds  how long the one of them that waits longest has been due; 0 without any.
--   held            jobs that wait in a lane since a limit holds them.
--   paused          whether somebody has paused the queue, or a type of it.
--   running         jobs with a live attempt.
--   dead            dead letters that nobody has replayed, among the newest at_most.
-- Callers: workers, over RPC, when somebody reads their metrics, each at most every few seconds.
-- Guarantees: reads only, waits for nobody. Each count stops at at_most, and the walk goes as a claim's does, priority
-- by priority along the pending index: neither rows of the future nor finished ones are touched.
create function public.queue_ages(at_most integer default 10000) returns jsonb
language plpgsql stable security definer
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
    answer jsonb := '{}';
    name text;
    level integer;
    due integer;
    more integer;
    first_at timestamptz;
    oldest_at timestamptz;
    held integer;
    running integer;
    dead integer;
begin
    if (queue_ages.at_most between 1 and 10000) is not true then
        raise exception using errcode = 'invalid_parameter_value', message = 'at_most must be from 1 to 10000';
    end if;

    for name in select q.queue from public.queues() as q loop
        due := 0;
        oldest_at := null;
        level := 101;
        loop
            select j.priority into level
            from public.jobs as j
            where j.queue = name and j.status = 'pending' and j.lane is null and j.priority < level
            order by j.priority desc
            limit 1;
            exit when not found;

            select greatest(j.run_at, j.created_at) into first_at
            from public.jobs as j
            where
                j.queue = name and j.status = 'pending' and j.lane is null
                and j.priority = level and j.run_at <= now_at
            order by j.run_at, j.id
            limit 1;
            oldest_at := least(oldest_at, first_at);

            select count(*) into more
            from (
                select
                from public.jobs as j
                where
                    j.queue = name and j.status = 'pending' and j.lane is null
                    and j.priority = level and j.run_at <= now_at
                order by j.run_at, j.id
                limit queue_ages.at_most - due
            ) as head;
            due := due + more;
        end loop;

        -- Who waits for the turn of its user is due, and nothing holds it (046_turns.sql).
        select count(*), min(greatest(head.run_at, head.created_at)) into more, first_at
        from (
            select j.run_at, j.created_at
            from public.jobs as j
            where j.queue = name and j.status = 'pending' and j.lane >= '0/' and j.lane < '00'
            order by j.lane, j.type, j.priority desc, j.run_at, j.id
            limit queue_ages.at_most
        ) as head;
        due := least(due + more, queue_ages.at_most);
        oldest_at := least(oldest_at, first_at);

        select count(*) into held
        from (
            select
            from public.jobs as j
            where j.queue = name and j.status = 'pending' and j.lane >= '00'
            order by j.lane, j.type, j.priority desc, j.run_at, j.id
            limit queue_ages.at_most
        ) as head;

        select count(*) into running
        from (
            select
            from public.jobs as j
            where j.queue = name and j.status = 'running'
            order by j.lease_expires_at
            limit queue_ages.at_most
        ) as head;

        select count(*) into dead
        from (
            select f.replayed_at
            from public.failed_jobs as f
            where f.job_type = name
            order by f.failed_at desc
            limit queue_ages.at_most
        ) as head
        where head.replayed_at is null;

        answer := answer || jsonb_build_object(
            name, jsonb_build_object(
                'due', due,
                'oldest_seconds', coalesce(extract(epoch from greatest(now_at - oldest_at, interval '0')), 0),
                'held', held,
                'paused', exists (select from public.paused as p where p.queue = name),
                'running', running,
                'dead', dead
            )
        );
    end loop;
    return answer;
end
$$;

revoke all on function public.queue_ages(integer) from public, anon, authenticated, service_role, pulse_worker;
grant execute on function public.queue_ages(integer) to service_role, pulse_worker;
