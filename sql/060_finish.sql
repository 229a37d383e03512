-- From an attempt's outcome to the job's next state.
--
-- The fence is (id, attempt) and a lease: an outcome is only recorded for the attempt that is live. Every
-- outcome gets one of three answers:
--   recorded   it changed the job;
--   repeated   it had been recorded already, by an earlier try of the same call: nothing changes;
--   stale      the job has moved on (its lease ran out, somebody else has it): nothing changes, and what
--              the worker said is kept in stale_outcomes.

-- Records a batch of outcomes and, in the same transaction, claims the next jobs.
-- Callers: workers, over RPC. outcomes = [{queue, id, attempt, kind, …}, …] with kind
--   completed {result?} · snooze {delay_seconds, reason?} · cancel {reason?}
--   retry {delay_seconds?, error_class?, error_message?, error_stack?} · dead {the same without delay}
-- `claim` = the arguments of claim() by name, or null.
-- Answers {"outcomes": [{"id", "attempt", "answer", "status", "run_in_seconds", "failed_job_id"}, …] in
-- the order given, "claim": what claim() answers, or null}.
-- Guarantees: safe to repeat after a lost answer; a stale outcome cannot touch a newer attempt.
create function public.finish(outcomes jsonb, claim jsonb default null) returns json
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    unknown_kind text;
    answers json;
    claimed json;
begin
    select o.words ->> 'kind' into unknown_kind
    from jsonb_array_elements(finish.outcomes) as o (words)
    where coalesce(o.words ->> 'kind', '') not in ('completed', 'snooze', 'cancel', 'retry', 'dead')
    limit 1;
    if found then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('an outcome cannot be of kind %L', unknown_kind),
            hint = 'It is one of completed, snooze, cancel, retry and dead. Nothing was recorded.';
    end if;

    answers := public.record_outcomes(finish.outcomes);

    if jsonb_typeof(finish.claim) = 'object' then
        claimed := public.claim(
            queue => finish.claim ->> 'queue',
            types => array(select jsonb_array_elements_text(finish.claim -> 'types')),
            max_jobs => (finish.claim ->> 'max_jobs')::integer,
            lease_seconds => (finish.claim ->> 'lease_seconds')::double precision,
            worker_id => finish.claim ->> 'worker_id',
            woken_by => finish.claim ->> 'woken_by',
            floor => nullif(finish.claim -> 'floor', 'null'),
            sweep => coalesce((finish.claim ->> 'sweep')::boolean, false),
            holding => nullif(finish.claim -> 'holding', 'null')
        );
    end if;

    return json_build_object('outcomes', answers, 'claim', claimed);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Records outcomes of any kind, those of vanished workers among them; answers as finish does.
-- Callers: finish, end_lost_attempts.
-- Each job is locked and read once, by id (see 050_lease.sql for the order); what follows is carried from
-- step to step in columns and joined to nothing.
create function public.record_outcomes(outcomes jsonb) returns json
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off
set enable_indexscan = off
set enable_bitmapscan = on
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    now_at constant timestamptz := public.clock_now();
    ended bigint[];
    answer json;
begin
    with word as materialized (
        select
            o.place, o.queue, o.id, o.attempt, o.kind, o.result, o.error_class, o.error_message, o.error_stack,
            coalesce(nullif(concat_ws(': ', o.error_class, o.error_message), ''), o.reason) as error,
            case
                when o.delay_seconds is not null
                    -- At most ten years, so that no number can make an interval overflow.
                    then make_interval(secs => least(greatest(o.delay_seconds, 0), 315360000))
            end as delay,
            row_number() over said_before as turn,
            first_value(o.kind) over said_before as first_kind
        from rows from (
            jsonb_to_recordset(record_outcomes.outcomes) as (
                queue text, id bigint, attempt integer, kind text, result jsonb, delay_seconds double precision,
                reason text, error_class text, error_message text, error_stack text
            )
        ) with ordinality as o (
            queue, id, attempt, kind, result, delay_seconds,
            reason, error_class, error_message, error_stack, place
        )
        window said_before as (partition by o.id, o.attempt order by o.place)
        order by o.id, o.attempt, o.place
    ),

    -- The job as it stands, locked; nulls when it does not exist any more.
    told as materialized (
        select
            w.*, j.type, j.data, j.user_id, j.status, j.run_at,
            coalesce(j.queue, w.queue) as job_queue,
            j.attempt as job_attempt,
            j.attempt - j.uncounted as counted,
            j.attempt = w.attempt and j.lease_expires_at is not null as live,
            j.last_outcome = w.kind and (
                j.attempt = w.attempt and j.lease_expires_at is null
                or j.attempt = w.attempt + 1 and j.lease_expires_at is not null
            ) as repeated,
            public.status_after(w.kind, j.cancel_requested, j.attempt - j.uncounted, j.max_attempts) as next_status
        from word as w
        left join lateral (
            select locked.*
            from public.jobs as locked
            where locked.id = w.id
            for no key update
        ) as j on true
    ),

    verdict as materialized (
        select
            t.*,
            case
                when t.live and t.turn = 1 then 'recorded'
                when t.live and t.kind = t.first_kind or t.repeated then 'repeated'
                else 'stale'
            end as answer,
            case when t.live then t.next_status else t.status end as status_now,
            case
                when t.live and t.next_status = 'pending'
                    then now_at + coalesce(t.delay, public.retry_delay(t.kind, t.counted))
                else t.run_at
            end as run_at_now,
            case
                when t.live and t.turn = 1 and t.next_status = 'failed' then nextval('public.failed_jobs_id_seq')
            end as failed_job_id
        from told as t
    ),

    changed as (
        update public.jobs as j
        set
            status = v.status_now,
            run_at = v.run_at_now,
            uncounted = j.uncounted + (v.kind = 'snooze')::integer,
            lease_expires_at = null,
            result = v.result,
            last_error = coalesce(v.error, j.last_error),
            last_outcome = v.kind,
            updated_at = now_at,
            finished_at = case when v.status_now <> 'pending' then now_at end
        from verdict as v
        where v.answer = 'recorded' and j.id = v.id
    ),

    given_up as (
        insert into public.failed_jobs (
            id, job_id, job_type, job_data, error_class, error_message, error_stack, attempts, attempt, user_id,
            failed_at
        )
        select
            v.failed_job_id, v.id, v.job_queue, jsonb_build_object('type', v.type, 'data', v.data),
            v.error_class, v.error_message, v.error_stack, v.counted, v.attempt, v.user_id, now_at
        from verdict as v
        where v.failed_job_id is not null
    ),

    kept as (
        insert into public.stale_outcomes (
            queue, job_id, attempt, kind, outcome, job_attempt, job_status, told_at
        )
        select
            v.job_queue, v.id, v.attempt, v.kind, record_outcomes.outcomes -> (v.place - 1)::integer,
            v.job_attempt, v.status, now_at
        from verdict as v
        where v.answer = 'stale'
        on conflict do nothing
    )

    select
        json_agg(
            json_build_object(
                'id', v.id,
                'attempt', v.attempt,
                'answer', v.answer,
                'status', v.status_now,
                'run_in_seconds', case
                    when v.status_now = 'pending'
                        then extract(epoch from greatest(v.run_at_now - now_at, interval '0'))
                end,
                'failed_job_id', case
                    when v.answer = 'repeated' and v.status = 'failed'
                        then (
                            select f.id from public.failed_jobs as f
                            where f.job_id = v.id and f.attempt = v.attempt
                        )
                    else v.failed_job_id
                end
            ) order by v.place
        ),
        array_agg(v.id) filter (where v.answer = 'recorded')
    into answer, ended
    from verdict as v;
    if ended is not null and exists (select from public.lanes) then
        perform public.free_lanes(ended, waits => record_outcomes.outcomes -> 0 ->> 'kind' <> 'vanished');
    end if;
    return coalesce(answer, '[]');
end
$$;


-- Says where an outcome takes a live job. The whole state machine is this one expression.
-- Callers: record_outcomes. counted = attempts that count against max_attempts, the ending one included.
-- A cancellation that was asked for wins over trying again, and loses against an end that came first.
create function public.status_after(
    kind text, cancel_requested boolean, counted integer, max_attempts integer
) returns text
language sql immutable parallel safe
return case
    when kind = 'completed' then 'completed'
    when kind = 'cancel' then 'cancelled'
    when kind = 'dead' then 'failed'
    when cancel_requested then 'cancelled'
    when kind = 'snooze' then 'pending'
    when counted >= max_attempts then 'failed'      -- retry, vanished
    else 'pending'
end;


-- Says how long a retry waits when its outcome does not: 5 s, 10 s, then 15 s each time.
-- Callers: record_outcomes, end_lost_attempts. A snooze without a delay waits for nothing.
create function public.retry_delay(kind text, counted integer) returns interval
language sql immutable parallel safe
return case when kind = 'snooze' then interval '0' else least(5 * counted, 15) * interval '1 second' end;
