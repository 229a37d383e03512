-- The paper broker's books: what its accounts hold, ordered and were filled, and the quotes that it fills by.
--
-- The broker itself is Python (paper/). It loads a book, moves it on by what has happened since, and saves it whole, if
-- nobody else did meanwhile: `version` is the fence, and the one who comes second begins anew. Nobody but the server
-- comes here: users see their orders and positions in the tables of 300_broker.sql, as with any broker.
--
-- Numbers leave as text, so that nothing is rounded on the way.

-- An account. Its settings are those of paper/words.py (Settings); all have defaults.
create table public.paper_accounts (
    id uuid primary key,
    label text,
    key_id text unique not null,                        -- with its secret: what opens the account over HTTP
    secret_hash text not null,
    settings jsonb not null default '{}' check (jsonb_typeof(settings) = 'object'),
    feed text not null default 'shared',                -- whose quotes it trades on
    opening_cash numeric not null check (opening_cash >= 0),
    cash numeric not null,
    fees numeric not null default 0,
    numbers bigint not null default 0,                  -- how many orders it has accepted
    market jsonb not null default '{}',                 -- by symbol: the quote seen last, and what is left in it
    landings jsonb not null default '[]',               -- requests under way that arrive later: a fault
    version bigint not null default 0,
    as_of timestamptz not null default public.clock_now(),
    opened_at timestamptz not null default public.clock_now()
);

create table public.paper_orders (
    id uuid primary key,
    account_id uuid not null references public.paper_accounts (id) on delete cascade,
    number bigint not null,
    client_order_id text not null,
    dedupe text not null check (dedupe in ('account', 'open_orders', 'none')),    -- of the account when it was accepted
    symbol text not null,
    side text not null check (side in ('buy', 'sell')),
    order_type text not null check (order_type in ('market', 'limit', 'stop', 'stop_limit')),
    time_in_force text not null check (time_in_force in ('day', 'gtc', 'ioc', 'fok')),
    quantity numeric not null check (quantity > 0),
    limit_price numeric check (limit_price > 0),
    stop_price numeric check (stop_price > 0),
    reserve_price numeric not null,
    triggered boolean not null,
    status text not null check (
        status in ('accepted', 'partially_filled', 'filled', 'canceled', 'rejected', 'expired')
    ),
    reason text,
    filled_quantity numeric not null check (filled_quantity between 0 and quantity),
    filled_value numeric not null,
    fees numeric not null,
    fills integer not null,
    expires_at timestamptz,
    submitted_at timestamptz not null,
    updated_at timestamptz not null,
    unique (account_id, number)
);
-- What the account's dedupe promises, held here whatever the program does.
create unique index paper_orders_once on public.paper_orders (account_id, client_order_id) where dedupe = 'account';
create unique index paper_orders_once_while_open on public.paper_orders (account_id, client_order_id)
where dedupe = 'open_orders' and status in ('accepted', 'partially_filled');
create index paper_orders_by_client_id on public.paper_orders (account_id, client_order_id);
create index paper_orders_open on public.paper_orders (account_id)
where status in ('accepted', 'partially_filled');

create table public.paper_fills (
    order_id uuid not null references public.paper_orders (id) on delete cascade,
    number integer not null,
    account_id uuid not null references public.paper_accounts (id) on delete cascade,
    symbol text not null,
    side text not null,
    quantity numeric not null check (quantity > 0),
    price numeric not null check (price > 0),
    fee numeric not null,
    filled_quantity numeric not null,                   -- of the order, with this one
    left_quantity numeric not null check (left_quantity >= 0),
    filled_at timestamptz not null,
    primary key (order_id, number)
);
create index paper_fills_by_time on public.paper_fills (account_id, filled_at, order_id, number);

create table public.paper_positions (
    account_id uuid not null references public.paper_accounts (id) on delete cascade,
    symbol text not null,
    quantity numeric not null,                          -- negative: sold short
    cost numeric not null,
    realized numeric not null,
    primary key (account_id, symbol)
);

-- What symbols can be sold at (bid) and bought at (ask). A symbol is known from its first quote on.
create table public.paper_quotes (
    feed text not null default 'shared',
    symbol text not null check (symbol <> ''),
    at timestamptz not null default public.clock_now(),
    bid numeric check (bid > 0),
    ask numeric check (ask > 0),
    bid_size numeric check (bid_size >= 0),             -- null: without end
    ask_size numeric check (ask_size >= 0),
    primary key (feed, symbol, at),
    constraint "a bid is not above its ask" check (bid <= ask)
);

-- Faults on demand, for those who want to see their platform survive. The oldest that fits a call befalls it.
create table public.paper_faults (
    id bigint generated by default as identity primary key,
    account_id uuid not null references public.paper_accounts (id) on delete cascade,
    kind text not null check (
        kind in (
            'lost_before', 'lost_answer', 'lands_late', 'unavailable', 'gateway_timeout', 'too_fast', 'hang',
            'unauthorized'
        )
    ),
    operation text not null default 'submit' check (operation in ('submit', 'cancel', 'find', 'list', 'any')),
    remaining integer check (remaining >= 0),           -- how many calls it still befalls; null: no end
    probability numeric not null default 1 check (probability between 0 and 1),
    seed text not null default '',                      -- the same seed, the same calls
    draws bigint not null default 0,
    seconds numeric not null default 3 check (seconds >= 0)     -- lands_late, too_fast, hang: after how long
);
create index paper_faults_by_account on public.paper_faults (account_id, id);


-- Access: the server's alone.

alter table public.paper_accounts enable row level security;
alter table public.paper_orders enable row level security;
alter table public.paper_fills enable row level security;
alter table public.paper_positions enable row level security;
alter table public.paper_quotes enable row level security;
alter table public.paper_faults enable row level security;

revoke all on
public.paper_accounts, public.paper_orders, public.paper_fills, public.paper_positions, public.paper_quotes,
public.paper_faults
from public, anon, authenticated, service_role, pulse_worker;

grant select on
public.paper_accounts, public.paper_orders, public.paper_fills, public.paper_positions, public.paper_quotes,
public.paper_faults
to service_role;
grant update (label, settings, feed) on public.paper_accounts to service_role;
grant insert, update, delete on public.paper_quotes to service_role;
grant
insert (account_id, kind, operation, remaining, probability, seed, seconds), update (remaining), delete
on public.paper_faults to service_role;
