-- A stand-in for Supabase Vault: its names, columns, rights and answers, so that what is written here runs there.
-- NOTHING IS ENCRYPTED: `secret` is the plain text in base64, which only keeps anybody from taking it for the secret.
-- Run as a superuser after bootstrap.sql; may be repeated.

set role supabase_admin;

create schema if not exists vault;

create table if not exists vault.secrets (
  id uuid primary key default gen_random_uuid(),
  name text,
  description text not null default '',
  secret text not null,
  key_id uuid,
  nonce bytea default pg_catalog.uuid_send(gen_random_uuid()),
  created_at timestamptz not null default current_timestamp,
  updated_at timestamptz not null default current_timestamp
);
create unique index if not exists secrets_name_idx on vault.secrets (name) where name is not null;

create or replace view vault.decrypted_secrets as
select
  s.id, s.name, s.description, s.secret,
  pg_catalog.convert_from(pg_catalog.decode(s.secret, 'base64'), 'utf8') as decrypted_secret,
  s.key_id, s.nonce, s.created_at, s.updated_at
from vault.secrets as s;

create or replace function vault.create_secret(
  new_secret text, new_name text default null, new_description text default '', new_key_id uuid default null
) returns uuid
language sql security definer
set search_path = ''
as $$
insert into vault.secrets (secret, name, description)
values (
  pg_catalog.encode(pg_catalog.convert_to(create_secret.new_secret, 'utf8'), 'base64'),
  create_secret.new_name, create_secret.new_description
)
returning id
$$;

-- What is null stays as it is; an id that is not there is passed over in silence, as on the real thing.
create or replace function vault.update_secret(
  secret_id uuid, new_secret text default null, new_name text default null, new_description text default null,
  new_key_id uuid default null
) returns void
language sql security definer
set search_path = ''
as $$
update vault.secrets as s
set
  secret = coalesce(
    pg_catalog.encode(pg_catalog.convert_to(update_secret.new_secret, 'utf8'), 'base64'), s.secret
  ),
  name = coalesce(update_secret.new_name, s.name),
  description = coalesce(update_secret.new_description, s.description),
  updated_at = now()
where s.id = update_secret.secret_id
$$;

revoke all on function
vault.create_secret(text, text, text, uuid), vault.update_secret(uuid, text, text, text, uuid) from public;
grant usage on schema vault to postgres with grant option;
grant select, delete on vault.secrets, vault.decrypted_secrets to postgres with grant option;
grant execute on function
vault.create_secret(text, text, text, uuid), vault.update_secret(uuid, text, text, text, uuid)
to postgres with grant option;
grant usage on schema vault to service_role;
grant select, delete on vault.secrets, vault.decrypted_secrets to service_role;
grant execute on function
vault.create_secret(text, text, text, uuid), vault.update_secret(uuid, text, text, text, uuid) to service_role;

reset role;
