-- What users are told about payments. As in 110_notices.sql, a notice is a job that the transaction inserts which
-- writes the fact.

-- Enqueues the payment_notification of one fact for the user. Callers: the functions that write facts.
-- kind is a type of payment_notification; `key` says which fact of that kind it is, for ever; context is what the text
-- needs: amounts and currency as text, times in ISO format.
create function public.tell_payer(user_id uuid, kind text, key text, context jsonb) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
select public.enqueue(jsonb_build_array(jsonb_build_object(
    'queue', 'payment',
    'type', 'payment_notification',
    'user_id', tell_payer.user_id,
    'data', jsonb_build_object('user_id', tell_payer.user_id, 'type', tell_payer.kind, 'context', tell_payer.context),
    'idempotency_key', concat_ws(':', 'notice', tell_payer.kind, tell_payer.key)
)));
$$;

-- Enqueues the alert that tells a user something, once per job: {"alert_job_id"}.
-- Callers: payment_notification, over RPC. `job_key` is the job's own key.
create function public.alert_payer(
    job_key text, user_id uuid, alert_type text, title text, message text, metadata jsonb
) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return jsonb_build_object('alert_job_id', public.tell(
        'alert:' || alert_payer.job_key,
        jsonb_build_object(
            'user_id', alert_payer.user_id,
            'alert_type', alert_payer.alert_type,
            'title', alert_payer.title,
            'message', alert_payer.message,
            'metadata', alert_payer.metadata
        )
    ));
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;

revoke all on function
public.tell_payer(uuid, text, text, jsonb),
public.alert_payer(text, uuid, text, text, text, jsonb)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function public.alert_payer(text, uuid, text, text, text, jsonb) to service_role;
