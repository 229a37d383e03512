-- How the paper broker loads and saves the books of 360_paper.sql, each in one transaction.

-- A row as JSON whose numbers are text.
-- Callers: those that answer rows.
create function public.paper_texts(in_numbers jsonb) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
select coalesce(
    jsonb_object_agg(
        key, case when jsonb_typeof(value) = 'number' then to_jsonb(value #>> '{}') else value end
    ),
    '{}'
)
from jsonb_each(in_numbers);
$$;


-- Opens an account: {"id"?, "label"?, "cash"?, "settings"?, "feed"?, "key_id"?, "secret"?}.
-- Callers: the owner, the app's server, over RPC. Answers {"account_id", "key_id", "secret"}; the secret is shown this
-- once. Guarantees: the same id again is the same account, and no secret is answered.
create function public.open_paper_account(opened jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    account public.paper_accounts;
    secret text := coalesce(
        opened ->> 'secret', replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '')
    );
begin
    insert into public.paper_accounts (id, label, key_id, secret_hash, settings, feed, opening_cash, cash)
    values (
        coalesce((opened ->> 'id')::uuid, gen_random_uuid()),
        opened ->> 'label',
        coalesce(opened ->> 'key_id', 'PK' || upper(left(replace(gen_random_uuid()::text, '-', ''), 18))),
        encode(sha256(convert_to(secret, 'UTF8')), 'hex'),
        coalesce(opened -> 'settings', '{}'),
        coalesce(opened ->> 'feed', 'shared'),
        coalesce((opened ->> 'cash')::numeric, 100000),
        coalesce((opened ->> 'cash')::numeric, 100000)
    )
    on conflict (id) do nothing
    returning * into account;
    if account.id is null then
        select a.* into strict account from public.paper_accounts as a where a.id = (opened ->> 'id')::uuid;
        secret := null;
    end if;
    return jsonb_build_object('account_id', account.id, 'key_id', account.key_id, 'secret', secret);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Whose key this is: {"account_id"}, null when it is nobody's or the secret is another one.
-- Callers: the HTTP face, over RPC.
create function public.paper_account_of(key_id text, secret text) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
    'account_id',
    (
        select a.id from public.paper_accounts as a
        where
            a.key_id = paper_account_of.key_id
            and a.secret_hash = encode(sha256(convert_to(paper_account_of.secret, 'UTF8')), 'hex')
    )
);
$$;


-- The fault that befalls a call: {"kind", "seconds"}, or null. Each draw is counted, so that one is drawn n times.
-- Callers: load_paper_book.
create function public.draw_paper_fault(account_id uuid, operation text) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    fault public.paper_faults;
    chance numeric;
begin
    for fault in
        select f.* from public.paper_faults as f
        where
            f.account_id = draw_paper_fault.account_id
            and f.operation in ('any', draw_paper_fault.operation)
            and f.remaining is distinct from 0
        order by f.id
        for update
    loop
        -- The first four bytes of a hash as a share of what they could be.
        chance := (
            'x' || left(encode(sha256(convert_to(fault.seed || ':' || fault.draws, 'UTF8')), 'hex'), 8)
        )::bit(32)::bigint / 4294967296.0;
        update public.paper_faults as f
        set
            draws = f.draws + 1,
            remaining = f.remaining - case when chance < fault.probability then 1 else 0 end
        where f.id = fault.id;
        if chance < fault.probability then
            return jsonb_build_object('kind', fault.kind, 'seconds', fault.seconds::text);
        end if;
    end loop;
    return null;
end
$$;


-- The book of an account, with all that it takes to move it on: {"now", "account", "orders", "positions", "quotes",
-- "complete_until", "fault"}; "account" is null when there is none. `asked` is {"symbols"?, "client_order_id"?,
-- "order_id"?: what is needed beside the open orders, "operation"?: the call, for which a fault may be drawn}.
-- Orders that are open get every quote since the one seen last, 5000 at most, which is then said by `complete_until`;
-- other symbols get their newest.
-- Callers: the paper broker, over RPC.
create function public.load_paper_book(account_id uuid, asked jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    account public.paper_accounts;
    orders jsonb;
    positions jsonb;
    working text[];
    others text[];
    quotes jsonb;
    complete_until timestamptz;
begin
    select a.* into account from public.paper_accounts as a where a.id = load_paper_book.account_id
    for share;      -- until all is read, nobody saves
    if account.id is null then
        return '{"account": null}';
    end if;

    select
        coalesce(jsonb_agg(public.paper_texts(to_jsonb(o)) order by o.number), '[]'),
        array_agg(o.symbol) filter (where o.status in ('accepted', 'partially_filled'))
    into orders, working
    from public.paper_orders as o
    where
        o.account_id = account.id
        and (
            o.status in ('accepted', 'partially_filled')
            or o.id = (asked ->> 'order_id')::uuid
            or o.client_order_id = asked ->> 'client_order_id'
            or o.client_order_id in (
                select landing -> 'request' ->> 'client_order_id' from jsonb_array_elements(account.landings) as landing
            )
        );
    select coalesce(jsonb_agg(public.paper_texts(to_jsonb(p)) order by p.symbol), '[]'), array_agg(p.symbol)
    into positions, others
    from public.paper_positions as p where p.account_id = account.id;
    working := coalesce(working, '{}') || array(
        select landing -> 'request' ->> 'symbol' from jsonb_array_elements(account.landings) as landing
    );
    others := coalesce(others, '{}') || array(select jsonb_array_elements_text(asked -> 'symbols'));

    with
    every_quote as (
        select q.* from (select distinct unnest(working) as symbol) as s
        join public.paper_quotes as q on q.feed = account.feed and q.symbol = s.symbol
        where
            q.at > coalesce((account.market -> s.symbol ->> 'at')::timestamptz, account.as_of)
            and q.at <= now_at
        order by q.at
        fetch first 5000 rows with ties
    ),

    newest_quote as (
        select q.* from (select distinct unnest(others) as symbol) as s
        cross join lateral (
            select n.* from public.paper_quotes as n
            where n.feed = account.feed and n.symbol = s.symbol and n.at <= now_at
            order by n.at desc
            limit 1
        ) as q
        where not s.symbol = any(working)
    )

    select
        coalesce(jsonb_agg(public.paper_texts(to_jsonb(q))), '[]'),
        case when count(*) filter (where q.symbol = any(working)) >= 5000
            then max(q.at) filter (where q.symbol = any(working)) else now_at end
    into quotes, complete_until
    from (select * from every_quote union all select * from newest_quote) as q;

    return jsonb_build_object(
        'now', now_at,
        'account', public.paper_texts(to_jsonb(account) - 'secret_hash'),
        'orders', orders,
        'positions', positions,
        'quotes', quotes,
        'complete_until', complete_until,
        'fault', public.draw_paper_fault(account.id, asked ->> 'operation')
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Saves what changed in a book that was loaded at a version: {"cash", "fees", "numbers", "as_of", "market", "landings",
-- "orders", "fills", "positions"}. Answers {"saved"}: false, and nothing is changed, when another one came first.
-- Callers: the paper broker, over RPC.
create function public.save_paper_book(account_id uuid, version bigint, changes jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update public.paper_accounts as a
    set
        cash = (changes ->> 'cash')::numeric,
        fees = (changes ->> 'fees')::numeric,
        numbers = (changes ->> 'numbers')::bigint,
        as_of = (changes ->> 'as_of')::timestamptz,
        market = changes -> 'market',
        landings = changes -> 'landings',
        version = a.version + 1
    where a.id = save_paper_book.account_id and a.version = save_paper_book.version;
    if not found then
        return '{"saved": false}';
    end if;

    insert into public.paper_orders as o
    select n.* from jsonb_array_elements(changes -> 'orders') as changed
    cross join lateral jsonb_populate_record(
        null::public.paper_orders, changed || jsonb_build_object('account_id', save_paper_book.account_id)
    ) as n
    on conflict (id) do update set
        triggered = excluded.triggered,
        status = excluded.status,
        reason = excluded.reason,
        filled_quantity = excluded.filled_quantity,
        filled_value = excluded.filled_value,
        fees = excluded.fees,
        fills = excluded.fills,
        updated_at = excluded.updated_at
    where o.account_id = save_paper_book.account_id;
    insert into public.paper_fills
    select n.* from jsonb_array_elements(changes -> 'fills') as changed
    cross join lateral jsonb_populate_record(
        null::public.paper_fills, changed || jsonb_build_object('account_id', save_paper_book.account_id)
    ) as n;
    insert into public.paper_positions
    select n.* from jsonb_array_elements(changes -> 'positions') as changed
    cross join lateral jsonb_populate_record(
        null::public.paper_positions, changed || jsonb_build_object('account_id', save_paper_book.account_id)
    ) as n
    on conflict on constraint paper_positions_pkey do update set
        quantity = excluded.quantity, cost = excluded.cost, realized = excluded.realized;
    return '{"saved": true}';
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Access: the server's alone.

revoke all on function
public.paper_texts(jsonb),
public.open_paper_account(jsonb),
public.paper_account_of(text, text),
public.draw_paper_fault(uuid, text),
public.load_paper_book(uuid, jsonb),
public.save_paper_book(uuid, bigint, jsonb)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.open_paper_account(jsonb),
public.paper_account_of(text, text),
public.load_paper_book(uuid, jsonb),
public.save_paper_book(uuid, bigint, jsonb)
to service_role;
