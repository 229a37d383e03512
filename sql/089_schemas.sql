-- From a handler's payload to what an INSERT may say: wrong data is refused where it is made, in a sentence.
--
-- `pulse migrate` publishes a JSON Schema for each type (listener/schemas.py). A row is taken when any live
-- schema of its type lets it through, so a rolling deploy is safe both ways: an older one counts for a day after a
-- newer one was published. Types without a schema are not checked, nor are those whose mode is 'accept': there, as
-- everywhere before, a worker makes a dead letter of what does not fit.
--
-- Never stricter than the worker. The worker's own judge (pydantic) also takes numbers, moments and words for true and
-- false as text, and so does payload_problem. What only Python can judge, the schema does not say.

create table public.job_schemas (
    queue text not null,
    type text not null,
    version text not null,                                      -- of the schema: the beginning of its digest
    schema jsonb not null,
    mode text not null,                                         -- as schema_modes has it for this type
    published_at timestamptz not null default public.clock_now(),   -- the last time
    retires_at timestamptz,                                     -- counts until then; null: it is the newest
    primary key (queue, type, version),
    constraint "schema must be a JSON object" check (jsonb_typeof(schema) = 'object'),
    constraint "mode is refuse or accept" check (mode in ('refuse', 'accept'))
);

-- What was switched; the most specific row counts, and without one a wrong payload is refused.
create table public.schema_modes (
    queue text not null,                                        -- or '*' for all
    type text not null,                                         -- or '*' for all of the queue
    mode text not null,
    set_at timestamptz not null default public.clock_now(),
    primary key (queue, type),
    constraint "mode is refuse or accept" check (mode in ('refuse', 'accept'))
);


-- Says whether wrong payloads of a type are refused or accepted.
-- Callers: publish_schemas, schema_mode.
create function public.schema_mode_of(queue text, type text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select coalesce(
    (
        select m.mode
        from public.schema_modes as m
        where m.queue in (schema_mode_of.queue, '*') and m.type in (schema_mode_of.type, '*')
        order by m.type = '*', m.queue = '*'
        limit 1
    ),
    'refuse'
)
$$;


-- Publishes schemas = [{"queue", "type", "schema"}, …] and answers {"published": n, "new": n, "retiring": n}.
-- Callers: `pulse migrate` after the files, `pulse schemas publish`. May be repeated.
-- Guarantees: each becomes the newest of its type, and others of that type count for grace_seconds more, a day unless
-- said otherwise. Types that are not named stay as they are: another program may have published them.
create function public.publish_schemas(schemas jsonb, grace_seconds double precision default 86400) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    answer jsonb;
begin
    if jsonb_typeof(publish_schemas.schemas) is distinct from 'array'
        or jsonb_path_exists(
            publish_schemas.schemas,
            '$[*] ? (@.type() != "object" || !exists(@.queue) || !exists(@.type) || !exists(@.schema))'
        ) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'schemas must be a JSON array of objects with queue, type and schema';
    end if;
    if (publish_schemas.grace_seconds between 0 and 31536000) is not true then
        raise exception using
            errcode = 'invalid_parameter_value', message = 'grace_seconds must be from 0 to 31536000, a year';
    end if;
    lock table public.job_schemas in share row exclusive mode;

    with word as materialized (
        select distinct on (w.queue, w.type)
            w.queue, w.type, w.schema,
            left(encode(sha256(convert_to(w.schema::text, 'UTF8')), 'hex'), 16) as version
        from jsonb_to_recordset(publish_schemas.schemas) as w (queue text, type text, schema jsonb)
    ),

    published as (
        insert into public.job_schemas as s (queue, type, version, schema, mode, published_at)
        select w.queue, w.type, w.version, w.schema, public.schema_mode_of(w.queue, w.type), now_at
        from word as w
        on conflict (queue, type, version) do update set published_at = now_at, retires_at = null
        returning s.queue, s.type, s.xmax = 0 as is_new
    ),

    retiring as (
        update public.job_schemas as s
        set retires_at = now_at + make_interval(secs => publish_schemas.grace_seconds)
        from word as w
        where s.queue = w.queue and s.type = w.type and s.version <> w.version and s.retires_at is null
        returning s.version
    ),

    forgotten as (
        delete from public.job_schemas as s
        where s.retires_at < now_at - interval '30 days'
    )

    select jsonb_build_object(
        'published', (select count(*) from published),
        'new', (select count(*) from published as p where p.is_new),
        'retiring', (select count(*) from retiring)
    ) into answer;
    return answer;
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Takes schemas of a type out of force at once, all or one version, and answers {"retired": n}.
-- Callers: operators, `pulse schemas retire`.
create function public.retire_schemas(queue text, type text, version text default null) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    retired integer;
begin
    update public.job_schemas as s
    set retires_at = public.clock_now()
    where
        s.queue = retire_schemas.queue
        and s.type = retire_schemas.type
        and s.version = coalesce(retire_schemas.version, s.version)
        and coalesce(s.retires_at > public.clock_now(), true);
    get diagnostics retired = row_count;
    return jsonb_build_object('retired', retired);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Switches what becomes of wrong payloads: 'refuse' them at the INSERT, 'accept' them for a worker to make a dead
-- letter of, or null for what holds without this switch. Of all, of a queue, or of a type of a queue.
-- Callers: operators, `pulse schemas mode`. Answers {"mode", "types"}: how many published types are now in that mode.
create function public.schema_mode(mode text, queue text default null, type text default null) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if schema_mode.type is not null and schema_mode.queue is null then
        raise exception using errcode = 'invalid_parameter_value', message = 'a type is named together with its queue';
    end if;
    lock table public.job_schemas in share row exclusive mode;
    delete from public.schema_modes as m
    where m.queue = coalesce(schema_mode.queue, '*') and m.type = coalesce(schema_mode.type, '*');
    if schema_mode.mode is not null then
        insert into public.schema_modes (queue, type, mode)
        values (coalesce(schema_mode.queue, '*'), coalesce(schema_mode.type, '*'), schema_mode.mode);
    end if;
    update public.job_schemas as s
    set mode = public.schema_mode_of(s.queue, s.type)
    where s.mode <> public.schema_mode_of(s.queue, s.type);
    return jsonb_build_object(
        'mode', schema_mode.mode,
        'types', (
            select count(distinct (s.queue, s.type))
            from public.job_schemas as s
            where
                s.queue = coalesce(schema_mode.queue, s.queue)
                and s.type = coalesce(schema_mode.type, s.type)
                and s.mode = coalesce(schema_mode.mode, s.mode)
                and s.retires_at is null
        )
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Answers what is published: [{"queue", "type", "version", "mode", "published_at", "retires_at"}, …], all of them with
-- the schema where one type is asked for.
-- Callers: `pulse schemas`.
create function public.list_schemas(queue text default null, type text default null) returns json
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select coalesce(json_agg(to_jsonb(s) - case when list_schemas.type is null then 'schema' else '' end
    order by s.queue, s.type, s.published_at desc), '[]')
from public.job_schemas as s
where s.queue = coalesce(list_schemas.queue, s.queue) and s.type = coalesce(list_schemas.type, s.type)
$$;


-- Refuses an INSERT whose payload no live schema of its type lets through, in a sentence that names the field.
-- Callers: triggers of jobs and of every queue's own table, since only the named table's triggers fire.
-- Guarantees: an error in judging refuses nothing, nor does what would take long: a statement is judged for a second
-- or two at most, and a worker judges the rest. A statement that is cancelled, by its user or by statement_timeout, is
-- cancelled. What a function of the database inserts as a part of something larger (a notice with a payment) is taken:
-- the fact must not be lost with it, and a worker makes a dead letter of it.
create function public.check_payloads() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    per_payload constant integer := 10000;
    steps integer := 5 * per_payload;
    left_over integer;
    kind record;
    one record;
    said record;
    problem text;
    stack text;
begin
    perform from inserted as i
    where exists (select from public.job_schemas as s where s.queue = i.queue and s.type = i.type and s.mode = 'refuse')
    limit 1;
    if not found then
        return null;
    end if;

    begin
        <<every>>
        for kind in
            select
                k.queue, k.type,
                array(
                    select s.schema from public.job_schemas as s
                    where
                        s.queue = k.queue
                        and s.type = k.type
                        and s.mode = 'refuse'
                        and coalesce(s.retires_at > now_at, true)
                    order by s.published_at desc
                ) as schemas
            from (select distinct i.queue, i.type from inserted as i) as k
        loop
            continue when kind.schemas = '{}';
            for one in
                select i.data from inserted as i
                where i.queue = kind.queue and i.type = kind.type
            loop
                problem := null;
                left_over := least(steps, per_payload);
                steps := steps - left_over;
                for n in 1..cardinality(kind.schemas) loop
                    said := public.payload_problem(kind.schemas[n], one.data, steps => left_over);
                    left_over := said.steps;
                    problem := case when said.problem is not null then coalesce(problem, said.problem) end;
                    exit when problem is null;
                end loop;
                exit every when problem is not null;
                steps := steps + left_over;
                exit every when steps <= 0;
            end loop;
        end loop every;
    exception when others then
        raise warning 'the jobs are inserted, but their payloads were not judged: %', sqlstate;
        return null;
    end;

    if problem is not null then
        get diagnostics stack = pg_context;
        if public.is_part_of_more(stack) then
            raise warning '% job %: %', kind.queue, kind.type, problem;
            return null;
        end if;
        raise exception using
            errcode = 'check_violation',
            message = format('%s job %s: %s', kind.queue, kind.type, problem);
    end if;
    return null;
end
$$;


-- Says whether a trigger was fired by a statement of a function other than enqueue, or those that enqueue what a
-- schedule says and tell of a refusal there.
-- Callers: check_payloads, with its own stack: a line per function, its own first. Those of SQL statements quote their
-- text, of our own functions. A stack in another language than English (lc_messages) counts none: then it is so, since
-- nobody knows.
create function public.is_part_of_more(stack text) returns boolean
language sql immutable parallel safe
return 1 <> (
    regexp_count(stack, '^(PL/pgSQL|SQL) function ', 1, 'n')
    - regexp_count(stack, '^PL/pgSQL function ((public\.)?(enqueue|run_slots)\(jsonb\)|inline_code_block) ', 1, 'n')
    - regexp_count(stack, '^PL/pgSQL function (public\.)?(insert_slots|run_schedule)\([^)]*\) ', 1, 'n')
);


-- Enqueues what a provider has delivered, as `enqueue` does, whether its payload fits or not: the provider may not send
-- it again, so a worker makes a dead letter of what does not fit, and that can be replayed.
-- Callers: the door's webhooks, over RPC, when `enqueue` has refused a delivery.
create function public.enqueue_delivery(jobs jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Being a function of its own is what makes the delivery a part of something larger: see is_part_of_more.
    return public.enqueue(enqueue_delivery.jobs);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Makes one table's inserts be judged.
-- Callers: create_queue, and this file for the tables that are there already.
create function public.check_table(name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format(
        'create trigger check_payloads after insert on public.%I referencing new table as inserted '
        'for each statement execute function public.check_payloads()', name
    );
end
$$;

select public.check_table(c.relname)
from pg_catalog.pg_partition_tree('public.jobs') as p
inner join pg_catalog.pg_class as c on p.relid = c.oid
where c.relname <> 'jobs_unknown_queue';


-- Who may do what: the server publishes and switches, and reads; nobody else has a use for it.
alter table public.job_schemas enable row level security;
alter table public.schema_modes enable row level security;
revoke all on public.job_schemas, public.schema_modes from public, anon, authenticated, service_role, pulse_worker;
grant select on public.job_schemas, public.schema_modes to service_role;

revoke all on function
public.schema_mode_of(text, text),
public.publish_schemas(jsonb, double precision),
public.retire_schemas(text, text, text),
public.schema_mode(text, text, text),
public.list_schemas(text, text),
public.check_payloads(),
public.is_part_of_more(text),
public.enqueue_delivery(jsonb),
public.check_table(text)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.publish_schemas(jsonb, double precision),
public.retire_schemas(text, text, text),
public.schema_mode(text, text, text),
public.list_schemas(text, text)
to service_role;

grant execute on function public.enqueue_delivery(jsonb) to service_role, pulse_worker;
