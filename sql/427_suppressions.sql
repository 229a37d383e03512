-- What is said of addresses and of mails after they were sent: by the mail provider, and by readers themselves.
--
-- Each fact is written once, however often it is told: providers repeat themselves, and out of order.

-- Writes down what is told of mails. Answers {"suppressed": addresses that get no (such) mail any more, as of now,
-- "deliveries": rows that changed}.
-- Callers: email_event, over RPC; `events` is [{"kind", "address", "scope"?, "delivery_id"?}, …] with a kind of
--   delivered     the reader's server took it: of a delivery whose answer was lost it is now known
--   blocked       it was refused this time; the address may be good
--   bounce, invalid, spam, unsubscribe
--                 it was refused for good, or the reader wants no more: the reason of a suppression
-- Guarantees: safe to repeat. A delivery is changed only by an event about its own address.
create function public.record_mail_events(events jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    event record;
    suppressed integer := 0;
    changed integer := 0;
    found integer;
begin
    for event in
        select
            e.kind, lower(e.address) as address, coalesce(e.scope, 'all') as scope, e.delivery_id
        from jsonb_to_recordset(record_mail_events.events) as e (kind text, address text, scope text, delivery_id uuid)
        order by e.delivery_id, e.kind, lower(e.address)    -- one order of locks
    loop
        if event.kind in ('bounce', 'invalid', 'spam', 'unsubscribe') then
            insert into public.email_suppressions (address, scope, reason)
            values (event.address, event.scope, event.kind)
            on conflict do nothing;
            get diagnostics found = row_count;
            suppressed := suppressed + found;
            if found > 0 and event.kind in ('bounce', 'invalid') then
                perform public.tell_address_is_gone(event.address);
            end if;
        end if;
        changed := changed + public.correct_mail(event.delivery_id, event.address, event.kind);
    end loop;
    return jsonb_build_object('suppressed', suppressed, 'deliveries', changed);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- What an event says of its delivery: how many rows it changed. A mail that was refused later was not delivered; one
-- that arrived although its answer was lost is not sent again.
-- Callers: record_mail_events.
create function public.correct_mail(delivery_id uuid, address text, kind text) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    changed integer;
begin
    update public.alert_deliveries as d
    set
        status = case when correct_mail.kind = 'delivered' then 'sent' else 'failed' end,
        sent_at = case when correct_mail.kind = 'delivered' then public.clock_now() end,
        reason = case correct_mail.kind when 'delivered' then null when 'bounce' then 'bounced' else correct_mail.kind end,
        words = null,
        is_unsent = false
    where
        d.id = correct_mail.delivery_id and d.channel = 'email'
        and correct_mail.address = lower(coalesce(d.address, (
            select t.address from public.alert_targets as t
            where t.id = d.target_id
        )))
        and (
            correct_mail.kind = 'delivered' and (
                d.status in ('unknown', 'sending') or d.sends > 0 and (d.status = 'pending' or d.is_unsent)
            )
            or correct_mail.kind in ('bounce', 'invalid', 'blocked') and d.status in ('sent', 'sending', 'unknown')
        );
    get diagnostics changed = row_count;
    return changed;
end
$$;


-- Tells whose address it is, by their other channels, that no mail arrives there. Callers: record_mail_events.
create function public.tell_address_is_gone(address text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
select public.route_alert(
    concat_ws(':', 'address_is_gone', tell_address_is_gone.address, public.clock_now()::date, whose.user_id),
    jsonb_strip_nulls(jsonb_build_object(
        'user_id', whose.user_id,
        'audience', case when whose.user_id is null then 'operators' else 'user' end,
        'alert_type', 'target_disabled',
        'severity', 'warning',
        'title', 'Mail to your address does not arrive',
        'message', 'The mail server of your e-mail address refused our mail for good. Nothing more is sent there.',
        'metadata', jsonb_build_object('channel', 'email')
    ))
)
from (
    select u.id as user_id from auth.users as u
    where lower(u.email::text) = tell_address_is_gone.address and u.deleted_at is null
    union
    select t.user_id from public.alert_targets as t
    where t.channel = 'email' and lower(t.address) = tell_address_is_gone.address
) as whose;
$$;


revoke all on function
public.record_mail_events(jsonb),
public.correct_mail(uuid, text, text),
public.tell_address_is_gone(text)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function public.record_mail_events(jsonb) to service_role;
