-- How people say what holds due work back (043_gates.sql), and how they ask what holds a job.

-- Refuses a queue that does not exist: a word misspelt would hold nothing back, in silence.
-- Callers: pause_jobs, limit_jobs.
create function public.check_queue(queue text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regclass('public.' || quote_ident('jobs_' || check_queue.queue)) is null then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('there is no queue "%s"', check_queue.queue),
            hint = 'The queues are the partitions of jobs: select distinct queue from jobs.';
    end if;
end
$$;


-- Pauses a queue, or one type of it, and answers {"paused": true}, false when it was paused already.
-- Callers: people and their tools, over RPC.
-- Guarantees: a claim that begins after the call has returned hands out nothing of it. What runs goes on, its outcomes
-- are recorded, and attempts that are lost are ended.
create function public.pause_jobs(queue text, type text default null, reason text default '') returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    is_new boolean;
begin
    perform public.check_queue(pause_jobs.queue);
    insert into public.paused as p (queue, type, reason)
    values (pause_jobs.queue, pause_jobs.type, coalesce(pause_jobs.reason, ''))
    on conflict on constraint paused_queue_type_key do update set reason = excluded.reason
    returning p.xmax = 0 into is_new;
    return jsonb_build_object('paused', is_new);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Takes a pause back and answers {"resumed": true}, false when there was none. That of a queue and those of its types
-- are apart. Workers come back to it with their next sweep.
-- Callers: people and their tools, over RPC.
create function public.resume_jobs(queue text, type text default null) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from public.paused as p
    where p.queue = resume_jobs.queue and p.type is not distinct from resume_jobs.type;
    return jsonb_build_object('resumed', found);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Sets a limit, or changes it, and answers {"limit": id}. Without numbers: an exception from a wider limit.
-- Callers: people and their tools, over RPC; the migration.
-- Guarantees: it holds for every claim that begins after the call has returned; what runs goes on and counts.
create function public.limit_jobs(
    queue text default null,
    type text default null,
    per text default 'all',
    at_once integer default null,
    starts integer default null,
    per_seconds double precision default null
) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    snake constant text[] := (string_to_array(limit_jobs.per, '.'))[2:];
    limit_id bigint;
begin
    if limit_jobs.queue is not null then
        perform public.check_queue(limit_jobs.queue);
    end if;
    insert into public.job_limits as l (queue, type, per, at_once, starts, per_seconds, path, camel_path)
    values (
        limit_jobs.queue, limit_jobs.type, limit_jobs.per, limit_jobs.at_once, limit_jobs.starts,
        limit_jobs.per_seconds, snake,
        array(
            select left(w.word, 1) || substr(replace(initcap(replace(w.word, '_', ' ')), ' ', ''), 2)
            from unnest(snake) with ordinality as w (word, n)
            order by w.n
        )
    )
    on conflict on constraint job_limits_queue_type_per_key do update set
        at_once = excluded.at_once, starts = excluded.starts, per_seconds = excluded.per_seconds,
        changed_at = excluded.changed_at
    returning l.id into limit_id;
    perform public.open_lanes();
    return jsonb_build_object('limit', limit_id);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Removes a limit, or an exception, and answers {"removed": true}, false when there was none.
-- Callers: people and their tools, over RPC.
create function public.unlimit_jobs(
    queue text default null, type text default null, per text default 'all'
) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    removed boolean;
begin
    delete from public.job_limits as l
    where
        l.queue is not distinct from unlimit_jobs.queue
        and l.type is not distinct from unlimit_jobs.type
        and l.per = unlimit_jobs.per;
    removed := found;
    perform public.open_lanes();
    return jsonb_build_object('removed', removed);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Lets all lanes be looked at: what holds them may have changed.
-- Callers: limit_jobs, unlimit_jobs.
create function public.open_lanes() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    with locked as materialized (
        select l.lane, l.queue, l.type
        from public.lanes as l
        where l.look_at > '-infinity'
        order by l.lane, l.queue, l.type
        for no key update
    )

    update public.lanes as l
    set look_at = '-infinity'
    from locked as k
    where (l.lane, l.queue, l.type) = (k.lane, k.queue, k.type);
end
$$;


-- What holds a pending job back now; null when nothing does.
-- Callers: `why`, over RPC. {"gate": "paused", "queue", "type", "reason", "since"}
-- {"gate": "at_once", "per", "queue", "type", "key", "limit", "running": [{"id", "type", "worker_id"}, … 5 at most],
-- "count"} · {"gate": "starts", "per", "queue", "type", "key", "limit", "per_seconds", "free_in_seconds"}
-- queue and type are those of the pause or limit. key is the user's id, or null: what stands in data is told to nobody.
-- A look without locks: what it says may be over when it is read.
create function public.gate_of(job_id bigint) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    moment constant timestamptz := public.call_moment();
    job record;
    pause public.paused;
    gate record;
    answer jsonb;
begin
    select j.queue, j.type, j.status, j.user_id, j.data into job from public.jobs as j where j.id = gate_of.job_id;
    if job.status is distinct from 'pending' then
        return null;
    end if;

    select p.* into pause
    from public.paused as p
    where p.queue = job.queue and (p.type is null or p.type = job.type)
    order by p.type nulls first
    limit 1;
    if found then
        return jsonb_build_object(
            'gate', 'paused', 'queue', pause.queue, 'type', pause.type, 'reason', pause.reason, 'since', pause.since
        );
    end if;

    for gate in
        select
            l.*, k.counted_by, l.id || '/' || k.counted_by as key,
            public.calls_within(c.taken, moment, l.per_seconds) as started,
            c.taken[cardinality(c.taken) - l.starts + 1] + make_interval(secs => l.per_seconds) as free_at
        from public.limits_of(job.queue, job.type) as l
        cross join lateral (
            select public.limit_key(l.per, l.path, l.camel_path, job.user_id, job.data) as counted_by
        ) as k
        left join public.call_limits as c on c.key = 'job_limits/' || l.id || '/' || k.counted_by
        where k.counted_by is not null
        order by l.id
    loop
        answer := jsonb_build_object(
            'per', gate.per, 'queue', gate.queue, 'type', gate.type,
            'key', case gate.per when 'user' then gate.counted_by end
        );
        if (public.count_running(array[gate.key]) ->> gate.key)::integer >= gate.at_once then
            return answer || jsonb_build_object(
                'gate', 'at_once', 'limit', gate.at_once,
                'count', (public.count_running(array[gate.key]) ->> gate.key)::integer,
                'running', (
                    select jsonb_agg(jsonb_build_object('id', r.id, 'type', r.type, 'worker_id', r.worker_id))
                    from (
                        select j.id, j.type, j.worker_id
                        from public.jobs as j
                        where
                            j.status = 'running'
                            and (gate.queue is null or j.queue = gate.queue)
                            and exists (select from public.limits_of(j.queue, j.type) as l where l.id = gate.id)
                            and public.limit_key(gate.per, gate.path, gate.camel_path, j.user_id, j.data)
                            = gate.counted_by
                        order by j.id
                        limit 5
                    ) as r
                )
            );
        end if;
        if gate.started >= gate.starts then
            return answer || jsonb_build_object(
                'gate', 'starts', 'limit', gate.starts, 'per_seconds', gate.per_seconds,
                'free_in_seconds', extract(epoch from gate.free_at - moment)
            );
        end if;
    end loop;
    return null;
end
$$;


revoke all on function
public.check_queue(text),
public.pause_jobs(text, text, text),
public.resume_jobs(text, text),
public.limit_jobs(text, text, text, integer, integer, double precision),
public.unlimit_jobs(text, text, text),
public.open_lanes(),
public.gate_of(bigint)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.pause_jobs(text, text, text),
public.resume_jobs(text, text),
public.limit_jobs(text, text, text, integer, integer, double precision),
public.unlimit_jobs(text, text, text),
public.gate_of(bigint)
to service_role;

-- The platform's own limit: a user starts 100 jobs in 60 seconds, over all queues and processes. Excepted, since it
-- must not wait behind what a user floods us with: what takes risk away (cancel_order), what tells the truth about
-- money or orders (events of Stripe's, what the chain shows, callbacks, looks at orders and positions), what keeps
-- paid time in step (subscription_renewal), and what people are told, which has limits of its own.
select public.limit_jobs(per => 'user', starts => 100, per_seconds => 60);
select public.limit_jobs('broker', 'cancel_order', 'user');
select public.limit_jobs('broker', 'handle_callback', 'user');
select public.limit_jobs('broker', 'monitor_orders', 'user');
select public.limit_jobs('broker', 'sync_positions', 'user');
select public.limit_jobs('payment', 'stripe_webhook', 'user');
select public.limit_jobs('payment', 'crypto_verification', 'user');
select public.limit_jobs('payment', 'subscription_renewal', 'user');
select public.limit_jobs('alerts', null, 'user');
