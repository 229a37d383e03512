-- How often something may be done: at most so many calls in any stretch of time so long, over all processes together.
--
-- A key names what is limited (an account at a broker, a webhook, a user), the caller says how many calls are allowed
-- per how long. The moment of each call of the last window is kept, so the limit is exact both ways: no window of that
-- length, wherever it begins, holds more, and who waits as told is not turned away while a call is free.
--
-- A call's moment is that at which its key was locked, not the start of its transaction: those who queued behind
-- somebody slow go out now, and their window begins now.
--
-- Lock order: the row of a key comes last, after whatever else the transaction locks; of two keys the lesser first.

create table public.call_limits (
    key text primary key check (length(key) between 1 and 200),
    taken timestamptz[] not null default '{}',          -- the calls of the last window, oldest first
    held_until timestamptz,                             -- nobody takes before
    forget_at timestamptz not null                      -- from then on the row means nothing
) with (fillfactor = 50);

alter table public.call_limits enable row level security;
revoke all on public.call_limits from public, anon, authenticated, service_role, pulse_worker;
grant select on public.call_limits to service_role;


-- The moment of a call: now, and not when the transaction began.
-- Callers: what takes calls.
create function public.call_moment() returns timestamptz
language sql volatile
set search_path = pg_catalog, pg_temp
return public.clock_now() + (clock_timestamp() - transaction_timestamp());


-- When the next calls of a key are free, as far as its row knows; null: they are.
-- Callers: take_calls.
create function public.calls_free_at(
    known public.call_limits, calls integer, allowed integer, per interval
) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
return greatest(
    (known).held_until,
    -- The last one that has to be over, so that there are no more than allowed with the new ones.
    (known).taken[cardinality((known).taken) + calls_free_at.calls - calls_free_at.allowed] + calls_free_at.per
);


-- Takes calls of a key, all or none. Answers how long to wait before asking again; zero: they are taken.
-- Callers: functions that begin something limited, in its transaction.
-- Guarantees: of one key there are never more than `allowed` in any `per`, as long as all who ask say the same. A
-- refusal locks nothing and writes nothing. A call costs more the more calls a window holds: up to 10,000.
create function public.take_calls(key text, calls integer, allowed integer, per interval) returns interval
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    lasts constant interval := make_interval(secs => extract(epoch from take_calls.per));    -- a day is 24 hours
    known public.call_limits;
    at timestamptz;
    free_at timestamptz;
    over integer;
    set_back boolean;
begin
    if (take_calls.calls >= 1 and take_calls.calls <= take_calls.allowed and take_calls.allowed <= 10000
        and lasts > interval '0') is not true then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format(
                'cannot take %s calls of %s per %s', take_calls.calls, take_calls.allowed, take_calls.per
            ),
            hint = 'Take 1 or more, as many as are allowed at most; 10,000 is the most that a window holds.';
    end if;

    -- What is full stays full until time passes, whoever else is at it: a look is enough to refuse.
    select c.* into known from public.call_limits as c where c.key = take_calls.key;
    at := public.call_moment();
    free_at := public.calls_free_at(known, take_calls.calls, take_calls.allowed, lasts);
    if free_at > at and not known.taken[cardinality(known.taken)] > at then
        return make_interval(secs => extract(epoch from free_at - at));
    end if;

    loop
        select c.* into known from public.call_limits as c where c.key = take_calls.key for update;
        exit when found;
        insert into public.call_limits (key, forget_at) values (take_calls.key, at) on conflict do nothing;
    end loop;
    at := public.call_moment();
    -- The clock was set back: what lies ahead of it was taken now at the latest. Else nobody would get anything
    -- until the clock is where it was.
    set_back := coalesce(known.taken[cardinality(known.taken)] > at, false);
    if set_back then
        known.taken := array(select least(t, at) from unnest(known.taken) with ordinality as u (t, n) order by n);
    end if;
    free_at := public.calls_free_at(known, take_calls.calls, take_calls.allowed, lasts);
    if free_at > at then
        if set_back then
            update public.call_limits as c set taken = known.taken where c.key = take_calls.key;
        end if;
        return make_interval(secs => extract(epoch from free_at - at));
    end if;

    over := greatest(cardinality(known.taken) + take_calls.calls - take_calls.allowed, 0);
    while known.taken[over + 1] <= at - lasts loop
        over := over + 1;
    end loop;
    update public.call_limits as c
    set
        taken = known.taken[over + 1:] || array_fill(at, array[take_calls.calls]),
        forget_at = greatest(known.held_until, at + lasts)
    where c.key = take_calls.key;
    return interval '0';
end
$$;


-- Holds a key: nobody takes a call of it before that moment. A hold is never shortened.
-- Callers: functions that record that the other side said "too fast".
create function public.hold_calls(key text, until timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if isfinite(hold_calls.until) is not true then
        raise exception using errcode = 'invalid_parameter_value', message = 'a hold ends at some time';
    end if;
    insert into public.call_limits as c (key, held_until, forget_at)
    values (hold_calls.key, hold_calls.until, hold_calls.until)
    on conflict on constraint call_limits_pkey do update set
        held_until = excluded.held_until, forget_at = greatest(c.forget_at, excluded.held_until)
    where c.held_until is null or c.held_until < excluded.held_until;
end
$$;


-- Takes one call of a caller of the door, answers {"wait_seconds"}: zero when it is taken.
-- Callers: the door, over RPC, for callers that have a limit.
-- Guarantees: as take_calls; the keys of callers are their own, whatever they are called.
create function public.take_door_call(caller text, allowed integer, per_seconds double precision) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    free_in interval;
begin
    if (take_door_call.caller ~ '^[a-z0-9_-]{1,40}$') is not true then
        raise exception using
            errcode = 'invalid_parameter_value', message = 'a caller has a name of a-z, 0-9, - and _';
    end if;
    free_in := public.take_calls(
        'door/' || take_door_call.caller, 1, take_door_call.allowed, make_interval(secs => take_door_call.per_seconds)
    );
    return jsonb_build_object('wait_seconds', extract(epoch from free_in));
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Deletes keys that mean nothing any more, at most so many; answers {"call_limits"}. What is locked is left.
-- Callers: prune.
create function public.forget_calls(max_keys integer) returns jsonb
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
with gone as (
    delete from public.call_limits as c
    where
        c.key = any (
            array(
                select old.key from public.call_limits as old
                where old.forget_at < public.clock_now()
                limit forget_calls.max_keys
                for update skip locked
            )
        )
    returning c.key
)

select jsonb_build_object('call_limits', count(*)) from gone;
$$;


-- How many keys forget_calls would delete, counted up to so many. Callers: count_prunable.
create function public.forgettable_calls(most integer) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object('call_limits', count(*))
from (
    select from public.call_limits as old
    where old.forget_at < public.clock_now()
    limit forgettable_calls.most
) as counted;
$$;

revoke all on function
public.call_moment(),
public.calls_free_at(public.call_limits, integer, integer, interval),
public.take_calls(text, integer, integer, interval),
public.hold_calls(text, timestamptz),
public.take_door_call(text, integer, double precision),
public.forget_calls(integer),
public.forgettable_calls(integer)
from public, anon, authenticated, service_role, pulse_worker;

-- The door inserts jobs, and may run under the role of a worker.
grant execute on function public.take_door_call(text, integer, double precision) to service_role, pulse_worker;
