-- When a broker does not answer: what is held, who is told, and when to come back. One connection's trouble is its own.


-- Notes what kept a broker from answering. Answers {"again_seconds"}; null when only people can mend it.
-- `trouble` is {"kind": too_fast (the broker says so) | limited (we do) | bad_credentials | not_sent | unknown,
-- "after_seconds"?, "words", "credentials_version"}. With `look`, that look is over and its job comes back for another.
-- Callers: monitor_orders and sync_positions, over RPC.
-- Guarantees: operators hear once a day of a connection that fails ten times in a row, and once of credentials that
-- are no good; the user of the latter, too.
create function public.record_broker_trouble(
    broker_connection_id uuid, trouble jsonb, look integer default null
) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    kind constant text := trouble ->> 'kind';
    after interval := make_interval(secs => (trouble ->> 'after_seconds')::double precision);
    connection public.broker_connections;
begin
    select c.* into strict connection from public.broker_connections as c
    where c.id = record_broker_trouble.broker_connection_id
    for update;
    update public.broker_looks as l
    set looking_job_id = null, looking_until = null, next_job_id = l.looking_job_id
    where l.broker_connection_id = connection.id and l.look = record_broker_trouble.look and l.looking_until is not null;
    if kind = 'limited' then
        return jsonb_build_object('again_seconds', extract(epoch from after));
    elsif kind = 'too_fast' then
        update public.broker_connections as c
        set held_until = greatest(c.held_until, now_at + after), updated_at = now_at
        where c.id = connection.id;
        return jsonb_build_object('again_seconds', extract(epoch from after));
    elsif kind = 'bad_credentials' then
        if connection.status = 'active' and connection.credentials_version = (trouble -> 'credentials_version')::integer then
            perform public.lock_out_connection(connection, trouble ->> 'words');
        end if;
        return '{"again_seconds": null}';
    end if;
    update public.broker_connections as c set failures = c.failures + 1 where c.id = connection.id;
    if connection.failures + 1 = 10 then
        perform public.tell_desk(
            'broker_away', format('%s:%s', connection.id, now_at::date),
            jsonb_build_object(
                'broker_connection_id', connection.id, 'broker', connection.broker, 'words', trouble ->> 'words'
            )
        );
    end if;
    return jsonb_build_object('again_seconds', least(5 * 2 ^ least(connection.failures, 10), 300));
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Stops using a connection whose credentials its broker does not let in, and says so.
-- Callers: record_broker_trouble.
create function public.lock_out_connection(connection public.broker_connections, words text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    update public.broker_connections as c
    set status = 'locked_out', status_reason = lock_out_connection.words, updated_at = public.clock_now()
    where c.id = connection.id;
    perform public.tell_desk(
        'broker_locked_out', format('%s:%s', connection.id, connection.credentials_version),
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

grant execute on function
public.record_broker_trouble(uuid, jsonb, integer)
to service_role;
