-- How a user pays in crypto: what may be paid in, where to, and the request that binds a payment before it is made.
--
-- A transaction's hash is public, so anyone can name anyone's. A request says beforehand what will count as its payment
-- (chain, token, address, amount, time) and makes it its user's own in one of two ways: the request has a deposit
-- address that no other request ever gets, or the payer signs the request with the key that sends the money.
-- What the chain then shows is in 225_crypto_looks.sql.
--
-- Amounts are whole numbers of the token's smallest unit: wei, satoshi, millionths of a USDT. A chain is one word,
-- `evm:<chain id>` or `bitcoin:<network>`. Addresses and hashes are kept in one spelling, so that none counts twice.

-- What may be paid in. The owner's to edit; a request copies what it needs and is not touched by later edits.
create table public.crypto_assets (
    id text primary key,                                        -- for example usdt-ethereum
    chain text not null check (chain ~ '^(evm:[1-9][0-9]{0,17}|bitcoin:(main|test|signet|regtest))$'),
    token_contract text check (token_contract ~ '^0x[0-9a-f]{40}$'),        -- null: the chain's own coin
    symbol text not null,                                       -- for people; nothing is decided by it
    decimals smallint not null check (decimals between 0 and 36),
    -- One whole coin in the tiers' currency: 1 for a stablecoin. For others the owner keeps it fresh.
    unit_price numeric not null default 1 check (unit_price > 0),
    currency text not null default 'usd' check (currency ~ '^[a-z]{3}$'),
    unit_priced_at timestamptz not null default public.clock_now(),
    unit_price_good_for interval,                               -- null: for ever
    treasury_address text,      -- null: each request has its own deposit address; else payers sign, and all pay to this
    required_confirmations integer not null check (required_confirmations >= 1),
    needs_finality boolean not null default false,              -- wait for the chain's own word as well
    amount_tolerated numeric(78, 0) not null default 0 check (amount_tolerated >= 0),   -- how much may be missing
    two_providers_above numeric(78, 0),                         -- larger amounts need two that agree; null: never
    request_lifetime interval not null default '24 hours' check (request_lifetime >= '1 minute'),
    recheck_after interval not null default '1 hour' check (recheck_after > '0'),
    active boolean not null default true,
    created_at timestamptz not null default public.clock_now(),
    constraint "only a chain of EVM kind has tokens" check (token_contract is null or chain like 'evm:%'),
    constraint "only a chain of EVM kind says what is final" check (not needs_finality or chain like 'evm:%'),
    constraint "a treasury address is an EVM address in lower case" check (
        treasury_address is null or (chain like 'evm:%' and treasury_address ~ '^0x[0-9a-f]{40}$')
    )
);

-- A request, then its settlement.
create table public.crypto_payments (
    id uuid primary key,
    user_id uuid not null,
    subscription_id uuid references public.subscriptions (id),  -- what it renews; for a first one, what it became
    tier_id uuid not null references public.subscription_tiers (id),
    billing_interval text not null check (billing_interval in ('month', 'year')),
    price numeric not null check (price > 0),
    currency text not null,
    asset_id text not null references public.crypto_assets (id),
    chain text not null,
    token_contract text,
    symbol text not null,
    decimals smallint not null,
    required_confirmations integer not null,
    needs_finality boolean not null,
    two_providers boolean not null,
    pay_to_address text not null,
    payer_signs boolean not null,                               -- false: the address is this request's alone
    amount_expected numeric(78, 0) not null check (amount_expected > 0),
    amount_tolerated numeric(78, 0) not null,
    amount_received numeric(78, 0) not null default 0,          -- confirmed, over all its transactions
    amount_surplus numeric(78, 0) generated always as (greatest(amount_received - amount_expected, 0)) stored,
    status text not null default 'awaiting' check (
        status in ('awaiting', 'pending', 'confirming', 'underpaid', 'confirmed', 'expired', 'reversed')
    ),
    expires_at timestamptz not null,
    confirmed_at timestamptz,
    created_at timestamptz not null default public.clock_now(),
    updated_at timestamptz not null default public.clock_now(),
    constraint "what was confirmed says when" check (
        status not in ('confirmed', 'reversed') or confirmed_at is not null
    )
);
create unique index crypto_payments_open on public.crypto_payments (user_id, tier_id, billing_interval, asset_id)
where status in ('awaiting', 'pending', 'confirming', 'underpaid');
create index crypto_payments_by_user on public.crypto_payments (user_id, created_at desc);
create index crypto_payments_by_subscription on public.crypto_payments (subscription_id, confirmed_at desc);

alter table public.payments
add constraint payments_crypto_payment_id_fkey foreign key (crypto_payment_id) references public.crypto_payments (id);

-- Deposit addresses, put in by the owner (who holds their keys; we never do). Each serves one request, for ever: money
-- that comes late is still known by where it went.
create table public.crypto_addresses (
    network text not null check (network in ('evm', 'bitcoin')),
    address text not null,
    crypto_payment_id uuid unique references public.crypto_payments (id),
    created_at timestamptz not null default public.clock_now(),
    primary key (network, address),
    constraint "an address is written in the one spelling that is compared" check (
        case network
            when 'evm' then address ~ '^0x[0-9a-f]{40}$'
            else address ~ '^((bc|tb|bcrt)1[0-9a-z]{8,87}|[123mn][1-9A-HJ-NP-Za-km-z]{25,39})$'
        end
    )
);
create index crypto_addresses_free on public.crypto_addresses (network, created_at, address)
where crypto_payment_id is null;


-- What a payer signs (EIP-191) where a treasury address takes the money.
-- Callers: open_crypto_request and submit_crypto_hash hand it out. The id keeps a signature from serving twice.
create function public.crypto_payer_message(crypto_payment_id uuid) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return 'I pay for the request ' || crypto_payment_id::text || ' from this address.';


-- Base units as people write them, exactly: 29000000 with 6 decimals is 29.
-- Callers: the functions here, for answers and notices.
create function public.crypto_units(amount numeric, decimals integer) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return trim_scale(amount * ('1e-' || decimals::text)::numeric)::text;


-- Opens the request for one interval of a tier, or finds the one that is open, and answers what to show its user: {id,
-- status, chain, token_contract, symbol, decimals, amount, amount_units, pay_to_address, sign_message, expires_at}.
-- Callers: the app's server, before anyone pays; renew_crypto_request.
-- Guarantees: one open request per user, tier, interval and asset, whoever calls at once; an old one that is answered
-- again has time anew, if nobody has paid yet and it would cost the same today. It expires by itself: the job
-- that ends it is inserted along. A refusal (PT409) is a sentence and changes nothing. Operators hear, once a day, when
-- fewer than ten deposit addresses are left.
create function public.open_crypto_request(
    user_id uuid, tier_id uuid, billing_interval text, asset_id text, subscription_id uuid default null
) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    asset public.crypto_assets;
    request public.crypto_payments;
    tier public.subscription_tiers;
begin
    select a.* into asset from public.crypto_assets as a where a.id = open_crypto_request.asset_id and a.active;
    select t.* into tier from public.subscription_tiers as t where t.id = open_crypto_request.tier_id and t.active;
    perform public.lock_open_requests(open_crypto_request.user_id);
    perform public.settle_crypto_payment(p.id) from public.crypto_payments as p
    where
        p.user_id = open_crypto_request.user_id
        and p.status in ('awaiting', 'pending', 'underpaid') and p.expires_at <= public.clock_now();

    select p.* into request from public.crypto_payments as p
    where
        (p.user_id, p.tier_id) = (open_crypto_request.user_id, open_crypto_request.tier_id)
        and (p.billing_interval, p.asset_id) = (open_crypto_request.billing_interval, open_crypto_request.asset_id)
        and p.status in ('awaiting', 'pending', 'confirming', 'underpaid');
    if request.id is not null then
        request := public.give_crypto_request_time(request, asset, tier);
    else
        request := public.draft_crypto_request(asset, tier, open_crypto_request.billing_interval);
        request.user_id := open_crypto_request.user_id;
        request.subscription_id := open_crypto_request.subscription_id;
        begin
            insert into public.crypto_payments (
                id, user_id, subscription_id, tier_id, billing_interval, price, currency, asset_id, chain,
                token_contract, symbol, decimals, required_confirmations, needs_finality, two_providers,
                pay_to_address, payer_signs, amount_expected, amount_tolerated, expires_at
            )
            values (
                request.id, request.user_id, request.subscription_id, request.tier_id, request.billing_interval,
                request.price, request.currency, request.asset_id, request.chain, request.token_contract,
                request.symbol, request.decimals, request.required_confirmations, request.needs_finality,
                request.two_providers, request.pay_to_address, request.payer_signs, request.amount_expected,
                request.amount_tolerated, request.expires_at
            )
            returning * into request;
        exception when unique_violation then    -- somebody opened it meanwhile: theirs is the one
            return public.open_crypto_request(
                user_id, tier_id, billing_interval, asset_id, subscription_id
            );
        end;
        update public.crypto_addresses as a set crypto_payment_id = request.id
        where (a.network, a.address) = (split_part(request.chain, ':', 1), request.pay_to_address)
            and not request.payer_signs;
        perform public.end_crypto_request_at(request);
        perform public.tell_operators(
            'Payments', 'crypto_addresses_low',
            format('%s:%s', split_part(request.chain, ':', 1), public.clock_now()::date),
            jsonb_build_object('network', split_part(request.chain, ':', 1))
        )
        where not request.payer_signs and (
            select count(*) < 10 from (
                select from public.crypto_addresses as a
                where a.network = split_part(request.chain, ':', 1) and a.crypto_payment_id is null
                limit 10
            ) as left_over
        );
    end if;
    return public.crypto_request_as_told(request);
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- What a request for this asset and tier would be, its deposit address locked; or a refusal that says why not.
-- Callers: open_crypto_request.
create function public.draft_crypto_request(
    asset public.crypto_assets, tier public.subscription_tiers, billing_interval text
) returns public.crypto_payments
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    price constant numeric := case billing_interval
        when 'month' then (tier).price_monthly when 'year' then (tier).price_yearly
    end;
    draft public.crypto_payments;
    refusal text;
begin
    refusal := case
        when (asset).id is null then 'this asset is not on sale'
        when (tier).id is null then 'this tier is not on sale'
        when (price > 0) is not true then format('this tier has no price for "%s"', billing_interval)
        when (tier).currency <> (asset).currency then 'the tier and the asset are priced in two currencies'
        when (asset).unit_priced_at + (asset).unit_price_good_for <= now_at
            then 'the price of this asset is too old: set unit_price and unit_priced_at'
    end;
    draft.id := gen_random_uuid();
    draft.payer_signs := (asset).treasury_address is not null;
    draft.pay_to_address := (asset).treasury_address;
    if refusal is null and not draft.payer_signs then
        select a.address into draft.pay_to_address from public.crypto_addresses as a
        where a.network = split_part((asset).chain, ':', 1) and a.crypto_payment_id is null
        order by a.created_at, a.address
        limit 1
        for update skip locked;
        if draft.pay_to_address is null then
            refusal := 'no deposit address is free: insert more into crypto_addresses';
        end if;
    end if;
    if refusal is not null then
        raise exception using errcode = 'PT409', message = refusal;
    end if;
    draft.tier_id := (tier).id;
    draft.billing_interval := billing_interval;
    draft.price := price;
    draft.currency := (tier).currency;
    draft.asset_id := (asset).id;
    draft.chain := (asset).chain;
    draft.token_contract := (asset).token_contract;
    draft.symbol := (asset).symbol;
    draft.decimals := (asset).decimals;
    draft.required_confirmations := (asset).required_confirmations;
    draft.needs_finality := (asset).needs_finality;
    draft.amount_expected := ceil(price * ('1e' || (asset).decimals::text)::numeric / (asset).unit_price);
    draft.amount_tolerated := least((asset).amount_tolerated, draft.amount_expected - 1);
    draft.two_providers := coalesce(draft.amount_expected > (asset).two_providers_above, false);
    draft.expires_at := now_at + (asset).request_lifetime;
    return draft;
end
$$;


-- Inserts the job that ends a request at its time, if it is still open then.
-- Callers: open_crypto_request; and 225_crypto_looks.sql, when a request gets more time.
create function public.end_crypto_request_at(request public.crypto_payments) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
insert into public.jobs (queue, type, data, user_id, run_at, idempotency_key)
values (
    'payment', 'crypto_verification', jsonb_build_object('crypto_payment_id', (request).id), (request).user_id,
    (request).expires_at, format('crypto:%s:expiry:%s', (request).id, extract(epoch from (request).expires_at)::bigint)
)
on conflict do nothing;
$$;


-- A request in the words that its payer needs.
-- Callers: open_crypto_request.
create function public.crypto_request_as_told(request public.crypto_payments) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
return jsonb_build_object(
    'id', (request).id,
    'status', (request).status,
    'chain', (request).chain,
    'token_contract', (request).token_contract,
    'symbol', (request).symbol,
    'decimals', (request).decimals,
    'amount', public.crypto_units(
        greatest((request).amount_expected - (request).amount_received, 0), (request).decimals
    ),
    'amount_units', greatest((request).amount_expected - (request).amount_received, 0)::text,
    'pay_to_address', (request).pay_to_address,
    'sign_message', case when (request).payer_signs then public.crypto_payer_message((request).id) end,
    'expires_at', (request).expires_at
);


-- Opens, or finds open, the request for a subscription's next period: as the last one that was confirmed, at today's
-- price. Answers its id; null if the subscription never was paid in crypto or the asset takes no payments now, which
-- operators are told.
-- Callers: the sweep of 230_renewal.sql, as often as it likes.
create function public.renew_crypto_request(subscription_id uuid) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    last public.crypto_payments;
begin
    select p.* into last from public.crypto_payments as p
    where p.subscription_id = renew_crypto_request.subscription_id and p.status = 'confirmed'
    order by p.confirmed_at desc
    limit 1;
    if last.id is null then
        return null;
    end if;
    begin
        return (public.open_crypto_request(
            last.user_id, last.tier_id, last.billing_interval, last.asset_id, last.subscription_id
        ) ->> 'id')::uuid;
    exception when sqlstate 'PT409' then
        perform public.tell_operators(
            'Payments', 'crypto_request_refused', format('%s:%s', last.asset_id, public.clock_now()::date),
            jsonb_build_object('asset', last.asset_id, 'reason', sqlerrm)
        );
        return null;
    end;
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Access: anyone signed in sees what may be paid in and their own requests; a service key reads all and opens requests.

alter table public.crypto_assets enable row level security;
alter table public.crypto_payments enable row level security;
alter table public.crypto_addresses enable row level security;

revoke all on public.crypto_assets, public.crypto_payments, public.crypto_addresses
from public, anon, authenticated, service_role, pulse_worker;

grant select on public.crypto_assets, public.crypto_payments, public.crypto_addresses to service_role;
grant select on public.crypto_assets, public.crypto_payments to authenticated;

create policy "users see what may be paid in" on public.crypto_assets
for select to authenticated using (active);
create policy "users see their own requests" on public.crypto_payments
for select to authenticated using (user_id = (select auth.uid()));

revoke all on function
public.crypto_payer_message(uuid),
public.crypto_units(numeric, integer),
public.open_crypto_request(uuid, uuid, text, text, uuid),
public.draft_crypto_request(public.crypto_assets, public.subscription_tiers, text),
public.end_crypto_request_at(public.crypto_payments),
public.crypto_request_as_told(public.crypto_payments),
public.renew_crypto_request(uuid)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.open_crypto_request(uuid, uuid, text, text, uuid),
public.renew_crypto_request(uuid)
to service_role;
