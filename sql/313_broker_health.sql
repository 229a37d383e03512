-- How a connection fares, and who waits for it: from the answers of calls to a hold on that one connection.
--
-- A hold is a time before which nothing is sent: begin_order and take_broker_calls answer "later", which counts no
-- attempt of any job, and no other connection knows of it.
--
--     the broker said                          the connection is held
--     an answer, whatever it is                not: it is well again
--     too fast                                 as long as the broker asks
--     credentials are not good                 30 s, a minute …; after three in a row it is locked out until a person
--                                              gives it new ones
--     nothing (no connection, no answer)       after three in a row 5 s, 10 s … 5 minutes, and then one call goes first

-- A connection, locked. Callers: begin_order and the functions that record, after they have locked the order.
create function public.lock_connection(broker_connection_id uuid) returns public.broker_connections
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
select c.* from public.broker_connections as c where c.id = lock_connection.broker_connection_id for no key update;
$$;


-- Notes what a call of a connection came to, and answers the connection as it is then. The caller has locked it.
-- Callers: the functions that record. told = {"outcome", "code"?, "after_seconds"?, "credentials_version"?}, as
-- record_submission has it; an outcome is missing where a look was answered.
create function public.note_broker_answer(c public.broker_connections, told jsonb) returns public.broker_connections
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    code constant text := told ->> 'code';
    known_failures constant integer := c.failures;
    held_for interval;
begin
    if coalesce(told ->> 'outcome', '') not in ('not_sent', 'unknown') then
        if c.failures = 0 then
            return c;
        end if;
        c.held_until := case when c.failures < 3 then c.held_until end;
        c.failures := 0;
    elsif code = 'too_fast' then
        held_for := make_interval(secs => (told ->> 'after_seconds')::double precision);
    elsif code = 'bad_credentials' then
        if c.credentials_version <> (told ->> 'credentials_version')::integer then
            return c;                   -- those that were good are others now
        end if;
        c.failures := c.failures + 1;
        held_for := interval '30 seconds' * power(2, least(c.failures, 5) - 1);
        if c.failures >= 3 and c.status = 'active' then
            perform public.lock_out_connection(c, 'bad_credentials');
        end if;
    elsif told ->> 'outcome' = 'unknown' or code = 'no_connection' then
        c.failures := c.failures + 1;
        if c.failures >= 3 then
            held_for := least(interval '5 minutes', interval '5 seconds' * power(2, least(c.failures, 12) - 3));
        end if;
    else
        if code = 'not_opened' then     -- a worker lacks a library, a variable, or what Vault should have
            perform public.tell_operators(
                'Trading', 'broker_not_opened', concat_ws(':', c.id, to_char(now_at at time zone 'utc', 'YYYY-MM-DD HH24')),
                jsonb_build_object('broker_connection_id', c.id, 'broker', c.broker)
            );
        end if;
        return c;                       -- our own doing: says nothing of the broker
    end if;

    update public.broker_connections as known
    set
        failures = c.failures,
        held_until = greatest(c.held_until, now_at + held_for),
        updated_at = now_at
    where known.id = c.id
    returning known.* into c;
    if c.failures = 3 and known_failures = 2 then
        perform public.tell_operators(
            'Trading', 'broker_does_not_answer', concat_ws(':', c.id, to_char(now_at at time zone 'utc', 'YYYY-MM-DD HH24')),
            jsonb_build_object('broker_connection_id', c.id, 'broker', c.broker)
        );
    end if;
    return c;
end
$$;

revoke all on function
public.lock_connection(uuid),
public.note_broker_answer(public.broker_connections, jsonb)
from public, anon, authenticated, service_role, pulse_worker;
