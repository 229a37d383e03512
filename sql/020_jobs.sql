-- The tables: one row per job, from its insert to its end, and what is kept beside it.
--
-- `jobs` is the parent of all queues, partitioned by `queue`: `jobs_payment` is a partition. The REST API
-- serves no partition by its name, so each has a view in front of it: producers insert into `payment_jobs`,
-- or into `jobs` with the queue's name; both are the same. Realtime announces the partition.
-- Refusals are CHECK constraints whose name is the message: they cost next to nothing, and every client
-- shows the name.

create sequence public.jobs_id_seq;

-- The trace context (W3C) that the present request of the REST API was sent with, or null.
-- Callers: the default of jobs.traceparent, and enqueue. So whoever inserts a job within a trace, by a client that
-- sends the header, continues the trace, be it from a function that knows nothing of it.
create function public.trace_of_request() returns text
language sql stable parallel safe
return substring(
    current_setting('request.headers', true) from '"traceparent" ?: ?"(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})"'
);

create table public.jobs (
    -- Who: an id is unique over all queues and grows with time. A sequence and not an identity, because
    -- PostgreSQL 15 and 16 skip the parent's identity when a row goes straight into a partition.
    id bigint not null default nextval('public.jobs_id_seq'),
    queue text not null,
    status text not null default 'pending',
    -- What: set by the producer.
    type text not null,
    data jsonb not null default '{}',
    user_id uuid,
    priority integer not null default 0,                        -- larger is sooner
    run_at timestamptz not null default public.clock_now(),     -- not before; retry and snooze move it
    max_attempts integer not null default 4,                    -- the first and three retries
    idempotency_key text,                                       -- at most one job per queue and key
    traceparent text default public.trace_of_request(),         -- the trace that it is a part of, if any
    -- The attempt: set by the functions only.
    attempt integer not null default 0,                         -- n-th run, only ever grows: the fence
    uncounted integer not null default 0,                       -- attempts that max_attempts forgives
    lease_expires_at timestamptz,                               -- not null while an attempt is live
    worker_id text,                                             -- who claimed it last
    lane text collate "C",                                      -- where it waits for room, or for its user's turn
    cancel_requested boolean not null default false,            -- asked of a running job
    progress jsonb,                                             -- how far an attempt says it is
    result jsonb,
    last_error text,
    last_outcome text,                                          -- the kind of the last ended attempt
    woken_by text,                                              -- what made the worker look
    created_at timestamptz not null default public.clock_now(),
    updated_at timestamptz not null default public.clock_now(),
    finished_at timestamptz,
    primary key (id, queue),
    constraint "status is pending, running, completed, cancelled or failed"
    check (status in ('pending', 'running', 'completed', 'cancelled', 'failed')),
    constraint "type must be a lower-case word, for example sync_positions"
    check (type ~ '^[a-z][a-z0-9_]{0,99}$'),
    constraint "data must be a JSON object, for example {}"
    check (jsonb_typeof(data) = 'object'),
    -- The text is what travels: a number such as 1e131071 takes a few bytes here and 128 kB there. Nothing
    -- changes data later, so the two costly looks are for new rows.
    constraint "data must be at most 1 MB as JSON text"
    check (attempt > 0 or octet_length(data::text) <= 1000000),
    constraint "data must be nested less than 100 levels deep"              -- which all clients can read
    check (attempt > 0 or not jsonb_path_exists(data, '$.**{100}')),
    constraint "priority must be from 0 to 100, larger is sooner"
    check (priority between 0 and 100),
    constraint "run_at must be a time in the years 1 to 9999"               -- which all clients can read
    check (run_at >= '0001-01-01 00:00+00' and run_at < '10000-01-01 00:00+00'),
    constraint "max_attempts must be 1 or more"
    check (max_attempts >= 1),
    constraint "idempotency_key must be 1 to 500 characters, or null"
    check (length(idempotency_key) between 1 and 500),
    constraint "traceparent must be 00-<32 hex>-<16 hex>-<2 hex>, or null"
    check (traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'),
    constraint "a job that runs has a lease, and no other has one"
    check ((status = 'running') = (lease_expires_at is not null))
) partition by list (queue);

alter sequence public.jobs_id_seq owned by public.jobs.id;

-- The line: the due rows, in the order they are claimed. `type` comes last so that a worker which does not
-- know a type passes over its rows inside the index.
create index jobs_pending on public.jobs (priority desc, run_at, id, type) where status = 'pending' and lane is null;

-- Beside the line: those that wait until a limit lets them through, or for their user's turn (045_passing.sql).
create index jobs_lanes on public.jobs (lane, type, priority desc, run_at, id)
where status = 'pending' and lane is not null;

-- The live attempts, read by sweeps to find run-out leases.
create index jobs_running on public.jobs (lease_expires_at) where status = 'running';

-- Partial, so that rows without a key cost nothing. `on conflict` has to be used without a target.
create unique index jobs_idempotency_key on public.jobs (queue, idempotency_key)
where idempotency_key is not null;

-- Where a row of an unknown queue goes: nowhere, with a sentence.
create table public.jobs_unknown_queue partition of public.jobs (
    constraint "unknown queue: make it with select create_queue('name')" check (false)
) default;


-- The dead letters: one row per job that was given up, with all that a replay needs.
create sequence public.failed_jobs_id_seq;

create table public.failed_jobs (
    id bigint primary key default nextval('public.failed_jobs_id_seq'),
    job_id bigint not null,
    job_type text not null,                                     -- the queue
    job_data jsonb not null,                                    -- {"type": …, "data": …}
    error_class text,
    error_message text,
    error_stack text,
    attempts integer not null,                                  -- how many counted
    attempt integer not null,                                   -- the number of the last one
    user_id uuid,
    failed_at timestamptz not null default public.clock_now(),
    replayed_at timestamptz,                                    -- at most one replay per dead letter
    unique (job_id, attempt)
);

alter sequence public.failed_jobs_id_seq owned by public.failed_jobs.id;

create index failed_jobs_newest on public.failed_jobs (job_type, failed_at desc);


-- Outcomes that came after their job had moved on: changed nothing, kept so that nobody wonders.
create table public.stale_outcomes (
    queue text not null,
    job_id bigint not null,
    attempt integer not null,                                   -- whose outcome it was
    kind text not null,
    outcome jsonb not null,                                     -- the words as they were sent
    job_attempt integer,                                        -- where the job stood; null when it was gone
    job_status text,
    told_at timestamptz not null default public.clock_now(),
    primary key (job_id, attempt, kind, queue)
);


-- Rows by which a worker proves to itself that Realtime still delivers.
create table public.realtime_canary (
    id bigint generated always as identity primary key,
    token text not null,
    created_at timestamptz not null default public.clock_now()
);


-- Puts a table into the publication that Realtime reads.
-- Callers: create_queue, and this file for the canary. Supabase brings the publication along; where it
-- is missing it is made here, since a queue outside of it would be silently deaf.
create function public.publish_table(name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
        create publication supabase_realtime;
    end if;
    if not exists (
        select from pg_catalog.pg_publication_tables as p
        where p.pubname = 'supabase_realtime' and p.schemaname = 'public' and p.tablename = publish_table.name
    ) then
        execute format('alter publication supabase_realtime add table public.%I', publish_table.name);
    end if;
end
$$;

select public.publish_table('realtime_canary');


-- Makes a queue: the partition `jobs_<name>` with everything that belongs to one, and the view `<name>_jobs`.
-- Callers: the owner, in a migration: select create_queue('reports');
-- Guarantees: all queues are equal. A partition that is named directly obeys only its own row level
-- security, policies and grants, so each is given the same as the parent has (see 090_access.sql). The view
-- is for the server; whoever asks it needs the same rights to the partition. Users read their jobs in `jobs`.
create function public.create_queue(name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    queue_table constant text := 'jobs_' || create_queue.name;
    queue_view constant text := create_queue.name || '_jobs';
begin
    if create_queue.name !~ '^[a-z][a-z0-9_]{0,39}$' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('"%s" cannot name a queue', create_queue.name),
            hint = 'Use a lower-case word of up to 40 letters, digits and underscores, for example reports.';
    end if;

    execute format(
        'create table public.%I partition of public.jobs for values in (%L)', queue_table, create_queue.name
    );
    execute format('alter table public.%I alter column queue set default %L', queue_table, create_queue.name);

    -- Two of three row versions die within seconds: vacuum by share of a large history would come too
    -- late for the small indexes of pending and running rows.
    execute format(
        'alter table public.%I set ('
        'autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, '
        'autovacuum_analyze_scale_factor = 0.05, autovacuum_analyze_threshold = 1000)', queue_table
    );

    perform public.guard_queue_table(queue_table);
    perform public.open_to_workers(queue_table);
    execute format(
        'create view public.%I with (security_invoker = true) as select * from public.%I', queue_view, queue_table
    );
    perform public.open_to_producers(queue_view);
    perform public.publish_table(queue_table);
    if exists (
        select from pg_catalog.pg_trigger as t
        where t.tgrelid = 'public.jobs'::regclass and t.tgname = 'announce_insert'
    ) then
        perform public.announce_table(queue_table);
    end if;
    if exists (
        select from pg_catalog.pg_trigger as t
        where t.tgrelid = 'public.jobs'::regclass and t.tgname = 'check_payloads'
    ) then
        perform public.check_table(queue_table);
    end if;
end
$$;


-- All queues there are, each with its partition.
-- Callers: whoever looks at all of them. Not by pg_partition_tree, which would lock what it lists. The names have the
-- collation of any other text, which those of tables have not, and without which no index of ours could be used.
create function public.queues() returns table (queue text, table_id oid)
language sql stable rows 5
set search_path = pg_catalog, pg_temp
as $$
select substr(c.relname, 6) collate "default", c.oid
from pg_inherits as i
inner join pg_class as c on c.oid = i.inhrelid
where i.inhparent = 'public.jobs'::regclass and c.relname <> 'jobs_unknown_queue';
$$;

revoke all on function public.queues() from public, anon, authenticated, service_role, pulse_worker;
grant execute on function public.queues() to service_role;


-- Gives a table of jobs its row level security, its policy and its grants.
-- Callers: create_queue for a partition, 090_access.sql for the parent.
-- Guarantees: a user reads the harmless columns of their own jobs, and no others. progress and result are written for
-- the user to read (docs/watching.md): no handler puts anything else into them.
create function public.guard_queue_table(name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('alter table public.%I enable row level security', name);
    execute format(
        'create policy "users see their own jobs" on public.%I for select to authenticated '
        'using (user_id = (select auth.uid()))', name
    );
    perform public.open_to_producers(name);
    execute format(
        'grant select (id, queue, status, type, user_id, priority, run_at, attempt, cancel_requested, '
        'progress, result, created_at, updated_at, finished_at) on public.%I to authenticated', name
    );
end
$$;


-- Opens a table or view of jobs to the server, and to nobody else.
-- Callers: create_queue and guard_queue_table.
-- Guarantees: the server inserts a producer's columns and reads everything; nobody updates or deletes,
-- since a job's state belongs to the functions.
create function public.open_to_producers(name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('revoke all on public.%I from public, anon, authenticated, service_role, pulse_worker', name);
    execute format('grant select on public.%I to service_role', name);
    execute format(
        'grant insert (type, data, user_id, priority, run_at, max_attempts, idempotency_key, traceparent) '
        'on public.%I to service_role', name
    );
end
$$;


-- Lets the role of a worker hear of the inserts into a queue.
-- Callers: create_queue. Realtime tells a row to who may read it; a wake-up carries nothing that is used, so
-- the role reads the key of a row and no more.
create function public.open_to_workers(name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('create policy "workers hear of inserts" on public.%I for select to pulse_worker using (true)', name);
    execute format('grant select (id, queue) on public.%I to pulse_worker', name);
end
$$;


select public.create_queue('payment');
select public.create_queue('broker');
select public.create_queue('alerts');
select public.create_queue('maintenance');
