-- How much room a gate has: the parts of pass_gates (045_passing.sql).

-- The jobs among which a claim chooses, in its order, with the keys by which limits count each, parted by spaces.
-- Callers: pass_gates. line = ids; of each lane the first ones that are due, besides those that are chosen already.
-- turns = whose turn each is: the name of the lane of its user; laned = whether there is such a lane; cut = whether
-- more stand behind it in that lane than this look brings, each look four times as many. reach = so many are before the
-- last of the line, whose priority is last_priority.
create function public.candidates(
    in queue text, in line bigint[], in aged bigint,
    in due_lanes text[], in due_types text[], in due_served timestamptz[], in besides bigint[],
    in max_jobs integer, in look integer, in governed text[], in governing bigint[],
    out ids bigint[], out lanes text[], out types text[], out keys text[], out turns text[], out priorities integer[],
    out laned boolean[], out cut boolean[], out reach integer, out last_priority integer
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    of_each constant integer := greatest(
        least(candidates.max_jobs, 500 / greatest(cardinality(candidates.due_lanes), 1)), 1
    );
    of_own constant integer := least(
        of_each,
        greatest(
            2, 3 * candidates.max_jobs
            / greatest((select count(*) from unnest(candidates.due_lanes) as l (lane) where starts_with(l.lane, '0/')), 1)
        ) * 4 ^ (candidates.look - 1)
    );
    has_lanes constant boolean := exists (select from public.lanes as l where l.queue = candidates.queue);
    of_users constant text[] := array(select l.id || '/' from public.job_limits as l where l.per = 'user');
begin
    select
        array_agg(c.id), array_agg(c.lane), array_agg(c.type), array_agg(c.words), array_agg(c.turn),
        array_agg(c.priority), array_agg(c.has_lane), array_agg(c.is_cut),
        count(*) filter (
            where
            c.priority > c.last_priority
            or c.priority = c.last_priority and (c.waits_since, c.run_at, c.id) <= (c.last_run_at, c.last_run_at, c.last_id)
        ),
        max(c.last_priority)
    into ids, lanes, types, keys, turns, priorities, laned, cut, reach, last_priority
    from (
        select
            j.id, j.lane, j.type, j.priority, j.run_at, j.has_lane, j.is_cut,
            public.turn_key(j.priority, j.user_id) as turn,
            greatest(j.run_at, j.served_at) as waits_since,
            ends.priority as last_priority, ends.run_at as last_run_at, ends.id as last_id,
            (
                select string_agg(l.id || '/' || public.limit_key(l.per, l.path, l.camel_path, j.user_id, j.data), ' ')
                from unnest(candidates.governed, candidates.governing) as g (type, id)
                inner join public.job_limits as l on l.id = g.id
                where g.type = j.type
            ) as words
        from (
            select
                r.id, r.lane, r.type, r.priority, r.run_at, r.user_id, r.data, false as is_cut,
                turn.served_at, turn.has_lane
            from public.jobs as r
            left join lateral (
                select max(l.served_at) as served_at, bool_or(starts_with(l.lane, '0/')) as has_lane
                from public.lanes as l
                where
                    l.queue = candidates.queue
                    and l.lane = any (
                        public.turn_key(r.priority, r.user_id) || array(
                            select o.lane || r.user_id from unnest(of_users) as o (lane)
                        )
                    )
            ) as turn on has_lanes and r.user_id is not null
            where r.queue = candidates.queue and r.id = any (candidates.line || candidates.aged)
            union all
            select head.*, v.served_at, null
            from unnest(candidates.due_lanes, candidates.due_types, candidates.due_served) as v (lane, type, served_at)
            cross join lateral (
                select
                    r.id, r.lane, r.type, r.priority, r.run_at, r.user_id, r.data,
                    starts_with(v.lane, '0/') and of_own < candidates.max_jobs
                    and row_number() over (order by r.priority desc, r.run_at, r.id) = of_own
                from public.jobs as r
                where
                    r.queue = candidates.queue and r.status = 'pending'
                    and r.lane = v.lane and r.type = v.type and r.run_at <= now_at
                    and r.id <> all (candidates.besides)
                    and r.id is distinct from candidates.aged
                order by r.priority desc, r.run_at, r.id
                limit case when starts_with(v.lane, '0/') then of_own else of_each end
            ) as head
        ) as j
        left join public.jobs as ends
            on ends.queue = candidates.queue and ends.id = candidates.line[cardinality(candidates.line)]
        order by j.priority desc, greatest(j.run_at, j.served_at), j.run_at, j.id
    ) as c;
end
$$;


-- Of the due rows of the line behind a job, those which wait for these gates, or whose users wait for their turn: these
-- ones, or those who do already; of the lanes that were left, those which wait for these gates.
-- Callers: pass_gates. full_keys: the gates without room. most = how many rows it looks at, there and there.
create function public.behind(
    queue text, types text[], job_id bigint, left_lanes text[], most integer, full_keys text[], turning text[],
    governed text[], governing bigint[]
) returns table (id bigint, type text, key text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    ahead record;
begin
    select j.priority, j.run_at, j.id into ahead
    from public.jobs as j
    where j.queue = behind.queue and j.id = behind.job_id;

    return query
    select j.id, j.type, coalesce(gate.key, public.turn_key(j.priority, j.user_id))
    from (
        (
            select r.id, r.lane, r.type, r.priority, r.user_id, r.data
            from public.jobs as r
            where
                r.queue = behind.queue and r.status = 'pending' and r.lane is null
                and r.priority = ahead.priority and (r.run_at, r.id) > (ahead.run_at, ahead.id)
                and r.run_at <= now_at and r.type = any (behind.types)
            order by r.run_at, r.id
            limit behind.most
        )
        union all
        select waiting.*
        from unnest(array(select distinct v.lane from unnest(behind.left_lanes) as v (lane))) as v (lane)
        cross join unnest(behind.types) as t (type)
        cross join lateral (
            select r.id, r.lane, r.type, r.priority, r.user_id, r.data
            from public.jobs as r
            where
                r.queue = behind.queue and r.status = 'pending' and r.lane = v.lane and r.type = t.type
                and r.run_at <= now_at
            order by r.priority desc, r.run_at, r.id
            limit behind.most / cardinality(behind.left_lanes)
        ) as waiting
        where v.lane <> all (behind.full_keys)
    ) as j
    left join lateral (
        select k.key
        from (
            select l.id || '/' || public.limit_key(l.per, l.path, l.camel_path, j.user_id, j.data) as key
            from unnest(behind.governed, behind.governing) as g (type, id)
            inner join public.job_limits as l on l.id = g.id
            where g.type = j.type
        ) as k
        where k.key = any (behind.full_keys)
        limit 1
    ) as gate on cardinality(behind.full_keys) > 0
    where
        gate.key is not null
        or j.lane is null and (
            public.turn_key(j.priority, j.user_id) = any (behind.turning)
            or exists (
                select from public.lanes as l
                where l.lane = public.turn_key(j.priority, j.user_id) and l.queue = behind.queue
            )
        );
end
$$;


-- How many more jobs each gate lets through; null when somebody else is counting it. Holds the keys' locks.
-- Callers: pass_gates. Waits for nobody. A lane whose limit is gone has room for all, as has a user's own.
create function public.rooms_at(keys text[]) returns integer[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    moment timestamptz;
    is_mine boolean[];
    logs text[];
    running jsonb;
begin
    select array_agg(pg_try_advisory_xact_lock(hashtextextended('job_limits/' || k.key, 0)) order by k.n) into is_mine
    from unnest(rooms_at.keys) with ordinality as k (key, n);

    -- Statements of their own, so that all is seen that was committed before the locks were free.
    logs := array(
        select c.key
        from public.call_limits as c
        where c.key = any (array(select 'job_limits/' || k.key from unnest(rooms_at.keys) as k (key)))
        for update skip locked
    );
    moment := public.call_moment();
    -- The clock was set back: what lies ahead of it was taken now at the latest (085_limits.sql).
    update public.call_limits as c
    set taken = array(select least(t.at, moment) from unnest(c.taken) with ordinality as t (at, n) order by t.n)
    where c.key = any (logs) and c.taken[cardinality(c.taken)] > moment;

    running := public.count_running(rooms_at.keys);

    return (
        select array_agg(
            case
                when is_mine[k.n] and (c.key is null or c.key = any (logs))
                    then coalesce(
                        least(
                            l.at_once - coalesce((running ->> k.key)::integer, 0),
                            l.starts - coalesce(public.calls_within(c.taken, moment, l.per_seconds), 0)
                        ),
                        2147483647
                    )
            end order by k.n
        )
        from unnest(rooms_at.keys) with ordinality as k (key, n)
        left join public.job_limits as l on l.id = split_part(k.key, '/', 1)::bigint
        left join public.call_limits as c on c.key = 'job_limits/' || k.key and l.starts is not null
    );
end
$$;


-- How many of these calls, oldest first, are within the window that ends at that moment.
-- Callers: rooms_at, keep_lanes, gate_of.
create function public.calls_within(taken timestamptz[], at timestamptz, per_seconds double precision) returns integer
language sql immutable parallel safe
return cardinality(taken) - width_bucket(at - make_interval(secs => per_seconds), taken);


-- How many jobs run under each of these keys, for those limits that count what runs: {"3/…": 2}.
-- Callers: rooms_at, which holds the keys.
create function public.count_running(keys text[]) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    limits constant bigint[] := array(
        select l.id
        from public.job_limits as l
        where
            l.at_once is not null
            and l.id = any (array(select split_part(k.key, '/', 1)::bigint from unnest(count_running.keys) as k (key)))
    );
begin
    if cardinality(limits) = 0 then
        return '{}';
    end if;
    return (
        select jsonb_object_agg(r.key, r.jobs)
        from (
            select l.id || '/' || public.limit_key(l.per, l.path, l.camel_path, j.user_id, j.data) as key, count(*) as jobs
            from public.jobs as j
            inner join public.job_limits as l
                on (l.queue is null or l.queue = j.queue) and (l.type is null or l.type = j.type)
            where
                j.status = 'running' and l.id = any (limits)
                and not exists (
                    select from public.job_limits as closer
                    where
                        closer.per = l.per
                        and closer.queue = j.queue
                        and (closer.type is null or closer.type = j.type)
                        and (l.queue is null or l.type is null and closer.type is not null)
                )
            group by 1
        ) as r
        where r.key is not null
    );
end
$$;


-- Writes down the starts that a claim takes, for those limits that count starts.
-- Callers: pass_gates, which holds the keys. took = how many of each.
create function public.write_starts(keys text[], took integer[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    moment constant timestamptz := public.call_moment();
begin
    insert into public.call_limits (key, taken, forget_at)
    select
        'job_limits/' || k.key,
        coalesce(c.taken[cardinality(c.taken) - public.calls_within(c.taken, moment, l.per_seconds) + 1:], '{}')
        || array_fill(moment, array[k.took]),
        moment + make_interval(secs => l.per_seconds)
    from unnest(write_starts.keys, write_starts.took) as k (key, took)
    inner join public.job_limits as l on l.id = split_part(k.key, '/', 1)::bigint
    left join public.call_limits as c on c.key = 'job_limits/' || k.key
    where k.took > 0 and l.starts is not null
    on conflict on constraint call_limits_pkey do update set taken = excluded.taken, forget_at = excluded.forget_at;
end
$$;


revoke all on function
public.candidates(
    text, bigint[], bigint, text[], text[], timestamptz[], bigint[], integer, integer, text[], bigint[]
),
public.behind(text, text[], bigint, text[], integer, text[], text[], text[], bigint[]),
public.rooms_at(text[]),
public.calls_within(timestamptz[], timestamptz, double precision),
public.count_running(text[]),
public.write_starts(text[], integer[])
from public, anon, authenticated, service_role, pulse_worker;
