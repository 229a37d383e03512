-- The role of a worker that is given what a worker needs and nothing else.
--
-- The service key reads and writes everything that the API serves. A worker may run under `pulse_worker`
-- instead: its key is a JWT with this role, signed with the project's own secret (`pulse worker-key` makes
-- one). What the role may do is granted beside the things themselves, here is only who it is. See
-- docs/decisions/009_worker_role.md. Roles belong to the whole server: another database of the same server
-- may have made it before, or be making it at this moment.

do $role$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'pulse_worker') then
        begin
            create role pulse_worker nologin noinherit;
        exception when duplicate_object or unique_violation then
            null;
        end;
    end if;

    -- A stranger of this name would be handed the rights of a worker, and keep its own.
    if exists (
        select from pg_catalog.pg_roles as r
        where
            r.rolname = 'pulse_worker'
            and (r.rolsuper or r.rolbypassrls or r.rolcreaterole or r.rolcreatedb or r.rolreplication or r.rolcanlogin)
    ) or exists (select from pg_catalog.pg_auth_members as m where m.member = 'pulse_worker'::regrole) then
        raise exception using
            errcode = 'duplicate_object',
            message = 'the role pulse_worker exists and may do more than a worker should',
            hint = 'It must not log in, bypass row level security or be a member of other roles. Rename or drop it.';
    end if;

    -- The API logs in as authenticator and becomes the role that a key names. A plain server has no API.
    if exists (select from pg_catalog.pg_roles where rolname = 'authenticator') and not exists (
        select
        from pg_catalog.pg_auth_members as m
        inner join pg_catalog.pg_roles as r on r.oid = m.member
        where m.roleid = 'pulse_worker'::regrole and r.rolname = 'authenticator'
    ) then
        begin
            grant pulse_worker to authenticator;
        exception when unique_violation then
            null;
        end;
    end if;
end
$role$;

grant usage on schema public to pulse_worker;
