-- From a slot to its job.
--
-- A process asks which schedules are due (`due_schedules`), reckons their slots, and hands them back (`run_slots`).
-- The race: any number of processes do so at once, with answers of any age, and each may die in between. So each names
-- the row as it saw it, `edition` and `settled_to`: who comes second finds that the row has moved on, and inserts
-- nothing. The jobs and the new `settled_to` are one transaction. What counts as now is the clock of the database.

-- What a job of a schedule carries for a slot.
-- Callers: insert_slots, run_schedule.
create function public.slot_data(known public.schedules, slot timestamptz) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
return (known).data || case
    when (known).slot_as is null then '{}'
    else jsonb_build_object((known).slot_as, to_char(slot at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
end;


-- Takes over what code says of its schedules: [{"name", "queue", "type", "data", "slot_as", "cron", "every_seconds",
-- "timezone", "missed", "overlap"}, …]. Answers {"refused": [{"name", "why"}, …], "put_off": [name, …]}.
-- Callers: each process that has the code, at its start and every ten minutes, over RPC. Safe to repeat.
-- Guarantees: what an operator has changed stays as it is, field by field (the rule is one field); so does a pause. A
-- row of the table with the same name stays the operator's. What one declaration has wrong hinders no other.
-- A declared interval begins with the slot that came last: it may have come during the deploy that brought it.
-- A rule that changed begins when it is taken over. While a slot of the rule before has come and is not settled, as
-- after a deploy that took a while, it is put off: the caller runs what is due and declares again. A slot that is
-- refused again and again, by its rule perhaps, is not waited for.
create function public.declare_schedules(schedules jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    words jsonb;
    said public.schedules;
    before public.schedules;
    known public.schedules;
    taken jsonb;
    refused jsonb := '[]';
    put_off jsonb := '[]';
    why text;
begin
    for words in
        select w.words from jsonb_array_elements(declare_schedules.schedules) as w (words) order by w.words ->> 'name'
    loop
        -- Who was there before this word lets them overlap.
        said := jsonb_populate_record(null::public.schedules, '{"overlap": "allow"}' || words);
        why := null;
        begin
            insert into public.schedules (
                name, queue, type, data, slot_as, cron, every_seconds, timezone, missed, overlap,
                origin, declared, declared_at, settled_to
            )
            values (
                said.name, said.queue, said.type, said.data, said.slot_as, said.cron, said.every_seconds, said.timezone,
                said.missed, said.overlap, 'code', words, now_at,
                case
                    when said.missed = 'skip' then now_at
                    else now_at - coalesce(make_interval(secs => said.every_seconds), '0')
                end
            )
            on conflict (name) do nothing;
            if not found then
                select s.* into known from public.schedules as s where s.name = said.name for update;
                if known.origin = 'table' then
                    why := 'a row of the table schedules has its name: rename it in the code, or delete the row';
                else
                    before := jsonb_populate_record(null::public.schedules, '{"overlap": "allow"}' || known.declared);
                    taken := words;
                    if (said.cron, said.every_seconds, said.timezone)
                        is distinct from (before.cron, before.every_seconds, before.timezone)
                        and known.settled_to < now_at and coalesce(known.next_slot, now_at) <= now_at
                        and not known.paused then
                        taken := words || jsonb_build_object(
                            'cron', before.cron, 'every_seconds', before.every_seconds, 'timezone', before.timezone
                        );
                        -- What else is new may be its mend, and is taken over now.
                        if known.refusals < 3 or taken is distinct from known.declared then
                            put_off := put_off || (words -> 'name');
                        else
                            taken := words;
                        end if;
                    end if;
                end if;
                if why is null and taken is distinct from known.declared then
                    said := jsonb_populate_record(null::public.schedules, '{"overlap": "allow"}' || taken);
                    if (known.cron, known.every_seconds, known.timezone)
                        is not distinct from (before.cron, before.every_seconds, before.timezone) then
                        known.cron := said.cron;
                        known.every_seconds := said.every_seconds;
                        known.timezone := said.timezone;
                    end if;
                    if (known.queue, known.type) is not distinct from (before.queue, before.type) then
                        known.queue := said.queue;
                        known.type := said.type;
                    end if;
                    if known.data is not distinct from before.data then known.data := said.data; end if;
                    if known.slot_as is not distinct from before.slot_as then known.slot_as := said.slot_as; end if;
                    if known.missed is not distinct from before.missed then known.missed := said.missed; end if;
                    if known.overlap is not distinct from before.overlap then known.overlap := said.overlap; end if;
                    update public.schedules as s
                    set
                        queue = known.queue, type = known.type, data = known.data, slot_as = known.slot_as,
                        cron = known.cron, every_seconds = known.every_seconds, timezone = known.timezone,
                        missed = known.missed, overlap = known.overlap, declared = taken, declared_at = now_at
                    where s.name = said.name;
                elsif why is null and abs(extract(epoch from known.declared_at - now_at)) > 60 then
                    update public.schedules as s set declared_at = now_at where s.name = said.name;
                end if;
            end if;
        exception when deadlock_detected or serialization_failure then
            raise;
        when others then
            why := public.refusal(sqlerrm);
        end;
        if why is not null then
            refused := refused || jsonb_build_object('name', words ->> 'name', 'why', why);
        end if;
    end loop;
    return jsonb_build_object('refused', refused, 'put_off', put_off);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- An error's sentence: of a constraint its name, and nothing that is quoted, which may be a value.
-- Callers: those that go on after a refusal.
create function public.refusal(message text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return case
    when refusal.message like '% constraint "%"'
        then rtrim(regexp_replace(refusal.message, '^.* constraint "', ''), '"')
    else regexp_replace(refusal.message, '".*"', '"…"')
end;


-- The schedules whose slots have come, or whose next slot is not reckoned yet. Answers {"now", "due": [{"name",
-- "edition", "queue", "type", "cron", "every_seconds", "timezone", "missed", "settled_to"}, …], "undeclared":
-- [name, …], "next_in_seconds": until the next one is due, null when there is none}.
-- Callers: the scheduler of each process, over RPC.
-- Those that code declared are alive as long as some process declares them, and for a day. In a random order: many
-- processes ask at the same moment.
create function public.due_schedules(max_schedules integer default 100) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
with live as (
    select
        s.*,
        greatest(
            coalesce(s.next_slot, '-infinity'),
            -- Further away only after the clock was set back.
            case when s.retry_at <= public.clock_now() + interval '5 minutes' then s.retry_at end
        ) as due_at
    from public.schedules as s
    where not s.paused and (s.origin = 'table' or s.declared_at > public.clock_now() - interval '1 day')
),

due as (
    select l.* from live as l
    where l.due_at <= public.clock_now()
    order by random()
    limit due_schedules.max_schedules
)

select jsonb_build_object(
    'now', public.clock_now(),
    'due', (
        select coalesce(
            jsonb_agg(
                jsonb_build_object(
                    'name', d.name, 'edition', d.edition, 'queue', d.queue, 'type', d.type, 'cron', d.cron,
                    'every_seconds', d.every_seconds, 'timezone', d.timezone, 'missed', d.missed,
                    'settled_to', d.settled_to
                )
            ), '[]'
        ) from due as d
    ),
    'undeclared', (
        select coalesce(jsonb_agg(s.name order by s.name), '[]') from public.schedules as s
        where s.origin = 'code' and s.declared_at <= public.clock_now() - interval '1 day'
    ),
    'next_in_seconds', (
        select extract(epoch from greatest(min(l.due_at), public.clock_now()) - public.clock_now()) from live as l
    )
);
$$;


-- Inserts the jobs of slots and settles them: [{"name", "edition", "settled_to" as due_schedules said them, "slots":
-- the moments to run, oldest first, "settles_to": the last slot that is settled with them, "next_slot": the first one
-- after it, "left_out": how many slots get no job} or, when they cannot be reckoned, {…, "problem": a sentence}, …].
-- Answers, by name, [{"name", "jobs": [{"slot", "key", "id", "created"}, …], "left_out": how many slots got no job,
-- "refused": a sentence or null, "moved": true when the row was no longer as it was said to be, so that nothing was
-- done}, …].
-- Callers: the scheduler of each process, over RPC. Safe to repeat.
-- Guarantees: a slot is one job. Its key is its name and time, as in all versions of ours, so that a process of the
-- version before, which knows no table, does not insert it again. What is refused is told in the row, tried again
-- after 5 seconds, later every 5 minutes, and hinders no other schedule. Nobody waits for a row, and for a queue whose
-- table somebody has locked (an index is built, say) only once and shortly, whatever the number of its schedules.
create function public.run_slots(slots jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    now_at constant timestamptz := public.clock_now();
    locked_queue constant text := 'somebody holds a lock on the table of its queue';
    word record;
    known public.schedules;
    jobs jsonb;
    missing integer;
    wrong text;
    locked text[] := '{}';
    answers jsonb := '[]';
begin
    for word in
        select w.* from jsonb_to_recordset(run_slots.slots) as w (
            name text, edition integer, settled_to timestamptz, slots timestamptz[], settles_to timestamptz,
            next_slot timestamptz, left_out integer, problem text
        )
        order by w.name
    loop
        select s.* into known from public.schedules as s
        where
            s.name = word.name and s.edition = word.edition and s.settled_to = word.settled_to and not s.paused
            -- The clock was set back since the look: then the slot has not come yet.
            and (word.settles_to <= now_at or word.settles_to = s.settled_to or word.problem is not null)
        for update skip locked;
        if not found then
            answers := answers || jsonb_build_object(
                'name', word.name, 'jobs', '[]'::jsonb, 'left_out', 0, 'refused', null, 'moved', true
            );
            continue;
        end if;

        jobs := '[]';
        missing := 0;
        wrong := word.problem;
        if wrong is null and known.queue = any (locked) then
            wrong := locked_queue;
        elsif wrong is null then
            begin
                jobs := public.insert_slots(known, word.slots);
                missing := coalesce(word.left_out, 0) + cardinality(word.slots) - jsonb_array_length(jobs);
                update public.schedules as s
                set
                    settled_to = word.settles_to, next_slot = word.next_slot,
                    last_slot = coalesce((jobs -> -1 ->> 'slot')::timestamptz, s.last_slot),
                    last_job_id = coalesce((jobs -> -1 ->> 'id')::bigint, s.last_job_id),
                    left_out = s.left_out + missing, problem = null, refusals = 0, retry_at = null
                where s.name = word.name;
            exception when deadlock_detected or serialization_failure then
                raise;
            when lock_not_available then
                locked := locked || known.queue;
                wrong := locked_queue;
                jobs := '[]';
            when others then
                wrong := public.refusal(sqlerrm);
                jobs := '[]';
            end;
        end if;
        if wrong is not null then
            missing := 0;
            update public.schedules as s
            set
                problem = left(wrong, 500), refusals = s.refusals + 1,
                retry_at = now_at + make_interval(secs => least(300, 5 * 2 ^ least(s.refusals, 6)))
            where s.name = word.name;
        end if;
        answers := answers || jsonb_build_object(
            'name', word.name, 'jobs', jobs, 'left_out', missing, 'refused', wrong, 'moved', false
        );
    end loop;
    return answers;
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Inserts a job for each of the slots and answers [{"slot", "key", "id", "created"}, …].
-- Callers: run_slots, which holds the row. A slot of the past runs now, as `enqueue` has it. One whose last job is not
-- done gets none, where the schedule has it so.
create function public.insert_slots(known public.schedules, slots timestamptz[]) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    slot timestamptz;
    key text;
    job_id bigint := known.last_job_id;
    is_new boolean;
    jobs jsonb := '[]';
begin
    foreach slot in array insert_slots.slots loop
        continue when known.overlap = 'skip' and exists (
            select from public.jobs as j where j.id = job_id and j.status in ('pending', 'running')
        );
        key := known.name || '@' || to_char(slot at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI')
            || case when extract(second from slot) = 0 then 'Z' else to_char(slot at time zone 'UTC', ':SS"Z"') end;
        insert into public.jobs (queue, type, data, run_at, idempotency_key)
        values (known.queue, known.type, public.slot_data(known, slot), greatest(slot, public.clock_now()), key)
        on conflict do nothing
        returning id into job_id;
        is_new := found;
        if not is_new then
            select j.id into job_id from public.jobs as j where j.queue = known.queue and j.idempotency_key = key;
        end if;
        jobs := jobs || jsonb_build_object('slot', slot, 'key', key, 'id', job_id, 'created', is_new);
    end loop;
    return jobs;
end
$$;


revoke all on function
public.slot_data(public.schedules, timestamptz),
public.declare_schedules(jsonb),
public.refusal(text),
public.due_schedules(integer),
public.run_slots(jsonb),
public.insert_slots(public.schedules, timestamptz[])
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.declare_schedules(jsonb),
public.due_schedules(integer),
public.run_slots(jsonb)
to service_role, pulse_worker;
