-- What brokers call back with: a hint where to look, at once and once, and never more than that.
--
-- A callback is signed with a secret of its connection, which is made of a master secret and the connection's version
-- (README: the door for brokers). Versions rotate here; which ones still count is a column of the connection, so that a
-- secret that got about is worth nothing from the moment its version is dropped, in jobs that wait as well.

-- Makes the next version of a connection's callback secret. The one before goes on counting, until it is rotated once
-- more or dropped; with drop_others only the new one counts. Answers {"version", "versions"}.
-- Callers: the app's server, over RPC; it then gives the broker the new version's URL and secret.
create function public.rotate_callback_secret(broker_connection_id uuid, drop_others boolean default false)
returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    versions integer[];
begin
    update public.broker_connections as c
    set
        callback_versions = case
            when rotate_callback_secret.drop_others then '{}'
            else c.callback_versions[cardinality(c.callback_versions):]
        end || (select max(v.version) + 1 from unnest(c.callback_versions) as v (version)),
        updated_at = public.clock_now()
    where c.id = rotate_callback_secret.broker_connection_id
    returning c.callback_versions into versions;
    if versions is null then
        raise exception using errcode = 'PT409', message = 'there is no such connection';
    end if;
    return jsonb_build_object('version', versions[cardinality(versions)], 'versions', to_jsonb(versions));
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Notes a callback and has the broker asked about what it is about. `told` is {"broker_connection_id", "version" (null:
-- the app's server vouches for it), "event_id", "event", "received_at", "broker"?, "order_ids": [any ids of orders that
-- it names, ours or the broker's]}. Answers {"outcome"}: noted · repeated · ignored (an event that says nothing to us),
-- or unknown (no such connection) · other_broker · old_version.
-- Callers: handle_callback, over RPC.
-- Guarantees: an event of a connection is followed once; a thousand callbacks in ten seconds are one look and one sync.
create function public.note_callback(told jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    event constant text := told ->> 'event';
    soon constant bigint := floor(extract(epoch from now_at) / 10) + 1;     -- in which ten seconds it is synced
    connection public.broker_connections;
    hinted uuid[];
    is_new boolean;
begin
    select c.* into connection from public.broker_connections as c
    where c.id = (told ->> 'broker_connection_id')::uuid;
    if connection.id is null then
        return '{"outcome": "unknown"}';
    elsif told ->> 'broker' not in (connection.broker, split_part(connection.broker, ':', 1)) then
        return '{"outcome": "other_broker"}';
    elsif (told ->> 'version')::integer <> all (connection.callback_versions) then
        return '{"outcome": "old_version"}';
    end if;
    insert into public.broker_callbacks (broker_connection_id, event_id, event_type, received_at)
    values (connection.id, told ->> 'event_id', event, coalesce((told ->> 'received_at')::timestamptz, now_at))
    on conflict do nothing
    returning true into is_new;
    if is_new is null then
        return '{"outcome": "repeated"}';
    elsif connection.status <> 'active' or event !~ '^(order|position)_' then
        return '{"outcome": "ignored"}';
    end if;

    hinted := array(
        select o.id from public.orders as o
        where
            o.broker_connection_id = connection.id
            and exists (
                select from jsonb_array_elements_text(told -> 'order_ids') as named (id)
                where named.id in (o.broker_order_id, o.client_order_id, o.id::text)
            )
    );
    if cardinality(hinted) > 0 then
        perform public.hint_orders(hinted);
    end if;
    if cardinality(hinted) = 0 or event ~ '^position_' then
        perform public.look_soon(connection.id, now_at, true);      -- an order that nobody knows yet
    end if;
    if event ~ '^position_' then
        perform public.enqueue(jsonb_build_array(jsonb_build_object(
            'queue', 'broker', 'type', 'sync_positions', 'user_id', connection.user_id,
            'data', jsonb_build_object('user_id', connection.user_id, 'broker_connection_id', connection.id),
            'run_at', to_timestamp(soon * 10),
            'idempotency_key', format('sync:%s:callback:%s', connection.id, soon)
        )));
    end if;
    return jsonb_build_object('outcome', 'noted', 'orders', cardinality(hinted));
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Forgets callbacks after a week (a delivery is refused after minutes, so none comes again), and runs after a month.
-- Answers {"broker_callbacks", "broker_sync_runs"}. Callers: prune, at most max_rows of each per call.
create function public.forget_broker_traces(max_rows integer) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    forgotten jsonb;
begin
    with callbacks as (
        delete from public.broker_callbacks as c
        where
            c.ctid = any (
                array(
                    select old.ctid from public.broker_callbacks as old
                    where old.noted_at < public.clock_now() - interval '7 days'
                    limit forget_broker_traces.max_rows
                    for update skip locked
                )
            )
        returning 1
    ),

    runs as (
        delete from public.broker_sync_runs as r
        where
            r.id = any (
                array(
                    select old.id from public.broker_sync_runs as old
                    where old.began_at < public.clock_now() - interval '30 days'
                    limit forget_broker_traces.max_rows
                    for update skip locked
                )
            )
        returning 1
    )

    select jsonb_build_object(
        'broker_callbacks', (select count(*) from callbacks), 'broker_sync_runs', (select count(*) from runs)
    ) into forgotten;
    return forgotten;
end
$$;


-- How many rows forget_broker_traces would delete, counted up to so many of each. Callers: count_prunable.
create function public.forgettable_broker_traces(most integer) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
    'broker_callbacks', (
        select count(*) from (
            select from public.broker_callbacks as old
            where old.noted_at < public.clock_now() - interval '7 days'
            limit forgettable_broker_traces.most
        ) as counted
    ),
    'broker_sync_runs', (
        select count(*) from (
            select from public.broker_sync_runs as old
            where old.began_at < public.clock_now() - interval '30 days'
            limit forgettable_broker_traces.most
        ) as counted
    )
);
$$;

revoke all on function
public.rotate_callback_secret(uuid, boolean),
public.note_callback(jsonb),
public.forget_broker_traces(integer),
public.forgettable_broker_traces(integer)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function public.rotate_callback_secret(uuid, boolean), public.note_callback(jsonb) to service_role;
