-- The tables of Auth, as far as people, their sessions and what refreshes them are concerned.
-- Run as a superuser after bootstrap.sql; may be repeated, and brings an older database up to date. No extensions.
-- As on a real project, nothing fills in for a row that is inserted by hand: no id, no times, no instance_id.

set client_min_messages = warning;
alter table if exists auth.users owner to supabase_auth_admin;
set role supabase_auth_admin;

create table if not exists auth.users (id uuid primary key);
alter table auth.users
add column if not exists instance_id uuid,
add column if not exists aud varchar(255),
add column if not exists role varchar(255),
add column if not exists email varchar(255),
add column if not exists encrypted_password varchar(255),
add column if not exists email_confirmed_at timestamptz,
add column if not exists invited_at timestamptz,
add column if not exists confirmation_token varchar(255),
add column if not exists confirmation_sent_at timestamptz,
add column if not exists recovery_token varchar(255),
add column if not exists recovery_sent_at timestamptz,
add column if not exists email_change_token_new varchar(255),
add column if not exists email_change varchar(255),
add column if not exists email_change_sent_at timestamptz,
add column if not exists last_sign_in_at timestamptz,
add column if not exists raw_app_meta_data jsonb,
add column if not exists raw_user_meta_data jsonb,
add column if not exists is_super_admin boolean,
add column if not exists created_at timestamptz,
add column if not exists updated_at timestamptz,
add column if not exists phone text unique,
add column if not exists phone_confirmed_at timestamptz,
add column if not exists phone_change text default '',
add column if not exists phone_change_token varchar(255) default '',
add column if not exists phone_change_sent_at timestamptz,
add column if not exists confirmed_at timestamptz generated always as (least(email_confirmed_at, phone_confirmed_at)) stored,
add column if not exists email_change_token_current varchar(255) default '',
add column if not exists email_change_confirm_status smallint default 0 check (email_change_confirm_status between 0 and 2),
add column if not exists banned_until timestamptz,
add column if not exists reauthentication_token varchar(255) default '',
add column if not exists reauthentication_sent_at timestamptz,
add column if not exists is_sso_user boolean not null default false,
add column if not exists deleted_at timestamptz,
add column if not exists is_anonymous boolean not null default false;
create unique index if not exists users_email_partial_key on auth.users (email) where not is_sso_user;

create table if not exists auth.identities (
  provider_id text not null,
  user_id uuid not null references auth.users on delete cascade,
  identity_data jsonb not null,
  provider text not null,
  last_sign_in_at timestamptz,
  created_at timestamptz,
  updated_at timestamptz,
  email text generated always as (lower(identity_data ->> 'email')) stored,
  id uuid primary key default gen_random_uuid(),
  unique (provider_id, provider)
);
create index if not exists identities_user_id_idx on auth.identities (user_id);

do $types$
begin
  create type auth.aal_level as enum ('aal1', 'aal2', 'aal3');
exception
  when duplicate_object then null;
end
$types$;

create table if not exists auth.sessions (
  id uuid primary key,
  user_id uuid not null references auth.users on delete cascade,
  created_at timestamptz,
  updated_at timestamptz,
  factor_id uuid,
  aal auth.aal_level,
  not_after timestamptz,
  refreshed_at timestamp,
  user_agent text,
  ip inet,
  tag text
);
create index if not exists sessions_user_id_idx on auth.sessions (user_id);

create table if not exists auth.refresh_tokens (
  instance_id uuid,
  id bigserial primary key,
  token varchar(255) unique,
  user_id varchar(255),
  revoked boolean,
  created_at timestamptz,
  updated_at timestamptz,
  parent varchar(255),
  session_id uuid references auth.sessions on delete cascade
);
create index if not exists refresh_tokens_session_id_revoked_idx on auth.refresh_tokens (session_id, revoked);

-- How a session was signed in to: the `amr` of its tokens.
create table if not exists auth.mfa_amr_claims (
  session_id uuid not null references auth.sessions on delete cascade,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  authentication_method text not null,
  id uuid primary key default gen_random_uuid(),
  unique (session_id, authentication_method)
);

alter table auth.users enable row level security;
alter table auth.identities enable row level security;
alter table auth.sessions enable row level security;
alter table auth.refresh_tokens enable row level security;
alter table auth.mfa_amr_claims enable row level security;
grant select, insert, update, delete, truncate, references, trigger on all tables in schema auth to postgres;
grant usage on all sequences in schema auth to postgres;

reset role;
grant usage on schema extensions to supabase_auth_admin; -- pgcrypto may live there
reset client_min_messages;
