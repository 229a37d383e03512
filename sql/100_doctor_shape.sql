-- The doctor's look at the things themselves: functions, indexes, partitions, views, sequences, and their upkeep.

-- The indexes that claims, sweeps and producers cannot do without, and how each is made.
-- Callers: doctor_shape.
create function public.indexes_wanted() returns table (name text, why text, mend text)
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
values
(
    'jobs_pending', 'Claims walk it; without it each looks through all jobs there have ever been.',
    'create index jobs_pending on public.jobs (priority desc, run_at, id, type) '
    'where status = ''pending'' and lane is null;'
),
(
    'jobs_lanes', 'Claims walk it to find what a limit lets through again.',
    'create index jobs_lanes on public.jobs (lane, type, priority desc, run_at, id) '
    'where status = ''pending'' and lane is not null;'
),
(
    'jobs_running', 'Sweeps walk it to find attempts whose worker vanished.',
    'create index jobs_running on public.jobs (lease_expires_at) where status = ''running'';'
),
(
    'jobs_idempotency_key', 'Without it a key no longer keeps a job from being inserted twice.',
    'create unique index jobs_idempotency_key on public.jobs (queue, idempotency_key) '
    'where idempotency_key is not null;'
),
(
    'failed_jobs_newest', 'Lists of dead letters read the whole table without it.',
    'create index failed_jobs_newest on public.failed_jobs (job_type, failed_at desc);'
);
$$;


-- Whether things are as the files of sql/ made them.
-- Callers: doctor_facts.
create function public.doctor_shape()
returns table (finding text, what text, why text, mend text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select
    'index_missing', format('the index %s is missing', w.name),
    w.why || ' It is made while nobody inserts: INSERTs wait until it is done.',
    w.mend
from public.indexes_wanted() as w
where to_regclass('public.' || w.name) is null
union all
select
    'index_invalid', format('the index %s is not complete', i.indexrelid::regclass),
    'It costs each INSERT and helps no query.',
    format('drop index %s;', i.indexrelid::regclass) || coalesce(' ' || w.mend, '')
from public.queue_tables() as t
inner join pg_index as i on i.indrelid = t.id
inner join pg_class as c on c.oid = i.indexrelid
left join public.indexes_wanted() as w on w.name = c.relname
where not i.indisvalid
union all
select
    'queue_detached', format('%s is no partition of jobs', c.relname),
    'Producers go on inserting into it, and no worker ever sees the jobs.',
    format(
        'alter table public.jobs attach partition public.%I for values in (%L);', c.relname, substr(c.relname, 6)
    )
from pg_class as c
where
    c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and starts_with(c.relname, 'jobs_') and not c.relispartition
    and to_regclass(format('public.%I', substr(c.relname, 6) || '_jobs')) is not null
    and exists (select from pg_attribute as a where a.attrelid = c.oid and a.attname = 'lease_expires_at')
union all
select
    'view_missing', format('the queue %s has no view %s_jobs', t.queue, t.queue),
    'Producers insert into it; the API serves no partition by its own name.',
    format(
        'create view public.%1$I with (security_invoker = true) as select * from public.%2$I; '
        'select public.open_to_producers(%1$L); notify pgrst, ''reload schema'';', t.queue || '_jobs', t.name
    )
from public.queue_tables() as t
where t.kind = 'queue' and to_regclass(format('public.%I', t.queue || '_jobs')) is null
union all
select
    'view_of_owner', format('the view %s shows what its owner sees', c.relname),
    'Row level security is passed by: whoever may read the view reads the jobs of everybody.',
    format('alter view public.%I set (security_invoker = true);', c.relname)
from public.queue_tables() as t
inner join pg_class as c on c.oid = to_regclass(format('public.%I', t.queue || '_jobs'))
where t.kind = 'queue' and not coalesce(c.reloptions @> array['security_invoker=true'], false)
union all
select
    'clock_replaced', 'clock_now() is not the time of the database',
    'Leases, retries and schedules go by it; a test may have left its own here.',
    'create or replace function public.clock_now() returns timestamptz language sql stable parallel safe '
    'return pg_catalog.now();'
where public.clock_now() <> now()
union all
select
    'sequence_behind', format('the next %s is %s, and there are rows up to %s', s.what, s.last + 1, s.highest),
    'Ids are handed out twice: after a restore, mostly. Claims and outcomes name jobs by id alone.',
    format('select setval(%L, %s);', s.name, s.highest)
from (
    select 'id of a job' as what, 'public.jobs_id_seq' as name, q.last_value as last, m.highest
    from public.jobs_id_seq as q
    cross join (select max(j.id) as highest from public.jobs as j) as m
    union all
    select 'id of a dead letter', 'public.failed_jobs_id_seq', q.last_value, m.highest
    from public.failed_jobs_id_seq as q
    cross join (select max(f.id) as highest from public.failed_jobs as f) as m
) as s
where s.highest > s.last
union all
select
    'plan_settings_lost', format('%s has lost the settings that keep its plans', p.proname),
    'On a large table it may choose a plan that reads all jobs, and keep it.',
    format('alter function %s set plan_cache_mode = force_generic_plan;', f.id::regprocedure)
    || format(' alter function %s set enable_seqscan = off;', f.id::regprocedure)
    || case
        when p.proname = 'claim'
            then format(' alter function %s set enable_bitmapscan = off;', f.id::regprocedure)
                || format(' alter function %s set enable_sort = off;', f.id::regprocedure)
        else ''
    end
from public.functions_to_call() as f
inner join pg_proc as p on p.oid = f.id
where
    p.proname in ('claim', 'heartbeat', 'cancel', 'replay', 'prune')
    and not coalesce(p.proconfig, '{}') @> (      -- null when all are lost
        array['plan_cache_mode=force_generic_plan', 'enable_seqscan=off']
        || case p.proname when 'claim' then array['enable_bitmapscan=off', 'enable_sort=off'] else '{}' end
    );
$$;


-- Whether the database can keep the tables in order.
-- Callers: doctor_facts.
create function public.doctor_upkeep()
returns table (finding text, what text, why text, mend text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select
    'vacuum_off', format('autovacuum of %s is off', t.name),
    'Each job leaves dead rows behind, and claims get slower with every one of them.',
    format('alter table public.%I reset (autovacuum_enabled);', t.name)
from public.queue_tables() as t
inner join pg_class as c on c.oid = t.id
where exists (
    select from unnest(c.reloptions) as o (setting)
    where o.setting in ('autovacuum_enabled=false', 'autovacuum_enabled=off', 'autovacuum_enabled=0')
)
union all
select
    'vacuum_late', format('%s is vacuumed by the share of its rows that the database has as default', t.name),
    'With a large history that comes too late for the small indexes of waiting and running jobs.',
    format(
        'alter table public.%I set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, '
        'autovacuum_analyze_scale_factor = 0.05, autovacuum_analyze_threshold = 1000);', t.name
    )
from public.queue_tables() as t
inner join pg_class as c on c.oid = t.id
where
    t.kind = 'queue'
    and not exists (
        select from unnest(c.reloptions) as o (setting)
        where starts_with(o.setting, 'autovacuum_vacuum_scale_factor=')
    )
union all
select
    'bloat', format('%s holds %s dead rows beside %s living ones', t.name, s.n_dead_tup, s.n_live_tup),
    'Claims walk over them. If they come back after the mend, an old transaction keeps them: see old_transaction.',
    format('vacuum (analyze) public.%I;', t.name)
from public.queue_tables() as t
inner join pg_stat_all_tables as s on s.relid = t.id
where s.n_dead_tup > 20000 and s.n_dead_tup > s.n_live_tup / 2
union all
select
    'old_transaction',
    format(
        'the session %s (%s) has had a transaction open for %s', a.pid, coalesce(nullif(a.application_name, ''), a.usename),
        public.duration_in_words(public.clock_now() - a.xact_start)
    ),
    'As long as it is open nothing that died since can be removed, from any table: claims get slower and slower.',
    format('select pg_terminate_backend(%s);', a.pid)
from pg_stat_activity as a
where
    a.backend_type = 'client backend' and a.datname = current_database() and a.pid <> pg_backend_pid()
    and a.xact_start < public.clock_now() - interval '10 minutes'
union all
select
    'prepared_transaction', format('a prepared transaction has been waiting since %s', public.moment_in_words(x.prepared)),
    'It holds its locks, and keeps dead rows, until somebody ends it.',
    format('rollback prepared %L;', x.gid)
from pg_prepared_xacts as x
where x.database = current_database() and x.prepared < public.clock_now() - interval '10 minutes'
union all
select
    'slot_unread', format('nobody reads the replication slot %s, which holds back %s of log', r.slot_name, r.held),
    'The disk fills until the database stops. Drop it if its reader is gone for good; Realtime makes its own anew.',
    format('select pg_drop_replication_slot(%L);', r.slot_name)
from (
    select
        s.slot_name,
        pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)) as held
    from pg_replication_slots as s
    where
        not s.active and not pg_is_in_recovery() and s.restart_lsn is not null
        and pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) > 1000000000
) as r;
$$;

revoke all on function public.indexes_wanted(), public.doctor_shape(), public.doctor_upkeep()
from public, anon, authenticated, service_role, pulse_worker;
