-- Why a due job that nothing holds back does not run: it is a matter of who could take it.

-- Of a due job that nothing holds back: who could take it, and why nobody has.
-- Callers: why.
create function public.why_waiting(in job public.jobs, out state text, out sentence text, out mend text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    waits constant interval := now_at - greatest(job.run_at, job.created_at);
    since constant text := format('It has been due for %s', public.duration_in_words(waits));
    live integer;
    serving integer;
    knowing integer;
    free text[];            -- the workers with room for it
    ready text[];           -- those of them that say they are well
    hearing text[];         -- those of them that hear
    knew public.workers;    -- who knew the type last, if nobody does now
    places bigint;
    before bigint;
    is_in_turn boolean;     -- it waits in the lane of its user, who had a turn
    trouble text;
begin
    select
        count(*), count(*) filter (where w.serves), count(*) filter (where w.knows),
        array_agg(w.worker_id order by w.worker_id) filter (where w.has_room),
        array_agg(w.worker_id order by w.worker_id) filter (where w.has_room and w.problem is null),
        array_agg(w.worker_id order by w.worker_id) filter (where w.has_room and w.hears),
        sum(w.places) filter (where w.knows),
        min(w.problem) filter (where w.has_room)
    into live, serving, knowing, free, ready, hearing, places, trouble
    from (
        select
            one.worker_id, one.places,
            -- Of this queue's own loop; what a handler does after its time-out keeps nothing else from running.
            (
                select min(p.problem) from jsonb_array_elements_text(one.problems) as p (problem)
                where
                    starts_with(p.problem, job.queue || ': ')
                    and not starts_with(p.problem, job.queue || ': handlers that go on')
            ) as problem,
            job.queue = any (one.queues) as serves,
            one.knows,
            one.knows and one.places > (
                select count(*) from public.jobs as j
                where j.queue = job.queue and j.status = 'running' and j.worker_id = one.worker_id
            ) as has_room,
            -- A silence this short is mended by itself.
            one.hearing or one.deaf_since > now_at - interval '30 seconds' as hears
        from (select w.*, coalesce(w.types -> job.queue ? job.type, false) as knows from public.live_workers() as w) as one
    ) as w;
    select w.* into knew
    from public.workers as w
    where w.types -> job.queue ? job.type
    order by w.seen_at desc
    limit 1;
    before := public.jobs_before(job);
    is_in_turn := starts_with(job.lane, '0/');

    if live = 0 then
        state := 'no_worker';
        sentence := format('%s, but no worker is running: none has said anything for 45 s.', since);
        mend := format('pulse worker --queues %s', job.queue);
    elsif serving = 0 then
        state := 'no_worker_of_queue';
        sentence := format('%s, but no worker that runs serves the queue %s.', since, job.queue);
        mend := format('pulse worker --queues %s', job.queue);
    elsif knowing = 0 then
        state := 'no_worker_of_type';
        sentence := format(
            '%s, but no worker that runs knows the type %s: it has no file handlers/%s/%s.py.', since, job.type, job.queue,
            job.type
        );
        mend := format('pulse worker --queues %s', job.queue);
    elsif free is null then
        state := 'full';
        sentence := format(
            '%s, but all %s places of the workers that know it are taken%s.', since, places,
            case
                when is_in_turn
                    then '; users take turns' || case
                        when before > 0 then format(', and of its own %s before it', public.due_in_words(before)) else ''
                    end
                when before > 0 then format(', and %s before it', public.due_in_words(before)) else ''
            end
        );
        mend := format('pulse worker --queues %s', job.queue);
    elsif ready is null then
        state := 'not_ready';
        sentence := format('%s, and worker %s is there for it, but not ready: %s', since, free[1], trouble);
        mend := 'pulse doctor';
    elsif is_in_turn and before > 0 then
        state := 'in_turn';
        sentence := format(
            '%s and waits for a turn of its user: of the same user %s before it in the queue %s.', since,
            public.due_in_words(before), job.queue
        );
    elsif job.lane is not null and not is_in_turn then
        state := 'leaves_lane';
        sentence := format(
            '%s; the limit that held it back lets it through by now, and the next sweep, seconds from now, takes it.', since
        );
    elsif before > 0 then
        state := 'in_line';
        sentence := format(
            '%s and waits in line: %s before it in the queue %s.', since, public.due_in_words(before), job.queue
        );
    elsif hearing is null then
        state := 'deaf';
        sentence := format(
            '%s; every worker with room for it is deaf to Realtime, so a sweep has to find it, which takes seconds.', since
        );
        mend := 'pulse doctor';
    elsif waits < interval '15 seconds' then
        state := 'due';
        sentence := format('%s and is about to run: worker %s has room for it.', since, hearing[1]);
    else
        state := 'passed_over';
        trouble := public.who_locks(job.queue);
        sentence := format(
            '%s though worker %s has room for it: %s.', since, hearing[1],
            coalesce('its row may be locked, by ' || trouble, 'that worker does not get through to the database')
        );
        mend := 'pulse doctor';
    end if;
    if state in ('no_worker', 'no_worker_of_queue', 'no_worker_of_type') and knew.worker_id is not null then
        sentence := format(
            '%s The last that knew it, %s, %s at %s.', sentence, knew.worker_id,
            case when knew.leaves_at is not null then 'left' else 'was last heard of' end,
            public.moment_in_words(coalesce(knew.leaves_at, knew.seen_at))
        );
    end if;
end
$$;


-- How many due jobs of its queue are claimed before a job, as far as a look at 2000 rows shows: of the line, or of its
-- lane.
-- Callers: why_waiting.
create function public.jobs_before(job public.jobs) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select count(*)
from (
    (
        select j.id, j.priority, j.run_at
        from public.jobs as j
        where
            j.queue = (jobs_before.job).queue and j.status = 'pending' and j.lane is null
            and (jobs_before.job).lane is null
        order by j.priority desc, j.run_at, j.id
        limit 2000
    )
    union all
    (
        select j.id, j.priority, j.run_at
        from public.jobs as j
        where j.queue = (jobs_before.job).queue and j.status = 'pending' and j.lane = (jobs_before.job).lane
        order by j.lane, j.type, j.priority desc, j.run_at, j.id
        limit 2000
    )
) as head
where
    head.run_at <= public.clock_now()
    and (
        head.priority > (jobs_before.job).priority
        or head.priority = (jobs_before.job).priority
        and (head.run_at, head.id) < ((jobs_before.job).run_at, (jobs_before.job).id)
    );
$$;


-- So many due jobs are, of which no more than 2000 are counted.
-- Callers: why_waiting.
create function public.due_in_words(counted bigint) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return case
    when counted = 1 then 'one due job is'
    when counted < 2000 then format('%s due jobs are', counted)
    else 'at least 2000 due jobs are'
end;


-- The transaction that has been at a queue's table for longest, if that is longer than five seconds.
-- Callers: why_waiting.
create function public.who_locks(queue text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select
    format(
        'the session %s (%s), whose transaction has been open for %s', a.pid, coalesce(nullif(a.application_name, ''), a.usename),
        public.duration_in_words(clock_timestamp() - a.xact_start)
    )
from pg_locks as l
inner join pg_stat_activity as a on a.pid = l.pid
where
    l.relation = to_regclass('public.jobs_' || who_locks.queue)
    and l.mode in ('RowShareLock', 'RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    and a.backend_type = 'client backend'
    and a.xact_start < clock_timestamp() - interval '5 seconds'
order by a.xact_start
limit 1;
$$;

revoke all on function
public.why_waiting(public.jobs),
public.jobs_before(public.jobs),
public.due_in_words(bigint),
public.who_locks(text)
from public, anon, authenticated, service_role, pulse_worker;
