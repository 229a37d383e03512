-- What happens to a live attempt while it runs: it is renewed, asked to stop, or found dead.
--
-- Lock order, here and in finish: rows are locked by id, one by one, through a lateral look-up that the
-- planner cannot turn around. Two calls on the same rows queue up; they cannot wait for each other.
-- Sweeps, claims and heartbeats skip what is locked and so never wait at all.
--
-- The settings, here and in finish: a list of words is joined to the table of jobs. Planned while the table
-- is empty, such a join may be turned around and read every job for each call, and the session keeps that
-- plan when the table has filled up (seconds per call at a million rows). A bitmap scan cannot be made
-- without a condition, so with all other ways off only the look-up by id is left.
--
-- By id alone, which is unique over all queues, although the queue is known: PostgreSQL 18.4 crashes when a
-- row has changed under a statement that picks its partition row by row (a look at the row once more
-- spoils what the picking remembers). A queue given as a parameter of the whole statement is harmless.

-- Refuses a lease without end: nothing could ever free its job.
-- Callers: claim, heartbeat.
create function public.check_lease(lease_seconds double precision) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if (check_lease.lease_seconds between 0.001 and 86400) is not true then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'lease_seconds must be from 0.001 to 86400, a day';
    end if;
end
$$;


-- Renews the leases of `attempts` = [[queue, id, attempt], …] and answers {"lost": […], "cancel": […]}.
-- Callers: each worker process, all its leases in one call, a few times per lease.
-- lost = [[id, attempt], …] which are no longer the worker's: stop them, their outcome will be stale.
-- cancel = [[id, attempt], …] whose cancellation was asked for: stop them and say so.
-- worker_id says who calls; a lease is held by (id, attempt), whatever the worker is called.
-- Guarantees: a lease that ran out and was not yet swept is renewed; nothing else is ever changed.
-- Never waits: what somebody else has locked is left for the next beat. One row of a long transaction would
-- otherwise cost all other attempts of the process their leases.
create function public.heartbeat(
    worker_id text, attempts jsonb, lease_seconds double precision
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
    perform public.check_lease(heartbeat.lease_seconds);

    with word as materialized (
        select (h.words ->> 1)::bigint as id, (h.words ->> 2)::integer as attempt
        from jsonb_array_elements(heartbeat.attempts) as h (words)
        order by 1, 2
    ),

    held as materialized (
        select j.id
        from word as w
        cross join lateral (
            select locked.id
            from public.jobs as locked
            where
                locked.id = w.id
                and locked.attempt = w.attempt
                and locked.lease_expires_at is not null
            for no key update skip locked
        ) as j
    )

    update public.jobs as j
    set
        lease_expires_at = now_at + make_interval(secs => heartbeat.lease_seconds),
        updated_at = now_at
    from held as h
    where j.id = h.id;

    -- A new statement, so that what others committed in the meantime is seen.
    with word as materialized (
        select (h.words ->> 1)::bigint as id, (h.words ->> 2)::integer as attempt
        from jsonb_array_elements(heartbeat.attempts) as h (words)
    )

    select jsonb_build_object(
        'lost', coalesce(
            jsonb_agg(jsonb_build_array(w.id, w.attempt) order by w.id, w.attempt) filter (where j.id is null), '[]'
        ),
        'cancel', coalesce(
            jsonb_agg(jsonb_build_array(w.id, w.attempt) order by w.id, w.attempt) filter (where j.cancel_requested),
            '[]'
        )
    ) into answer
    from word as w
    left join public.jobs as j on j.id = w.id and j.attempt = w.attempt and j.lease_expires_at is not null;
    return answer;
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Writes down how far attempts are: reports = [{"queue", "id", "attempt", "progress"}, …], a progress of theirs an
-- object of at most 2,000 letters, for the user to read. Answers {"again": [[id, attempt], …]}.
-- Callers: each worker process, all that its handlers have said in one call, at most once per second.
-- again = those whose row somebody else had locked: never waits, as heartbeat. Of an attempt that has lost its job
-- nothing is written. In the row stands which attempt said it, so that nobody takes it for that of a later one.
create function public.report_progress(reports jsonb) returns jsonb
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
    if jsonb_path_exists(report_progress.reports, '$[*] ? (@.progress.type() != "object")')
        or exists (
            select from jsonb_array_elements(report_progress.reports) as r (words)
            where r.words -> 'progress' is null or octet_length(r.words ->> 'progress') > 8000
        ) then
        raise exception using
            errcode = 'invalid_parameter_value', message = 'progress must be a JSON object of at most 2000 letters';
    end if;

    with word as materialized (
        select distinct on (r.id, r.attempt) r.id, r.attempt, r.progress
        from jsonb_to_recordset(report_progress.reports) as r (id bigint, attempt integer, progress jsonb)
        order by r.id, r.attempt
    ),

    held as materialized (
        select j.id, w.attempt, w.progress
        from word as w
        cross join lateral (
            select locked.id
            from public.jobs as locked
            where
                locked.id = w.id
                and locked.attempt = w.attempt
                and locked.lease_expires_at is not null
            for no key update skip locked
        ) as j
    ),

    written as (
        update public.jobs as j
        set progress = h.progress || jsonb_build_object('attempt', h.attempt), updated_at = now_at
        from held as h
        where j.id = h.id
        returning j.id, j.attempt
    )

    select jsonb_build_object('again', coalesce(jsonb_agg(jsonb_build_array(w.id, w.attempt)), '[]')) into answer
    from word as w
    cross join lateral (
        select live.id
        from public.jobs as live
        where live.id = w.id and live.attempt = w.attempt and live.lease_expires_at is not null
    ) as j
    where not exists (select from written as d where d.id = w.id and d.attempt = w.attempt);
    return answer;
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Renews the leases of `attempts` = [[id, attempt], …] of which half is gone, and answers nothing.
-- Callers: claim. A worker that was frozen, or cut off for longer than a lease, so keeps what nobody has
-- taken from it yet. Never waits: a locked row is being renewed, or ended, by somebody else.
create function public.renew_held(attempts jsonb, lease_seconds double precision) returns void
language plpgsql volatile
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
    lease constant interval := make_interval(secs => renew_held.lease_seconds);
begin
    with word as materialized (
        select (h.words ->> 0)::bigint as id, (h.words ->> 1)::integer as attempt
        from jsonb_array_elements(renew_held.attempts) as h (words)
        order by 1, 2
    ),

    held as materialized (
        select j.id
        from word as w
        cross join lateral (
            select locked.id
            from public.jobs as locked
            where
                locked.id = w.id
                and locked.attempt = w.attempt
                and locked.lease_expires_at < now_at + lease / 2
            for no key update skip locked
        ) as j
    )

    update public.jobs as j
    set lease_expires_at = now_at + lease, updated_at = now_at
    from held as h
    where j.id = h.id;
end
$$;


-- Cancels jobs by id and answers {"cancelled": […], "asked": […], "unchanged": […]}.
-- Callers: the server, over RPC. A pending job is cancelled at once. A running one is asked: its worker
-- hears of it with the next heartbeat, and if it finishes first its outcome stands. Others, and ids that
-- do not exist, are unchanged.
create function public.cancel(job_ids bigint[]) returns jsonb
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
    with word as materialized (
        select distinct w.id from unnest(cancel.job_ids) as w (id)
        order by w.id
    ),

    known as materialized (
        select w.id, j.id is not null as is_open
        from word as w
        left join lateral (
            select locked.id
            from public.jobs as locked
            where locked.id = w.id and locked.status in ('pending', 'running')
            for no key update
        ) as j on true
    ),

    -- By the status that this very change meets, and answered by what came of it. An UPDATE first writes over
    -- the row as its snapshot has it, and checks the constraints of that, before it notices a newer version
    -- and does it again. What the look above knows of the newer one, written over the older, would be refused.
    changed as (
        update public.jobs as j
        set
            status = case j.status when 'pending' then 'cancelled' else j.status end,
            finished_at = case j.status when 'pending' then now_at end,
            cancel_requested = true,
            updated_at = now_at
        from known as k
        where k.is_open and j.id = k.id and j.status in ('pending', 'running')
        returning j.id, j.status
    )

    select jsonb_build_object(
        'cancelled', coalesce(jsonb_agg(k.id) filter (where c.status = 'cancelled'), '[]'),
        'asked', coalesce(jsonb_agg(k.id) filter (where c.status = 'running'), '[]'),
        'unchanged', coalesce(jsonb_agg(k.id) filter (where c.id is null), '[]')
    ) into answer
    from known as k
    left join changed as c on k.id = c.id;
    return answer;
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Ends the attempts of a queue whose lease ran out, as a retry with the error class WorkerVanished.
-- Callers: claim, on sweeps. Answers {"retried": n, "dead": n}, and "refused": n when there are such.
-- Guarantees: a job that kills its workers is a counted attempt each time, so it ends as a dead letter;
-- a worker that was only slow gets "stale" for its outcome. At most 1000 per sweep.
-- One whose end a rule of somebody's own refuses (a trigger, a constraint) is left for the next sweep, and
-- holds up neither the others nor the claim.
--
-- When the next attempt is due. A worker that vanished is mostly no fault of its jobs: they are due at once,
-- having waited for their lease already. But among them may be the one that killed it, and all of them
-- together would be claimed together and killed together, until they are dead letters all at once. So those
-- whose attempt before had vanished too come back one behind the other, each by the usual retry delay after
-- the last (closer when there are many: the whole line in five minutes). Then the killer runs beside few of
-- them, and they need no more attempts than it has taken already (docs/decisions/010_vanished.md).
create function public.end_lost_attempts(queue text) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    outcomes jsonb;
    answers json;
    alone json;
    refused integer := 0;
begin
    with lost as materialized (
        select
            j.queue, j.id, j.attempt, j.worker_id, j.lease_expires_at,
            j.attempt - j.uncounted as counted,
            j.last_outcome is not distinct from 'vanished' as again
        from public.jobs as j
        where
            j.queue = end_lost_attempts.queue
            and j.status = 'running'
            and j.lease_expires_at < public.clock_now()
        order by j.lease_expires_at
        limit 1000
        for update skip locked
    ),

    line as (
        select
            l.*,
            row_number() over (partition by l.again order by l.lease_expires_at, l.id) as place,
            interval '5 minutes' / count(*) over (partition by l.again) as closest
        from lost as l
    )

    select
        jsonb_agg(
            jsonb_build_object(
                'queue', l.queue, 'id', l.id, 'attempt', l.attempt, 'kind', 'vanished',
                'error_class', 'WorkerVanished',
                'error_message', format(
                    'worker %s vanished: the lease of attempt %s ended at %s without an outcome%s',
                    l.worker_id, l.attempt, to_jsonb(l.lease_expires_at) #>> '{}',
                    case when l.again then ', as that of the attempt before did: the job may kill its worker' end
                ),
                'delay_seconds', case
                    when l.again
                        then extract(
                            epoch from l.place * least(public.retry_delay('vanished', l.counted), l.closest)
                        )
                    else 0
                end
            )
        )
    into outcomes
    from line as l;

    if outcomes is null then
        return '{"retried": 0, "dead": 0}';
    end if;

    begin
        answers := public.record_outcomes(outcomes);
    exception
        when deadlock_detected or serialization_failure then
            raise;
        when others then
            answers := '[]';
            for n in 0..jsonb_array_length(outcomes) - 1 loop
                begin
                    alone := public.record_outcomes(jsonb_build_array(outcomes -> n));
                    answers := answers::jsonb || alone::jsonb;
                exception
                    when deadlock_detected or serialization_failure then
                        raise;
                    when others then
                        refused := refused + 1;
                        raise warning
                            'job %, whose worker vanished, cannot be ended: %', outcomes -> n ->> 'id', sqlerrm;
                end;
            end loop;
    end;

    return (
        select jsonb_build_object(
            'retried', count(*) filter (where a.words ->> 'status' = 'pending'),
            'dead', count(*) filter (where a.words ->> 'status' = 'failed')
        ) || case when refused > 0 then jsonb_build_object('refused', refused) else '{}' end
        from json_array_elements(answers) as a (words)
    );
end
$$;
