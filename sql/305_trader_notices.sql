-- What users are told about orders and accounts at brokers. As in 110_notices.sql, a notice is a job that the
-- transaction inserts which writes the fact; by its key it is told once, however often the fact is seen.

-- Tells a user something about an order or an account. Callers: the functions of the broker family that write facts.
-- kind is the alert's type; `key` says which fact of that kind it is, for ever.
create function public.tell_trader(
    user_id uuid, kind text, key text, title text, message text, context jsonb
) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
select public.tell(
    concat_ws(':', 'trader', tell_trader.kind, tell_trader.key),
    jsonb_build_object(
        'user_id', tell_trader.user_id,
        'alert_type', tell_trader.kind,
        'title', tell_trader.title,
        'message', tell_trader.message,
        'metadata', tell_trader.context
    )
);
$$;

revoke all on function public.tell_trader(uuid, text, text, text, text, jsonb)
from public, anon, authenticated, service_role, pulse_worker;
