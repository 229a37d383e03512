-- The doctor's look at who may do what: rights that are missing, and rights that are too many.

-- The functions that others call over the API, with who may.
-- Callers: doctor_rights.
create function public.functions_to_call() returns table (id oid, name text, workers boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select
    p.oid, p.proname::text,
    p.proname in (
        'enqueue', 'claim', 'heartbeat', 'finish', 'prune', 'canary', 'tell_worker', 'declare_schedules', 'due_schedules',
        'run_slots'
    )
from pg_proc as p
where
    p.pronamespace = 'public'::regnamespace
    and p.proname in (
        'enqueue', 'claim', 'heartbeat', 'finish', 'prune', 'canary', 'tell_worker', 'cancel', 'replay', 'pause_jobs',
        'resume_jobs', 'limit_jobs', 'unlimit_jobs', 'why', 'doctor_facts', 'declare_schedules', 'due_schedules', 'run_slots',
        'schedule_states', 'pause_schedule', 'resume_schedule', 'run_schedule'
    );
$$;


-- Whether each may do what it is for, and no more.
-- Callers: doctor_facts.
create function public.doctor_rights()
returns table (finding text, what text, why text, mend text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
with callers (id, name, role) as (
    select f.id, f.name, 'service_role' from public.functions_to_call() as f
    union all
    select f.id, f.name, 'pulse_worker' from public.functions_to_call() as f
    where f.workers
),

harmless (columns) as (
    -- As guard_queue_table grants them (020_jobs.sql).
    select
        'id, queue, status, type, user_id, priority, run_at, attempt, cancel_requested, progress, result, created_at, '
        'updated_at, finished_at'
),

of_producers (columns) as (
    select 'type, data, user_id, priority, run_at, max_attempts, idempotency_key, traceparent'
)

select
    'function_not_allowed', format('%s may not call %s', c.role, string_agg(c.name, ', ' order by c.name)),
    case c.role
        when 'service_role' then 'Whoever has the service key, workers too, is refused.'
        else 'Workers with a worker key are refused.'
    end,
    string_agg(format('grant execute on function %s to %s;', c.id::regprocedure, c.role), ' ' order by c.name)
from callers as c
where not has_function_privilege(c.role, c.id, 'execute')
group by c.role
union all
select
    'function_open', format('%s of our functions may be called by anybody, %s for one', count(*), min(o.name)),
    'They change or tell what is of everybody, and the publishable key is enough to call them.',
    string_agg(format('revoke execute on function %s from %s;', o.id::regprocedure, o.whom), ' ' order by o.name)
from (
    select p.oid as id, p.proname as name, 'public, anon' as whom
    from pg_proc as p
    where
        p.pronamespace = 'public'::regnamespace
        and p.proconfig @> array['search_path=pg_catalog, pg_temp']     -- by which ours are known
        and has_function_privilege('anon', p.oid, 'execute')
    union all
    select f.id, f.name, 'authenticated'
    from public.functions_to_call() as f
    where has_function_privilege('authenticated', f.id, 'execute') and not has_function_privilege('public', f.id, 'execute')
) as o
having count(*) > 0
union all
select
    'function_without_rights',
    format('%s runs with the rights of its caller', string_agg(f.name, ', ' order by f.name)),
    'Nobody but the owner may change a job, so every call is refused.',
    string_agg(format('alter function %s security definer;', f.id::regprocedure), ' ')
from public.functions_to_call() as f
inner join pg_proc as p on p.oid = f.id
where not p.prosecdef
having count(*) > 0
union all
select
    'function_without_path',
    format('%s has lost its search_path', string_agg(f.name, ', ' order by f.name)),
    'It runs with the rights of its owner, over whatever tables and functions its caller puts in the way.',
    string_agg(format('alter function %s set search_path = pg_catalog, pg_temp;', f.id::regprocedure), ' ')
from public.functions_to_call() as f
inner join pg_proc as p on p.oid = f.id
where p.prosecdef and not coalesce(p.proconfig, '{}') @> array['search_path=pg_catalog, pg_temp']
having count(*) > 0
union all
select
    'table_open', format('users may write to %s, or read what is not for them', t.name),
    'Row level security holds back rows, but not columns: payloads and errors are not for browsers.',
    format('revoke all on public.%I from public, anon, authenticated;', t.name)
    || case
        when t.kind in ('parent', 'queue')
            then format(' grant select (%s) on public.%I to authenticated;', h.columns, t.name)
        else ''
    end
from public.queue_tables() as t
cross join harmless as h
where
    has_table_privilege('anon', t.id, 'insert, update, delete, truncate')
    or has_any_column_privilege('anon', t.id, 'select, insert, update')
    or has_table_privilege('authenticated', t.id, 'insert, update, delete, truncate')
    or has_any_column_privilege('authenticated', t.id, 'insert, update')
    or exists (
        select from pg_attribute as a
        where
            a.attrelid = t.id and a.attnum > 0 and not a.attisdropped
            and has_column_privilege('authenticated', t.id, a.attnum, 'select')
            and (t.kind = 'beside' or a.attname <> all (string_to_array(h.columns, ', ')))
    )
union all
select
    'users_see_nothing', format('users may not read their own jobs in %s', t.name),
    'A browser that follows its jobs gets a refusal.',
    format('grant select (%s) on public.%I to authenticated;', h.columns, t.name)
from public.queue_tables() as t
cross join harmless as h
-- asked in this order: the tables beside have no such column
where case when t.kind in ('parent', 'queue') then not has_column_privilege('authenticated', t.id, 'status', 'select') end
union all
select
    'server_may_change_jobs', format('the service key may update or delete rows of %s', t.name),
    'A job''s state belongs to the functions: a row that is changed beside them can be lost, or run twice.',
    format('revoke all on public.%I from service_role;', t.name)
    || case when t.name <> 'jobs_unknown_queue' then format(' grant select on public.%I to service_role;', t.name) else '' end
    || case
        when t.kind in ('parent', 'queue')
            then format(
                ' grant insert (%s%s) on public.%I to service_role;',
                case t.kind when 'parent' then 'queue, ' else '' end, o.columns, t.name
            )
        else ''
    end
from public.queue_tables() as t
cross join of_producers as o
where
    has_table_privilege('service_role', t.id, 'update, delete, truncate')
    or has_any_column_privilege('service_role', t.id, 'update')
union all
select
    'server_sees_nothing', format('the service key may not read %s', t.name),
    'Producers and tools get a refusal.',
    format('grant select on public.%I to service_role;', t.name)
from public.queue_tables() as t
where t.name <> 'jobs_unknown_queue' and not has_table_privilege('service_role', t.id, 'select')
union all
select
    'server_may_not_insert', format('the service key may not insert into %s', t.name),
    'Producers are refused.',
    format(
        'grant insert (%s%s) on public.%I to service_role;', case t.kind when 'parent' then 'queue, ' else '' end,
        o.columns, t.name
    )
from public.queue_tables() as t
cross join of_producers as o
where case when t.kind in ('parent', 'queue') then not has_column_privilege('service_role', t.id, 'type', 'insert') end
union all
select
    'worker_is_deaf', format('pulse_worker may not read the keys of %s', t.name),
    'Realtime tells a row only to who may read its key: workers with a worker key do not hear of these jobs.',
    format('grant select (id, queue) on public.%I to pulse_worker;', t.name)
from public.queue_tables() as t
where case when t.kind = 'queue' then not has_column_privilege('pulse_worker', t.id, 'id', 'select') end
union all
select
    'worker_may_too_much', format('pulse_worker may write to %s, or read all of it', t.name),
    'A worker key is meant to do what a worker does and nothing else.',
    format('revoke all on public.%I from pulse_worker;', t.name)
    || case
        when t.kind = 'queue' then format(' grant select (id, queue) on public.%I to pulse_worker;', t.name)
        when t.name = 'realtime_canary' then ' grant select (id, token) on public.realtime_canary to pulse_worker;'
        else ''
    end
from public.queue_tables() as t
where
    has_table_privilege('pulse_worker', t.id, 'select, insert, update, delete, truncate')
    or has_any_column_privilege('pulse_worker', t.id, 'insert, update')
union all
select
    'sequence_not_allowed', 'the service key may not draw ids of jobs',
    'A plain INSERT is refused, though enqueue works.',
    'grant usage on sequence public.jobs_id_seq to service_role;'
where not has_sequence_privilege('service_role', 'public.jobs_id_seq', 'usage')
union all
select
    'worker_keys_closed', 'keys of workers open nothing: the API may not become pulse_worker',
    'Every worker with a worker key is refused. Leave it so if all those keys were withdrawn on purpose.',
    'grant pulse_worker to authenticator;'
where
    exists (select from pg_roles as r where r.rolname = 'authenticator')
    and not exists (
        select from pg_auth_members as m
        where m.roleid = 'pulse_worker'::regrole and m.member = (
            select r.oid from pg_roles as r
            where r.rolname = 'authenticator'
        )
    )
union all
select
    'short_timeout', format('statements of %s end after %s', r.rolname, s.setting),
    'Claims and outcomes of a busy queue take longer than that, and are asked again and again.',
    format('alter role %I in database %I reset statement_timeout;', r.rolname, current_database())
from pg_db_role_setting as d
inner join pg_roles as r on r.oid = d.setrole
cross join lateral (
    select split_part(c.setting, '=', 2) as setting from unnest(d.setconfig) as c (setting)
    where c.setting like 'statement_timeout=%'
) as s
where
    d.setdatabase = (
        select b.oid from pg_database as b
        where b.datname = current_database()
    )
    and r.rolname in ('authenticator', 'service_role', 'pulse_worker')
    and case when s.setting ~ '^\d+$' then s.setting || ' ms' else s.setting end::interval
    between interval '1 ms' and interval '4999 ms';
$$;

revoke all on function public.functions_to_call(), public.doctor_rights()
from public, anon, authenticated, service_role, pulse_worker;
