-- From a due row through the gates: which of the due jobs no limit holds back (043_gates.sql), where the others wait.
--
-- A claim hands out what it would if there were one line and it walked all of it: by priority, run_at and id, whatever
-- has room in each of its limits. But a row that is denied must not be walked over by every claim that follows, so it
-- leaves the line for the lane of the gate that denied it (jobs.lane). Lanes are looked at beside the line.
--
-- Exactness. Who starts a job of a limited key holds that key's lock until its commit, and counts once it has the lock:
-- what runs, in the rows that run, and what started, in call_limits. The lock is tried for and never waited for. A job
-- whose key is being counted by somebody else stays where it is, for the next look.
--
-- Nothing stays in a lane. A row in a lane has an entry in lanes: who puts the first one in makes it, who finds the
-- lane empty removes it, both under the lock of its key. Its look_at is when room comes by time; for room that comes
-- when a job ends, the call that records the end sets it. When the entry is just being made that call may not see it,
-- so a new entry is looked at again after a second; and any after a minute, and by every sweep. Sweeps also make
-- entries that are missing all the same (find_lanes): somebody may have deleted them.

-- Chooses among due jobs those that no limit holds, up to max_jobs, locked; the others that it met go to their lanes.
-- Callers: claim, when a lane is to be looked at, or when a limit governs one of those that it found.
-- held = what the claim has found and locked in the line, with what find_due said; null: nothing yet.
-- It looks at the heads of at most 100 lanes, some 500 rows, and takes at most 300 keys. It looks into the line and the
-- lanes five times, and moves up to 500 more of those that wait behind a job that was denied.
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
    reach integer;                      -- how far it may go through the candidates
    line bigint[] := held;              -- the rows of the line of this round
    line_next timestamptz := held_next;
    seen bigint[] := '{}';              -- those of all rounds, which stay where they are until the claim is done
    is_left boolean;                    -- a lane was left by what stood at its head
    governed text[];                    -- the types that limits govern,
    governing bigint[];                 -- and beside each the limit
    lanes text[] := '{}';               -- the lanes it looks at, with the type of each
    lane_types text[] := '{}';
    chosen record;                      -- the candidates, side by side
    keys text[] := '{}';                -- the gates met so far: their keys,
    rooms integer[] := '{}';            -- how many more they let through (null: somebody else is counting),
    took integer[] := '{}';             -- and how many they let through here
    fresh text[];
    key text;
    gate integer;
    full_gate integer;
    is_busy boolean := false;           -- somebody else is counting a key that was wanted, or has taken a row
    is_beaten boolean;                  -- in this round somebody else was faster,
    tried integer;                      -- and so many of the candidates had their turn in it
    is_counted boolean;
    starts bigint[];
    start_keys text[];
    denied bigint[];
    denied_to text[];
    last_denied bigint;
    met_lanes text[] := '{}';           -- where something was denied, with the type
    met_types text[] := '{}';
    locked bigint[];
    has_moved boolean := false;
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
        select coalesce(array_agg(l.lane), '{}'), coalesce(array_agg(l.type), '{}') into lanes, lane_types
        from (
            select due.lane, due.type
            from public.lanes as due
            where
                due.queue = pass_gates.queue and due.type = any (pass_gates.types)
                and (pass_gates.from_the_start or due.look_at <= now_at)
            order by due.look_at
            limit 100
            for update skip locked
        ) as l;
    end if;

    loop
        rounds := rounds + 1;
        wanted := pass_gates.max_jobs - cardinality(ids);
        batch := wanted;
        if line is null then
            batch := greatest(wanted, 50);      -- nothing is locked by looking
            select f.ids, f.next_run_at, case when rounds = 1 then f.floor else pass_gates.floor end
            into line, line_next, floor
            from public.find_due(
                pass_gates.queue, pass_gates.types, batch, pass_gates.known, pass_gates.from_the_start,
                false, seen, null, null, null
            ) as f;
        end if;

        select c.* into chosen
        from public.candidates(
            pass_gates.queue, line, lanes, lane_types, ids, pass_gates.max_jobs,
            governed, governing
        ) as c;

        fresh := array(
            select k.key from (
                select unnest(string_to_array(w.words, ' ')) as key, w.n
                from unnest(chosen.keys) with ordinality as w (words, n)
                union all
                select unnest(lanes), 0
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
        starts := '{}';
        start_keys := '{}';
        denied := '{}';
        denied_to := '{}';
        last_denied := null;
        is_left := false;
        is_beaten := false;
        tried := 0;
        -- What is in a lane waits for what the line may still have before it.
        reach := case
            when cardinality(line) < batch then cardinality(chosen.ids)
            else (select max(c.n) from unnest(chosen.lanes) with ordinality as c (lane, n) where c.lane is null)
        end;
        for n in 1..coalesce(reach, 0) loop
            exit when cardinality(starts) >= wanted;
            tried := n;
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
                    met_lanes := met_lanes || keys[full_gate];
                    met_types := met_types || chosen.types[n];
                    is_left := is_left or chosen.lanes[n] is not null;
                end if;
                if chosen.lanes[n] is null then
                    last_denied := chosen.ids[n];
                end if;
            elsif is_counted then
                is_busy := true;
            else
                starts := starts || chosen.ids[n];
                start_keys := start_keys || coalesce(chosen.keys[n], '');
                foreach key in array coalesce(string_to_array(chosen.keys[n], ' '), '{}') loop
                    gate := array_position(keys, key);
                    rooms[gate] := rooms[gate] - 1;
                    took[gate] := took[gate] + 1;
                end loop;
            end if;
        end loop;

        -- What is behind them for the same gates would be met one by one by the claims to come.
        if last_denied is not null and not has_moved and cardinality(starts) < wanted then
            has_moved := true;
            select denied || coalesce(array_agg(b.id), '{}'), denied_to || coalesce(array_agg(b.key), '{}'),
                met_lanes || coalesce(array_agg(b.key), '{}'), met_types || coalesce(array_agg(b.type), '{}')
            into denied, denied_to, met_lanes, met_types
            from public.behind(
                pass_gates.queue, pass_gates.types, last_denied,
                array(select k.key from unnest(keys, rooms) as k (key, room) where k.room <= 0),
                governed, governing
            ) as b
            where b.id <> all (denied);
        end if;

        locked := array(
            select j.id
            from public.jobs as j
            where
                j.queue = pass_gates.queue and j.id = any (starts || denied)
                and j.status = 'pending' and j.run_at <= now_at
            for update skip locked
        );
        update public.jobs as j
        set lane = d.lane
        from unnest(denied, denied_to) as d (id, lane)
        where j.queue = pass_gates.queue and j.id = d.id and d.id = any (locked);

        for n in 1..cardinality(starts) loop
            if starts[n] = any (locked) then
                ids := ids || starts[n];
            else    -- somebody else was faster: the others of this round get their turn in the next one
                is_beaten := true;
                foreach key in array string_to_array(start_keys[n], ' ') loop
                    gate := array_position(keys, key);
                    rooms[gate] := rooms[gate] + 1;
                    took[gate] := took[gate] - 1;
                end loop;
            end if;
        end loop;

        is_busy := is_busy or is_beaten;
        seen := seen || case when is_beaten then chosen.ids[:tried] else line end;
        next_run_at := case when cardinality(line) < batch then line_next else now_at end;
        exit when cardinality(ids) >= pass_gates.max_jobs or rounds = 5
            or cardinality(line) < batch and not (is_left or is_beaten);
        line := null;
    end loop;

    if is_busy or cardinality(ids) >= pass_gates.max_jobs then
        next_run_at := now_at;
    end if;
    perform public.write_starts(keys, took);
    perform public.keep_lanes(pass_gates.queue, lanes, lane_types, met_lanes, met_types, keys, rooms, ids);
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
