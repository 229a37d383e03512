-- Why a job does not run: one sentence, and what mends it.
--
-- All of it is read in one snapshot, so what the sentence says was true together at one moment: nothing here is
-- volatile, and what is asked further down is not either. It says what rows say. What a worker says of itself
-- (sql/086) is up to 15 s old and only explains who could take the job; a worker that has said nothing for 45 s,
-- or that said its last word, is not counted.
--
-- A sentence quotes no payload and no message of an error, which may carry either: the name of an error and the
-- words with which a handler snoozes, which are the same as in the log.

-- A length of time as people say it.
-- Callers: what makes sentences.
create function public.duration_in_words(duration interval) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return case
    when duration < interval '1 second' then 'less than a second'
    when duration < interval '2 minutes' then format('%s s', floor(extract(epoch from duration)))
    when duration < interval '2 hours' then format('%s min', floor(extract(epoch from duration) / 60))
    when duration < interval '2 days' then format('%s h', floor(extract(epoch from duration) / 3600))
    else format('%s days', floor(extract(epoch from duration) / 86400))
end;


-- A moment as people say it, in UTC.
-- Callers: what makes sentences.
create function public.moment_in_words(moment timestamptz) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return to_char(moment at time zone 'UTC', 'FMYYYY-MM-DD HH24:MI:SS" UTC"');


-- The workers that are there: they have said so within the last 45 s, three words, and not that they leave.
-- Callers: why, doctor_facts.
create function public.live_workers() returns setof public.workers
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select w.* from public.workers as w
where w.seen_at > public.clock_now() - interval '45 seconds' and w.leaves_at is null;
$$;


-- Says why a job does not run, or how it ended: {"job": {…}, "state", "sentence", "mend"}.
-- Callers: people and their tools, over RPC. job = null when there is none; mend = a command (pulse …), a statement
-- for the owner, or null when there is nothing to do. The settings keep its looks to the indexes, on a table that has
-- never been analysed too.
create function public.why(job_id bigint) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
    job public.jobs;
    gate jsonb;
    told record;
begin
    select j.* into job from public.jobs as j where j.id = why.job_id;
    if not found then
        select * into told from public.why_absent(why.job_id);
    elsif job.status = 'running' then
        select * into told from public.why_running(job);
    elsif job.status <> 'pending' then
        select * into told from public.why_ended(job);
    elsif job.run_at > public.clock_now() then
        select * into told from public.why_later(job);
    else
        gate := public.gate_of(job.id);
        if gate is not null then
            select * into told from public.why_held(gate);
        else
            select * into told from public.why_waiting(job);
        end if;
    end if;
    return jsonb_build_object(
        'job', case
            when job.id is not null then jsonb_build_object(
                'id', job.id, 'queue', job.queue, 'type', job.type, 'status', job.status, 'user_id', job.user_id,
                'priority', job.priority, 'run_at', job.run_at, 'attempt', job.attempt,
                'counted', job.attempt - job.uncounted, 'max_attempts', job.max_attempts, 'worker_id', job.worker_id,
                'lease_expires_at', job.lease_expires_at, 'cancel_requested', job.cancel_requested,
                'created_at', job.created_at, 'finished_at', job.finished_at
            )
        end,
        'state', told.state,
        'sentence', told.sentence,
        'mend', told.mend
    );
end
$$;


-- Of an id that no row has.
-- Callers: why.
create function public.why_absent(in job_id bigint, out state text, out sentence text, out mend text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    letter public.failed_jobs;
begin
    if why_absent.job_id < 1 or why_absent.job_id > (select s.last_value from public.jobs_id_seq as s) then
        state := 'unknown';
        sentence := format('No job has had the id %s yet.', why_absent.job_id);
        return;
    end if;
    state := 'gone';
    sentence := format(
        'Job %s is not there any more: it ended and was pruned, or its INSERT was rolled back.', why_absent.job_id
    );
    select f.* into letter
    from public.failed_jobs as f
    where f.job_id = why_absent.job_id
    order by f.attempt desc
    limit 1;
    if found then
        sentence := format(
            '%s It failed at %s; its dead letter %s is still there and holds its data.', sentence,
            public.moment_in_words(letter.failed_at), letter.id
        );
    end if;
end
$$;


-- Of a job that has ended.
-- Callers: why.
create function public.why_ended(in job public.jobs, out state text, out sentence text, out mend text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    letter public.failed_jobs;
begin
    state := job.status;
    if job.status = 'completed' then
        sentence := format(
            'Job %s completed at %s, in attempt %s.', job.id, public.moment_in_words(job.finished_at), job.attempt
        );
        return;
    end if;
    if job.status = 'cancelled' then
        sentence := format(
            'Job %s was cancelled at %s, %s.', job.id, public.moment_in_words(job.finished_at),
            case
                when job.attempt = 0 then 'before its first attempt'
                when job.last_outcome = 'cancel' and not job.cancel_requested then 'by its own handler'
                else format('after %s of its attempts had begun', job.attempt)
            end
        );
        return;
    end if;
    select f.* into letter
    from public.failed_jobs as f
    where f.job_id = job.id and f.attempt = job.attempt;
    sentence := format(
        'Job %s failed for good at %s, in attempt %s of %s%s.', job.id, public.moment_in_words(job.finished_at),
        job.attempt - job.uncounted, job.max_attempts, coalesce(' with ' || coalesce(public.error_name(letter.error_class), public.error_name(job.last_error)), '')
    );
    if letter.id is null then
        sentence := sentence || ' Its dead letter has been pruned, so it cannot run again.';
    else
        sentence := format(
            '%s%s Its dead letter is %s: once what it failed of is mended, let it run again.', sentence,
            case letter.error_class
                when 'InvalidPayload' then ' Its data does not fit its type, so no attempt would end otherwise.'
                when 'WorkerVanished' then ' Its worker vanished each time: the job may kill its worker.'
                else ''
            end,
            letter.id
        );
        mend := format('pulse retry %s', letter.id);
    end if;
end
$$;


-- The name of an error if it is one, and nothing that somebody else has written instead.
-- Callers: why's rooms.
create function public.error_name(error text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return substring(error from '^([A-Za-z_][A-Za-z0-9_.]{0,99})(?::|$)');


-- Of a job that an attempt is at.
-- Callers: why.
create function public.why_running(in job public.jobs, out state text, out sentence text, out mend text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    live constant boolean := exists (select from public.live_workers() as w where w.worker_id = job.worker_id);
    known public.workers;
begin
    select w.* into known from public.workers as w where w.worker_id = job.worker_id;
    if job.lease_expires_at < now_at then
        state := 'lease_over';
        sentence := format(
            'The lease of attempt %s ended %s ago: its worker %s vanished, or is cut off.', job.attempt,
            public.duration_in_words(now_at - job.lease_expires_at), job.worker_id
        );
        if exists (select from public.live_workers() as w where job.queue = any (w.queues)) then
            sentence := sentence || ' The next sweep, seconds from now, ends the attempt and lets the job run again.';
        else
            sentence := format('%s No worker serves the queue %s now, so nobody sweeps it.', sentence, job.queue);
            mend := format('pulse worker --queues %s', job.queue);
        end if;
        return;
    end if;
    state := case when job.cancel_requested then 'asked_to_stop' else 'running' end;
    sentence := format(
        'It runs: attempt %s of %s is with worker %s, whose lease ends at %s unless it is renewed%s.',
        job.attempt - job.uncounted, job.max_attempts, job.worker_id, public.moment_in_words(job.lease_expires_at),
        case when job.cancel_requested then ', and that worker has been asked to cancel it' else '' end
    );
    if known.leaves_at < now_at then
        sentence := format(
            '%s That worker has left; when the lease ends the next sweep lets the job run again.', sentence
        );
    elsif known.leaves_at is not null then
        sentence := sentence || ' That worker is leaving: it ends the job soon, or hands it back.';
    elsif known.worker_id is not null and not live then
        sentence := format(
            '%s That worker has said nothing for %s; if it is dead, the first sweep after the end of the lease lets the '
            'job run again.', sentence, public.duration_in_words(now_at - known.seen_at)
        );
    end if;
end
$$;


-- Of a job that is not due yet.
-- Callers: why.
create function public.why_later(in job public.jobs, out state text, out sentence text, out mend text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    due constant text := format(
        '%s, in %s', public.moment_in_words(job.run_at), public.duration_in_words(job.run_at - public.clock_now())
    );
    tries constant text := format('%s of %s', job.attempt - job.uncounted, job.max_attempts);
begin
    state := case job.last_outcome
        when 'snooze' then 'snoozed' when 'retry' then 'retries_later' when 'vanished' then 'retries_later'
        else 'not_due'
    end;
    sentence := case job.last_outcome
        when 'snooze' then format(
            'Its handler has put it off until %s; that counts as no attempt.%s', due,
            -- A snooze without words leaves those that were there before.
            ' The last words about it: ' || quote_literal(left(job.last_error, 200)) || '.'
        )
        when 'retry' then format(
            'Attempt %s failed%s; the next one is due at %s.', tries,
            coalesce(' with ' || public.error_name(job.last_error), ''), due
        )
        when 'vanished' then format(
            'The worker of attempt %s vanished, as the one before had: the job may kill its worker, so it waits in '
            'line with others until %s.', tries, due
        )
        else format('It is not due before %s: so it was inserted.', due)
    end;
end
$$;


-- Of a due job that something holds back: gate = what gate_of says. Nothing when nothing does.
-- Callers: why.
create function public.why_held(in gate jsonb, out state text, out sentence text, out mend text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    whose constant text := case
        when gate ->> 'per' = 'all' then ''
        when gate ->> 'per' = 'user' then format(' for the user %s', gate ->> 'key')
        else format(' with the same %s', substr(gate ->> 'per', 6))    -- data.…
    end;
    which constant text := coalesce(' of ' || nullif(concat_ws('/', gate ->> 'queue', gate ->> 'type'), ''), '');
    others text;
begin
    state := gate ->> 'gate';
    case state
        when 'paused' then
            sentence := format(
                'The %s is paused since %s%s: what is due waits, what runs goes on.',
                coalesce('type ' || (gate ->> 'type'), 'queue ' || (gate ->> 'queue')),
                public.moment_in_words((gate ->> 'since')::timestamptz),
                coalesce(' (' || nullif(gate ->> 'reason', '') || ')', '')
            );
            mend := format('pulse resume %s', concat_ws(' --type ', gate ->> 'queue', gate ->> 'type'));
        when 'at_once' then
            select string_agg(format('job %s (%s) on %s', r.words ->> 'id', r.words ->> 'type', r.words ->> 'worker_id'), ', ')
            into others
            from jsonb_array_elements(gate -> 'running') as r (words);
            sentence := format(
                'No more than %s%s may run at once%s, and that many do: %s. It begins when one of them ends.',
                gate ->> 'limit', which, whose, others
            );
        when 'starts' then
            sentence := format(
                'No more than %s%s may start in %s s%s, and so many did; the next start is free in %s.',
                gate ->> 'limit', which, gate ->> 'per_seconds', whose,
                public.duration_in_words(make_interval(secs => (gate ->> 'free_in_seconds')::double precision))
            );
        else null;
    end case;
end
$$;


revoke all on function
public.duration_in_words(interval),
public.moment_in_words(timestamptz),
public.live_workers(),
public.why(bigint),
public.why_absent(bigint),
public.why_ended(public.jobs),
public.error_name(text),
public.why_running(public.jobs),
public.why_later(public.jobs),
public.why_held(jsonb)
from public, anon, authenticated, service_role, pulse_worker;
grant execute on function public.why(bigint) to service_role;
