-- What users trade with: their accounts at brokers, orders, fills and positions, and the rules that every order keeps.
--
-- An order is a row before anybody sends it, and carries the id under which the broker will know it (client_order_id)
-- from its first day. 310_orders.sql says how it is sent once, 320_order_truth.sql how it follows the broker.
--
-- Quantities and prices are numeric, never rounded here. A sold position is a negative quantity. user_id refers to
-- auth.users without a foreign key: orders are books and outlive the account they came from.

-- An account at a broker. What opens it is not here: either Vault keeps it (credentials_secret_id) or the environment
-- of the worker (credentials_env, the variable's name). Users see the account, not where its credentials are.
create table public.broker_connections (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    broker text not null check (broker ~ '^[a-z][a-z0-9_]{1,30}(:[a-z0-9_]{1,30})?$'),  -- paper, alpaca, ccxt:kraken
    label text,
    environment text not null default 'paper' check (environment in ('paper', 'live')),
    credentials_secret_id uuid,
    credentials_env text check (credentials_env ~ '^[A-Z][A-Z0-9_]{2,63}$'),
    credentials_version integer not null default 1,     -- grows with each change of the two, and of settings
    settings jsonb not null default '{}' check (jsonb_typeof(settings) = 'object'),    -- for the adapter; no secrets
    status text not null default 'active' check (status in ('active', 'disabled', 'locked_out')),
    status_reason text,
    failures integer not null default 0,                -- calls in a row that brought no answer
    held_until timestamptz,                             -- nothing is sent before: too fast, or too many failures
    callback_versions integer[] not null default '{1}',    -- whose secrets still sign callbacks, the newest last
    synced_at timestamptz,
    created_at timestamptz not null default public.clock_now(),
    updated_at timestamptz not null default public.clock_now(),
    constraint "credentials are in Vault or in the environment, not both" check (
        num_nonnulls(credentials_secret_id, credentials_env) <= 1
    )
);
create index broker_connections_by_user on public.broker_connections (user_id);

-- How fast a broker may be asked, per connection. The owner's to edit; `ccxt` serves each exchange without its own row.
create table public.broker_limits (
    broker text primary key,
    calls integer not null check (calls between 2 and 10000),   -- canceling an order takes two
    per_seconds numeric not null check (per_seconds > 0)
);
insert into public.broker_limits (broker, calls, per_seconds) values
('paper', 1000, 1), ('alpaca', 180, 60), ('ccxt', 10, 1);

-- What an order must keep, per environment. The owner's to edit; null is no limit.
create table public.trading_rules (
    environment text primary key check (environment in ('paper', 'live')),
    needs_subscription boolean not null,                -- a user without one that gives access cannot trade
    max_order_notional numeric check (max_order_notional > 0),
    max_position_notional numeric check (max_position_notional > 0),
    market_order_good_for interval not null default '2 minutes',    -- older ones are not sent: the price has moved on
    order_good_for interval not null default '1 day'                -- and so for all others
);
insert into public.trading_rules (environment, needs_subscription) values ('paper', false), ('live', true);

-- The kill switch: while a row is here, nothing is sent for that user, or (user_id null) for anybody.
-- Callers: halt_trading and resume_trading (310_orders.sql) write it.
create table public.trading_halts (
    user_id uuid unique nulls not distinct,
    reason text not null,
    halted_at timestamptz not null default public.clock_now()
);

-- One order. The statuses from `accepted` on are the broker's word, those before are ours:
--
--     new ──▶ submitting ──▶ accepted ──▶ partially_filled ──▶ filled
--      ▲          │  │           └─────────────┴──▶ canceled | expired | rejected
--      │          │  └──▶ rejected                   (refused for certain: nothing is at the broker)
--      │          ▼
--      └────── unknown ──▶ accepted …   (looked for, and found)
--                 └──────▶ in_doubt     (a person has to look; found later, it goes on as accepted …)
create table public.orders (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    broker_connection_id uuid not null references public.broker_connections (id),
    source text not null default 'platform' check (source in ('platform', 'broker')),   -- broker: placed there by hand
    client_order_id text not null,                      -- ours, when it is: 'pe' and the id in 32 hexadecimal digits
    broker_order_id text,
    idempotency_key text,                               -- the producer's own: the same key is the same order
    symbol text not null check (symbol <> ''),
    side text not null check (side in ('buy', 'sell')),
    order_type text not null check (order_type in ('market', 'limit', 'stop', 'stop_limit')),
    time_in_force text not null default 'day' check (time_in_force in ('day', 'gtc', 'ioc', 'fok')),
    -- The upper bounds also keep out NaN and Infinity, which are larger than all numbers.
    quantity numeric not null check (quantity > 0 and quantity < 1e18),
    limit_price numeric check (limit_price > 0 and limit_price < 1e18),
    stop_price numeric check (stop_price > 0 and stop_price < 1e18),
    -- What the user saw: a market order is weighed by it.
    reference_price numeric check (reference_price > 0 and reference_price < 1e18),
    when_closed text not null default 'wait' check (when_closed in ('wait', 'refuse')),
    status text not null default 'new' check (
        status in (
            'new', 'submitting', 'unknown', 'in_doubt', 'accepted', 'partially_filled',
            'filled', 'canceled', 'rejected', 'expired'
        )
    ),
    status_reason text,                                 -- one word for programs: insufficient_funds, trading_halted …
    status_words text,                                  -- one sentence for people
    submission integer not null default 0,              -- how often it was begun to be sent: the fence of each
    submitting_at timestamptz,
    sent_with integer,                                  -- the credentials_version of the latest submission
    settles_at timestamptz,                             -- from then on, that the next look finds nothing counts
    misses integer not null default 0,                  -- how often that has counted
    unexplained boolean not null default false,         -- an earlier submission had no answer: a last no is looked into
    ends_as text check (ends_as in ('rejected', 'expired', 'canceled', 'in_doubt')),  -- if that look finds nothing
    opens_at timestamptz,                               -- its market was closed until then: its age counts from there
    job_id bigint,                                      -- of queue broker: it sends the order, or looks for it
    filled_quantity numeric not null default 0 check (filled_quantity >= 0),
    filled_avg_price numeric check (filled_avg_price > 0),
    commission numeric,
    cancel_requested_at timestamptz,
    broker_updated_at timestamptz,                      -- the broker's clock at the newest that is known
    missing integer not null default 0,                 -- how often the broker did not know an order it had accepted
    next_check_at timestamptz,                          -- when monitor_orders looks; null: it need not
    hinted_at timestamptz,                              -- somebody had news of it: looks begun before do not count
    accepted_at timestamptz,
    ended_at timestamptz,
    created_at timestamptz not null default public.clock_now(),
    updated_at timestamptz not null default public.clock_now(),
    unique (broker_connection_id, client_order_id),
    unique (broker_connection_id, broker_order_id),
    unique (user_id, idempotency_key),
    constraint "a limit order names its price" check (
        (order_type in ('limit', 'stop_limit')) = (limit_price is not null)
    ),
    constraint "a stop order names its price" check (
        (order_type in ('stop', 'stop_limit')) = (stop_price is not null)
    ),
    constraint "what the broker has, it has given an id" check (
        status in ('new', 'submitting', 'unknown', 'in_doubt', 'rejected', 'expired', 'canceled')
        or broker_order_id is not null
    ),
    constraint "an order that has ended says when" check (
        (status in ('filled', 'canceled', 'rejected', 'expired')) = (ended_at is not null)
    )
);
create index orders_by_user on public.orders (user_id, created_at desc);
create index orders_by_symbol on public.orders (broker_connection_id, symbol);
create index orders_on_their_way on public.orders (updated_at) where status in ('new', 'submitting', 'unknown');
create index orders_to_cancel on public.orders (cancel_requested_at)
where cancel_requested_at is not null and ended_at is null;
create index orders_to_check on public.orders (broker_connection_id, next_check_at) where next_check_at is not null;

-- Each execution of an order, as the broker tells it. What an order's filled_quantity says may be ahead of these.
create table public.order_fills (
    broker_connection_id uuid not null references public.broker_connections (id),
    broker_fill_id text not null,
    order_id uuid not null references public.orders (id),
    quantity numeric not null check (quantity > 0),
    price numeric not null check (price > 0),
    commission numeric,
    filled_at timestamptz not null,
    primary key (broker_connection_id, broker_fill_id)
);
create index order_fills_by_order on public.order_fills (order_id, filled_at);

-- What an account holds, by its broker's word. A position that is gone has quantity 0 and says when.
create table public.positions (
    broker_connection_id uuid not null references public.broker_connections (id),
    symbol text not null,
    user_id uuid not null,
    quantity numeric not null,
    avg_entry_price numeric,
    current_price numeric,
    market_value numeric,
    unrealized_pnl numeric,
    unexplained numeric not null default 0,             -- what no order that we know of accounts for
    unexplained_told numeric not null default 0,        -- and as much of it as was told
    agreed boolean not null default false,              -- the last two looks saw the same of that
    sync_run_id uuid not null,
    as_of timestamptz not null,
    closed_at timestamptz,
    primary key (broker_connection_id, symbol),
    constraint "a position that is gone says when" check ((quantity = 0) = (closed_at is not null))
);
create index positions_by_user on public.positions (user_id);

-- One look at all positions of an account.
create table public.broker_sync_runs (
    id uuid primary key,
    broker_connection_id uuid not null references public.broker_connections (id),
    began_at timestamptz not null default public.clock_now(),
    ended_at timestamptz,
    outcome text check (outcome in ('applied', 'overtaken', 'unsettled')),
    positions integer,
    closed integer,
    drifted integer
);
create index broker_sync_runs_by_connection on public.broker_sync_runs (broker_connection_id, began_at desc);

-- What brokers called back with: the replay guard. What they said is a hint and is not kept.
create table public.broker_callbacks (
    broker_connection_id uuid not null references public.broker_connections (id),
    event_id text not null,
    event_type text not null,
    received_at timestamptz not null,
    noted_at timestamptz not null default public.clock_now(),
    primary key (broker_connection_id, event_id)
);
create index broker_callbacks_by_age on public.broker_callbacks (noted_at);


-- Access: users read what is theirs and write nothing; a service key reads all, and writes what people set up.

alter table public.broker_connections enable row level security;
alter table public.broker_limits enable row level security;
alter table public.trading_rules enable row level security;
alter table public.trading_halts enable row level security;
alter table public.orders enable row level security;
alter table public.order_fills enable row level security;
alter table public.positions enable row level security;
alter table public.broker_sync_runs enable row level security;
alter table public.broker_callbacks enable row level security;

revoke all on
public.broker_connections, public.broker_limits, public.trading_rules, public.trading_halts, public.orders,
public.order_fills, public.positions, public.broker_sync_runs, public.broker_callbacks
from public, anon, authenticated, service_role, pulse_worker;

grant select on
public.broker_connections, public.broker_limits, public.trading_rules, public.trading_halts, public.orders,
public.order_fills, public.positions, public.broker_sync_runs, public.broker_callbacks
to service_role;
grant insert (
    id, user_id, broker, label, environment, credentials_secret_id, credentials_env, settings
), update (
    label, credentials_secret_id, credentials_env, settings, status, status_reason
) on public.broker_connections to service_role;
grant insert, update, delete on public.broker_limits to service_role;
grant update on public.trading_rules to service_role;

grant select (
    id, user_id, broker, label, environment, status, status_reason, synced_at, created_at
) on public.broker_connections to authenticated;
grant select on public.orders, public.order_fills, public.positions to authenticated;

create policy "users see their own accounts" on public.broker_connections
for select to authenticated using (user_id = (select auth.uid()));
create policy "users see their own orders" on public.orders
for select to authenticated using (user_id = (select auth.uid()));
create policy "users see the fills of their orders" on public.order_fills
for select to authenticated using (
    order_id in (
        select o.id from public.orders as o
        where o.user_id = (select auth.uid())
    )
);
create policy "users see their own positions" on public.positions
for select to authenticated using (user_id = (select auth.uid()));
