-- Whose turn it is: no user waits behind the flood of another, and no job for ever behind higher priorities.
--
-- Turns. Within a priority users take turns: whoever has waited longest since its last turn is next, and a turn is one
-- job. A job without a user is a turn of its own, in the order of run_at. Alone, a user takes all places.
--
-- How. A claim that users' jobs do not fill took all that was due: nothing needs an order. One that they fill looks at
-- the fifty that come next, and a sweep at two thousand: whether somebody comes twice. Of a user who had a turn the
-- rest of what it saw goes to a lane of the user, 0/<priority>/<user_id>, which remembers when that was
-- (lanes.served_at). At the head of the lane a job has waited since then, whatever its run_at: so each of the others
-- may start one job before it, and no second. What the user has further down the line follows as claims come to it,
-- five hundred rows at a time. The memory ends with the lane, when nothing of the user is left over.
--
-- Ageing. With each sweep that has a place to give, the job of a lower priority that has waited longest, if that is
-- more than a minute, goes first.

-- Whose turn a job is: the name of the lane of its user and priority; null: of nobody else.
-- Callers: candidates, behind.
create function public.turn_key(priority integer, user_id uuid) returns text
language sql immutable parallel safe
return '0/' || priority::text || '/' || user_id::text;


-- Whether a user of those whom a full claim found comes again among the fifty that follow: a matter of turns, then.
-- Callers: claim. users = those of the jobs that it found, last_id = the last of these.
create function public.is_crowded(queue text, types text[], users uuid[], last_id bigint) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    last record;
begin
    select j.priority, j.run_at into last
    from public.jobs as j
    where j.queue = is_crowded.queue and j.id = is_crowded.last_id;
    return cardinality(users) > 1 and exists (
        select from unnest(is_crowded.users) as u (user_id)
        where u.user_id is not null
        group by u.user_id
        having count(*) > 1
    )
    or exists (
        select from (
            select j.user_id
            from public.jobs as j
            where
                j.queue = is_crowded.queue and j.status = 'pending' and j.lane is null
                and j.priority = last.priority and (j.run_at, j.id) > (last.run_at, is_crowded.last_id)
                and j.run_at <= public.clock_now() and j.type = any (is_crowded.types)
            order by j.run_at, j.id
            limit 50
        ) as following
        where following.user_id = any (is_crowded.users)
    );
end
$$;


-- In which order the candidates of a claim have their turns: their places in the list, without those that have to wait
-- for what may still be before them in the line.
-- Callers: pass_gates. Waiting need those of the first `reach` not for whom it is the first turn in this claim, nor
-- those from a priority on (open_from); all wait for what may stand behind those who are `cut`. served = who had turns
-- in this claim. What no gate lets through is nobody's turn.
create function public.in_turns(
    ids bigint[], aged bigint, priorities integer[], whose text[], keys text[], cut boolean[],
    gates text[], rooms integer[], served text[], open_from integer, reach integer
) returns integer[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    turns integer[] := array_fill(1, array[coalesce(cardinality(in_turns.ids), 0)]);
    who text[];                         -- who has come up,
    times integer[];                    -- and how often it was its turn
    key text;
    key_places integer[];
    is_open boolean;
    place integer;
    at integer;
begin
    if array_remove(in_turns.keys, null) = '{}' then       -- no limit governs any of them
        turns := array(
            select case
                when u.turn is null then 1
                else
                    row_number() over (partition by u.turn order by u.n)
                    + cardinality(array_positions(in_turns.served, u.turn))
            end
            from unnest(in_turns.whose) with ordinality as u (turn, n)
            order by u.n
        );
    elsif exists (
        select from unnest(in_turns.whose || in_turns.served) as u (turn)
        where u.turn is not null
        group by u.turn
        having count(*) > 1
    ) then
        select coalesce(array_agg(s.turn), '{}'), coalesce(array_agg(s.times), '{}') into who, times
        from (select u.turn, count(*)::integer as times from unnest(in_turns.served) as u (turn) group by 1) as s;
        for n in 1..coalesce(cardinality(in_turns.ids), 0) loop
            continue when in_turns.whose[n] is null;
            at := array_position(who, in_turns.whose[n]);
            if at is null then
                who := who || in_turns.whose[n];
                times := times || 0;
                at := cardinality(who);
            end if;
            turns[n] := times[at] + 1;
            is_open := true;
            key_places := '{}';
            foreach key in array coalesce(string_to_array(in_turns.keys[n], ' '), '{}') loop
                place := array_position(in_turns.gates, key);
                is_open := is_open and coalesce(in_turns.rooms[place] > 0, false);
                key_places := key_places || place;
            end loop;
            if is_open then
                times[at] := times[at] + 1;
                foreach place in array key_places loop
                    in_turns.rooms[place] := in_turns.rooms[place] - 1;
                end loop;
            end if;
        end loop;
    end if;
    return array(
        select o.n
        from (
            select s.*, bool_or(s.cut) over (order by s.place rows unbounded preceding exclude current row) as is_behind
            from (
                select
                    c.*,
                    row_number() over (
                        order by (c.id = in_turns.aged) is true desc, c.priority desc, c.turn, c.n
                    ) as place
                from unnest(in_turns.ids, in_turns.priorities, turns, in_turns.cut)
                with ordinality as c (id, priority, turn, cut, n)
            ) as s
        ) as o
        where
            (o.id = in_turns.aged or o.priority >= in_turns.open_from or o.n <= in_turns.reach and o.turn = 1)
            and o.is_behind is not true
        order by o.place
    );
end
$$;


-- The due job that has waited longest behind higher priorities, for more than a minute; null: none.
-- Callers: claim, on sweeps, which asks of the line alone; pass_gates, which asks of its lanes that have room, too.
-- The walk goes from priority to priority, of which there are 101 at most.
create function public.find_aged(
    queue text, types text[], lanes text[], lane_types text[], gates text[], rooms integer[]
) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    level integer := 101;
    ids bigint[] := '{}';               -- the first in line of each priority
    head_id bigint;
begin
    loop
        select j.priority into level
        from public.jobs as j
        where
            j.queue = find_aged.queue and j.status = 'pending' and j.lane is null
            and j.priority >= 0 and j.priority < level
        order by j.priority desc
        limit 1;
        exit when not found;
        select j.id into head_id
        from public.jobs as j
        where
            j.queue = find_aged.queue and j.status = 'pending' and j.lane is null
            and j.priority = level and j.run_at <= now_at and j.type = any (find_aged.types)
        order by j.run_at, j.id
        limit 1;
        if found then
            ids := ids || head_id;
        end if;
        exit when level = 0;
    end loop;
    if cardinality(ids) + cardinality(find_aged.lanes) < 2 then
        return null;
    end if;

    return (
        with recursive laned as (
            select v.lane, v.type, first.*
            from unnest(find_aged.lanes, find_aged.lane_types) as v (lane, type)
            inner join unnest(find_aged.gates, find_aged.rooms) as k (key, room) on k.key = v.lane and k.room > 0
            cross join lateral (
                select j.id, j.priority, j.run_at, j.created_at
                from public.jobs as j
                where
                    j.queue = find_aged.queue and j.status = 'pending' and j.lane = v.lane and j.type = v.type
                    and j.run_at <= now_at
                order by j.priority desc, j.run_at, j.id
                limit 1
            ) as first
            union all
            select above.lane, above.type, following.*
            from laned as above
            cross join lateral (
                select j.id, j.priority, j.run_at, j.created_at
                from public.jobs as j
                where
                    j.queue = find_aged.queue and j.status = 'pending' and j.lane = above.lane and j.type = above.type
                    and j.priority < above.priority and j.run_at <= now_at
                order by j.priority desc, j.run_at, j.id
                limit 1
            ) as following
        ),

        heads as (
            select l.id, l.priority, greatest(l.run_at, l.created_at) as waits_since from laned as l
            union all
            select j.id, j.priority, greatest(j.run_at, j.created_at)
            from public.jobs as j
            where j.queue = find_aged.queue and j.id = any (ids)
        )

        select h.id
        from heads as h
        where
            h.waits_since < now_at - interval '1 minute'
            and h.priority < (select max(above.priority) from heads as above)
        order by h.waits_since, h.id
        limit 1
    );
end
$$;


revoke all on function
public.turn_key(integer, uuid),
public.is_crowded(text, text[], uuid[], bigint),
public.in_turns(bigint[], bigint, integer[], text[], text[], boolean[], text[], integer[], text[], integer, integer),
public.find_aged(text, text[], text[], text[], text[], integer[])
from public, anon, authenticated, service_role, pulse_worker;
