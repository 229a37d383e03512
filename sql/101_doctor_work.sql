-- The doctor's look at the work: workers, waiting jobs, dead letters; and all of its looks in one answer.
--
-- Looks at jobs are bounded: the first 5000 waiting rows of a queue, the oldest 1000 rows, the newest dead letters.

-- Whether there is somebody for every job, and whether jobs end well.
-- Callers: doctor_facts. keep_days = how long ended jobs are kept by this project.
create function public.doctor_work(keep_days double precision)
returns table (finding text, what text, why text, mend text)
language sql stable
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
with clock (now_at) as (select public.clock_now()),

live as materialized (select w.* from public.live_workers() as w),

-- What has been due for a minute and should have begun.
overdue as materialized (
    select q.queue, head.type, count(*) as jobs, min(head.run_at) as oldest
    from public.queues() as q
    cross join clock as c
    cross join lateral (
        (
            select j.type, greatest(j.run_at, j.created_at) as run_at
            from public.jobs as j
            where j.queue = q.queue and j.status = 'pending' and j.lane is null
            order by j.priority desc, j.run_at, j.id
            limit 5000
        )
        union all
        (       -- Those that a limit holds wait as they should, as long as there is somebody who looks at their lane.
            select j.type, greatest(j.run_at, j.created_at) as run_at
            from public.lanes as l
            cross join lateral (
                select waits.type, waits.run_at, waits.created_at
                from public.jobs as waits
                where
                    waits.queue = q.queue and waits.status = 'pending' and waits.lane = l.lane and waits.type = l.type
                limit 5000
            ) as j
            where
                l.queue = q.queue
                and (
                    starts_with(l.lane, '0/')
                    or not exists (select from live as w where w.types -> q.queue ? l.type)
                )
            limit 5000
        )
    ) as head
    where
        head.run_at < c.now_at - interval '1 minute'
        and not exists (
            select from public.paused as p
            where p.queue = q.queue and (p.type is null or p.type = head.type)
        )
    group by q.queue, head.type
),

letters as materialized (
    select q.queue, f.id, f.job_data ->> 'type' as type, f.error_class
    from public.queues() as q
    cross join clock as c
    cross join lateral (
        select f.* from public.failed_jobs as f
        where f.job_type = q.queue and f.failed_at > c.now_at - interval '1 hour'
        order by f.failed_at desc
        limit 1000
    ) as f
    where
        f.replayed_at is null
        and exists (
            select from public.jobs as j
            where j.id = f.job_id and j.status = 'failed' and j.attempt = f.attempt
        )
)

select
    'no_worker', 'no worker is running: none has said anything for 45 s', 'No job runs until one does.', 'pulse worker'
where not exists (select from live)
union all
select
    'queue_without_worker', format('no worker serves the queue %s, and jobs of it are due', o.queue),
    format('The oldest has waited for %s.', public.duration_in_words(max(c.now_at) - min(o.oldest))),
    format('pulse worker --queues %s', o.queue)
from overdue as o
cross join clock as c
where exists (select from live) and not exists (select from live as w where o.queue = any (w.queues))
group by o.queue
union all
select
    'type_without_worker', format('%s jobs of the type %s are due, which no worker of %s knows', o.jobs, o.type, o.queue),
    format(
        'They wait for a worker that has handlers/%s/%s.py: deploy it, or give them up with the statement.', o.queue, o.type
    ),
    format(
        'select public.cancel(array(select j.id from public.jobs as j where j.queue = %L and j.type = %L '
        'and j.status = ''pending''));', o.queue, o.type
    )
from overdue as o
where
    exists (select from live as w where o.queue = any (w.queues))
    and not exists (select from live as w where w.types -> o.queue ? o.type)
union all
select
    'queue_full', format('jobs of %s are due, and all places of its workers are taken', o.queue),
    format(
        'The oldest has waited for %s. Another process brings more places; so does a larger --concurrency.',
        public.duration_in_words(max(c.now_at) - min(o.oldest))
    ),
    format('pulse worker --queues %s', o.queue)
from overdue as o
cross join clock as c
where
    exists (select from live as w where w.types -> o.queue ? o.type)
    and not exists (
        select from live as w
        where
            w.types -> o.queue ? o.type
            and w.places > (
                select count(*) from public.jobs as j
                where j.queue = o.queue and j.status = 'running' and j.worker_id = w.worker_id
            )
    )
group by o.queue
union all
select
    'paused_long',
    format('%s is paused since %s', coalesce('the type ' || p.type, 'the queue ' || p.queue), public.moment_in_words(p.since)),
    format('None of its jobs has begun since then%s. The statement lets them.', coalesce(' (' || nullif(p.reason, '') || ')', '')),
    format('select public.resume_jobs(%s);', concat_ws(', ', quote_literal(p.queue), quote_literal(p.type)))
from public.paused as p
cross join clock as c
where p.since < c.now_at - interval '1 day'
union all
select
    'lease_over', format('%s attempts of %s go on although their lease has ended', count(*), q.queue),
    'Their workers vanished, and nobody sweeps the queue. The statement ends them, so that their jobs run again.',
    format('select public.claim(%L, ''{}'', 0, 1, ''doctor'', ''sweep'', null, true);', q.queue)
from public.queues() as q
cross join clock as c
cross join lateral (
    select from public.jobs as j
    where j.queue = q.queue and j.status = 'running' and j.lease_expires_at < c.now_at - interval '1 minute'
    order by j.lease_expires_at
    limit 1000
) as j
group by q.queue
union all
select
    'worker_vanished',
    format('the worker %s has said nothing since %s, and had not said that it leaves', w.worker_id, public.moment_in_words(w.seen_at)),
    'It was killed, for its use of memory perhaps, or its machine stopped: its log says more. Its jobs run again after '
    'their leases. The statement forgets it.',
    format('delete from public.workers where worker_id = %L;', w.worker_id)
from public.workers as w
cross join clock as c
where
    w.leaves_at is null and w.seen_at < c.now_at - interval '45 seconds' and w.seen_at > c.now_at - interval '1 hour'
union all
select
    'worker_deaf', format('the worker %s has not heard Realtime since %s', w.worker_id, public.moment_in_words(w.deaf_since)),
    'Its jobs wait for a sweep, up to 5 s. The command tells what keeps Realtime from being heard.',
    'pulse check'
from live as w
cross join clock as c
where w.deaf_since < c.now_at - interval '1 minute'
union all
select
    'worker_not_ready', format('the worker %s is not ready: %s', w.worker_id, w.problems ->> 0),
    'It is running and does not do all that it is for. The command tells whether its settings work.',
    'pulse check'
from live as w
cross join clock as c
where w.problems <> '[]' and w.started_at < c.now_at - interval '1 minute'
union all
select
    'worker_clock', format('the clock of the worker %s on %s is wrong by %s s', w.worker_id, w.host, round(abs(w.clock_off_seconds))),
    'Signatures of webhooks and keys seem too old or too young to it, and periodic jobs come early or late.',
    'sudo timedatectl set-ntp true'
from live as w
where abs(w.clock_off_seconds) > 30
union all
select
    'versions_differ', format('workers of the versions %s run side by side', string_agg(distinct w.version, ', ')),
    'The older ones run the old code; after a deploy they should have left long ago. End them: their jobs are handed back.',
    string_agg(
        format('kill -TERM %s  # on %s', substring(w.worker_id from '-(\d+)-[0-9a-f]+$'), w.host), '; ' order by w.started_at
    ) filter (where w.version <> (select n.version from live as n order by n.started_at desc limit 1))
from live as w
cross join clock as c
where w.started_at < c.now_at - interval '1 hour'
having count(distinct w.version) > 1
union all
select
    'not_pruned', format('there are jobs that ended more than %s days ago', keep_days + 1),
    'Nobody prunes: the tables grow without end. The statement asks a worker of the queue maintenance to do it.',
    'insert into public.maintenance_jobs (type) values (''prune'');'
from clock as c
where exists (
    select
    from (
        select j.finished_at, j.status from public.jobs as j
        order by j.id
        limit 1000
    ) as j
    where j.status in ('completed', 'cancelled') and j.finished_at < c.now_at - make_interval(secs => 86400 * (keep_days + 1))
)
union all
select
    'many_failures', format('%s jobs of the type %s failed for good within an hour', count(*), l.type),
    format('Most of them with %s. Mend that first; the statement lets them all run again.', mode() within group (order by l.error_class)),
    format('select public.replay(job_type => %L, type => %L);', l.queue, l.type)
from letters as l
where l.error_class is distinct from 'WorkerVanished'
group by l.queue, l.type
having count(*) >= 10
union all
select
    'poison_job', format('the dead letter %s (%s) is of a job whose workers vanished each time', l.id, l.type),
    'The job may kill its worker: look at what the worker logged last. The statement lets it run once more.',
    format('select public.replay(array[%s]);', l.id)
from letters as l
where l.error_class = 'WorkerVanished';
$$;


-- Whether the schedules bring their jobs.
-- Callers: doctor_facts.
create function public.doctor_schedules()
returns table (finding text, what text, why text, mend text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select
    'schedule_stuck',
    format('the schedule %s: %s', s.name, a.state ->> 'problem'),
    case
        when a.state -> 'last_job' ->> 'status' = 'failed' then 'Its next slots go on. The statement lets that job run again.'
        else 'What it is for is not done until that is mended; the statement or command ends the trouble, not its cause.'
    end,
    case
        when s.origin = 'code' and s.declared_at <= public.clock_now() - interval '1 day'
            then format('delete from public.schedules where name = %L;', s.name)
        when s.problem is not null then format('select public.pause_schedule(%L);', s.name)
        when s.settled_to > public.clock_now() + interval '1 minute' then format('select public.resume_schedule(%L);', s.name)
        when coalesce(s.next_slot, s.updated_at) < public.clock_now() - interval '1 minute' then 'pulse worker'
        when starts_with(a.state ->> 'problem', 'no running worker') then format('select public.pause_schedule(%L);', s.name)
        when a.state -> 'last_job' ->> 'status' = 'failed' then format(
            'select public.replay(array(select f.id from public.failed_jobs as f where f.job_id = %s));', s.last_job_id
        )
        else format('pulse worker --queues %s', s.queue)
    end
from public.schedules as s
cross join lateral (select public.schedule_state(s.name) as state) as a
where a.state ->> 'problem' is not null;
$$;


-- Everything that the database knows of a project's health, for `pulse doctor`.
-- Callers: people and their tools, over RPC. Answers {"clock", "migrations": [version, …] or null, "findings": […]}.
create function public.doctor_facts(keep_days double precision default 7) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
select jsonb_build_object(
    'clock', clock_timestamp(),
    'migrations', public.applied_migrations(),
    'findings', coalesce(jsonb_agg(to_jsonb(f)), '[]')
)
from (
    select * from public.doctor_publication()
    union all
    select * from public.doctor_policies()
    union all
    select * from public.doctor_rights()
    union all
    select * from public.doctor_shape()
    union all
    select * from public.doctor_upkeep()
    union all
    select * from public.doctor_work(doctor_facts.keep_days)
    union all
    select * from public.doctor_schedules()
) as f;
$$;

revoke all on function
public.doctor_work(double precision),
public.doctor_schedules(),
public.doctor_facts(double precision)
from public, anon, authenticated, service_role, pulse_worker;
grant execute on function public.doctor_facts(double precision) to service_role;
