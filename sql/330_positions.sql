-- What an account holds, by its broker's word, and whether our orders account for it.
--
-- A run looks at all positions of one connection, and is applied whole or not at all:
--
-- - unsettled: orders of the connection are just moving, so that positions and fills would be of two moments. The job
--   comes back shortly; after a while it looks all the same, and judges nothing.
-- - overtaken: an order changed, or a later run was applied, while this one looked. What it saw is not used.
--
-- What a position has that no order accounts for is `unexplained`: bought before we knew the account, moved in, or a
-- correction by the broker. It is shown, never corrected. A change of it is told once, when two runs in a row agree on
-- it: by then a look at the orders has found what was only not known yet. What the very first run finds is not told;
-- nor is, of coins, what may be the fees of an exchange, taken in kind: a hundredth of what was traded, or the share
-- that the connection's settings say in drift_tolerated ("0.002").

-- Enqueues a run for each active connection, of one user or of all, in pages. Answers {"connections", "enqueued",
-- "last"}; "last" is null when there are no more, else the one to go on after.
-- Callers: sync_positions without a connection, over RPC; `key` is its job's: a repetition enqueues nothing more.
create function public.enqueue_position_syncs(
    user_id uuid, key text, after uuid default '00000000-0000-0000-0000-000000000000', max_jobs integer default 500
) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted jsonb;
    last uuid;
    answer jsonb;
begin
    select
        jsonb_agg(
            jsonb_build_object(
                'queue', 'broker', 'type', 'sync_positions', 'user_id', c.user_id,
                'data', jsonb_build_object('user_id', c.user_id, 'broker_connection_id', c.id),
                'idempotency_key', format('sync:%s:%s', c.id, enqueue_position_syncs.key)
            )
            order by c.id
        ),
        max(c.id::text)::uuid
    into wanted, last
    from (
        select k.id, k.user_id from public.broker_connections as k
        where
            k.status = 'active' and k.id > enqueue_position_syncs.after
            and (enqueue_position_syncs.user_id is null or k.user_id = enqueue_position_syncs.user_id)
        order by k.id
        limit enqueue_position_syncs.max_jobs
    ) as c;
    answer := public.enqueue(coalesce(wanted, '[]'));
    return jsonb_build_object(
        'connections', jsonb_array_length(answer),
        'enqueued', (select count(*) from jsonb_array_elements(answer) as a (job) where (a.job -> 'created')::boolean),
        'last', case when jsonb_array_length(answer) = enqueue_position_syncs.max_jobs then last end
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Begins a run. Answers {"outcome"}: "look" along with "run_id" and "connection"; or
--   unknown (no such connection of this user) · inactive · unsettled
-- Callers: sync_positions, over RPC. `patient` is false when it has waited for quiet long enough.
create function public.begin_position_sync(user_id uuid, broker_connection_id uuid, patient boolean) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    connection public.broker_connections;
    run_id constant uuid := gen_random_uuid();
begin
    select c.* into connection from public.broker_connections as c
    where
        c.id = begin_position_sync.broker_connection_id
        and (begin_position_sync.user_id is null or c.user_id = begin_position_sync.user_id);
    if connection.status is distinct from 'active' then
        return jsonb_build_object('outcome', case when connection.id is null then 'unknown' else 'inactive' end);
    end if;
    if begin_position_sync.patient and exists (
        select from public.orders as o
        where
            o.broker_connection_id = connection.id
            and (o.status = 'submitting' or o.updated_at > now_at - interval '5 seconds')
    ) then
        insert into public.broker_sync_runs (id, broker_connection_id, began_at, ended_at, outcome)
        values (run_id, connection.id, now_at, now_at, 'unsettled');
        return '{"outcome": "unsettled"}';
    end if;
    insert into public.broker_sync_runs (id, broker_connection_id, began_at) values (run_id, connection.id, now_at);
    return jsonb_build_object(
        'outcome', 'look', 'run_id', run_id, 'connection', public.connection_as_told(connection)
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Writes down what a run saw. `told` is {"complete", "positions": [{"symbol", "quantity", "avg_entry_price",
-- "current_price"}]}; only what is missing from a complete list is closed.
-- Answers {"outcome": applied | overtaken, "positions", "closed", "drifted" (and told), "unsure" (not
-- told: another run has to agree)}; the same again for a run that has ended.
-- Callers: sync_positions, over RPC. `patient` as in begin_position_sync: without it nothing is judged.
create function public.record_positions(run_id uuid, told jsonb, patient boolean) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    run public.broker_sync_runs;
    connection public.broker_connections;
    unsure integer := 0;
begin
    select r.* into strict run from public.broker_sync_runs as r where r.id = record_positions.run_id;
    connection := public.lock_connection(run.broker_connection_id);     -- its runs are applied one after the other
    select r.* into strict run from public.broker_sync_runs as r where r.id = record_positions.run_id for update;
    if run.ended_at is null and public.is_overtaken(connection.id, run.began_at, record_positions.patient) then
        update public.broker_sync_runs as r set ended_at = now_at, outcome = 'overtaken' where r.id = run.id
        returning r.* into run;
    elsif run.ended_at is null then
        run.closed := public.write_positions(connection, run, told);
        run.drifted := 0;
        if connection.synced_at is null then
            update public.positions as p set unexplained_told = p.unexplained
            where p.broker_connection_id = connection.id;
        elsif record_positions.patient then
            select count(*) filter (where t.is_told), count(*) filter (where not t.is_told) into run.drifted, unsure
            from (
                select public.judge_position(p, connection, run) as is_told from public.positions as p
                where p.broker_connection_id = connection.id and p.unexplained <> p.unexplained_told
                order by p.symbol
            ) as t;
        end if;
        connection := public.note_broker_answer(connection, '{}');
        update public.broker_connections as c set synced_at = now_at where c.id = connection.id;
        update public.broker_sync_runs as r
        set
            ended_at = now_at, outcome = 'applied', positions = jsonb_array_length(told -> 'positions'),
            closed = run.closed, drifted = run.drifted
        where r.id = run.id
        returning r.* into run;
        if unsure > 0 or not exists (      -- orders placed by hand, where none of ours has its account looked at
            select from public.broker_looks as l
            where l.broker_connection_id = connection.id and l.looked_at > now_at - interval '50 minutes'
        ) then
            perform public.look_soon(connection.id, now_at, true);
        end if;
    end if;
    return jsonb_build_object(
        'outcome', run.outcome, 'positions', run.positions, 'closed', run.closed, 'drifted', run.drifted,
        'unsure', unsure
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Whether something newer than what a run saw is known. Callers: record_positions.
create function public.is_overtaken(broker_connection_id uuid, began_at timestamptz, patient boolean) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select exists (
    select from public.broker_sync_runs as r
    where
        r.broker_connection_id = is_overtaken.broker_connection_id
        and r.outcome = 'applied'
        and r.began_at > is_overtaken.began_at
) or (is_overtaken.patient and exists (
    select from public.orders as o
    where
        o.broker_connection_id = is_overtaken.broker_connection_id
        and (o.updated_at > is_overtaken.began_at or o.status = 'submitting')
));
$$;


-- Writes the positions that a run saw, with what is unexplained of each, and closes what is gone. Answers how many
-- were closed. A symbol of which only orders know is written as well, as a position that is gone.
-- Callers: record_positions.
create function public.write_positions(
    connection public.broker_connections, run public.broker_sync_runs, told jsonb
) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    was_open constant text[] := array(
        select p.symbol from public.positions as p
        where p.broker_connection_id = connection.id and p.quantity <> 0
    );
    still_open integer;
begin
    with shown as (
        select s.symbol, sum(s.quantity) as quantity, max(s.avg_entry_price) as entry, max(s.current_price) as price
        from jsonb_to_recordset(told -> 'positions') as s (
            symbol text, quantity numeric, avg_entry_price numeric, current_price numeric
        )
        group by s.symbol
    ),

    traded as (
        select o.symbol, sum(case o.side when 'buy' then o.filled_quantity else -o.filled_quantity end) as quantity
        from public.orders as o
        where o.broker_connection_id = connection.id and o.filled_quantity > 0
        group by o.symbol
    ),

    known as (
        select shown.symbol from shown
        union
        select p.symbol from public.positions as p
        where p.broker_connection_id = connection.id and (told -> 'complete')::boolean
        union
        select traded.symbol from traded
        where traded.quantity <> 0 and (told -> 'complete')::boolean
    )

    insert into public.positions as p (
        broker_connection_id, symbol, user_id, quantity, avg_entry_price, current_price, market_value, unrealized_pnl,
        unexplained, sync_run_id, as_of, closed_at
    )
    select
        connection.id, known.symbol, connection.user_id, coalesce(shown.quantity, 0), shown.entry, shown.price,
        shown.quantity * shown.price, shown.quantity * (shown.price - shown.entry),
        coalesce(shown.quantity, 0) - coalesce(traded.quantity, 0), run.id, run.began_at,
        case when coalesce(shown.quantity, 0) = 0 then now_at end
    from known
    left join shown on known.symbol = shown.symbol
    left join traded on known.symbol = traded.symbol
    order by known.symbol
    on conflict on constraint positions_pkey do update set
        quantity = excluded.quantity, avg_entry_price = excluded.avg_entry_price,
        current_price = excluded.current_price, market_value = excluded.market_value,
        unrealized_pnl = excluded.unrealized_pnl,
        agreed = p.unexplained = excluded.unexplained,
        unexplained = excluded.unexplained, sync_run_id = excluded.sync_run_id, as_of = excluded.as_of,
        closed_at = case when excluded.quantity = 0 then coalesce(p.closed_at, excluded.closed_at) end;

    select count(*) into still_open from public.positions as p
    where p.broker_connection_id = connection.id and p.symbol = any (was_open) and p.quantity <> 0;
    return cardinality(was_open) - still_open;
end
$$;


-- Tells what is unexplained of a position, if two runs agree on it. Answers whether it was told; null: it need not be.
-- Callers: record_positions.
create function public.judge_position(
    p public.positions, connection public.broker_connections, run public.broker_sync_runs
) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    context constant jsonb := jsonb_build_object(
        'broker_connection_id', p.broker_connection_id, 'symbol', p.symbol, 'quantity', p.quantity::text,
        'unexplained', p.unexplained::text, 'unexplained_before', p.unexplained_told::text
    );
    key constant text := format('%s:%s:%s', p.broker_connection_id, p.symbol, run.id);
    share constant numeric := case
        when connection.settings ->> 'drift_tolerated' ~ '^[01](\.[0-9]{1,9})?$'
            then (connection.settings ->> 'drift_tolerated')::numeric
        when connection.broker like 'ccxt:%' or connection.broker = 'alpaca' and p.symbol like '%/%' then 0.01
        else 0
    end;
    traded numeric;
begin
    select sum(o.filled_quantity) into traded from public.orders as o
    where o.broker_connection_id = p.broker_connection_id and o.symbol = p.symbol;
    if abs(p.unexplained - p.unexplained_told) <= share * traded then
        return null;
    end if;
    if not p.agreed then
        return false;
    end if;
    update public.positions as told set unexplained_told = told.unexplained
    where (told.broker_connection_id, told.symbol) = (p.broker_connection_id, p.symbol);
    perform public.tell_operators('Trading', 'position_drift', key, context);
    perform public.tell_trader(
        connection.user_id, 'position_drift', key, 'A position differs from your orders',
        case
            when p.unexplained = 0 then format(
                'Your orders account for all of your position in %s again.', p.symbol
            )
            else format(
                'Your broker shows a position of %s %s; your orders account for %s of it.',
                trim_scale(p.quantity), p.symbol, trim_scale(p.quantity - p.unexplained)
            )
        end,
        context
    );
    return true;
end
$$;

revoke all on function
public.enqueue_position_syncs(uuid, text, uuid, integer),
public.begin_position_sync(uuid, uuid, boolean),
public.record_positions(uuid, jsonb, boolean),
public.is_overtaken(uuid, timestamptz, boolean),
public.write_positions(public.broker_connections, public.broker_sync_runs, jsonb),
public.judge_position(public.positions, public.broker_connections, public.broker_sync_runs)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.enqueue_position_syncs(uuid, text, uuid, integer),
public.begin_position_sync(uuid, uuid, boolean),
public.record_positions(uuid, jsonb, boolean)
to service_role;
