-- What users pay for: tiers, subscriptions, payments, whoever is paid through.
--
-- Stripe-billed subscriptions are a picture of what Stripe says (210_stripe.sql) and are extended by nobody here. Those
-- paid by hand or in crypto are ours: 220_crypto.sql finds the money, 230_renewal.sql turns it into time. Money is
-- recorded in one place, `payments`, and each payment at most once, by a unique key of its origin.
--
-- user_id refers to auth.users without a foreign key. Payments are books and outlive the account they came from; a late
-- event about a deleted user must not fail for ever; and the event that names the user may be behind the one that pays.

create table public.subscription_tiers (
    id uuid primary key default gen_random_uuid(),
    slug text not null unique,
    name text not null,
    price_monthly numeric not null check (price_monthly >= 0),
    price_yearly numeric check (price_yearly >= 0),
    currency text not null default 'usd' check (currency ~ '^[a-z]{3}$'),
    stripe_price_monthly text unique,
    stripe_price_yearly text unique,
    active boolean not null default true,
    created_at timestamptz not null default public.clock_now()
);

create table public.billing_customers (
    stripe_customer_id text primary key,
    user_id uuid not null,
    email text, -- as Stripe has it, for those who look for a customer there
    deleted_at timestamptz, -- no longer there; the row stays, since what was bought stays theirs
    ticket bigint,
    created_at timestamptz not null default public.clock_now()
);
create index billing_customers_by_user on public.billing_customers (user_id);

-- Every subscription that a user ever had. The statuses are Stripe's own words, and `expired` for those that we bill.
create table public.subscriptions (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    tier_id uuid references public.subscription_tiers (id),
    status text not null check (
        status in (
            'active', 'trialing', 'past_due', 'unpaid', 'paused',
            'incomplete', 'canceled', 'incomplete_expired', 'expired'
        )
    ),
    payment_method text not null check (payment_method in ('stripe', 'crypto', 'manual')),
    stripe_subscription_id text unique,
    stripe_customer_id text,
    stripe_price_id text,
    current_period_start timestamptz,
    current_period_end timestamptz,
    trial_ends_at timestamptz,
    cancel_at_period_end boolean not null default false,
    canceled_at timestamptz,
    ended_at timestamptz,
    started_at timestamptz not null,
    activated_at timestamptz, -- when it was first seen to give access
    ticket bigint,
    billing_interval text check (billing_interval in ('month', 'year')),
    anchor_day smallint check (anchor_day between 1 and 31), -- the day of the month on which its periods begin
    grace_until timestamptz,
    notice_stage smallint not null default 0 check (notice_stage between 0 and 5),
    created_at timestamptz not null default public.clock_now(),
    updated_at timestamptz not null default public.clock_now(),
    constraint "our own subscription needs a period, interval and anchor day" check (
        payment_method = 'stripe'
        or (current_period_end is not null and billing_interval is not null and anchor_day is not null)
    ),
    constraint "a subscription paid by Stripe needs its id there and a ticket" check (
        payment_method <> 'stripe' or (stripe_subscription_id is not null and ticket is not null)
    )
);
create index subscriptions_by_user on public.subscriptions (user_id);

-- The one subscription that counts for a user: the best status; of several that give access the dearest tier, so that
-- nobody loses what is paid; and then the one begun last. So a user who cancelled and came back has one row, and so
-- has one who subscribed twice.
create view public.user_subscriptions with (security_invoker = true) as
select distinct on (s.user_id)
    s.user_id,
    s.id,
    s.tier_id,
    s.status,
    s.payment_method,
    s.stripe_subscription_id,
    s.current_period_start,
    s.current_period_end,
    s.trial_ends_at,
    s.cancel_at_period_end,
    s.canceled_at,
    s.ended_at,
    s.started_at,
    s.updated_at
from public.subscriptions as s
left join public.subscription_tiers as t on s.tier_id = t.id and s.status in ('active', 'trialing', 'past_due')
order by
    s.user_id asc,
    array_position(
        array[
            'active', 'trialing', 'past_due', 'unpaid', 'paused',
            'incomplete', 'canceled', 'incomplete_expired', 'expired'
        ],
        s.status
    ) asc,
    t.price_monthly desc nulls last,
    s.started_at desc,
    s.id asc;

-- The only place where money is recorded: one row for each invoice, however many events tell of it.
create table public.payments (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    subscription_id uuid references public.subscriptions (id),
    provider text not null check (provider in ('stripe', 'crypto', 'manual')),
    status text not null check (status in ('pending', 'succeeded', 'failed', 'void', 'reversed')),
    amount numeric not null check (amount >= 0),
    amount_refunded numeric not null default 0 check (amount_refunded >= 0),
    disputed boolean not null default false,
    currency text not null check (currency = lower(currency)),
    stripe_invoice_id text unique,
    stripe_checkout_id text unique, -- for a payment at the till that has no invoice
    crypto_payment_id uuid unique,
    period_start timestamptz, -- what it bought, where we sell time ourselves
    period_end timestamptz,
    attempt_count integer not null default 0,
    next_attempt_at timestamptz,
    action_required_at timestamptz, -- when the user was asked to confirm it
    paid_at timestamptz,
    ticket bigint,
    money_back_ticket bigint, -- of the look that amount_refunded and disputed show
    created_at timestamptz not null default public.clock_now(),
    updated_at timestamptz not null default public.clock_now(),
    constraint "a payment by Stripe needs its invoice or checkout, and a ticket" check (
        provider <> 'stripe' or (coalesce(stripe_invoice_id, stripe_checkout_id) is not null and ticket is not null)
    )
);
create index payments_by_user on public.payments (user_id, created_at desc);

-- Access: users read their own and write nothing; a service key reads all, and writes through the functions of the
-- files that follow.

alter table public.subscription_tiers enable row level security;
alter table public.billing_customers enable row level security;
alter table public.subscriptions enable row level security;
alter table public.payments enable row level security;

revoke all on
public.subscription_tiers,
public.billing_customers,
public.subscriptions,
public.user_subscriptions,
public.payments
from public, anon, authenticated, service_role, pulse_worker;

grant select on
public.subscription_tiers,
public.billing_customers,
public.subscriptions,
public.user_subscriptions,
public.payments
to service_role;
grant select on public.subscription_tiers to anon, authenticated;
grant select on public.subscriptions, public.user_subscriptions, public.payments to authenticated;

create policy "anyone sees what can be bought" on public.subscription_tiers
for select to anon, authenticated using (active);
create policy "users see their own subscriptions" on public.subscriptions
for select to authenticated using (user_id = (select auth.uid()));
create policy "users see their own payments" on public.payments
for select to authenticated using (user_id = (select auth.uid()));
