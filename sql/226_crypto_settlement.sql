-- From what a request has received to its state, and from its state to a payment, to paid time, and back.
--
-- Every function of the crypto files that changes a request ends in `settle_crypto_payment`, so that each state has one
-- way in: what follows from it is written with it, once, in the same transaction.
--
--   awaiting ─▶ pending ─▶ confirming ─▶ confirmed ─▶ reversed      the chain gave up what it had confirmed
--      │  ▲        │            │
--      │  └────────┴─▶ underpaid ┘      too little: more may follow, for which the time starts anew
--      └──────────────▶ expired ─▶ confirmed      paid in time, and told late

-- Adds up what a request has received and moves it to the state that follows, which it answers; null if it is unknown.
-- Callers: the functions of 225_crypto_looks.sql and expire_crypto_request, after each change. Locks the request.
-- A request that has expired opens no more, since the next one may be open: it can only be confirmed. Confirmed is left
-- only for reversed, and reversed for nothing: what comes after that is for a person.
create function public.settle_crypto_payment(crypto_payment_id uuid) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    was public.crypto_payments;
    request public.crypto_payments;
    received numeric;
    received_more boolean;
    underway text[];
    state text;
begin
    select p.* into was from public.crypto_payments as p
    where p.id = settle_crypto_payment.crypto_payment_id for update;
    if not found then
        return null;
    end if;
    select coalesce(sum(c.amount), 0) into received from public.crypto_transfers as c
    where c.crypto_payment_id = was.id;
    select array_agg(t.status) into underway from public.crypto_transactions as t
    where
        t.crypto_payment_id = was.id
        and (
            t.status = 'confirming'
            -- An hour after its job has given it up, nobody is looking any more.
            or t.status in ('submitted', 'not_found', 'pending')
            and now_at < greatest(was.expires_at, t.submitted_at) + interval '1 hour'
        );
    received_more := received > was.amount_received;

    state := case
        when was.status = 'reversed' then 'reversed'
        when received + was.amount_tolerated >= was.amount_expected then 'confirmed'
        when was.status = 'confirmed' then 'reversed'
        when was.status = 'expired' then 'expired'
        when 'confirming' = any (underway) then 'confirming'
        when underway is not null then 'pending'
        when was.expires_at <= now_at and not received_more then 'expired'
        when received > 0 then 'underpaid'
        else 'awaiting'
    end;
    update public.crypto_payments as p
    set
        status = state,
        amount_received = received,
        confirmed_at = case when state = 'confirmed' then coalesce(p.confirmed_at, now_at) else p.confirmed_at end,
        expires_at = case
            when state = 'underpaid' and received_more
                then greatest(
                    p.expires_at,
                    now_at + (select a.request_lifetime from public.crypto_assets as a where a.id = p.asset_id)
                )
            else p.expires_at
        end,
        updated_at = now_at
    where p.id = was.id and (p.status, p.amount_received) is distinct from (state, received)
    returning p.* into request;

    if found then
        perform public.follow_crypto_payment(was, request);
    end if;
    return state;
end
$$;


-- What follows from a request's new state. Callers: settle_crypto_payment, once per change.
create function public.follow_crypto_payment(
    was public.crypto_payments, request public.crypto_payments
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    received_more constant boolean := (request).amount_received > (was).amount_received;
    status constant text := (request).status;
begin
    if status = 'confirmed' and (was).status <> 'confirmed' then
        perform public.confirm_crypto_payment(request);
    elsif status = 'reversed' and (was).status <> 'reversed' then
        perform public.reverse_crypto_payment(was);
    elsif status = 'underpaid' and (received_more or (was).status <> 'underpaid') then
        perform public.end_crypto_request_at(request);
        perform public.tell_payer(
            (request).user_id, 'payment_underpaid', format('%s:%s', (request).id, (request).amount_received),
            public.crypto_payment_words(request)
        );
    elsif received_more or status = 'expired' and (request).amount_received > 0 then
        -- Money that buys nothing: too little when the time was over, or more after all was paid.
        perform public.tell_operators(
            'Payments', 'crypto_needs_a_person', format('%s:%s:%s', (request).id, status, (request).amount_received),
            public.crypto_payment_words(request)
        );
    end if;
end
$$;


-- Records the payment, sells the time that it buys, and tells the user. Callers: follow_crypto_payment.
create function public.confirm_crypto_payment(request public.crypto_payments) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    bought jsonb := public.extend_paid_period(
        (request).user_id, (request).tier_id, 'crypto', (request).billing_interval, (request).confirmed_at
    );
begin
    insert into public.payments (
        user_id, subscription_id, provider, status, amount, currency, crypto_payment_id, period_start, period_end,
        attempt_count, paid_at
    )
    values (
        (request).user_id, (bought ->> 'subscription_id')::uuid, 'crypto', 'succeeded', (request).price,
        (request).currency, (request).id, (bought ->> 'period_start')::timestamptz,
        (bought ->> 'period_end')::timestamptz, 1, (request).confirmed_at
    );
    update public.crypto_payments as p set subscription_id = (bought ->> 'subscription_id')::uuid
    where p.id = (request).id;
    perform public.tell_payer(
        (request).user_id, 'payment_received', (request).id::text,
        public.crypto_payment_words(request) || bought
    );
end
$$;


-- Takes back what a payment had bought, after the chain gave it up, and tells the user and the operators.
-- `was` is the request as it was when all had been received.
-- Callers: follow_crypto_payment.
create function public.reverse_crypto_payment(was public.crypto_payments) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    payment_id uuid;
begin
    update public.payments as p set status = 'reversed', updated_at = public.clock_now()
    where p.crypto_payment_id = (was).id
    returning p.id into strict payment_id;
    perform public.take_back_paid_period(payment_id);
    perform public.tell_payer(
        (was).user_id, 'payment_reversed', (was).id::text, public.crypto_payment_words(was)
    );
    perform public.tell_operators(
        'Payments', 'payment_reversed', (was).id::text, public.crypto_payment_words(was)
    );
end
$$;


-- What a notice about a request tells. Callers: the functions above.
create function public.crypto_payment_words(request public.crypto_payments) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
    'crypto_payment_id', (request).id,
    'tier', (select t.name from public.subscription_tiers as t where t.id = (request).tier_id),
    'amount', public.crypto_units((request).amount_received, (request).decimals),
    'currency', (request).symbol,
    'missing', public.crypto_units(
        greatest((request).amount_expected - (request).amount_received, 0), (request).decimals
    ),
    'surplus', public.crypto_units((request).amount_surplus, (request).decimals),
    'pay_to_address', (request).pay_to_address,
    'expires_at', (request).expires_at
);
$$;


-- A request that is handed out once more, with time to pay it; any other than below ends as its payer was told.
-- Callers: open_crypto_request.
create function public.give_crypto_request_time(
    request public.crypto_payments, asset public.crypto_assets, tier public.subscription_tiers
) returns public.crypto_payments
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    longer public.crypto_payments;
begin
    update public.crypto_payments as p
    set expires_at = now_at + (asset).request_lifetime, updated_at = now_at
    where
        p.id = (request).id
        and p.status = 'awaiting'
        and p.expires_at < now_at + (asset).request_lifetime / 2
        and coalesce((asset).unit_priced_at + (asset).unit_price_good_for > now_at, true)
        and p.price = case p.billing_interval when 'month' then (tier).price_monthly else (tier).price_yearly end
        and p.amount_expected = ceil(p.price * ('1e' || p.decimals::text)::numeric / (asset).unit_price)
    returning p.* into longer;
    if not found then
        return request;
    end if;
    perform public.end_crypto_request_at(longer);
    return longer;
end
$$;


-- Ends a request whose time is over: {"status"}, null if there is none.
-- Callers: crypto_verification without a hash, over RPC: the job that was inserted along with the request.
-- Money that is on its way is waited for; and where nobody looks any more, since the job was given up while its
-- provider was away, a new one does.
create function public.expire_crypto_request(crypto_payment_id uuid) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into public.jobs (queue, type, data, user_id, idempotency_key)
    select
        'payment', 'crypto_verification', jsonb_build_object('crypto_payment_id', p.id, 'tx_hash', t.tx_hash),
        p.user_id, format('crypto:%s:again:%s', p.id, t.tx_hash)
    from public.crypto_payments as p
    inner join public.crypto_transactions as t on t.crypto_payment_id = p.id
    where
        p.id = expire_crypto_request.crypto_payment_id
        and t.status in ('submitted', 'not_found', 'pending', 'confirming')
        and coalesce(t.looked_at, t.submitted_at) < public.clock_now() - interval '15 minutes'
    on conflict do nothing;
    return jsonb_build_object('status', public.settle_crypto_payment(expire_crypto_request.crypto_payment_id));
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Access: a service key ends requests; all else here is called by functions.

revoke all on function
public.settle_crypto_payment(uuid),
public.follow_crypto_payment(public.crypto_payments, public.crypto_payments),
public.confirm_crypto_payment(public.crypto_payments),
public.reverse_crypto_payment(public.crypto_payments),
public.crypto_payment_words(public.crypto_payments),
public.give_crypto_request_time(public.crypto_payments, public.crypto_assets, public.subscription_tiers),
public.expire_crypto_request(uuid)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function public.expire_crypto_request(uuid) to service_role;
