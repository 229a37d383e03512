-- Gives a plain PostgreSQL 15 to 18 the shape of a Supabase project, as far as migrations and the API see it.
-- Run as a superuser in the database that is to become the project, and auth/tables.sql and
-- vault.sql after it; may be repeated.
-- Roles belong to the whole server, everything else to the one database.

do $roles$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      ('supabase_admin',           'superuser login createrole createdb replication bypassrls'),
      ('postgres',                 'nosuperuser login createrole createdb replication bypassrls'),
      ('anon',                     'nologin noinherit'),
      ('authenticated',            'nologin noinherit'),
      ('service_role',             'nologin noinherit bypassrls'),
      ('authenticator',            'login noinherit'),
      ('supabase_auth_admin',      'login noinherit createrole'),
      ('supabase_storage_admin',   'login noinherit createrole'),
      ('supabase_functions_admin', 'login noinherit createrole'),
      ('supabase_realtime_admin',  'nologin noinherit')
    ) as roles (name, attributes)
  loop
    continue when exists (select from pg_catalog.pg_roles where rolname = wanted.name);
    begin
      execute format('create role %I %s', wanted.name, wanted.attributes);
    exception
      when duplicate_object or unique_violation then null; -- two databases are being prepared at once
    end;
  end loop;
end
$roles$;

do $members$
declare
  member record;
begin
  for member in
    select * from (values
      ('anon', 'authenticator', ''), ('authenticated', 'authenticator', ''), ('service_role', 'authenticator', ''),
      ('anon', 'postgres', 'with admin option'), ('authenticated', 'postgres', 'with admin option'),
      ('service_role', 'postgres', 'with admin option'), ('authenticator', 'postgres', 'with admin option'),
      ('supabase_realtime_admin', 'postgres', ''), -- who writes a migration may write policies on realtime.messages
      ('pg_monitor', 'postgres', 'with admin option'), ('pg_signal_backend', 'postgres', 'with admin option'),
      ('pg_read_all_data', 'postgres', 'with admin option')
    ) as members (role, to_role, how)
  loop
    continue when exists (
      select
      from pg_catalog.pg_auth_members as m
      where m.roleid = member.role::regrole and m.member = member.to_role::regrole
    );
    begin
      execute format('grant %I to %I %s', member.role, member.to_role, member.how);
    exception
      when unique_violation then null;
    end;
  end loop;
end
$members$;

do $settings$
declare
  setting record;
begin
  for setting in
    select * from (values
      ('anon', 'statement_timeout', '3s'), ('authenticated', 'statement_timeout', '8s'),
      ('authenticator', 'statement_timeout', '8s'), ('authenticator', 'lock_timeout', '8s'),
      ('postgres', 'search_path', '"$user", public, extensions'),
      -- A trigger on auth.users has to name the schema of what it uses, here as there.
      ('supabase_auth_admin', 'search_path', 'auth')
    ) as settings (role, name, value)
  loop
    continue when exists (
      select
      from pg_catalog.pg_db_role_setting as s
      where s.setrole = setting.role::regrole and s.setdatabase = 0
        and exists (select from unnest(s.setconfig) as c where starts_with(c, setting.name || '='))
    );
    execute format(
      'alter role %I set %I = %s', setting.role, setting.name,
      case setting.name when 'search_path' then setting.value else quote_literal(setting.value) end
    );
  end loop;
end
$settings$;

-- A dump that is used as a seed switches triggers off.
grant set on parameter session_replication_role to postgres;

do $owner$
begin
  execute format('alter database %I owner to postgres', current_database());
end
$owner$;

set role supabase_admin;

create schema if not exists auth;
create schema if not exists extensions;
create schema if not exists realtime;
create schema if not exists _realtime;
create schema if not exists storage;
create schema if not exists graphql_public;

grant usage on schema public, extensions, auth, realtime, storage, graphql_public
to postgres, anon, authenticated, service_role;
grant create on schema public, extensions, realtime to postgres;
grant all on schema auth to supabase_auth_admin;
grant all on schema realtime to supabase_realtime_admin;

-- The extensions that a project has from the start, where this PostgreSQL has their files; and two that a user who
-- is no superuser may only create on the real thing: one is common, the other is what `supabase db lint` works with.
do $extensions$
declare
  wanted text;
begin
  for wanted in
    select name from pg_catalog.pg_available_extensions where name in ('pgcrypto', 'uuid-ossp', 'vector', 'plpgsql_check')
  loop
    execute format('create extension if not exists %I schema extensions', wanted);
  end loop;
  -- So that a reset by the Supabase command line may drop them with everything else.
  update pg_catalog.pg_extension set extowner = 'postgres'::regrole where extnamespace = 'extensions'::regnamespace;
end
$extensions$;

-- New tables and functions are NOT opened to the API roles: a migration says what it grants.

-- auth: who is asking; its tables are in auth/tables.sql ------------------------------------------------------

create or replace function auth.jwt() returns jsonb
language sql stable
return nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb;

create or replace function auth.uid() returns uuid
language sql stable
return nullif(auth.jwt() ->> 'sub', '')::uuid;

create or replace function auth.role() returns text
language sql stable
return auth.jwt() ->> 'role';

create or replace function auth.email() returns text
language sql stable
return auth.jwt() ->> 'email';

-- realtime: messages that the database itself broadcasts ------------------------------------------------------

create table if not exists realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  updated_at timestamp not null default now(),
  inserted_at timestamp not null default now(),
  id uuid not null default gen_random_uuid(),
  binary_payload bytea,
  primary key (id, inserted_at),
  constraint messages_payload_exclusive check (payload is null or binary_payload is null)
) partition by range (inserted_at);
create index if not exists messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic)
where extension = 'broadcast' and private is true;
alter table realtime.messages owner to supabase_realtime_admin;
alter table realtime.messages enable row level security;
grant select, insert, update on realtime.messages to postgres, anon, authenticated, service_role;

-- A message for which there is no partition is lost. Realtime makes them when it connects and then every day.
create or replace function _realtime.make_partitions() returns void
language plpgsql
set search_path = ''
as $$
declare
  today date := pg_catalog.timezone('UTC', pg_catalog.now())::date;
  name text;
begin
  for day in -1..3 loop
    name := 'messages_' || pg_catalog.to_char(today + day, 'YYYY_MM_DD');
    continue when pg_catalog.to_regclass('realtime.' || name) is not null
      or not exists (
        select from pg_catalog.pg_class
        where oid = pg_catalog.to_regclass('realtime.messages') and relkind = 'p'
      );
    execute pg_catalog.format(
      'create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
      name, today + day, today + day + 1
    );
    execute pg_catalog.format('alter table realtime.%I owner to supabase_realtime_admin', name);
  end loop;
end
$$;
revoke execute on function _realtime.make_partitions() from public;
do $partitions$
begin
  perform _realtime.make_partitions(); -- not a select, whose row psql would print
end
$partitions$;

create or replace function realtime.topic() returns text
language sql stable
return nullif(pg_catalog.current_setting('realtime.topic', true), '');

-- As on the real thing, a message that cannot be stored never spoils the caller's transaction, and the topic of the
-- last message stays set for the rest of it, so that policies can speak of it.
create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
returns void
language plpgsql
set search_path = ''
as $$
declare
  message_id uuid := pg_catalog.gen_random_uuid();
begin
  perform pg_catalog.set_config('realtime.topic', send.topic, true);
  insert into realtime.messages (id, topic, extension, event, payload, private)
  values (
    message_id, send.topic, 'broadcast', send.event,
    case
      when send.payload ? 'id' then send.payload
      else pg_catalog.jsonb_set(send.payload, '{id}', pg_catalog.to_jsonb(message_id))
    end,
    send.private
  );
exception
  when others then
    raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
end
$$;

create or replace function realtime.send_binary(payload bytea, event text, topic text, private boolean default true)
returns void
language plpgsql
set search_path = ''
as $$
begin
  perform pg_catalog.set_config('realtime.topic', send_binary.topic, true);
  insert into realtime.messages (topic, extension, event, binary_payload, private)
  values (send_binary.topic, 'broadcast', send_binary.event, send_binary.payload, send_binary.private);
exception
  when others then
    raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
end
$$;

-- For triggers. A mistake in the call does spoil the caller's transaction, as on the real thing.
create or replace function realtime.broadcast_changes(
  topic_name text, event_name text, operation text, table_name text, table_schema text,
  new record, old record, level text default 'ROW'
) returns void
language plpgsql
set search_path = ''
as $$
begin
  if level = 'STATEMENT' then
    raise exception 'function can only be triggered for each row, not for each statement';
  end if;
  if operation not in ('INSERT', 'UPDATE', 'DELETE') or operation is null then
    raise exception 'Unexpected operation type: %', operation;
  end if;
  perform realtime.send(
    pg_catalog.jsonb_build_object(
      'old_record', pg_catalog.to_jsonb(old), 'record', pg_catalog.to_jsonb(new),
      'operation', operation, 'table', table_name, 'schema', table_schema
    ),
    event_name, topic_name
  );
exception
  when others then
    raise exception 'Failed to process the row: %', sqlerrm;
end
$$;

reset role;

-- publications: what Realtime listens to ----------------------------------------------------------------------

do $publications$
begin
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
    alter publication supabase_realtime owner to postgres;
  end if;
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime_messages_publication') then
    create publication supabase_realtime_messages_publication for table realtime.messages;
    alter publication supabase_realtime_messages_publication owner to supabase_admin;
  end if;
end
$publications$;

-- The API's cache of the schema hears of every change, as on the real thing.
create or replace function extensions.pgrst_reload() returns event_trigger
language plpgsql
set search_path = ''
as $$
begin
  notify pgrst, 'reload schema';
end
$$;

do $watch$
begin
  if not exists (select from pg_catalog.pg_event_trigger where evtname = 'pgrst_watch') then
    create event trigger pgrst_watch on ddl_command_end execute function extensions.pgrst_reload();
  end if;
  if not exists (select from pg_catalog.pg_event_trigger where evtname = 'pgrst_watch_drop') then
    create event trigger pgrst_watch_drop on sql_drop execute function extensions.pgrst_reload();
  end if;
end
$watch$;
