-- What is wrong with a whole project, each finding with the statement or command that mends it.
--
-- It only reads: every function is stable, which may write nothing. It looks at the catalogs, at a few rows through
-- an index, and locks nothing but those for reading, so it may run in production at any time. It says nothing
-- about a project as the files of sql/ make it, on any PostgreSQL that they run on.
-- A finding is (finding, what, why, mend): one word to find it by, what is so, why that matters, and what mends it:
-- SQL for the owner, or a command (pulse …). Statements that lock tables for long say so in `why`.

-- The tables of jobs: the parent, the partition of each queue, and those beside.
-- Callers: the doctor's rooms. kind = parent | queue | beside; queue only for kind queue.
create function public.queue_tables() returns table (id oid, name text, kind text, queue text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select c.oid, c.relname::text, 'parent', null
from pg_class as c
where c.oid = 'public.jobs'::regclass
union all
select q.table_id, 'jobs_' || q.queue, 'queue', q.queue
from public.queues() as q
union all
select c.oid, c.relname::text, 'beside', null
from pg_class as c
where
    c.relnamespace = 'public'::regnamespace
    and c.relname in (
        'jobs_unknown_queue', 'failed_jobs', 'stale_outcomes', 'realtime_canary', 'call_limits', 'workers', 'paused',
        'job_limits', 'lanes', 'job_schemas', 'schema_modes'
    );
$$;


-- The versions of the files that were applied; null when nobody has noted any.
-- Callers: doctor_facts. The table is the Supabase CLI's, and need not exist.
create function public.applied_migrations() returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regclass('supabase_migrations.schema_migrations') is null then
        return null;
    end if;
    return (select jsonb_agg(m.version order by m.version) from supabase_migrations.schema_migrations as m);
exception when insufficient_privilege then
    return null;
end
$$;


-- Whether Realtime is told of inserts.
-- Callers: doctor_facts.
create function public.doctor_publication()
returns table (finding text, what text, why text, mend text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
with heard as (
    select t.id, t.name from public.queue_tables() as t
    where t.kind = 'queue' or t.name = 'realtime_canary'
)

select
    'not_published',
    format('%s: not in the publication supabase_realtime', string_agg(h.name, ', ' order by h.name)),
    'Realtime announces no insert there, so jobs wait for a sweep, up to 5 s.',
    string_agg(format('select public.publish_table(%L);', h.name), ' ' order by h.name)
from heard as h
where
    not exists (
        select from pg_publication_tables as p
        where p.pubname = 'supabase_realtime' and p.schemaname = 'public' and p.tablename = h.name
    )
    -- the next one says it better
    and not exists (select from pg_publication as p where p.pubname = 'supabase_realtime' and p.pubviaroot)
having count(*) > 0
union all
select
    'published_as_parent', 'the publication supabase_realtime publishes partitions under the name of their parent',
    'Realtime then announces no insert into a queue by its own table, which is what workers listen to.',
    'alter publication supabase_realtime set (publish_via_partition_root = false);'
from pg_publication as p
where p.pubname = 'supabase_realtime' and p.pubviaroot
union all
select
    'inserts_not_published', 'the publication supabase_realtime leaves out inserts',
    'Realtime announces no job at all, so all wait for a sweep, up to 5 s.',
    'alter publication supabase_realtime set (publish = ''insert, update, delete, truncate'');'
from pg_publication as p
where p.pubname = 'supabase_realtime' and not p.pubinsert
union all
select
    'published_in_part', format('only some rows or columns of %s are published', h.name),
    'Realtime cannot tell every insert to who may hear of it.',
    format('alter publication supabase_realtime drop table public.%I; select public.publish_table(%L);', h.name, h.name)
from heard as h
inner join pg_publication_rel as r on r.prrelid = h.id
inner join pg_publication as p on p.oid = r.prpubid
where p.pubname = 'supabase_realtime' and (r.prqual is not null or r.prattrs is not null)
union all
select
    'not_announced', a.problem,
    'Workers with PULSE_LISTEN=broadcast do not hear of these jobs, which wait for a sweep, up to 5 s.',
    coalesce(substring(a.problem from 'Run: (.*)$'), 'select public.announce_by_broadcast(false);')
from (select public.announce_problem() as problem) as a
where
    a.problem is not null
    and exists (
        select from pg_trigger as g
        inner join public.queue_tables() as t on t.id = g.tgrelid
        where g.tgname in ('announce_insert', 'announce_canary')
    );
$$;


-- Whether row level security shows to each what is theirs, and nothing else.
-- Callers: doctor_facts.
create function public.doctor_policies()
returns table (finding text, what text, why text, mend text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
with wanted (id, name, policy, role, mend) as (
    select
        t.id, t.name, 'users see their own jobs', 'authenticated',
        format(
            'create policy "users see their own jobs" on public.%I for select to authenticated '
            'using (user_id = (select auth.uid()));', t.name
        )
    from public.queue_tables() as t
    where t.kind in ('parent', 'queue')
    union all
    select
        t.id, t.name, 'workers hear of inserts', 'pulse_worker',
        format(
            'create policy "workers hear of inserts" on public.%I for select to pulse_worker using (true);', t.name
        )
    from public.queue_tables() as t
    where t.kind = 'queue'
    union all
    select
        t.id, t.name, 'workers hear canaries', 'pulse_worker',
        'create policy "workers hear canaries" on public.realtime_canary for select to pulse_worker using (true);'
    from public.queue_tables() as t
    where t.name = 'realtime_canary'
)

select
    'no_row_security', format('row level security of %s is off', t.name),
    'Whoever has a right to the table sees the rows of everybody.',
    format('alter table public.%I enable row level security;', t.name)
from public.queue_tables() as t
inner join pg_class as c on c.oid = t.id
where not c.relrowsecurity
union all
select
    'open_table', format('%s may be read or written over the API without row level security', c.oid::regclass),
    'Anybody with the publishable key reads or writes all of it. With row level security on and no policy, nobody does.',
    format('alter table %s enable row level security;', c.oid::regclass)
from pg_class as c
where
    c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity
    and c.oid not in (select t.id from public.queue_tables() as t)
    and (
        has_any_column_privilege('anon', c.oid, 'select, insert, update')
        or has_any_column_privilege('authenticated', c.oid, 'select, insert, update')
    )
union all
select
    'no_policy', format('%s has no policy "%s"', w.name, w.policy),
    case w.role
        when 'authenticated' then 'Users do not see their own jobs.'
        else 'Workers with a worker key are deaf to it.'
    end,
    w.mend
from wanted as w
where not exists (select from pg_policy as p where p.polrelid = w.id and p.polname = w.policy)
union all
select
    'strange_policy', format('%s has a policy "%s" that is not ours', t.name, p.polname),
    'Policies add up: this one may show jobs to others than their user.',
    format('drop policy %I on public.%I;', p.polname, t.name)
from public.queue_tables() as t
inner join pg_policy as p on p.polrelid = t.id
where not exists (select from wanted as w where w.id = t.id and w.policy = p.polname);
$$;

revoke all on function
public.queue_tables(),
public.applied_migrations(),
public.doctor_publication(),
public.doctor_policies()
from public, anon, authenticated, service_role, pulse_worker;
