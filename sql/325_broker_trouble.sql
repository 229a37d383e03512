-- When a broker does not answer: the connection is held as for orders (313_broker_health.sql), and a look is over.

-- Notes what kept a broker from answering. Answers {"again_seconds"}; null when only people can mend it.
-- `told` is as record_submission has it, or {"outcome": "not_sent", "code": "limited", "after_seconds"} when our own
-- limit was reached. With `look`, that look is over and its job comes back for another.
-- Callers: monitor_orders and sync_positions, over RPC.
create function public.record_broker_trouble(
    broker_connection_id uuid, told jsonb, look integer default null
) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    after constant interval := make_interval(secs => (told ->> 'after_seconds')::double precision);
    connection public.broker_connections;
begin
    select c.* into strict connection from public.broker_connections as c
    where c.id = record_broker_trouble.broker_connection_id
    for no key update;
    connection := public.note_broker_answer(connection, told);
    update public.broker_looks as l
    set looking_job_id = null, looking_until = null, next_job_id = l.looking_job_id
    where
        l.broker_connection_id = connection.id
        and l.look = record_broker_trouble.look
        and l.looking_until is not null;
    if connection.status <> 'active' then
        return '{"again_seconds": null}';
    end if;
    return jsonb_build_object(
        'again_seconds', extract(epoch from greatest(after, connection.held_until - now_at, case
            when after is null then interval '5 seconds'
        end))
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Stops using a connection whose credentials its broker does not let in, and says so.
-- Callers: note_broker_answer; `reason` is one word.
create function public.lock_out_connection(connection public.broker_connections, reason text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    update public.broker_connections as c
    set status = 'locked_out', status_reason = lock_out_connection.reason, updated_at = public.clock_now()
    where c.id = connection.id;
    perform public.tell_operators(
        'Trading', 'broker_locked_out', format('%s:%s', connection.id, connection.credentials_version),
        jsonb_build_object('broker_connection_id', connection.id, 'broker', connection.broker)
    );
    perform public.tell_trader(
        connection.user_id, 'broker_locked_out', format('%s:%s', connection.id, connection.credentials_version),
        'Your broker does not let us in',
        'The access that you gave us to your account is not accepted any more. Until you renew it, your orders and '
        'positions there are not followed.',
        jsonb_build_object('broker_connection_id', connection.id)
    );
end
$$;

revoke all on function
public.record_broker_trouble(uuid, jsonb, integer),
public.lock_out_connection(public.broker_connections, text)
from public, anon, authenticated, service_role, pulse_worker;
grant execute on function public.record_broker_trouble(uuid, jsonb, integer) to service_role;
