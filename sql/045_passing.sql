-- From a due row through the gates: which of the due jobs no limit holds back (043_gates.sql), whose turn it is
-- (046_turns.sql), where the others wait.
--
-- A claim hands out what it would if there were one line and it walked all of it: by priority, then by turns, whatever
-- has room in each of its limits. But a row that is denied, or whose user had a turn, must not be walked over by every
-- claim that follows, so it leaves the line for a lane (jobs.lane): that of the gate that denied it, or its user's own.
-- Lanes are looked at beside the line.
--
-- Exactness. Who starts a job of a limited key holds that key's lock until its commit, and counts once it has the lock:
-- what runs, in the rows that run, and what started, in call_limits. The lock is tried for and never waited for. A job
-- whose key is being counted by somebody else stays where it is, for the next look.
--
-- Nothing stays in a lane. A row in a lane has an entry in lanes: who puts the first one in makes it, who finds the
-- lane empty removes it, both under the lock of its key. Its look_at is when room comes by time; for room that comes
-- when a job ends, the call that records the end sets it. When the entry is just being made that call may not see it,
-- so a new entry is looked at again after a second; and any after a minute, and by every sweep. Sweeps also make
-- entries that are missing all the same (find_lanes): somebody may have deleted them. A user's own lane is looked at by
-- every claim.

-- Chooses among due jobs those that no limit holds, up to max_jobs, locked, in turns; others that it met go to lanes.
-- Callers: claim: when a lane is to be looked at, when a limit governs one of those that it found, when users' jobs
-- fill it, and when a job has waited too long behind higher priorities.
-- held = what the claim has found and locked in the line, with what find_due said; null: nothing yet.
-- It looks at the heads of at most 100 lanes of limits, some 500 rows, and of as many lanes of users as it needs, 100
-- at most, and takes at most 300 keys. It looks into the line and the lanes five times, and once at 500 rows more, to
-- move those that wait for the same reason; on sweeps at 2,000.
create function public.pass_gates(
    in queue text, in types text[], in max_jobs integer, in known jsonb, in from_the_start boolean,
    in held bigint[], in held_floor jsonb, in held_next timestamptz,
    out ids bigint[], out floor jsonb, out next_run_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
set enable_indexscan = on
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    now_at constant timestamptz := public.clock_now();
    wanted integer;
    batch integer;                      -- how many rows of the line it asked for
    line bigint[] := held;              -- the rows of the line of this round
    line_next timestamptz := held_next;
    is_whole boolean;                   -- they are all that there are
    is_last boolean;                    -- nobody waits longer for what may still come
    seen bigint[] := '{}';              -- those of all rounds, which stay where they are until the claim is done
    governed text[];                    -- the types that limits govern,
    governing bigint[];                 -- and beside each the limit
    lanes text[] := '{}';               -- the lanes it looks at, with the type of each
    lane_types text[] := '{}';
    lanes_served timestamptz[];         -- and when it was the turn of its user
    turns_from integer;                 -- lanes of users from this priority down are not all among them; null: they are
    aged bigint;                        -- who has waited too long behind higher priorities
    chosen record;                      -- the candidates, side by side
    keys text[] := '{}';                -- the gates met so far: their keys,
    rooms integer[] := '{}';            -- how many more they let through (null: somebody else is counting),
    took integer[] := '{}';             -- and how many they let through here
    fresh text[];
    key text;
    gate integer;
    full_gate integer;
    n integer;
    is_busy boolean := false;           -- somebody else is counting a key that was wanted, or has taken a row
    is_beaten boolean;                  -- in this round somebody else was faster,
    tried bigint[];                     -- and these of the candidates had their turn in it
    is_counted boolean;
    served text[] := '{}';              -- whose turn it was, once for each
    starts bigint[];
    start_keys text[];
    start_turns text[];
    denied bigint[];
    denied_to text[];
    denied_types text[];
    behind_ids bigint[];
    behind_to text[];
    behind_types text[];
    is_left boolean;
    left_lanes text[];                  -- whose heads wait elsewhere from now on
    last_moved integer;                 -- its place in the line
    turning text[];                     -- whose jobs go to their own lane
    met_lanes text[] := '{}';           -- where something was denied, with the type
    met_types text[] := '{}';
    locked bigint[];
    has_moved boolean := false;
    has_left boolean := false;
    beaten bigint[] := '{}';            -- what somebody else has locked
    rounds integer := 0;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception using
            errcode = 'invalid_transaction_state',
            message = 'a claim of limited jobs needs the isolation level read committed',
            hint = 'Else it counts what it saw before it had the lock. See default_transaction_isolation of the role.';
    end if;

    select array_agg(t.type), array_agg(l.id) into governed, governing
    from unnest(pass_gates.types) as t (type)
    cross join lateral public.limits_of(pass_gates.queue, t.type) as l
    where l.at_once is not null or l.starts is not null;

    ids := '{}';
    floor := held_floor;
    if held is null then
        select o.lanes, o.types_of, o.served, o.turns_from into lanes, lane_types, lanes_served, turns_from
        from public.lanes_to_look_at(
            pass_gates.queue, pass_gates.types, pass_gates.max_jobs, pass_gates.from_the_start
        ) as o;
        if cardinality(lanes) > 0 then
            keys := array(select distinct l.lane from unnest(lanes) as l (lane));
            rooms := public.rooms_at(keys);
            took := array_fill(0, array[cardinality(keys)]);
        end if;
        if pass_gates.from_the_start then
            aged := public.find_aged(pass_gates.queue, pass_gates.types, lanes, lane_types, keys, rooms);
        end if;
    end if;

    loop
        rounds := rounds + 1;
        wanted := pass_gates.max_jobs - cardinality(ids);
        batch := wanted;
        if line is null then
            batch := greatest(2 * wanted, 20);  -- nothing is locked by looking
            select f.ids, f.next_run_at, case when rounds = 1 then f.floor else pass_gates.floor end
            into line, line_next, floor
            from public.find_due(
                pass_gates.queue, pass_gates.types, batch, pass_gates.known, pass_gates.from_the_start,
                false, array_remove(seen || aged, null), null, null, null
            ) as f;
        end if;
        is_whole := cardinality(line) < batch;
        is_last := is_whole or rounds = 5 or has_moved and rounds > 1;

        select c.* into chosen
        from public.candidates(
            pass_gates.queue, line, aged, lanes, lane_types, lanes_served, ids || beaten, pass_gates.max_jobs,
            rounds, governed, governing
        ) as c;

        fresh := array(
            select k.key from (
                select unnest(string_to_array(w.words, ' ')) as key, w.n
                from unnest(chosen.keys) with ordinality as w (words, n)
            ) as k
            where k.key <> all (keys)
            group by k.key
            order by min(k.n), k.key                -- who is first in line is not left out again and again
            limit 300 - cardinality(keys)
        );
        if cardinality(fresh) > 0 then
            rooms := rooms || public.rooms_at(fresh);
            took := took || array_fill(0, array[cardinality(fresh)]);
            keys := keys || fresh;
        end if;

        -- One by one, since each takes of the room that the next one finds.
        select false, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'
        into is_beaten, tried, starts, start_keys, start_turns, denied, denied_to, denied_types, left_lanes;
        -- What is not first in line waits for what the line may still have before it; in the last round, no longer.
        foreach n in array public.in_turns(
            chosen.ids, aged, chosen.priorities, chosen.turns, chosen.keys, chosen.cut, keys, rooms, served,
            case when is_whole then 0 when is_last then chosen.last_priority else chosen.last_priority + 1 end,
            chosen.reach
        ) loop
            exit when cardinality(starts) >= wanted
            or chosen.priorities[n] < turns_from and chosen.ids[n] is distinct from aged;
            tried := tried || chosen.ids[n];
            full_gate := null;
            is_counted := false;
            foreach key in array coalesce(string_to_array(chosen.keys[n], ' '), '{}') loop
                gate := array_position(keys, key);
                is_counted := is_counted or rooms[gate] is null;
                if rooms[gate] <= 0 and (full_gate is null or key = chosen.lanes[n]) then
                    full_gate := gate;      -- the first one; but who waits for one of them stays where it is
                end if;
            end loop;
            if full_gate is not null then
                if chosen.lanes[n] is distinct from keys[full_gate] then
                    denied := denied || chosen.ids[n];
                    denied_to := denied_to || keys[full_gate];
                    denied_types := denied_types || chosen.types[n];
                    left_lanes := left_lanes || chosen.lanes[n];
                end if;
            elsif is_counted then
                is_busy := true;
            else
                starts := starts || chosen.ids[n];
                start_keys := start_keys || coalesce(chosen.keys[n], '');
                start_turns := start_turns || chosen.turns[n];
                foreach key in array coalesce(string_to_array(chosen.keys[n], ' '), '{}') loop
                    gate := array_position(keys, key);
                    rooms[gate] := rooms[gate] - 1;
                    took[gate] := took[gate] + 1;
                end loop;
            end if;
        end loop;

        -- Who had a turn and wants another goes to its own lane, and so does who waits there already.
        start_turns := served || array_remove(start_turns, null);
        turning := '{}';
        if cardinality(starts) + cardinality(denied) < cardinality(chosen.ids) or not is_whole and held is null then
            fresh := array(
                select t.turn
                from (
                    select c.turn
                    from unnest(chosen.ids, chosen.lanes, chosen.turns, chosen.laned) as c (id, lane, turn, is_laned)
                    where c.lane is null and c.id <> all (starts || denied) and (c.turn = any (start_turns) or c.is_laned)
                    union
                    select s.turn from unnest(start_turns) as s (turn) where not is_whole and held is null
                ) as t
                where t.turn <> all (keys)
                limit 300 - cardinality(keys)
            );
            if cardinality(fresh) > 0 then
                rooms := rooms || public.rooms_at(fresh);
                took := took || array_fill(0, array[cardinality(fresh)]);
                keys := keys || fresh;
            end if;
            turning := array(
                select k.key from unnest(keys, rooms) as k (key, room)
                where starts_with(k.key, '0/') and k.room is not null
            );
            if cardinality(turning) > 0 then
                select
                    denied || coalesce(array_agg(c.id), '{}'), denied_to || coalesce(array_agg(c.turn), '{}'),
                    denied_types || coalesce(array_agg(c.type), '{}')
                into denied, denied_to, denied_types
                from unnest(chosen.ids, chosen.lanes, chosen.turns, chosen.types) as c (id, lane, turn, type)
                where c.lane is null and c.id <> all (starts || denied) and c.turn = any (turning);
            end if;
        end if;

        -- What is behind them for the same reason would be met one by one by the claims to come.
        last_moved := case
            when cardinality(denied) > 0 then (select max(array_position(line, d.id)) from unnest(denied) as d (id))
        end;
        if not is_whole and held is null then
            last_moved := coalesce(last_moved, cardinality(line));
        end if;
        if has_moved or cardinality(starts) >= wanted and held is not null then
            last_moved := null;
        end if;
        is_left := array_remove(left_lanes, null) <> '{}';
        left_lanes := case when not has_left then array_remove(left_lanes, null) end;
        if last_moved is not null or left_lanes <> '{}' then
            has_moved := has_moved or last_moved is not null;
            has_left := has_left or left_lanes <> '{}';
            select coalesce(array_agg(b.id), '{}'), coalesce(array_agg(b.key), '{}'), coalesce(array_agg(b.type), '{}')
            into behind_ids, behind_to, behind_types
            from public.behind(
                pass_gates.queue, pass_gates.types, line[last_moved], left_lanes,
                case when pass_gates.from_the_start then 2000 else 500 end,
                array(select k.key from unnest(keys, rooms) as k (key, room) where k.room <= 0), turning,
                governed, governing
            ) as b;
            fresh := array(
                select b.key from unnest(behind_to) as b (key)
                where b.key <> all (keys)
                group by b.key
                limit 300 - cardinality(keys)
            );
            if cardinality(fresh) > 0 then
                rooms := rooms || public.rooms_at(fresh);
                took := took || array_fill(0, array[cardinality(fresh)]);
                keys := keys || fresh;
            end if;
            select
                denied || coalesce(array_agg(b.id), '{}'), denied_to || coalesce(array_agg(b.key), '{}'),
                denied_types || coalesce(array_agg(b.type), '{}')
            into denied, denied_to, denied_types
            from unnest(behind_ids, behind_to, behind_types) as b (id, key, type)
            inner join unnest(keys, rooms) as k (key, room) on k.key = b.key
            where k.room is not null and b.id <> all (denied || starts);
        end if;

        locked := array(
            select j.id
            from public.jobs as j
            where
                j.queue = pass_gates.queue and j.id = any (starts || denied)
                and j.status = 'pending' and j.run_at <= now_at
            for update skip locked
        );
        if cardinality(denied) > 0 then
            update public.jobs as j
            set lane = d.lane
            from unnest(denied, denied_to) as d (id, lane)
            where j.queue = pass_gates.queue and j.id = d.id and d.id = any (locked);
            met_lanes := met_lanes || denied_to;
            met_types := met_types || denied_types;
        end if;

        for n in 1..cardinality(starts) loop
            if starts[n] = any (locked) then
                ids := ids || starts[n];
                served := served || array_remove(array[chosen.turns[array_position(chosen.ids, starts[n])]], null);
            else    -- somebody else was faster: the others of this round get their turn in the next one
                is_beaten := true;
                beaten := beaten || starts[n];
                foreach key in array string_to_array(start_keys[n], ' ') loop
                    gate := array_position(keys, key);
                    rooms[gate] := rooms[gate] + 1;
                    took[gate] := took[gate] - 1;
                end loop;
            end if;
        end loop;

        seen := seen || tried;
        if aged = any (ids || beaten) then
            seen := seen || aged;
            aged := null;
        end if;
        is_whole := is_whole and turns_from is null and (true = any (chosen.cut)) is not true;
        next_run_at := case when is_whole then line_next else now_at end;
        exit when
            cardinality(ids) >= pass_gates.max_jobs or rounds = 5
            or is_last and not (is_left or is_beaten or true = any (chosen.cut));
        line := null;

        -- The first of the lanes that were just made, too.
        select lanes || coalesce(array_agg(m.lane), '{}'), lane_types || coalesce(array_agg(m.type), '{}')
        into lanes, lane_types
        from (
            select u.lane, u.type
            from unnest(denied_to, denied_types) with ordinality as u (lane, type, n)
            where starts_with(u.lane, '0/')
            and not exists (
                select from unnest(lanes, lane_types) as v (lane, type) where v.lane = u.lane and v.type = u.type
            )
            group by u.lane, u.type
            order by min(u.n)
            limit wanted + 3
        ) as m;
    end loop;

    if is_busy or cardinality(ids) >= pass_gates.max_jobs then
        next_run_at := now_at;
    end if;
    perform public.write_starts(keys, took);
    perform public.keep_lanes(
        pass_gates.queue, lanes, lane_types, met_lanes, met_types, keys, rooms, ids, beaten, served, chosen.lanes
    );
    if beaten <> '{}' then
        next_run_at := least(next_run_at, now_at + interval '1 second');
    end if;
    next_run_at := least(
        next_run_at,
        (
            select l.look_at from public.lanes as l
            where l.queue = pass_gates.queue and l.type = any (pass_gates.types)
            order by l.look_at
            limit 1
        )
    );
end
$$;

revoke all on function public.pass_gates(text, text[], integer, jsonb, boolean, bigint[], jsonb, timestamptz)
from public, anon, authenticated, service_role, pulse_worker;
