-- How often a broker is asked: the calls of one account are counted together, whichever worker makes them.

-- A broker's pace: its own row of broker_limits, for an exchange else that of `ccxt`, else 60 calls in 60 seconds.
-- Callers: take_broker_calls, begin_order.
create function public.broker_pace(broker text) returns public.broker_limits
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select coalesce(
    (select l from public.broker_limits as l where l.broker = broker_pace.broker),
    (select l from public.broker_limits as l where l.broker = split_part(broker_pace.broker, ':', 1)),
    row (broker_pace.broker, 60, 60)::public.broker_limits
);
$$;


-- Takes calls to the broker of an account. Answers {"wait_seconds"}: 0, they are taken; else nothing was, and how long
-- to wait before asking again.
-- Callers: whatever asks a broker but execute_order, whose call begin_order takes; over RPC.
create function public.take_broker_calls(connection_id uuid, calls integer default 1) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    connection public.broker_connections;
    pace public.broker_limits;
    held interval;
    wait interval := interval '0';
begin
    select c.* into connection from public.broker_connections as c where c.id = take_broker_calls.connection_id;
    if connection.id is null then
        raise exception using
            errcode = 'no_data_found', message = format('there is no account %s', take_broker_calls.connection_id);
    end if;
    held := connection.held_until - public.call_moment();
    if held > interval '0' then
        wait := held;
    else
        pace := public.broker_pace(connection.broker);
        wait := public.take_calls(
            'broker:' || connection.id, take_broker_calls.calls, pace.calls, make_interval(secs => pace.per_seconds)
        );
    end if;
    return jsonb_build_object('wait_seconds', extract(epoch from wait));
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;

revoke all on function
public.broker_pace(text), public.take_broker_calls(uuid, integer)
from public, anon, authenticated, service_role, pulse_worker;
grant execute on function public.take_broker_calls(uuid, integer) to service_role;
