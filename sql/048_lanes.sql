-- Where jobs wait for room or for their turn: when a lane is looked at, and how none is forgotten (045_passing.sql).

-- The lanes that a claim looks at, locked: 100 of limits where there may be room, and those of as many users as it may
-- need, by priority, and by who has waited longest for a turn; a sweep also looks at ten of lower priorities, since
-- somebody may have grown old there.
-- Callers: pass_gates. served = when it was the turn of the user of each. turns_from = from which priority down the
-- lanes of users are not all among them; null: they are. Waits for nobody.
create function public.lanes_to_look_at(
    in queue text, in types text[], in max_jobs integer, in is_sweep boolean,
    out lanes text[], out types_of text[], out served timestamptz[], out turns_from integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    most_turns constant integer := least(2 * lanes_to_look_at.max_jobs + 3, 100);
begin
    select
        coalesce(array_agg(l.lane), '{}'), coalesce(array_agg(l.type), '{}'), array_agg(l.served_at),
        case when count(l.priority) >= most_turns then min(l.priority) end
    into lanes, types_of, served, turns_from
    from (
        select full_ones.*
        from (
            select due.lane, due.type, due.served_at, null::integer as priority
            from public.lanes as due
            where
                due.queue = lanes_to_look_at.queue and due.type = any (lanes_to_look_at.types) and due.priority is null
                and (lanes_to_look_at.is_sweep or due.look_at <= now_at)
            order by due.look_at
            limit 100
            for update skip locked
        ) as full_ones
        union all
        select in_turn.*
        from (
            select due.lane, due.type, due.served_at, due.priority
            from public.lanes as due
            where
                due.queue = lanes_to_look_at.queue and due.type = any (lanes_to_look_at.types) and due.priority is not null
                and (lanes_to_look_at.is_sweep or due.look_at <= now_at)
            order by due.priority desc, due.look_at
            limit most_turns
            for update skip locked
        ) as in_turn
    ) as l;
    if lanes_to_look_at.is_sweep and turns_from is not null then
        select
            lanes || coalesce(array_agg(l.lane), '{}'), types_of || coalesce(array_agg(l.type), '{}'),
            served || coalesce(array_agg(l.served_at), '{}')
        into lanes, types_of, served
        from (
            select due.lane, due.type, due.served_at
            from public.lanes as due
            where
                due.queue = lanes_to_look_at.queue and due.type = any (lanes_to_look_at.types)
                and due.priority < lanes_to_look_at.turns_from
            order by due.look_at
            limit 10
            for update skip locked
        ) as l;
    end if;
end
$$;


-- Says of the lanes of a claim when they are to be looked at again, makes new ones, removes empty ones.
-- Callers: pass_gates, which holds the keys. lanes = those that it looked at, met = those where it put something;
-- taken = what it hands out, beaten = what somebody else has locked, served = whose turn it was; waiting = the lanes
-- where somebody waited before that.
create function public.keep_lanes(
    queue text, lanes text[], lane_types text[], met_lanes text[], met_types text[],
    keys text[], rooms integer[], taken bigint[], beaten bigint[], served text[], waiting text[]
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    moment constant timestamptz := public.call_moment();
    full_keys text[];
    free_at timestamptz[];      -- beside them: when a start leaves its window; null: when a job ends
begin
    if
        cardinality(keep_lanes.lanes) + cardinality(keep_lanes.met_lanes) = 0
        and not exists (select from public.lanes as l where l.queue = keep_lanes.queue)
    then
        return;
    end if;
    -- Those of users which were met only now may be in somebody else's hands. The lane of a user whose turn it was not
    -- stays as it is, and its place among the others, too.
    select coalesce(array_agg(mine.lane), '{}'), coalesce(array_agg(mine.type), '{}')
    into keep_lanes.lanes, keep_lanes.lane_types
    from (
        select l.lane, l.type
        from unnest(keep_lanes.lanes, keep_lanes.lane_types) as v (lane, type)
        inner join public.lanes as l on l.lane = v.lane and l.queue = keep_lanes.queue and l.type = v.type
        where
            not starts_with(v.lane, '0/')
            or v.lane = any (keep_lanes.served) or (v.lane = any (keep_lanes.waiting)) is not true
        for update of l skip locked
    ) as mine;

    select array_agg(k.key), array_agg(
        case
            when public.calls_within(c.taken, moment, l.per_seconds) >= l.starts
                then c.taken[cardinality(c.taken) - l.starts + 1] + make_interval(secs => l.per_seconds)
            -- A start has left its window since the room was counted; or, where both are limited, a job is to end.
            when l.starts is not null then moment + make_interval(secs => (l.at_once is not null)::integer)
        end
    )
    into full_keys, free_at
    from unnest(keep_lanes.keys, keep_lanes.rooms) as k (key, room)
    inner join public.job_limits as l on l.id = split_part(k.key, '/', 1)::bigint
    left join public.call_limits as c on c.key = 'job_limits/' || k.key and l.starts is not null
    where k.room <= 0;

    delete from public.lanes as l
    using unnest(keep_lanes.lanes, keep_lanes.lane_types) as v (lane, type)
    where
        l.lane = v.lane and l.queue = keep_lanes.queue and l.type = v.type
        and exists (
            select from unnest(keep_lanes.keys, keep_lanes.rooms) as k (key, room)
            where k.key = v.lane and k.room is not null
        )
        and not exists (
            select from public.jobs as j
            where
                j.queue = keep_lanes.queue and j.status = 'pending' and j.lane = v.lane and j.type = v.type
                and j.id <> all (keep_lanes.taken)
        );

    update public.lanes as l
    set
        served_at = case when v.lane = any (keep_lanes.served) then moment else l.served_at end,
        look_at = case
            when v.lane = any (full_keys) and exists (
                select from public.limits_of(keep_lanes.queue, v.type) as o
                where o.id = split_part(v.lane, '/', 1)::bigint
            )
                then coalesce(free_at[array_position(full_keys, v.lane)], moment + interval '1 minute')
            when exists (
                select from public.jobs as j
                where
                    j.queue = keep_lanes.queue and j.status = 'pending' and j.lane = v.lane and j.type = v.type
                    and j.run_at <= moment and j.id <> all (keep_lanes.taken || keep_lanes.beaten)
            )
                then public.clock_now()
            else moment + interval '1 second'       -- locked; or not due, since the clock was set back
        end
    from unnest(keep_lanes.lanes, keep_lanes.lane_types) as v (lane, type)
    where
        l.lane = v.lane and l.queue = keep_lanes.queue and l.type = v.type
        and exists (
            select from unnest(keep_lanes.keys, keep_lanes.rooms) as k (key, room)
            where k.key = v.lane and k.room is not null
        );

    if cardinality(keep_lanes.met_lanes) > 0 then
        -- Only what is not there: on conflict do nothing would wait for who is just changing look_at.
        insert into public.lanes (lane, queue, type, priority, look_at)
        select
            m.lane, keep_lanes.queue, m.type,
            case when starts_with(m.lane, '0/') then split_part(m.lane, '/', 2)::integer end,
            case
                when starts_with(m.lane, '0/') then public.clock_now()
                else coalesce(free_at[array_position(full_keys, m.lane)], moment + interval '1 second')
            end
        from (select distinct u.lane, u.type from unnest(keep_lanes.met_lanes, keep_lanes.met_types) as u (lane, type)) as m
        where
            not exists (
                select from public.lanes as l
                where l.lane = m.lane and l.queue = keep_lanes.queue and l.type = m.type
            )
            and exists (
                select from public.jobs as j
                where
                    j.queue = keep_lanes.queue and j.status = 'pending' and j.lane = m.lane and j.type = m.type
                    and j.id <> all (keep_lanes.taken)
            )
        on conflict do nothing;
    end if;

    -- From now on they wait for their next turn.
    update public.lanes as l
    set served_at = moment
    where
        (l.lane, l.queue, l.type) in (
            select k.lane, k.queue, k.type
            from (
                select s.lane from unnest(keep_lanes.served) as s (lane)
                union
                select o.id || '/' || split_part(s.lane, '/', 3)
                from unnest(keep_lanes.served) as s (lane)
                cross join public.job_limits as o
                where o.per = 'user'
            ) as own
            inner join public.lanes as k
                on k.lane = own.lane and k.queue = keep_lanes.queue and k.served_at is distinct from moment
            for no key update of k skip locked
        );
end
$$;


-- Makes the entries of lanes that have none: nobody would ever look there. And lets those lanes be looked at of which
-- is said what no limit says, or that their user's turn is to come: the clock was set back.
-- Callers: claim, on sweeps. The walk goes from lane to lane inside their index, a thousand at the most. Waits for
-- nobody: an entry is made under the lock of its key.
create function public.find_lanes(queue text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    missing_lanes text[];
    missing_types text[];
    now_at constant timestamptz := public.clock_now();
    latest constant timestamptz := now_at + make_interval(
        secs => greatest((select max(l.per_seconds) from public.job_limits as l), 60) + 10    -- a call takes time
    );
begin
    update public.lanes as l
    set look_at = '-infinity', served_at = least(l.served_at, now_at)
    where
        (l.lane, l.queue, l.type) in (
            select k.lane, k.queue, k.type from public.lanes as k
            where k.queue = find_lanes.queue and (k.look_at > latest or k.served_at > now_at + interval '10 seconds')
            limit 1000
            for no key update skip locked
        );

    with recursive known as (
        (
            select j.lane, j.type, 1 as n
            from public.jobs as j
            where j.queue = find_lanes.queue and j.status = 'pending' and j.lane is not null
            order by j.lane, j.type
            limit 1
        )
        union all
        select following.lane, following.type, k.n + 1
        from known as k
        cross join lateral (
            select j.lane, j.type
            from public.jobs as j
            where
                j.queue = find_lanes.queue and j.status = 'pending' and j.lane is not null
                and (j.lane, j.type) > (k.lane, k.type)
            order by j.lane, j.type
            limit 1
        ) as following
        where k.n < 1000
    )

    select array_agg(k.lane), array_agg(k.type) into missing_lanes, missing_types
    from known as k
    where
        not exists (
            select from public.lanes as l
            where l.lane = k.lane and l.queue = find_lanes.queue and l.type = k.type
        );

    insert into public.lanes (lane, queue, type, priority, look_at)
    select
        m.lane, find_lanes.queue, m.type,
        case when starts_with(m.lane, '0/') then split_part(m.lane, '/', 2)::integer end, '-infinity'
    from unnest(missing_lanes, missing_types) as m (lane, type)
    where
        not exists (
            select from public.lanes as l
            where l.lane = m.lane and l.queue = find_lanes.queue and l.type = m.type
        )
        and pg_try_advisory_xact_lock(hashtextextended('job_limits/' || m.lane, 0))
    on conflict do nothing;
end
$$;


-- Counts, by type, the due rows at the head of a queue that a worker with these types passes over, and those in lanes.
-- Callers: claim, on sweeps. The look is bounded: the first thousand due rows of each.
create function public.unknown_types(queue text, types text[]) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
begin
    return (
        select jsonb_object_agg(counted.type, counted.jobs)
        from (
            select head.type, count(*) as jobs
            from (
                (
                    select j.type
                    from public.jobs as j
                    where
                        j.queue = unknown_types.queue and j.status = 'pending' and j.lane is null and j.run_at <= now_at
                    order by j.priority desc, j.run_at, j.id
                    limit 1000
                )
                union all
                (
                    select l.type
                    from public.lanes as l
                    cross join lateral (
                        select j.id
                        from public.jobs as j
                        where
                            j.queue = unknown_types.queue and j.status = 'pending'
                            and j.lane = l.lane and j.type = l.type and j.run_at <= now_at
                        order by j.priority desc, j.run_at, j.id
                        limit 1000
                    ) as j
                    where l.queue = unknown_types.queue and l.type <> all (unknown_types.types)
                    limit 1000
                )
            ) as head
            where head.type <> all (unknown_types.types)
            group by head.type
        ) as counted
    );
end
$$;


-- Lets those lanes be looked at that a job held back which has just ended.
-- Callers: record_outcomes, when there are lanes. waits: behind a claim that has just counted what ended here, so that
-- it cannot say afterwards that there is no room. A claim itself waits for nobody: what it ends is looked for by its
-- own sweep.
create function public.free_lanes(job_ids bigint[], waits boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    freed text[];
begin
    freed := array(
        select l.id || '/' || public.limit_key(l.per, l.path, l.camel_path, j.user_id, j.data)
        from public.jobs as j
        cross join public.job_limits as l
        where
            j.id = any (free_lanes.job_ids) and l.at_once is not null
            and (l.queue is null or l.queue = j.queue) and (l.type is null or l.type = j.type)
    );
    if free_lanes.waits then
        perform from public.lanes as l
        where l.lane = any (freed)
        order by l.lane, l.queue, l.type
        for no key update;
    end if;
    update public.lanes as l
    set look_at = '-infinity'
    where
        (l.lane, l.queue, l.type) in (
            select k.lane, k.queue, k.type from public.lanes as k
            where k.lane = any (freed)
            for no key update skip locked
        );
end
$$;

revoke all on function
public.lanes_to_look_at(text, text[], integer, boolean),
public.keep_lanes(text, text[], text[], text[], text[], text[], integer[], bigint[], bigint[], text[], text[]),
public.find_lanes(text),
public.free_lanes(bigint[], boolean)
from public, anon, authenticated, service_role, pulse_worker;
