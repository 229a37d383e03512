-- All queues at a glance, and what a purge would delete. Counted is up to some hundreds; more is an estimate, so that a
-- look costs the same whatever the tables hold.

-- Since when the oldest due job in the line of a queue, or waiting for a turn, has been due; null: none is.
-- Callers: queue_facts. Jobs are kept in order within each priority only, and of priorities there are 101 at most. Of
-- those that wait for turns the first thousand are looked at.
create function public.oldest_due(queue text) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
    head record;
    below integer := 101;
    oldest timestamptz;
begin
    loop
        select j.priority, j.run_at into head
        from public.jobs as j
        where
            j.queue = oldest_due.queue and j.status = 'pending' and j.lane is null and j.priority < below
        order by j.priority desc, j.run_at
        limit 1;
        exit when not found;
        below := head.priority;
        oldest := least(oldest, head.run_at);
    end loop;
    select least(oldest, min(waiting.run_at)) into oldest
    from (
        select j.run_at from public.jobs as j
        where j.queue = oldest_due.queue and j.status = 'pending' and j.lane >= '0/' and j.lane < '00'
        limit 1000
    ) as waiting;
    return case when oldest <= public.clock_now() then oldest end;
end
$$;


-- One queue at a glance: {"queue", "pending", "due", "held", "running", "lost", "oldest_due_seconds", "dead_letters",
-- "failed_last_hour", "counted_all", "paused": [{"type", "reason", "since"}, …]}.
-- Callers: queue_stats. pending are the jobs in line or waiting for a turn, due those of them that could run now, held
-- those that a limit keeps back; lost are running ones whose lease is over. Where counted_all is false, pending is what
-- the statistics of the index say (null: nothing yet), and due means so many or more. dead_letters are those not
-- replayed among the newest two hundred.
create function public.queue_facts(queue text) returns json
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
    most constant integer := 200;
    most_in_line constant integer := 200;
    in_turn bigint;
    now_at constant timestamptz := public.clock_now();
    waiting record;
    live record;
    dead record;
    held bigint;
    estimate real;
begin
    select count(*) as pending, count(*) filter (where head.run_at <= now_at) as due
    into waiting
    from (
        select j.run_at from public.jobs as j
        where j.queue = queue_facts.queue and j.status = 'pending' and j.lane is null and j.priority >= 0
        limit most_in_line + 1
    ) as head;

    select count(*) into in_turn
    from (
        select from public.jobs as j
        where j.queue = queue_facts.queue and j.status = 'pending' and j.lane >= '0/' and j.lane < '00'
        limit most_in_line + 1
    ) as head;
    waiting.pending := waiting.pending + in_turn;
    waiting.due := waiting.due + in_turn;

    select count(*) into held
    from (
        select from public.jobs as j
        where j.queue = queue_facts.queue and j.status = 'pending' and j.lane >= '00'
        limit most
    ) as head;

    select count(*) as running, count(*) filter (where head.lease_expires_at < now_at) as lost
    into live
    from (
        select j.lease_expires_at from public.jobs as j
        where j.queue = queue_facts.queue and j.status = 'running' and j.lease_expires_at > '-infinity'
        limit 50 * most
    ) as head;

    select
        count(*) filter (where head.replayed_at is null) as dead_letters,
        count(*) filter (where head.failed_at > now_at - interval '1 hour') as failed_last_hour
    into dead
    from (
        select f.replayed_at, f.failed_at from public.failed_jobs as f
        where f.job_type = queue_facts.queue
        order by f.failed_at desc
        limit most
    ) as head;

    if waiting.pending > most_in_line then
        select own.reltuples into estimate
        from pg_catalog.pg_inherits as h
        join pg_catalog.pg_index as x on x.indexrelid = h.inhrelid
        join pg_catalog.pg_class as own on own.oid = h.inhrelid
        where
            h.inhparent = 'public.jobs_pending'::regclass
            and x.indrelid = ('public.jobs_' || queue_facts.queue)::regclass;
    end if;

    return json_build_object(
        'queue', queue_facts.queue,
        'pending', case when waiting.pending <= most_in_line then waiting.pending else nullif(estimate, -1)::bigint end,
        'due', least(waiting.due, most_in_line),
        'held', held,
        'running', live.running,
        'lost', live.lost,
        'oldest_due_seconds', extract(epoch from now_at - public.oldest_due(queue_facts.queue)),
        'dead_letters', dead.dead_letters,
        'failed_last_hour', dead.failed_last_hour,
        'counted_all', waiting.pending <= most_in_line,
        'paused', (
            select coalesce(
                json_agg(json_build_object('type', p.type, 'reason', p.reason, 'since', p.since) order by p.type), '[]'
            )
            from public.paused as p
            where p.queue = queue_facts.queue
        )
    );
end
$$;


-- All queues at a glance: {"now", "queues": [what queue_facts says, …]}.
-- Callers: `pulse stats` and `pulse top`, over RPC.
create function public.queue_stats() returns json
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select json_build_object(
    'now', public.clock_now(),
    'queues', coalesce(json_agg(public.queue_facts(q.queue) order by q.queue), '[]')
)
from public.queues() as q;
$$;


-- The processes that told of themselves in the last minute and have not left: [{"worker_id", "version", "queues",
-- "places", "running", "hearing", "problems", "started_at", "seen_at", "leaves_at"}, …], a hundred at most.
-- Callers: `pulse top`, over RPC.
create function public.list_workers() returns json
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select coalesce(json_agg(to_json(w) order by w.worker_id), '[]')
from (
    select
        known.worker_id, known.version, known.queues, known.places, known.running, known.hearing, known.problems,
        known.started_at, known.seen_at, known.leaves_at
    from public.workers as known
    where
        known.seen_at > public.clock_now() - interval '1 minute'
        and (known.leaves_at is null or known.leaves_at > public.clock_now())
    order by known.worker_id
    limit 100
) as w;
$$;


-- What holds jobs back: {"now", "paused": [{"queue", "type", "reason", "since"}, …], "limits": [{"queue", "type",
-- "per", "at_once", "starts", "per_seconds"}, …]}, the widest limit first.
-- Callers: `pulse limits`, over RPC.
create function public.list_limits() returns json
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select json_build_object(
    'now', public.clock_now(),
    'paused', (
        select coalesce(
            json_agg(
                json_build_object('queue', p.queue, 'type', p.type, 'reason', p.reason, 'since', p.since)
                order by p.queue, p.type nulls first
            ), '[]'
        )
        from public.paused as p
    ),
    'limits', (
        select coalesce(
            json_agg(
                json_build_object(
                    'queue', l.queue, 'type', l.type, 'per', l.per, 'at_once', l.at_once, 'starts', l.starts,
                    'per_seconds', l.per_seconds
                ) order by l.queue nulls first, l.type nulls first, l.per
            ), '[]'
        )
        from public.job_limits as l
    )
);
$$;


-- What prune would delete by this policy, by table, as it answers it itself: {"jobs", "failed_jobs", …, "at_least":
-- [the tables whose number may be larger]}. Counted is up to `most` of each, the jobs among the oldest 2 * `most`: more
-- would make an operator wait.
-- Callers: `pulse purge`, over RPC, before it does it.
create function public.count_prunable(
    completed_days double precision, failed_days double precision, most integer default 100000
) returns json
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
as $$
declare
    most constant integer := greatest(count_prunable.most, 1);
    now_at constant timestamptz := public.clock_now();
    completed_before constant timestamptz := now_at - make_interval(secs => 86400 * count_prunable.completed_days);
    failed_before constant timestamptz := now_at - make_interval(secs => 86400 * count_prunable.failed_days);
    head record;
    letters record;
    jobs integer := 0;
    thousands integer := 0;
    counted jsonb;
begin
    head := public.next_old_jobs(0, completed_before, failed_before);
    loop
        jobs := jobs + coalesce(cardinality(head.ended), 0);
        thousands := thousands + 1;
        exit when head.done_to is null
            or head.oldest > greatest(completed_before, failed_before)
            or jobs >= most
            or thousands * 1000 >= 2 * most;
        head := public.next_old_jobs(head.done_to, completed_before, failed_before);
    end loop;

    letters := public.old_letters(failed_before, most);
    counted := jsonb_build_object('jobs', jobs)
    || letters.counted
    || public.forgettable_calls(most)
    || public.forgettable_broker_traces(most)
    || public.forgettable_alerts(most)
    || public.forgettable_stripe_events(most);

    return counted || jsonb_build_object(
        'at_least', (
            select letters.at_least || coalesce(jsonb_agg(c.key), '[]')
            from jsonb_each_text(counted) as c
            where
                c.value::integer >= most and not letters.at_least ? c.key
                or c.key = 'jobs'
                and head.done_to is not null
                and head.oldest <= greatest(completed_before, failed_before)
        )
    );
end
$$;

revoke all on function
public.oldest_due(text),
public.queue_facts(text),
public.queue_stats(),
public.list_limits(),
public.list_workers(),
public.count_prunable(double precision, double precision, integer)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.oldest_due(text),
public.queue_facts(text),
public.queue_stats(),
public.list_limits(),
public.list_workers(),
public.count_prunable(double precision, double precision, integer)
to service_role;
