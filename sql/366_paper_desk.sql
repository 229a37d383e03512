-- What else the paper broker does: it lists orders and fills, notes quotes, and takes wishes for faults.

-- Orders of an account: {"orders"}. `wanted` is {"open"?: true or false, "symbols"?, "sides"?, "after"?, "until"?:
-- times of acceptance, both excluded, "ascending"?, "limit"?}.
-- Callers: the paper broker, over RPC.
create function public.find_paper_orders(account_id uuid, wanted jsonb) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
    'orders', coalesce(jsonb_agg(public.paper_texts(to_jsonb(found)) order by found.place), '[]')
)
from (
    select o.*, o.number * case when (wanted ->> 'ascending')::boolean then 1 else -1 end as place
    from public.paper_orders as o
    where
        o.account_id = find_paper_orders.account_id
        and coalesce((o.status in ('accepted', 'partially_filled')) = (wanted ->> 'open')::boolean, true)
        and coalesce(o.submitted_at > (wanted ->> 'after')::timestamptz, true)
        and coalesce(o.submitted_at < (wanted ->> 'until')::timestamptz, true)
        and coalesce(nullif(wanted -> 'symbols', 'null') ? o.symbol, true)
        and coalesce(nullif(wanted -> 'sides', 'null') ? o.side, true)
    order by place
    limit coalesce((wanted ->> 'limit')::integer, 500)
) as found;
$$;


-- Fills of an account: {"fills"}. `wanted` is {"since"?: a time, included, "until"?: excluded, "beyond"?: {"filled_at",
-- "order_id", "number"}: the last one that is known already, "ascending"?, "limit"?}.
-- Callers: the paper broker, over RPC.
create function public.find_paper_fills(account_id uuid, wanted jsonb) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
with found as (
    select f.* from public.paper_fills as f
    where
        f.account_id = find_paper_fills.account_id
        and coalesce(f.filled_at >= (wanted ->> 'since')::timestamptz, true)
        and coalesce(f.filled_at < (wanted ->> 'until')::timestamptz, true)
),

ordered as (
    select f.*, row_number() over (order by f.filled_at, f.order_id, f.number) as place from found as f
),

placed as (
    select o.*, o.place * case when coalesce((wanted ->> 'ascending')::boolean, true) then 1 else -1 end as rank
    from ordered as o
)

select jsonb_build_object(
    'fills', coalesce(jsonb_agg(public.paper_texts(to_jsonb(page)) order by page.rank), '[]')
)
from (
    select p.* from placed as p
    where coalesce(
        p.rank > (
            select k.rank from placed as k
            where k.order_id = (wanted -> 'beyond' ->> 'order_id')::uuid
            and k.number = (wanted -> 'beyond' ->> 'number')::integer
        ),
        true
    )
    order by p.rank
    limit coalesce((wanted ->> 'limit')::integer, 5000)
) as page;
$$;


-- The symbols that an account can trade: {"symbols"}.
-- Callers: the HTTP face, over RPC.
create function public.paper_symbols(account_id uuid) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object('symbols', coalesce(jsonb_agg(distinct q.symbol order by q.symbol), '[]'))
from public.paper_accounts as a
join public.paper_quotes as q on q.feed = a.feed and q.at <= public.clock_now()
where a.id = paper_symbols.account_id;
$$;


-- Notes quotes, [{"symbol", "at"?: now, "bid", "ask", "bid_size"?, "ask_size"?}]; again is the same. Answers {"noted"}.
-- Callers: the owner and the import, over RPC.
create function public.note_paper_quotes(quotes jsonb, feed text default 'shared') returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into public.paper_quotes as q (feed, symbol, at, bid, ask, bid_size, ask_size)
    select
        note_paper_quotes.feed, n.symbol, coalesce(n.at, public.clock_now()), n.bid, n.ask, n.bid_size, n.ask_size
    from jsonb_to_recordset(quotes) as n (
        symbol text, at timestamptz, bid numeric, ask numeric, bid_size numeric, ask_size numeric
    )
    order by n.symbol, n.at
    on conflict on constraint paper_quotes_pkey do update set
        bid = excluded.bid, ask = excluded.ask, bid_size = excluded.bid_size, ask_size = excluded.ask_size;
    return jsonb_build_object('noted', jsonb_array_length(quotes));
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Asks for a fault, {"kind", "operation"?, "remaining"?, "probability"?, "seed"?, "seconds"?}; null ends all of them.
-- Callers: the HTTP face, over RPC. Answers {"faults"}: how many there are.
create function public.ask_for_paper_fault(account_id uuid, fault jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if fault is null then
        delete from public.paper_faults as f where f.account_id = ask_for_paper_fault.account_id;
    else
        insert into public.paper_faults (account_id, kind, operation, remaining, probability, seed, seconds)
        values (
            ask_for_paper_fault.account_id,
            fault ->> 'kind',
            coalesce(fault ->> 'operation', 'submit'),
            (fault ->> 'remaining')::integer,
            coalesce((fault ->> 'probability')::numeric, 1),
            coalesce(fault ->> 'seed', ''),
            coalesce((fault ->> 'seconds')::numeric, 3)
        );
    end if;
    return jsonb_build_object(
        'faults', (select count(*) from public.paper_faults as f where f.account_id = ask_for_paper_fault.account_id)
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Access: the server's alone.

revoke all on function
public.find_paper_orders(uuid, jsonb),
public.find_paper_fills(uuid, jsonb),
public.paper_symbols(uuid),
public.note_paper_quotes(jsonb, text),
public.ask_for_paper_fault(uuid, jsonb)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.find_paper_orders(uuid, jsonb),
public.find_paper_fills(uuid, jsonb),
public.paper_symbols(uuid),
public.note_paper_quotes(jsonb, text),
public.ask_for_paper_fault(uuid, jsonb)
to service_role;
