-- From a due row to a live attempt.
--
-- A claim is two steps: find_due walks the pending index and locks rows that nobody else is taking, then
-- one UPDATE counts the attempt and writes the lease. Claims never wait for a lock: they skip. Between the two,
-- if a limit governs one of the rows, users' jobs fill the claim or a lane is to be looked at, pass_gates chooses
-- (045_passing.sql).
--
-- The floor. Each finished job leaves a dead entry at the head of the pending index, and while an old
-- snapshot is open (a dump, a forgotten transaction) nothing may remove them: every claim would walk over
-- all of them. So a claim answers where it found its first row, per priority, and the worker hands that
-- back with its next call, which begins there. The floor is a hint and nothing depends on it: a row
-- committed late, or with a run_at in the past, lies below it until the next sweep, which ignores the
-- floor's times (and keeps its priorities: an empty priority may have dead entries too); those that a sweep
-- does not get to lose their times as well. Two seconds of slack make that rare.
--
-- The settings on the functions keep the plans what they are on a table that has never been analysed,
-- that was analysed while empty, or that has a million finished rows: the pending index in its own order,
-- never a sort or a bitmap of everything due, and a plan that is made once per session. A way that is off and
-- taken all the same is priced so high that PostgreSQL before 18 would compile each plan (jit), which takes
-- most of a second. Times are told in UTC whatever the database's time zone is, which could put them into a
-- year that clients cannot read.

-- Claims up to `max_jobs` due jobs of one queue and of the given types for `lease_seconds`.
-- Callers: workers, over RPC, and finish.
-- Answers {"jobs": […], "unsettled", "lost": {"retried", "dead"}, "next_in_seconds", "floor",
-- "unknown_types", "waited_seconds"}.
--   unsettled        how many more jobs are leased to worker_id without its knowing: call again for them.
--   next_in_seconds  when to look again: 0 when max_jobs was reached, null when nothing is planned.
--   floor            to be handed back with the next call, sweep or not.
--   waited_seconds   how long the longest waiting of these jobs had been due; null without jobs.
--   unknown_types    on sweeps: due rows at the head of the queue whose type is not in `types`.
-- `sweep` first ends the attempts of this queue whose lease ran out, then looks from the very start.
-- `holding` (not null) = [[id, attempt], …] says which attempts of this queue `worker_id` knows it holds. They
-- are renewed first, so that no sweep of its own ends them; what it has leased and does not list there (an
-- answer was lost) is handed out again, as the same attempt; what somebody else has locked in this moment, or
-- exceeds max_jobs, is left and counted as unsettled. To be sent with every sweep, and with a call that is
-- repeated.
-- Guarantees: a job is handed to one worker; its attempt is counted before anybody runs it; the order is
-- priority (larger first), the turns of users (046_turns.sql), run_at, id. Nothing is handed out that is paused, or for
-- which a limit has no room (043_gates.sql); what an answer lost had leased already runs, and is handed out again.
-- It answers json and not jsonb, as finish does: a text that is written once, and not a tree that is built
-- only to be printed (a fifth of the time of a call).
create function public.claim(
    queue text,
    types text[],
    max_jobs integer,
    lease_seconds double precision,
    worker_id text,
    woken_by text,
    floor jsonb default null,
    sweep boolean default false,
    holding jsonb default null
) returns json
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
set enable_indexscan = on
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
    now_at constant timestamptz := public.clock_now();
    lost jsonb := '{"retried": 0, "dead": 0}';
    held text[];
    unheard bigint[] := '{}';
    again bigint[] := '{}';
    gates record;
    open_types text[];
    lanes_at timestamptz;
    places integer;
    due record;
    is_crowded boolean;
    jobs json;
    waited interval;
    unknown jsonb;
begin
    if (claim.max_jobs between 0 and 1000) is not true then
        raise exception using errcode = 'invalid_parameter_value', message = 'max_jobs must be from 0 to 1000';
    end if;
    perform public.check_lease(claim.lease_seconds);

    if claim.holding is not null then
        perform public.renew_held(claim.holding, claim.lease_seconds);
    end if;

    if claim.sweep then
        lost := public.end_lost_attempts(claim.queue);
    end if;

    if claim.holding is not null then
        held := array(
            select concat_ws('.', h.words ->> 0, h.words ->> 1) from jsonb_array_elements(claim.holding) as h (words)
        );
        unheard := array(
            select j.id
            from public.jobs as j
            where
                j.queue = claim.queue
                and j.status = 'running'
                and j.worker_id = claim.worker_id
                and concat_ws('.', j.id, j.attempt) <> all (held) -- by a hash, however many are held
            order by j.lease_expires_at -- keeps the walk to the small index of running rows
        );
    end if;

    if cardinality(unheard) > 0 then
        again := array(
            select j.id
            from public.jobs as j
            where
                j.queue = claim.queue and j.id = any (unheard)
                and j.status = 'running' and j.worker_id = claim.worker_id
            limit claim.max_jobs
            for update skip locked
        );
    end if;

    -- Here and not in a function of its own, which would cost a tenth of an empty claim.
    select g.is_paused, g.paused_types, g.by_user, g.by_user_types, g.spared_types, g.by_others, g.by_others_types
    into gates
    from public.gates as g
    where g.queue in (claim.queue, '')
    order by g.queue desc
    limit 1;
    open_types := case when gates.is_paused then '{}' else claim.types end;
    if gates.paused_types <> '{}' then
        open_types := array(select t.type from unnest(open_types) as t (type) where t.type <> all (gates.paused_types));
    end if;
    if claim.sweep then
        perform public.find_lanes(claim.queue);
    end if;
    select l.look_at into lanes_at
    from public.lanes as l
    where l.queue = claim.queue and l.type = any (open_types)
    order by l.look_at
    limit 1;

    places := case when cardinality(open_types) > 0 then claim.max_jobs - cardinality(again) else 0 end;
    if places > 0 and (
        lanes_at <= now_at or claim.sweep and (
            lanes_at is not null or public.find_aged(claim.queue, open_types, '{}', '{}', '{}', '{}') is not null
        )
    ) then
        due := public.pass_gates(
            claim.queue, open_types, places, claim.floor, claim.sweep, null, null, null
        );
    else
        due := public.find_due(
            claim.queue, open_types, places, claim.floor, claim.sweep, true, '{}',
            case when gates.by_user then open_types else gates.by_user_types end, gates.spared_types,
            case when gates.by_others then open_types else gates.by_others_types end
        );
        is_crowded := cardinality(due.ids) >= places and array_remove(due.users, null) <> '{}'
        and (claim.sweep or public.is_crowded(claim.queue, open_types, due.users, due.ids[places]));
        if due.is_limited or is_crowded then
            due := public.pass_gates(
                claim.queue, open_types, places, claim.floor, claim.sweep,
                case when not is_crowded then due.ids end, due.floor, due.next_run_at
            );
        end if;
        if cardinality(due.ids) < places then   -- there may be new lanes: what others had locked in the line
            lanes_at := (
                select l.look_at from public.lanes as l
                where l.queue = claim.queue and l.type = any (open_types)
                order by l.look_at
                limit 1
            );
        end if;
        due.next_run_at := least(due.next_run_at, lanes_at);
    end if;
    if cardinality(open_types) = 0 then
        due.next_run_at := null;        -- paused: who resumes it tells nobody, a sweep finds out
    end if;

    with leased as (
        update public.jobs as j
        set
            status = 'running',
            attempt = j.attempt + (j.status = 'pending')::integer,
            lease_expires_at = now_at + make_interval(secs => claim.lease_seconds),
            worker_id = claim.worker_id,
            woken_by = claim.woken_by,
            lane = null,
            updated_at = now_at
        where j.queue = claim.queue and j.id = any (again || due.ids)
        returning
            j.id, j.queue, j.type, j.data, j.user_id, j.priority, j.run_at, j.attempt, j.uncounted, j.max_attempts,
            j.created_at, j.traceparent
    )

    select
        coalesce(json_agg(leased order by leased.priority desc, leased.run_at, leased.id), '[]'),
        max(now_at - greatest(leased.run_at, leased.created_at))
    into jobs, waited
    from leased;

    if claim.sweep then
        unknown := public.unknown_types(claim.queue, claim.types);
    end if;

    return json_build_object(
        'jobs', jobs,
        'unsettled', cardinality(unheard) - cardinality(again),
        'lost', lost,
        'next_in_seconds', case
            when due.next_run_at is not null then extract(epoch from greatest(due.next_run_at, now_at) - now_at)
        end,
        'floor', due.floor,
        'unknown_types', unknown,
        'waited_seconds', extract(epoch from waited)
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Finds the due rows of a queue's line in the order of claims; the walk goes priority by priority.
-- Callers: claim, which has them locked and asks whether one of them may be limited (by its type, or by its user), and
-- whose they are;
-- pass_gates, which looks at more than it takes and locks itself, and leaves those out that it has seen (besides).
-- known and floor = [[priority, run_at, id], …], where the search in each priority begins.
-- Within one priority (run_at, id) is a true bound on both sides of the index: neither the dead entries
-- below the floor nor the rows of the future are touched. Priorities that the floor does not name are
-- found by one look into each gap between those that it does. The walk ends at priority 0.
-- next_run_at is when to look again: now when max_jobs was reached, after a second when somebody else has a row
-- locked, who may be moving it to a lane. That is looked for from the floor on, on sweeps too.
create function public.find_due(
    in queue text, in types text[], in max_jobs integer, in known jsonb, in from_the_start boolean,
    in locking boolean, in besides bigint[], in by_user text[], in not_by_user text[], in by_others text[],
    out ids bigint[], out floor jsonb, out next_run_at timestamptz, out is_limited boolean, out users uuid[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    safely_past constant timestamptz := now_at - interval '2 seconds';
    named jsonb;                    -- what is known, highest priority first
    place integer := 0;             -- the next of those
    mark jsonb;                     -- that of this priority
    above integer := 101;           -- the walk has done this priority and all above it
    level integer;
    start_run_at timestamptz;
    start_id bigint;
    found_ids bigint[];
    level_is_limited boolean;
    level_users uuid[];
    first_run_at timestamptz;
    level_run_at timestamptz;
begin
    select coalesce(jsonb_agg(f.mark order by (f.mark ->> 0)::integer desc), '[]') into named
    from jsonb_array_elements(nullif(find_due.known, 'null')) as f (mark);

    ids := '{}';
    floor := '[]';
    is_limited := false;
    users := '{}';
    if find_due.max_jobs <= 0 then
        next_run_at := now_at;
    end if;

    while find_due.max_jobs > 0 loop
        -- The next priority down: one that appeared in the gap, or the next named one, or 0.
        mark := null;
        select j.priority into level
        from public.jobs as j
        where
            j.queue = find_due.queue
            and j.status = 'pending'
            and j.lane is null
            and j.priority > coalesce((named -> place ->> 0)::integer, 0)
            and j.priority < above
        order by j.priority desc
        limit 1;
        if not found then
            level := coalesce((named -> place ->> 0)::integer, 0);
            mark := named -> place;
            place := place + 1;
        end if;
        start_run_at := coalesce(case when not find_due.from_the_start then mark ->> 1 end, '-infinity');
        start_id := coalesce(case when not find_due.from_the_start then mark ->> 2 end, '0');

        if find_due.locking then
            select
                array_agg(due.id), min(due.run_at),
                bool_or(
                    due.type = any (find_due.by_others)
                    or due.user_id is not null
                    and due.type = any (find_due.by_user) and due.type <> all (find_due.not_by_user)
                ),
                array_agg(due.user_id)
            into found_ids, first_run_at, level_is_limited, level_users
            from (
                select j.id, j.run_at, j.type, j.user_id
                from public.jobs as j
                where
                    j.queue = find_due.queue
                    and j.status = 'pending'
                    and j.lane is null
                    and j.priority = level
                    and (j.run_at, j.id) >= (start_run_at, start_id)
                    and j.run_at <= now_at
                    and j.type = any (find_due.types)
                order by j.run_at, j.id
                limit find_due.max_jobs - cardinality(ids)
                for update skip locked
            ) as due;
            is_limited := is_limited or coalesce(level_is_limited, false);
            users := users || level_users;
        else
            select array_agg(due.id), min(due.run_at) into found_ids, first_run_at
            from (
                select j.id, j.run_at
                from public.jobs as j
                where
                    j.queue = find_due.queue
                    and j.status = 'pending'
                    and j.lane is null
                    and j.priority = level
                    and (j.run_at, j.id) >= (start_run_at, start_id)
                    and j.run_at <= now_at
                    and j.type = any (find_due.types)
                    and j.id <> all (find_due.besides)
                order by j.run_at, j.id
                limit find_due.max_jobs - cardinality(ids)
            ) as due;
        end if;

        ids := ids || found_ids;
        floor := floor || case
            when first_run_at < safely_past
                then jsonb_build_array(jsonb_build_array(level, first_run_at, found_ids[1]))
            else jsonb_build_array(jsonb_build_array(level, safely_past, 0))
        end;

        if cardinality(ids) >= find_due.max_jobs then
            next_run_at := now_at;
            exit;
        end if;

        select j.run_at into level_run_at
        from public.jobs as j
        where
            j.queue = find_due.queue
            and j.status = 'pending'
            and j.lane is null
            and j.priority = level
            and (j.run_at, j.id) >= (coalesce(mark ->> 1, '-infinity')::timestamptz, coalesce(mark ->> 2, '0')::bigint)
            and j.type = any (find_due.types)
            and j.id <> all (find_due.besides || found_ids)
        order by j.run_at, j.id
        limit 1;
        next_run_at := least(
            next_run_at, case when level_run_at <= now_at then now_at + interval '1 second' else level_run_at end
        );

        above := level;
        exit when level = 0;
    end loop;

    -- What the walk did not reach keeps the mark that it had; what a sweep owes a look and did not reach has none.
    select
        floor || coalesce(
            jsonb_agg(
                case
                    when find_due.from_the_start then jsonb_build_array(f.mark -> 0, '-infinity', 0)
                    else f.mark
                end order by f.n
            ), '[]'
        )
    into floor
    from jsonb_array_elements(named) with ordinality as f (mark, n)
    where f.n > place;
end
$$;
