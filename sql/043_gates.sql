-- What holds due work back: pauses, and limits on how many run at once and on how many start per time.
--
-- A limit counts jobs by a key: all of them together (per = 'all'), by their user ('user'), or by something in their
-- data ('data.account_id', in either spelling). A job without the key is not limited. For each `per` one row governs a
-- job, the most specific: that of its type, else that of its queue, else that of all queues. A row without numbers
-- governs too, and limits nothing: an exception.
--
-- What a limit denies waits in a lane (045_passing.sql). Nothing here is counted on the side: what runs is counted in
-- the rows that run, and starts in call_limits, by the row of the limit that governed them.
--
-- Lock order: a job's row, then its lanes in the order of their key. Claims lock lanes too, and wait for nobody.

create table public.paused (
    queue text not null,
    type text,                                                  -- null: the whole queue
    reason text not null,
    since timestamptz not null default public.clock_now(),
    unique nulls not distinct (queue, type)
);

create table public.job_limits (
    id bigint generated always as identity primary key,
    queue text,                                                 -- null: all queues
    type text,                                                  -- null: all types of the queue
    per text not null,
    at_once integer,
    starts integer,
    per_seconds double precision,
    path text[],                                                -- where the key is in data,
    camel_path text[],                                          -- and in the other spelling
    changed_at timestamptz not null default public.clock_now(),
    unique nulls not distinct (queue, type, per),
    constraint "a limit for a type names its queue too"
    check (type is null or queue is not null),
    constraint "per is all, user or data.<path> in snake case"
    check (per ~ '^(all|user|data(\.[a-z0-9_]+)+)$' and length(per) <= 200),
    constraint "at_once must be from 1 to 10000; pause_jobs is what stops all"
    check (at_once between 1 and 10000),
    constraint "starts must be from 1 to 10000; pause_jobs is what stops all"
    check (starts between 1 and 10000),
    constraint "starts and per_seconds belong together, for example 100 per 60"
    check ((starts is null) = (per_seconds is null)),
    constraint "per_seconds must be from 0.001 to 31622400, a year"
    check (per_seconds between 0.001 and 31622400)
);

-- Which lanes there are, and from when on a look at one may bring something: a hint that may be early, never late.
-- A lane's name is the key of the gate that its jobs met: the limit's id and the key that it counts by. Where jobs wait
-- for the next turn of their user (046_turns.sql), it is 0/<priority>/<user_id>, and look_at is when the last turn was.
create table public.lanes (
    lane text collate "C" not null,
    queue text not null,
    type text not null,
    look_at timestamptz not null,
    priority integer,                                           -- of the jobs, where they wait for a turn
    served_at timestamptz,                                      -- when it was the user's turn last, of a user's lanes
    primary key (lane, queue, type)
);

create index lanes_next on public.lanes (queue, look_at, type);
create index lanes_turns on public.lanes (queue, priority desc, look_at, type) where priority is not null;

-- What is paused and limited, worked out for each queue that is named above, and for all others (queue = '').
-- By their user are limited: all types but those that are spared, or, when not by_user, by_user_types alone.
create table public.gates (
    queue text primary key,
    is_paused boolean not null,
    paused_types text[] not null,
    by_user boolean not null,
    by_user_types text[] not null,
    spared_types text[] not null,
    by_others boolean not null,
    by_others_types text[] not null
);

alter table public.paused enable row level security;
alter table public.job_limits enable row level security;
alter table public.lanes enable row level security;
alter table public.gates enable row level security;
revoke all on public.paused, public.job_limits, public.lanes, public.gates
from public, anon, authenticated, service_role, pulse_worker;
grant select on public.paused, public.job_limits, public.lanes, public.gates to service_role;
revoke all on sequence public.job_limits_id_seq from public, anon, authenticated, service_role, pulse_worker;


-- The key by which a limit counts a job; null when the job has none and is not limited.
-- Callers: whatever counts. What stands in data becomes a digest: it may be long, and it is nobody's to read.
create function public.limit_key(per text, path text[], camel_path text[], user_id uuid, data jsonb) returns text
language sql immutable parallel safe
return case per
    when 'all' then ''
    when 'user' then user_id::text
    else pg_catalog.md5(coalesce(data #>> path, data #>> camel_path))
end;


-- The limits that govern jobs of a type, one for each `per`; exceptions among them.
-- Callers: pass_gates, gate_of.
create function public.limits_of(queue text, type text) returns setof public.job_limits
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select l.*
    from public.job_limits as l
    where
        (l.queue is null or l.queue = limits_of.queue)
        and (l.type is null or l.type = limits_of.type)
        and not exists (
            select from public.job_limits as closer
            where
                closer.per = l.per
                and closer.queue = limits_of.queue
                and (closer.type is null or closer.type = limits_of.type)
                and (l.queue is null or l.type is null and closer.type is not null)
        );
end
$$;


-- Works out gates from what is paused and limited.
-- Callers: triggers of both tables, so that it holds whoever changes them.
-- Locks: one after the other; the last one sees what all have written.
create function public.weigh_gates() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception using
            errcode = 'invalid_transaction_state',
            message = 'pauses and limits are changed in the isolation level read committed';
    end if;
    lock table public.gates in share row exclusive mode;
    delete from public.gates;
    insert into public.gates (
        queue, is_paused, paused_types, by_user, by_user_types, spared_types, by_others, by_others_types
    )
    select
        q.queue,
        exists (select from public.paused as p where p.queue = q.queue and p.type is null),
        array(select p.type from public.paused as p where p.queue = q.queue and p.type is not null),
        coalesce(
            bool_or(l.has_numbers) filter (where l.per = 'user' and l.type is null and l.queue is not null),
            bool_or(l.has_numbers) filter (where l.per = 'user' and l.queue is null),
            false
        ),
        coalesce(array_agg(l.type) filter (where l.per = 'user' and l.type is not null and l.has_numbers), '{}'),
        coalesce(array_agg(l.type) filter (where l.per = 'user' and l.type is not null and not l.has_numbers), '{}'),
        coalesce(bool_or(l.has_numbers) filter (where l.per <> 'user' and l.type is null), false),
        coalesce(array_agg(l.type) filter (where l.per <> 'user' and l.type is not null and l.has_numbers), '{}')
    from (
        select '' as queue
        union
        select p.queue from public.paused as p
        union
        select l.queue from public.job_limits as l
        where l.queue is not null
    ) as q
    left join lateral (
        select r.queue, r.type, r.per, r.at_once is not null or r.starts is not null as has_numbers
        from public.job_limits as r
        where r.queue is null or r.queue = q.queue
    ) as l on true
    group by q.queue;
    return null;
end
$$;

create trigger weigh_gates after insert or update or delete or truncate on public.paused
for each statement execute function public.weigh_gates();
create trigger weigh_gates after insert or update or delete or truncate on public.job_limits
for each statement execute function public.weigh_gates();

revoke all on function
public.limit_key(text, text[], text[], uuid, jsonb),
public.limits_of(text, text),
public.weigh_gates()
from public, anon, authenticated, service_role, pulse_worker;
