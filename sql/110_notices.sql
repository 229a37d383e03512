-- How the functions of all families tell people something: by a job, which their own transaction inserts.
--
-- So there is no fact without its notice, no notice of a fact that was rolled back, and by the key no second one.

-- Enqueues a `notify` job, once per key: its id. `told` is what is said and to whom, as route_alert reads it.
-- Callers: tell_operators, and the functions of a family that tell its users.
create function public.tell(key text, told jsonb) returns bigint
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
select (public.enqueue(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
    'queue', 'alerts',
    'type', 'notify',
    'user_id', tell.told -> 'user_id',
    'idempotency_key', tell.key
)) || jsonb_build_object('data', tell.told))) #>> '{0,id}')::bigint;
$$;

-- Tells those who run the platform what a person has to look at. `about` is the family, as its readers call it; kind is
-- the alert's type, and `key` says which fact of that kind it is, for ever. Callers: the functions that write facts.
create function public.tell_operators(about text, kind text, key text, context jsonb) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
select public.tell(
    concat_ws(':', 'operators', tell_operators.kind, tell_operators.key),
    jsonb_build_object(
        'audience', 'operators',
        'alert_type', tell_operators.kind,
        'title', tell_operators.about || ': ' || replace(tell_operators.kind, '_', ' '),
        'message', tell_operators.key,
        'metadata', tell_operators.context
    )
);
$$;

revoke all on function
public.tell(text, jsonb),
public.tell_operators(text, text, text, jsonb)
from public, anon, authenticated, service_role, pulse_worker;
