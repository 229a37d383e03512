-- What users, and those who run the platform, are told about payments.
--
-- A notice is a job, inserted by the same transaction that writes the fact that it tells. So there is no fact without
-- its notice, no notice of a fact that was rolled back, and by the key no second one.

-- How a user likes to read amounts and dates. Users keep their own row; without one it is American English and UTC.
create table public.notification_preferences (
    user_id uuid primary key,
    locale text not null default 'en_US' check (locale ~ '^[a-z]{2,3}([_-][A-Za-z0-9]{2,8})*$'),
    timezone text not null default 'UTC' check (timezone ~ '^[A-Za-z0-9_+/-]{1,64}$')
);

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

-- Enqueues an alert for those who run the platform. Callers: the functions that write facts a person has to look at.
create function public.tell_operators(kind text, key text, context jsonb) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
select public.enqueue(jsonb_build_array(jsonb_build_object(
    'queue', 'alerts',
    'type', 'notify',
    'data', jsonb_build_object(
        'audience', 'operators',
        'alert_type', tell_operators.kind,
        'title', 'Payments: ' || replace(tell_operators.kind, '_', ' '),
        'message', tell_operators.key,
        'metadata', tell_operators.context
    ),
    'idempotency_key', concat_ws(':', 'operators', tell_operators.kind, tell_operators.key)
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
    return jsonb_build_object('alert_job_id', public.enqueue(jsonb_build_array(jsonb_build_object(
        'queue', 'alerts',
        'type', 'notify',
        'user_id', alert_payer.user_id,
        'data', jsonb_build_object(
            'user_id', alert_payer.user_id,
            'alert_type', alert_payer.alert_type,
            'title', alert_payer.title,
            'message', alert_payer.message,
            'metadata', alert_payer.metadata
        ),
        'idempotency_key', 'alert:' || alert_payer.job_key
    ))) #> '{0,id}');
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;

alter table public.notification_preferences enable row level security;
revoke all on public.notification_preferences from public, anon, authenticated, service_role, pulse_worker;
grant select on public.notification_preferences to service_role;
grant select, insert (user_id, locale, timezone), update (locale, timezone)
on public.notification_preferences to authenticated;

create policy "users see their own preferences" on public.notification_preferences
for select to authenticated using (user_id = (select auth.uid()));
create policy "users make their own preferences" on public.notification_preferences
for insert to authenticated with check (user_id = (select auth.uid()));
create policy "users change their own preferences" on public.notification_preferences
for update to authenticated using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));

revoke all on function
public.tell_payer(uuid, text, text, jsonb),
public.tell_operators(text, text, jsonb),
public.alert_payer(text, uuid, text, text, text, jsonb)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function public.alert_payer(text, uuid, text, text, text, jsonb) to service_role;
