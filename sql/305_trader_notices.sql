-- What users, and those who run the platform, are told about orders and accounts at brokers.
--
-- As in 240_notices.sql, a notice is a job that the transaction inserts which writes the fact; by its key it is told
-- once, however often the fact is seen.

-- Tells a user something about an order or an account. Callers: the functions of the broker family that write facts.
-- kind is the alert's type; `key` says which fact of that kind it is, for ever.
create function public.tell_trader(
    user_id uuid, kind text, key text, title text, message text, context jsonb
) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
select public.enqueue(jsonb_build_array(jsonb_build_object(
    'queue', 'alerts',
    'type', 'notify',
    'user_id', tell_trader.user_id,
    'data', jsonb_build_object(
        'user_id', tell_trader.user_id,
        'alert_type', tell_trader.kind,
        'title', tell_trader.title,
        'message', tell_trader.message,
        'metadata', tell_trader.context
    ),
    'idempotency_key', concat_ws(':', 'trader', tell_trader.kind, tell_trader.key)
)));
$$;

-- Tells those who run the platform what a person has to look at. Callers: as above.
create function public.tell_desk(kind text, key text, context jsonb) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
select public.enqueue(jsonb_build_array(jsonb_build_object(
    'queue', 'alerts',
    'type', 'notify',
    'data', jsonb_build_object(
        'audience', 'operators',
        'alert_type', tell_desk.kind,
        'title', 'Trading: ' || replace(tell_desk.kind, '_', ' '),
        'message', tell_desk.key,
        'metadata', tell_desk.context
    ),
    'idempotency_key', concat_ws(':', 'desk', tell_desk.kind, tell_desk.key)
)));
$$;

revoke all on function
public.tell_trader(uuid, text, text, text, text, jsonb),
public.tell_desk(text, text, jsonb)
from public, anon, authenticated, service_role, pulse_worker;
