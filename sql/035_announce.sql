-- A second way to hear of an insert: the database broadcasts it.
--
-- Realtime reads changes of tables on its own, up to half a second late; a broadcast leaves within
-- milliseconds of the commit, at the price of a row in realtime.messages for each INSERT statement: a tenth
-- of a millisecond on a machine where a statement takes another (python -m bench.announcing). It is
-- off until the owner asks for it, in a migration: select announce_by_broadcast();
-- Workers listen to it with PULSE_LISTEN=broadcast, the others go on as before.

-- Broadcasts once per queue that an INSERT statement touched: to the private topic pulse, the partition's
-- name as the event, nothing as the payload.
-- Callers: triggers of jobs and of every queue's own table, since only the named table's triggers fire.
-- Guarantees: never fails the INSERT, and holds it up for 50 ms per queue at the most, when somebody has locked
-- realtime.messages. An announcement is a hint; what is not announced is found by a sweep.
create function public.announce_insert() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
as $$
declare
    queue_table text;
begin
    for queue_table in select distinct 'jobs_' || i.queue from inserted as i loop
        perform realtime.send('{}'::jsonb, queue_table, 'pulse', true);
    end loop;
    return null;
exception when others then
    raise warning 'the jobs are inserted, but were not announced: %', sqlerrm;
    return null;
end
$$;


-- Broadcasts a canary to the one worker that waits for it: to the private topic pulse-<token>.
-- Callers: a trigger of realtime_canary.
-- Guarantees: as announce_insert.
create function public.announce_canary() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
as $$
begin
    perform realtime.send('{}'::jsonb, 'realtime_canary', 'pulse-' || new.token, true);
    return null;
exception when others then
    raise warning 'the canary was not announced: %', sqlerrm;
    return null;
end
$$;


-- What keeps this database from announcing every insert, and the mend; null when nothing does.
-- Callers: announce_by_broadcast, and canary, whose answer a worker that listens to broadcasts tells at its start.
create function public.announce_problem() returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    announcer constant oid := (select p.proowner from pg_proc as p where p.oid = 'public.announce_insert()'::regprocedure);
    who constant text := quote_ident(announcer::regrole::text);
    schema_id constant oid := to_regnamespace('realtime');
    send_id oid;
    messages_id oid;
    mute text;
begin
    select p.oid into send_id
    from pg_proc as p
    where
        p.pronamespace = schema_id and p.proname = 'send'
        and oidvectortypes(p.proargtypes) = 'jsonb, text, text, boolean';
    select c.oid into messages_id from pg_class as c where c.relnamespace = schema_id and c.relname = 'messages';
    if send_id is null or messages_id is null then
        return 'this project has no realtime.send. Switch Realtime on in the dashboard, or let workers listen to changes '
            || 'of tables, which needs nothing.';
    end if;
    if not (
        has_schema_privilege(announcer, schema_id, 'usage')
        and has_function_privilege(announcer, send_id, 'execute')
        and has_table_privilege(announcer, messages_id, 'insert')
    ) then
        return format(
            '%1$s may not broadcast. Run: grant usage on schema realtime to %1$s; grant execute on function '
            'realtime.send to %1$s; grant insert on realtime.messages to %1$s;', who
        );
    end if;
    if not exists (
        select from pg_class as c inner join pg_roles as r on r.oid = announcer
        where
            c.oid = messages_id
            and (
                not c.relrowsecurity or r.rolbypassrls or r.rolsuper
                or pg_has_role(announcer, c.relowner, 'usage') and not c.relforcerowsecurity
            )
    ) and not exists (
        select from pg_policy as p where p.polrelid = messages_id and p.polcmd in ('a', '*')
    ) then
        return format(
            'no policy lets %1$s broadcast. Run: create policy pulse on realtime.messages for insert to %1$s '
            'with check (topic like ''pulse%%'');', who
        );
    end if;
    select string_agg(c.relname, ', ' order by c.relname) into mute
    from pg_class as c
    where
        (
            c.oid in ('public.jobs'::regclass, 'public.realtime_canary'::regclass)
            or c.oid in (select q.table_id from public.queues() as q)
        )
        and not exists (
            select from pg_trigger as g
            where
                g.tgrelid = c.oid and g.tgenabled in ('O', 'A')
                and g.tgname = case c.relname when 'realtime_canary' then 'announce_canary' else 'announce_insert' end
        );
    if mute is not null then
        return format('inserts into %s are not announced. Run: select announce_by_broadcast();', mute);
    end if;
    return null;
end
$$;


-- Switches announcing on or off, for all queues there are and for those that create_queue makes later.
-- Callers: the owner, in a migration. May be repeated.
-- Guarantees: after it has returned inserts are announced; what would keep them from it, it says.
create function public.announce_by_broadcast(enabled boolean default true) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    queue_table text;
    problem text;
begin
    -- All at once and the parent first, as every claim locks them: one by one would end in deadlocks with those.
    lock table public.jobs in access exclusive mode;
    for queue_table in
        select c.relname
        from pg_catalog.pg_partition_tree('public.jobs') as p
        inner join pg_catalog.pg_class as c on c.oid = p.relid
        where c.relname <> 'jobs_unknown_queue'
    loop
        execute format('drop trigger if exists announce_insert on public.%I', queue_table);
        if enabled then
            perform public.announce_table(queue_table);
        end if;
    end loop;
    drop trigger if exists announce_canary on public.realtime_canary;
    if enabled then
        create trigger announce_canary after insert on public.realtime_canary
        for each row execute function public.announce_canary();
        problem := public.announce_problem();
    end if;
    if problem is not null then
        raise exception using errcode = 'object_not_in_prerequisite_state', message = problem;
    end if;
end
$$;


-- Makes one table's inserts be announced.
-- Callers: announce_by_broadcast, and create_queue when the other queues are announced.
create function public.announce_table(name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format(
        'create trigger announce_insert after insert on public.%I referencing new table as inserted '
        'for each statement execute function public.announce_insert()', name
    );
end
$$;
