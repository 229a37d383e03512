-- A second way to hear of an insert: the database broadcasts it.
--
-- Realtime reads changes of tables on its own, up to half a second late; a broadcast leaves within
-- milliseconds of the commit, at the price of a row in realtime.messages for each INSERT statement. It is
-- off until the owner asks for it, in a migration: select announce_by_broadcast();
-- Workers listen to it with PULSE_LISTEN=broadcast, the others go on as before.

-- Broadcasts once per queue that an INSERT statement touched: to the private topic pulse, the partition's
-- name as the event, nothing as the payload.
-- Callers: triggers of jobs and of every queue's own table, since only the named table's triggers fire.
-- Guarantees: never fails the INSERT. An announcement is a hint; what is not announced is found by a sweep.
create function public.announce_insert() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
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
-- Guarantees: never fails the INSERT.
create function public.announce_canary() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform realtime.send('{}'::jsonb, 'realtime_canary', 'pulse-' || new.token, true);
    return null;
exception when others then
    raise warning 'the canary was not announced: %', sqlerrm;
    return null;
end
$$;


-- Switches announcing on or off, for all queues there are and for those that create_queue makes later.
-- Callers: the owner, in a migration. May be repeated.
create function public.announce_by_broadcast(enabled boolean default true) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    queue_table text;
begin
    if enabled and to_regprocedure('realtime.send(jsonb, text, text, boolean)') is null then
        raise exception using
            errcode = 'undefined_function',
            message = 'this project has no realtime.send, which would announce inserts',
            hint = 'Switch Realtime on in the dashboard, or listen to changes of tables, which needs nothing.';
    end if;
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
