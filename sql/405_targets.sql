-- Where people want to be told: devices and webhooks that users register, and the addresses of operators.
--
-- Users call these functions with their own key; they write no table, since a token is nobody's to read back.

-- The one who calls. Without a user (a service key, the SQL editor) there is nobody to register for.
-- Callers: register_device, register_discord_webhook.
create function public.calling_user() returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if auth.uid() is null then
        raise exception using
            errcode = 'PT403', message = 'only a signed-in user registers devices and webhooks of their own',
            hint = 'For those who run the platform call register_operator_target.';
    end if;
    return auth.uid();
end
$$;


-- Refuses to keep more than 20 targets of one user in one channel: each costs a request per alert.
-- Callers: register_device, keep_discord_webhook.
create function public.check_targets(user_id uuid, channel text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if (
        select count(*) > 20 from public.alert_targets as t
        where t.user_id = check_targets.user_id and t.channel = check_targets.channel
    ) then
        raise exception using
            errcode = 'PT422', message = format('20 targets of the channel %s are enough', check_targets.channel),
            hint = 'Take one away with remove_target.';
    end if;
end
$$;


-- Registers a device for push: {"target_id"}. The same token again is the same device, and it is with the user who
-- registered it last. `kind` is `token` (a registration token) or `fid` (an installation id).
-- Callers: users, over RPC.
create function public.register_device(token text, kind text default 'token', label text default null) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    whose constant uuid := public.calling_user();
    registered uuid;
begin
    if (
        register_device.token ~ '^[A-Za-z0-9_:.-]+$' and length(register_device.token) between 10 and 4096
        and register_device.kind in ('token', 'fid')
    ) is not true then
        raise exception using
            errcode = 'PT422', message = 'this is no token of a device', hint = 'The kind is token or fid.';
    end if;
    insert into public.alert_targets as t (user_id, channel, address, kind, label)
    values (whose, 'push', register_device.token, register_device.kind, left(register_device.label, 100))
    on conflict (address) where channel = 'push' do update set
        user_id = excluded.user_id, kind = excluded.kind, label = excluded.label, status = 'active',
        status_reason = null, last_seen_at = public.clock_now()
    returning t.id into registered;
    perform public.check_targets(whose, 'push');
    return jsonb_build_object('target_id', registered);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Keeps a webhook: its id in the row, its token in Vault. The host is looked at here and not kept: whatever the URL
-- says, what is called is Discord. The mark tells tokens apart: ids of webhooks are no secrets, so whoever registers
-- one with a wrong token must share nothing with those who have the right one.
-- Callers: register_discord_webhook, register_operator_target.
create function public.keep_discord_webhook(user_id uuid, url text, label text) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    parts constant text[] := regexp_match(
        keep_discord_webhook.url,
        '^https://(?:ptb\.|canary\.)?discord(?:app)?\.com/api/(?:v\d+/)?webhooks/(\d{5,25})/([A-Za-z0-9_-]{20,200})/?$'
    );
    mark constant text := left(encode(sha256(convert_to(parts[2], 'UTF8')), 'hex'), 16);
    target public.alert_targets;
begin
    if parts is null then
        raise exception using
            errcode = 'PT422', message = 'this is no URL of a Discord webhook',
            hint = 'In Discord: Server Settings, Integrations, Webhooks, Copy Webhook URL.';
    end if;
    insert into public.alert_targets as t (user_id, channel, address, label, secret_mark)
    values (keep_discord_webhook.user_id, 'discord', parts[1], left(keep_discord_webhook.label, 100), mark)
    on conflict on constraint alert_targets_user_id_channel_address_key do update set
        status = 'active', status_reason = null, last_seen_at = public.clock_now(), label = excluded.label,
        secret_mark = excluded.secret_mark
    returning t.* into target;
    if target.secret_id is null then
        update public.alert_targets as t
        set secret_id = vault.create_secret(parts[2], null, 'token of a Discord webhook')
        where t.id = target.id;
    else
        perform vault.update_secret(target.secret_id, parts[2]);
    end if;
    perform public.check_targets(keep_discord_webhook.user_id, 'discord');
    return jsonb_build_object('target_id', target.id);
end
$$;


-- Registers a Discord webhook of the user's: {"target_id"}. Its token goes to Vault. The same webhook again is the same
-- target, and works again if it was turned off. At most 20 a day: each that is none costs an answer that Discord
-- counts against all of us. Callers: users, over RPC.
create function public.register_discord_webhook(url text, label text default null) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    whose constant uuid := public.calling_user();
    kept constant jsonb := public.keep_discord_webhook(whose, register_discord_webhook.url, register_discord_webhook.label);
begin
    if public.take_calls('register_webhook:' || whose, 1, 20, interval '1 day') > interval '0' then
        raise exception using
            errcode = 'PT429', message = '20 webhooks a day are enough', hint = 'Register this one tomorrow.';
    end if;
    return kept;
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Registers where those who run the platform are told: a Discord webhook by its URL, an address for any other channel.
-- Callers: the app's server over RPC, and people in the SQL editor.
create function public.register_operator_target(channel text, address text, label text default null) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    registered uuid;
begin
    if register_operator_target.channel = 'discord' then
        return public.keep_discord_webhook(null, register_operator_target.address, register_operator_target.label);
    end if;
    if (register_operator_target.address <> '') is not true then
        raise exception using errcode = 'PT422', message = 'a target has an address';
    end if;
    insert into public.alert_targets as t (user_id, channel, address, label)
    values (
        null, register_operator_target.channel, register_operator_target.address,
        left(register_operator_target.label, 100)
    )
    on conflict on constraint alert_targets_user_id_channel_address_key do update set
        status = 'active', status_reason = null, last_seen_at = public.clock_now(), label = excluded.label
    returning t.id into registered;
    return jsonb_build_object('target_id', registered);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Takes a user's target away; false: there is none. Callers: remove_target, record_delivery.
create function public.forget_target(target_id uuid, user_id uuid) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    target public.alert_targets;
begin
    delete from public.alert_targets as t
    where t.id = forget_target.target_id and t.user_id is not distinct from forget_target.user_id
    returning t.* into target;
    return target.id is not null;
end
$$;


-- Takes what Vault keeps for a target away with it, whoever deletes that.
-- Callers: the trigger below. The service may delete targets, and nothing in Vault.
create function public.forget_secret() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from vault.secrets as s where s.id = old.secret_id;
    return null;
end
$$;

create trigger forget_secret after delete on public.alert_targets
for each row when (old.secret_id is not null) execute function public.forget_secret();


-- Forgets where and how somebody liked to be told who is no user any more. What they were told is kept its time.
-- Callers: the triggers below, with the rights of whoever deletes users.
create function public.forget_reader() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from public.alert_targets as t where t.user_id = old.id;
    delete from public.channel_preferences as c where c.user_id = old.id;
    delete from public.notification_preferences as p where p.user_id = old.id;
    return null;
end
$$;

create trigger forget_reader after delete on auth.users
for each row execute function public.forget_reader();
create trigger forget_reader_marked_as_deleted after update of deleted_at on auth.users
for each row when (new.deleted_at is not null) execute function public.forget_reader();


-- Takes a target away, and what Vault keeps for it: {"removed"}. A user takes away their own, the app's server and the
-- SQL editor those of the operators. Callers: all of these, over RPC.
create function public.remove_target(target_id uuid) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return jsonb_build_object('removed', public.forget_target(remove_target.target_id, (select auth.uid())));
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;

revoke all on function
public.calling_user(),
public.check_targets(uuid, text),
public.register_device(text, text, text),
public.register_discord_webhook(text, text),
public.register_operator_target(text, text, text),
public.keep_discord_webhook(uuid, text, text),
public.remove_target(uuid),
public.forget_target(uuid, uuid),
public.forget_secret(),
public.forget_reader()
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.register_device(text, text, text), public.register_discord_webhook(text, text), public.remove_target(uuid)
to authenticated;
grant execute on function public.register_operator_target(text, text, text), public.remove_target(uuid) to service_role;
