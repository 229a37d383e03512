-- What opens an account at a broker, for the worker that is about to use it. It is in Vault, and no column that the API
-- serves ever holds it. Vault is an extension of Supabase; where it is missing, accounts name a variable instead.

-- What opens an account: {"version", "secret"}, the newest, whatever version the caller knows of. `secret` is Vault's,
-- a JSON object of strings as text; null for an account whose credentials are in the environment, or that needs none.
-- Callers: a worker that opens an adapter, over RPC. `version` is the one that it was told.
-- The names in `vault` are looked up when this runs, so these files apply where there is no Vault.
create function public.broker_credentials(connection_id uuid, version integer) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    connection public.broker_connections;
    found_secret text;
begin
    select c.* into connection from public.broker_connections as c where c.id = broker_credentials.connection_id;
    if connection.id is null then
        raise exception using
            errcode = 'no_data_found', message = format('there is no account %s', broker_credentials.connection_id);
    elsif broker_credentials.version > connection.credentials_version then
        raise exception using
            errcode = 'no_data_found', message = format('account %s has no credentials %s yet', connection.id, version);
    elsif connection.credentials_secret_id is not null then
        begin
            select s.decrypted_secret into found_secret from vault.decrypted_secrets as s
            where s.id = connection.credentials_secret_id;
        exception
            when invalid_schema_name or undefined_table then
                raise exception using
                    errcode = 'PT422',
                    message = 'this database has no Vault: run `create extension supabase_vault`, or name a variable'
                        || ' of the worker in credentials_env';
            when insufficient_privilege then
                raise exception using
                    errcode = 'PT422',
                    message = format(
                        'Vault does not open for %I: `grant usage on schema vault to %I` and'
                        ' `grant select on vault.decrypted_secrets to %I`', current_user, current_user, current_user
                    );
        end;
        if found_secret is null then
            raise exception using
                errcode = 'PT422',
                message = format(
                    'Vault has no secret %s, which account %s names: make one with `select vault.create_secret(…)`'
                    ' and write its id into credentials_secret_id', connection.credentials_secret_id, connection.id
                );
        end if;
    end if;
    return jsonb_build_object('version', connection.credentials_version, 'secret', found_secret);
end
$$;


-- New credentials are a new version, and open an account again that the old ones were locked out of. So are other
-- settings, which may name another account; but these open nothing.
create function public.count_credentials() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    new.credentials_version := old.credentials_version + 1;
    if old.status = 'locked_out' and new.status = 'locked_out'
        and (old.credentials_secret_id, old.credentials_env)
        is distinct from (new.credentials_secret_id, new.credentials_env) then
        new.status := 'active';
        new.status_reason := null;
        new.failures := 0;
    end if;
    return new;
end
$$;
create trigger count_credentials before update of credentials_secret_id, credentials_env, settings
on public.broker_connections for each row
when (
    (old.credentials_secret_id, old.credentials_env, old.settings)
    is distinct from (new.credentials_secret_id, new.credentials_env, new.settings)
)
execute function public.count_credentials();

revoke all on function
public.broker_credentials(uuid, integer), public.count_credentials()
from public, anon, authenticated, service_role, pulse_worker;
grant execute on function public.broker_credentials(uuid, integer) to service_role;
