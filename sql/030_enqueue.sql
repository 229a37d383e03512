-- From a producer's words to rows.
--
-- The common way is a plain INSERT and needs nothing from here. `enqueue` is for a batch that wants to
-- know, job by job, whether it was new.

-- Whether what a producer says is another job than this one: its type, its data, or whose it is.
-- Callers: enqueue. When it is due and how urgent it is may change with a repetition, and in the row they do.
create function public.is_another(known public.jobs, words jsonb) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
return ((known).type, (known).data, (known).user_id) is distinct from (
    words ->> 'type', coalesce(nullif(words -> 'data', 'null'), '{}'), (words ->> 'user_id')::uuid
);


-- Enqueues a batch of jobs and answers [{"id": 1, "created": true}, …] in the order given.
-- Callers: producers and the scheduler, over RPC.
-- Guarantees: a job whose (queue, idempotency_key) exists already is answered with the existing id and
-- "created": false, so the call may be repeated; when that is another job, with "differs": true too.
-- All or nothing: one refused job refuses the batch.
-- A run_at of the past is now: below the floor a row would wait for the next sweep.
-- Locks: a key that another transaction is just inserting is waited for; keys are taken in their order,
-- so two batches cannot wait for each other.
create function public.enqueue(jobs jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    ids bigint[];       -- one per job, in the order given
    made_ids bigint[];  -- those that became rows
    answer jsonb;
begin
    perform public.check_enqueue(enqueue.jobs);

    with word as materialized (
        select
            nextval('public.jobs_id_seq') as id,
            o.queue, o.type, o.data, o.user_id, o.priority, o.run_at, o.max_attempts, o.idempotency_key,
            o.traceparent
        from jsonb_to_recordset(enqueue.jobs) as o (
            queue text, type text, data jsonb, user_id uuid, priority integer, run_at timestamptz,
            max_attempts integer, idempotency_key text, traceparent text
        )
    ),

    -- `insert … select` cannot say DEFAULT: the defaults of the table once more.
    made as (
        insert into public.jobs as j (
            id, queue, type, data, user_id, priority, run_at, max_attempts, idempotency_key, traceparent
        )
        select
            w.id, w.queue, w.type, coalesce(w.data, '{}'), w.user_id, coalesce(w.priority, 0),
            greatest(w.run_at, now_at), coalesce(w.max_attempts, 4), w.idempotency_key,
            coalesce(w.traceparent, public.trace_of_request())
        from word as w
        order by w.idempotency_key, w.queue, w.id
        on conflict do nothing
        returning j.id
    )

    select
        (select array_agg(w.id order by w.id) from word as w),
        (select array_agg(m.id) from made as m)
    into ids, made_ids;

    if cardinality(made_ids) = cardinality(ids) then
        select jsonb_agg(jsonb_build_object('id', made.id, 'created', true) order by made.id) into answer
        from unnest(ids) as made (id);
        return answer;
    end if;

    -- A new statement, so that rows committed by others in the meantime are seen.
    select
        jsonb_agg(
            jsonb_build_object(
                'id', coalesce(made.id, old.id), 'created', made.id is not null
            ) || case
                when old.id is not null and public.is_another(old, o.words) then '{"differs": true}'::jsonb
                else '{}'
            end
            order by o.place
        )
    into answer
    from jsonb_array_elements(enqueue.jobs) with ordinality as o (words, place)
    left join unnest(made_ids) as made (id) on made.id = ids[o.place]
    left join public.jobs as old
        on made.id is null and old.queue = o.words ->> 'queue' and old.idempotency_key = o.words ->> 'idempotency_key';

    if jsonb_path_exists(answer, '$[*] ? (@.id == null)') then
        raise exception using
            errcode = 'PT503',
            message = 'a job with the same idempotency_key was deleted during the call',
            hint = 'Nothing was enqueued. Call again.';
    end if;
    return coalesce(answer, '[]');
exception
    when deadlock_detected or serialization_failure then
        raise exception using
            errcode = 'PT503',
            message = 'met another transaction: ' || sqlerrm,
            hint = 'Nothing was changed. Call again.';
    when invalid_parameter_value then
        raise;
    -- Said again without what it quotes: the server writes an error that gets out into its log, with the
    -- failing row.
    when data_exception then
        raise exception using errcode = sqlstate, message = regexp_replace(sqlerrm, '".*"', '"…"');
    when integrity_constraint_violation then
        raise exception using errcode = sqlstate, message = sqlerrm;
end
$$;


-- Refuses a batch whose shape would otherwise be misread in silence.
-- Callers: enqueue.
create function public.check_enqueue(jobs jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    known constant text[] := array[
        'queue', 'type', 'data', 'user_id', 'priority', 'run_at', 'max_attempts', 'idempotency_key', 'traceparent'
    ];
    stranger text;
begin
    if jsonb_typeof(check_enqueue.jobs) is distinct from 'array'
        or jsonb_path_exists(check_enqueue.jobs, 'strict $[*] ? (@.type() != "object")') then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'jobs must be a JSON array of objects',
            hint = 'For example [{"queue": "payment", "type": "subscription_renewal", "data": {}}].';
    end if;

    select min(word.key) into stranger
    from jsonb_array_elements(check_enqueue.jobs) as job (words)
    cross join jsonb_object_keys(job.words) as word (key)
    where word.key <> all (known);
    if stranger is not null then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('"%s" is not a column that a producer sets', stranger),
            hint = format('The columns are %s.', array_to_string(known, ', '));
    end if;
end
$$;
