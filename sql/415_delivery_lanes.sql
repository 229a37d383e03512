-- The pace at a target and of a whole channel, for all processes together: who waits, how long, and for whom.

-- The lane of a target: two users who share a webhook, and its token, share its pace.
-- Callers: begin_delivery, record_delivery.
create function public.lane_of(delivery public.alert_deliveries) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select (delivery).channel || ':' || coalesce(
    (
        select concat_ws(':', t.address, t.secret_mark) from public.alert_targets as t
        where t.id = (delivery).target_id and t.address is not null
    ), (delivery).address, (delivery).target_id::text
);
$$;


-- How long until the next turn of a lane, no earlier than that moment; turns lie so far apart.
-- Callers: enter_lane, await_turn.
create function public.next_turn(lane text, earliest timestamptz, apart interval) returns interval
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
insert into public.delivery_lanes as l (lane, turn_at) values (next_turn.lane, next_turn.earliest)
on conflict (lane) do update set turn_at = greatest(l.turn_at + next_turn.apart, next_turn.earliest)
returning l.turn_at - public.clock_now();
$$;


-- How long a delivery has to wait for its lane; zero: it has it, until it is recorded or the time is over.
-- Those who wait get turns one after the other, so that they do not all come back at once.
-- Callers: await_turn.
create function public.enter_lane(
    delivery public.alert_deliveries, lane text, one_at_a_time boolean, lasts interval
) returns interval
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    apart constant interval := make_interval(secs => case when enter_lane.one_at_a_time then 0.2 else 0.01 end);
    known public.delivery_lanes;
    has_turn constant boolean := (delivery).not_before <= now_at;
begin
    if enter_lane.one_at_a_time then
        loop
            select l.* into known from public.delivery_lanes as l where l.lane = enter_lane.lane for update;
            exit when found;
            insert into public.delivery_lanes (lane) values (enter_lane.lane) on conflict do nothing;
        end loop;
    else
        select l.* into known from public.delivery_lanes as l where l.lane = enter_lane.lane;
    end if;
    if known.held_until > now_at
        or enter_lane.one_at_a_time and (
            known.busy_with <> (delivery).id and known.busy_until > now_at
            or known.turn_at > now_at and has_turn is not true      -- others wait already
        ) then
        return public.next_turn(enter_lane.lane, greatest(known.held_until, now_at + apart), apart);
    end if;
    if enter_lane.one_at_a_time then
        update public.delivery_lanes as l
        set busy_with = (delivery).id, busy_until = now_at + enter_lane.lasts
        where l.lane = enter_lane.lane;
    end if;
    return interval '0';
end
$$;


-- Frees the lane that a delivery has. Callers: await_turn, end_delivery, record_delivery.
create function public.leave_lane(delivery public.alert_deliveries) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
update public.delivery_lanes as l
set busy_with = null, busy_until = null
where l.lane = public.lane_of(delivery) and l.busy_with = (delivery).id;
$$;


-- Holds a target's lane or the whole channel's, as long as the provider wants it. Callers: record_delivery. told is
-- {"hold_seconds"?, "hold_channel"?, "refusals"?: this answer counts against all of us, of which the provider takes
-- only so many per "refusals_per_seconds"}. When they are used up the channel rests, before it is shut out.
create function public.hold_lanes(delivery public.alert_deliveries, told jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    holds jsonb := '{}';
    wait interval;
begin
    if told ->> 'hold_seconds' is not null then
        holds := jsonb_build_object(
            case when (told ->> 'hold_channel')::boolean then (delivery).channel else public.lane_of(delivery) end,
            told -> 'hold_seconds'
        );
    end if;
    if told ->> 'refusals' is not null then
        wait := public.take_calls(
            'refusals:' || (delivery).channel, 1, (told ->> 'refusals')::integer,
            make_interval(secs => (told ->> 'refusals_per_seconds')::numeric)
        );
        if wait > interval '0' then
            holds := holds || jsonb_build_object((delivery).channel, greatest(
                extract(epoch from wait), (holds ->> (delivery).channel)::numeric
            ));
        end if;
    end if;
    insert into public.delivery_lanes as l (lane, held_until)
    select h.key, public.clock_now() + make_interval(secs => h.value::numeric)
    from jsonb_each_text(holds) as h
    on conflict (lane) do update set held_until = greatest(l.held_until, excluded.held_until);
end
$$;

revoke all on function
public.lane_of(public.alert_deliveries),
public.next_turn(text, timestamptz, interval),
public.enter_lane(public.alert_deliveries, text, boolean, interval),
public.leave_lane(public.alert_deliveries),
public.hold_lanes(public.alert_deliveries, jsonb)
from public, anon, authenticated, service_role, pulse_worker;
