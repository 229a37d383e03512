-- From what a chain shows to a payment: the transactions that were named for a request, and what each look found.
--
-- The worker looks at the chain and judges one transaction (crypto_verification.py, by its table); here the verdict is
-- written down, and in the same database transaction all that follows from it (226_crypto_settlement.sql). Three rules:
--
-- 1. Only the rightful transfer counts. Naming a hash reserves nothing, so nobody can stand in the way of the one who
--    paid; what was paid is taken when it is confirmed, by chain, hash and place in it, and can be taken once.
-- 2. Looks are numbered as they begin. A look that another one has overtaken writes nothing.
-- 3. Money that counted is gone only when it was missing for ten minutes: one node that lags does not take it back.
--
-- Locks are taken in one order (request, its transactions, payment, subscription).

-- A transaction that somebody named for a request. Naming a wrong one spoils nothing: the request stays open.
create table public.crypto_transactions (
    crypto_payment_id uuid not null references public.crypto_payments (id),
    tx_hash text not null check (tx_hash ~ '^(0x)?[0-9a-f]{64}$'),
    status text not null default 'submitted' check (
        status in (
            'submitted', 'not_found', 'pending', 'confirming', 'confirmed', 'rejected', 'dropped', 'reversed'
        )
    ),
    reason text,                                                -- why it is rejected, as a word
    payer_signature text check (length(payer_signature) <= 200),            -- of the request, where payers sign
    amount numeric(78, 0),                                      -- of its transfers to us
    block_number bigint,
    block_hash text,
    mined_at timestamptz,
    confirmations integer,
    looks integer not null default 0,                           -- how many have begun
    missing_since timestamptz,                                  -- it counts, and the chain does not show it
    submitted_at timestamptz not null default public.clock_now(),
    looked_at timestamptz,
    primary key (crypto_payment_id, tx_hash)
);
create index crypto_transactions_by_hash on public.crypto_transactions (tx_hash);

-- The transfers that count. `place` is where in its transaction: the n-th log of a token's transfer, the n-th output of
-- a Bitcoin transaction, -1 for the coin that a transaction itself carries. It stays when the transaction changes its
-- block; the log's index in the block does not.
create table public.crypto_transfers (
    chain text not null,
    tx_hash text not null,
    place integer not null,
    crypto_payment_id uuid not null,
    sender text,
    amount numeric(78, 0) not null check (amount > 0),
    counted_at timestamptz not null default public.clock_now(),
    primary key (chain, tx_hash, place),
    constraint "a hash is written in the one spelling that is compared" check (
        tx_hash ~ case when chain like 'evm:%' then '^0x[0-9a-f]{64}$' else '^[0-9a-f]{64}$' end
    ),
    foreign key (crypto_payment_id, tx_hash) references public.crypto_transactions (crypto_payment_id, tx_hash)
);
create index crypto_transfers_by_payment on public.crypto_transfers (crypto_payment_id);


-- A hash in the one spelling of its chain; null if it is none.
-- Callers: submit_crypto_hash.
create function public.crypto_hash(chain text, said text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return case
    when lower(said) !~ '^(0x)?[0-9a-f]{64}$' then null
    when chain like 'evm:%' then '0x' || right(lower(said), 64)
    else right(lower(said), 64)
end;


-- Which request a job is about: the one it names; or, for a user and a tier, the one this hash was named for before,
-- else the newest open one, else the newest.
-- Callers: submit_crypto_hash.
create function public.find_crypto_request(named jsonb, tx_hash text) returns uuid
language sql stable
set search_path = pg_catalog, pg_temp
as $$
select coalesce(
    (named ->> 'crypto_payment_id')::uuid,
    (
        select p.id from public.crypto_payments as p
        left join public.crypto_transactions as t
            on p.id = t.crypto_payment_id and t.tx_hash = public.crypto_hash(p.chain, find_crypto_request.tx_hash)
        where p.user_id = (named ->> 'user_id')::uuid and p.tier_id = (named ->> 'tier_id')::uuid
        order by
            (t.tx_hash is not null) desc,
            (p.status in ('awaiting', 'pending', 'confirming', 'underpaid')) desc,
            p.created_at desc
        limit 1
    )
);
$$;


-- Begins a look: notes the hash for its request, in its one spelling, and answers what to look for on the chain.
-- Callers: crypto_verification, over RPC; `named` is {"crypto_payment_id"} or {"user_id", "tier_id"}, and "asked_by" if
-- the job is a user's: a request of another one is unknown to it.
-- Answers {"outcome": "look", "look", "tx_hash", "request"}, or an outcome that ends the job:
--   unknown_request · bad_hash · too_many (20 hashes were named for this request)
-- Guarantees: the same hash again is the same row, however it is spelled.
create function public.submit_crypto_hash(named jsonb, tx_hash text, payer_signature text default null) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    request public.crypto_payments;
    tx public.crypto_transactions;
    hash text;
begin
    select p.* into request from public.crypto_payments as p
    where p.id = public.find_crypto_request(named, submit_crypto_hash.tx_hash)
    for update;
    if request.id is null or request.user_id <> (named ->> 'asked_by')::uuid then
        return '{"outcome": "unknown_request"}';
    end if;
    hash := public.crypto_hash(request.chain, submit_crypto_hash.tx_hash);
    if hash is null then
        return '{"outcome": "bad_hash"}';
    end if;
    if (
        select count(*) >= 20 and not coalesce(bool_or(t.tx_hash = hash), false)
        from public.crypto_transactions as t where t.crypto_payment_id = request.id
    ) then
        return '{"outcome": "too_many"}';
    end if;

    insert into public.crypto_transactions as known (crypto_payment_id, tx_hash, payer_signature, looks)
    values (request.id, hash, submit_crypto_hash.payer_signature, 1)
    on conflict on constraint crypto_transactions_pkey do update set
        looks = known.looks + 1,
        payer_signature = case          -- what counts already stays as it was signed
            when known.status = 'confirmed' then known.payer_signature
            else coalesce(excluded.payer_signature, known.payer_signature)
        end,
        -- What was given up and is named again is looked for again, as if it were new.
        status = case when known.status in ('rejected', 'dropped') then 'submitted' else known.status end,
        submitted_at = case when known.status in ('rejected', 'dropped') then now_at else known.submitted_at end
    returning known.* into tx;
    perform public.settle_crypto_payment(request.id);

    return jsonb_build_object(
        'outcome', 'look',
        'look', tx.looks,
        'tx_hash', tx.tx_hash,
        'request', jsonb_build_object(
            'id', request.id,
            'chain', request.chain,
            'token_contract', request.token_contract,
            'decimals', request.decimals,
            'pay_to_address', request.pay_to_address,
            'sign_message', case when request.payer_signs then public.crypto_payer_message(request.id) end,
            'payer_signature', tx.payer_signature,
            'required_confirmations', request.required_confirmations,
            'needs_finality', request.needs_finality,
            'two_providers', request.two_providers,
            'opened_at', request.created_at,
            'expires_at', request.expires_at,
            'counted', tx.status = 'confirmed'
        )
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Writes down what a look found, and all that follows. Answers {"status" (of the request), "transaction", "reason",
-- "again": whether to look again later}; "again" too for a look that was overtaken.
-- Callers: crypto_verification, over RPC. `seen` is {"verdict", "reason"?, "transfers": [{"place", "sender",
-- "amount"}], "block_number"?, "block_hash"?, "mined_at"?, "confirmations"?}; a verdict is not_found, pending,
-- confirming, confirmed, rejected, or unsure (two providers show two things), which changes nothing and is told to
-- operators when it lasts.
-- Guarantees: safe to repeat; a request is paid once, whoever looks and how often.
create function public.record_crypto_look(
    crypto_payment_id uuid, tx_hash text, look integer, seen jsonb
) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    request public.crypto_payments;
    tx public.crypto_transactions;
    verdict text := seen ->> 'verdict';
    missing timestamptz;
    settled text;
begin
    select p.* into strict request from public.crypto_payments as p
    where p.id = record_crypto_look.crypto_payment_id for update;
    select t.* into strict tx from public.crypto_transactions as t
    where t.crypto_payment_id = request.id and t.tx_hash = record_crypto_look.tx_hash for update;
    if tx.looks <> record_crypto_look.look then
        return jsonb_build_object('status', request.status, 'transaction', tx.status, 'again', true);
    end if;

    if verdict = 'unsure' then
        if tx.looks >= 5 then
            perform public.tell_operators(
                'Payments', 'crypto_providers_disagree', format('%s:%s', request.id, tx.tx_hash),
                jsonb_build_object('crypto_payment_id', request.id, 'chain', request.chain, 'tx_hash', tx.tx_hash)
            );
        end if;
        return jsonb_build_object('status', request.status, 'transaction', tx.status, 'again', true);
    elsif tx.status = 'confirmed' and verdict in ('not_found', 'pending')
        and tx.mined_at < now_at - interval '30 days' then      -- no chain gives that up, and many nodes forget it
        return jsonb_build_object('status', request.status, 'transaction', tx.status, 'again', false);
    elsif tx.status = 'confirmed' and verdict = 'confirming' then
        verdict := 'confirmed';                         -- in a young block, but in one
    elsif tx.status = 'confirmed' and verdict <> 'confirmed' then
        missing := coalesce(tx.missing_since, now_at);
        verdict := case when now_at < missing + interval '10 minutes' then 'confirmed' else 'reversed' end;
    elsif tx.status = 'reversed' and verdict in ('not_found', 'pending') then
        verdict := 'reversed';                          -- it was told already; only its return would be news
    elsif verdict in ('not_found', 'pending')
        and now_at >= greatest(request.expires_at, tx.submitted_at) + interval '10 minutes' then
        verdict := 'dropped';
    end if;

    -- In another block it may have run otherwise: what counts is read anew, and does not come on top.
    delete from public.crypto_transfers as c
    where
        c.crypto_payment_id = request.id and c.tx_hash = tx.tx_hash
        and (
            verdict = 'reversed'
            or verdict = 'confirmed' and missing is null and tx.block_hash is distinct from seen ->> 'block_hash'
        );
    if verdict = 'confirmed' and missing is null
        and not public.count_crypto_transfers(request, tx.tx_hash, seen -> 'transfers') then
        verdict := 'rejected';
        seen := seen || '{"reason": "paid_for_another_request"}';
    end if;

    update public.crypto_transactions as t
    set
        status = verdict,
        reason = case when verdict = 'rejected' then seen ->> 'reason' end,
        amount = coalesce(
            (select sum((transfer ->> 'amount')::numeric) from jsonb_array_elements(seen -> 'transfers') as transfer),
            t.amount
        ),
        block_number = coalesce((seen ->> 'block_number')::bigint, t.block_number),
        block_hash = coalesce(seen ->> 'block_hash', t.block_hash),
        mined_at = coalesce((seen ->> 'mined_at')::timestamptz, t.mined_at),
        confirmations = coalesce((seen ->> 'confirmations')::integer, 0),
        missing_since = missing,
        looked_at = now_at
    where t.crypto_payment_id = request.id and t.tx_hash = record_crypto_look.tx_hash;

    if verdict = 'confirmed' and tx.status <> 'confirmed' then
        perform public.look_at_crypto_again(request, tx.tx_hash);
    end if;
    if verdict = 'rejected' and seen ->> 'reason' in ('too_late', 'paid_within_a_contract') then
        perform public.tell_operators(
            'Payments', 'crypto_needs_a_person', format('%s:%s', request.id, seen ->> 'reason'),
            jsonb_build_object(
                'crypto_payment_id', request.id, 'tx_hash', tx.tx_hash, 'reason', seen ->> 'reason'
            )
        );
    end if;
    settled := public.settle_crypto_payment(request.id);
    return jsonb_build_object(
        'status', settled,
        'transaction', verdict,
        'reason', case when verdict = 'rejected' then seen ->> 'reason' end,
        'again', verdict in ('not_found', 'pending', 'confirming') or missing is not null and verdict = 'confirmed'
    );
exception when deadlock_detected or serialization_failure then
    raise exception using
        errcode = 'PT503', message = 'met another transaction: ' || sqlerrm, hint = 'Nothing was changed. Call again.';
end
$$;


-- Takes the transfers of a transaction for a request; false when there are none or another request has them already.
-- Callers: record_crypto_look.
create function public.count_crypto_transfers(
    request public.crypto_payments, tx_hash text, transfers jsonb
) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into public.crypto_transfers (chain, tx_hash, place, crypto_payment_id, sender, amount)
    select
        (request).chain, count_crypto_transfers.tx_hash, t.place, (request).id, t.sender, t.amount
    from jsonb_to_recordset(transfers) as t (place integer, sender text, amount numeric)
    order by t.place
    on conflict do nothing;
    return exists (
        select from public.crypto_transfers as c
        where c.crypto_payment_id = (request).id and c.tx_hash = count_crypto_transfers.tx_hash
    );
end
$$;


-- Inserts the job that looks once more, later, whether a confirmed transaction is still there.
-- Callers: record_crypto_look.
create function public.look_at_crypto_again(request public.crypto_payments, tx_hash text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
insert into public.jobs (queue, type, data, user_id, run_at, idempotency_key)
select
    'payment', 'crypto_verification',
    jsonb_build_object('crypto_payment_id', (request).id, 'tx_hash', look_at_crypto_again.tx_hash), (request).user_id,
    public.clock_now() + a.recheck_after, format('crypto:%s:recheck:%s', (request).id, look_at_crypto_again.tx_hash)
from public.crypto_assets as a
where a.id = (request).asset_id
on conflict do nothing;
$$;


-- Access: users see what became of the transactions of their requests; a service key reads all, and looks.

alter table public.crypto_transactions enable row level security;
alter table public.crypto_transfers enable row level security;

revoke all on public.crypto_transactions, public.crypto_transfers
from public, anon, authenticated, service_role, pulse_worker;

grant select on public.crypto_transactions, public.crypto_transfers to service_role;
grant select on public.crypto_transactions to authenticated;

create policy "users see the transactions of their requests" on public.crypto_transactions
for select to authenticated using (
    crypto_payment_id in (
        select p.id from public.crypto_payments as p
        where p.user_id = (select auth.uid())
    )
);

revoke all on function
public.crypto_hash(text, text),
public.find_crypto_request(jsonb, text),
public.submit_crypto_hash(jsonb, text, text),
public.record_crypto_look(uuid, text, integer, jsonb),
public.count_crypto_transfers(public.crypto_payments, text, jsonb),
public.look_at_crypto_again(public.crypto_payments, text)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.submit_crypto_hash(jsonb, text, text),
public.record_crypto_look(uuid, text, integer, jsonb)
to service_role;
