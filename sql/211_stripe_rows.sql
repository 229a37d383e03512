-- What a look at Stripe leads to: whose it is, the rows that show it, and the notices of what became true by it.
--
-- A look has a ticket, and a row keeps the ticket of the look that it shows; an older look changes nothing. A notice of
-- a change (activated, paid, failed, asked to confirm, refunded) goes out with the write that makes the change, so it
-- goes out once, whatever tells of the change and however often. Notices that only an event can cause come with the
-- look, and their key says which fact they tell.

-- Whose this is, for all tables alike: `seen` as for write_stripe_look, its customer being {id, user_id,
-- fallback_user_id}, where everything may be missing. The user whom the event's own object names goes first; then who
-- the subscription or the payment is known to belong to; then who is known by the customer; then whom Stripe's customer
-- names. So a renewal, which names nobody, never takes a subscription from the user whom its checkout named.
-- Callers: write_stripe_look.
create function public.owner_of_stripe_objects(seen jsonb) returns uuid
language plpgsql security invoker set search_path = pg_catalog, pg_temp
as $$
declare
    customer_id constant text := seen #>> '{customer,id}';
    named constant uuid := seen #>> '{customer,user_id}';
    owner constant uuid := coalesce(
        named,
        (
            select s.user_id from public.subscriptions as s
            where s.stripe_subscription_id = seen #>> '{subscription,stripe_subscription_id}'
        ),
        (
            select p.user_id from public.payments as p
            where
                p.stripe_invoice_id = seen #>> '{payment,stripe_invoice_id}'
                or p.stripe_checkout_id = seen #>> '{payment,stripe_checkout_id}'
        ),
        (select c.user_id from public.billing_customers as c where c.stripe_customer_id = customer_id),
        (seen #>> '{customer,fallback_user_id}')::uuid
    );
begin
    if owner is not null and customer_id is not null then
        insert into public.billing_customers as known (stripe_customer_id, user_id) values (customer_id, owner)
        on conflict (stripe_customer_id) do update
            set user_id = excluded.user_id
            where named is not null and known.user_id <> excluded.user_id;
    end if;
    return owner;
end
$$;

-- Writes what the customer itself said: {id, email, deleted}. Callers: write_stripe_look.
create function public.write_stripe_customer(customer jsonb, ticket bigint) returns void
language sql security invoker set search_path = pg_catalog, pg_temp
as $$
update public.billing_customers as known
set
    email = customer ->> 'email',
    deleted_at = case when (customer ->> 'deleted')::boolean then coalesce(known.deleted_at, public.clock_now()) end,
    ticket = write_stripe_customer.ticket
where known.stripe_customer_id = customer ->> 'id' and coalesce(known.ticket, 0) < write_stripe_customer.ticket;
$$;

-- Answers whether the row says something else than before. A user is told of the activation of a subscription that is
-- new, not of one that was running long before we first heard of it. Callers: write_stripe_look.
create function public.write_stripe_subscription(look public.subscriptions) returns boolean
language plpgsql security invoker set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    before public.subscriptions;
    written public.subscriptions;
begin
    select * into before from public.subscriptions as s where s.stripe_subscription_id = look.stripe_subscription_id;
    insert into public.subscriptions as known (
        user_id, tier_id, status, payment_method, stripe_subscription_id, stripe_customer_id, stripe_price_id,
        current_period_start, current_period_end, trial_ends_at, cancel_at_period_end, canceled_at, ended_at,
        started_at, ticket
    )
    values (
        look.user_id,
        (
            select t.id from public.subscription_tiers as t
            where look.stripe_price_id in (t.stripe_price_monthly, t.stripe_price_yearly)
            order by t.active desc, t.created_at
            limit 1
        ),
        look.status, 'stripe', look.stripe_subscription_id, look.stripe_customer_id, look.stripe_price_id,
        look.current_period_start, look.current_period_end, look.trial_ends_at, look.cancel_at_period_end,
        look.canceled_at, look.ended_at, look.started_at, look.ticket
    )
    on conflict (stripe_subscription_id) do update set
        user_id = excluded.user_id, tier_id = excluded.tier_id, status = excluded.status,
        stripe_customer_id = excluded.stripe_customer_id, stripe_price_id = excluded.stripe_price_id,
        current_period_start = excluded.current_period_start, current_period_end = excluded.current_period_end,
        trial_ends_at = excluded.trial_ends_at, cancel_at_period_end = excluded.cancel_at_period_end,
        canceled_at = excluded.canceled_at, ended_at = excluded.ended_at, started_at = excluded.started_at,
        ticket = excluded.ticket, updated_at = now_at
        where known.ticket < excluded.ticket
    returning * into written;
    if not found then
        return false;
    end if;

    if written.activated_at is null and written.status in ('active', 'trialing') then
        update public.subscriptions as s set activated_at = now_at where s.id = written.id;
        if written.started_at > now_at - interval '7 days' then
            perform public.tell_payer(
                written.user_id, 'subscription_activated', written.stripe_subscription_id,
                public.stripe_words(written.id)
            );
        end if;
    end if;
    return (before.status, before.stripe_price_id, before.current_period_end, before.cancel_at_period_end)
        is distinct from
        (written.status, written.stripe_price_id, written.current_period_end, written.cancel_at_period_end);
end
$$;

-- What a notice tells of a subscription that Stripe bills; an empty object for none. Callers: those of this file.
create function public.stripe_words(subscription_id uuid) returns jsonb
language sql stable security invoker set search_path = pg_catalog, pg_temp
as $$
select coalesce(
    (
        select jsonb_build_object(
            'subscription_id', s.id, 'tier', t.name, 'period_end', s.current_period_end,
            'trial_ends_at', s.trial_ends_at
        )
        from public.subscriptions as s
        left join public.subscription_tiers as t on s.tier_id = t.id
        where s.id = stripe_words.subscription_id
    ),
    '{}'
);
$$;

-- `words` are for the notice: {url}, where the user can pay or confirm. `asked` says that the user has to confirm the
-- payment, which is then not told as failed. Callers: write_stripe_look.
create function public.write_stripe_payment(look public.payments, asked boolean, words jsonb) returns void
language plpgsql security invoker set search_path = pg_catalog, pg_temp
as $$
declare
    now_at constant timestamptz := public.clock_now();
    origin constant text := coalesce(look.stripe_invoice_id, look.stripe_checkout_id);
    before public.payments;
    told constant jsonb := public.stripe_words(look.subscription_id) || coalesce(words, '{}') || jsonb_build_object(
        'amount', look.amount::text, 'currency', look.currency, 'next_attempt_at', look.next_attempt_at
    );
begin
    select * into before
    from public.payments as p
    where p.stripe_invoice_id = look.stripe_invoice_id or p.stripe_checkout_id = look.stripe_checkout_id
    for update;
    if before.ticket >= look.ticket then
        return;
    end if;

    if before.id is null then
        insert into public.payments (
            user_id, subscription_id, provider, status, amount, currency, stripe_invoice_id, stripe_checkout_id,
            attempt_count, next_attempt_at, action_required_at, paid_at, ticket
        )
        values (
            look.user_id, look.subscription_id, 'stripe', look.status, look.amount, look.currency,
            look.stripe_invoice_id, look.stripe_checkout_id, look.attempt_count, look.next_attempt_at,
            case when asked then now_at end, look.paid_at, look.ticket
        );
    else
        update public.payments as known
        set
            user_id = look.user_id, subscription_id = look.subscription_id, status = look.status, amount = look.amount,
            currency = look.currency, attempt_count = look.attempt_count, next_attempt_at = look.next_attempt_at,
            action_required_at = coalesce(known.action_required_at, case when asked then now_at end),
            paid_at = look.paid_at, ticket = look.ticket, updated_at = now_at
        where known.id = before.id;
    end if;

    if look.status = 'succeeded' and before.status is distinct from 'succeeded' and look.amount > 0 then
        perform public.tell_payer(look.user_id, 'payment_received', origin, told);
    elsif asked and before.action_required_at is null then
        perform public.tell_payer(look.user_id, 'payment_action_required', origin, told);
    elsif look.status = 'failed' and (
        look.attempt_count > coalesce(before.attempt_count, 0)
        or before.status = 'pending' and before.action_required_at is not null      -- asked, and did not confirm
    ) then
        perform public.tell_payer(
            look.user_id, 'payment_failed', concat_ws(':', origin, look.attempt_count), told
        );
    end if;
end
$$;

-- Writes how much of a payment went back, and whether it is disputed: `back` is {amount_refunded, disputed}, both as
-- Stripe sums them up, never as what was added. Callers: write_stripe_look.
create function public.write_stripe_money_back(look public.payments, back jsonb) returns void
language plpgsql security invoker set search_path = pg_catalog, pg_temp
as $$
declare
    refunded constant numeric := back ->> 'amount_refunded';
    before public.payments;
begin
    select * into strict before
    from public.payments as p
    where p.stripe_invoice_id = look.stripe_invoice_id or p.stripe_checkout_id = look.stripe_checkout_id
    for update;
    if before.money_back_ticket >= look.ticket then
        return;
    end if;
    update public.payments as known
    set
        amount_refunded = refunded, disputed = (back ->> 'disputed')::boolean, money_back_ticket = look.ticket,
        updated_at = public.clock_now()
    where known.id = before.id;
    if refunded > before.amount_refunded then
        perform public.tell_payer(
            before.user_id, 'refund_issued',
            concat_ws(':', coalesce(look.stripe_invoice_id, look.stripe_checkout_id), refunded),
            public.stripe_words(before.subscription_id) || jsonb_build_object(
                'amount', (refunded - before.amount_refunded)::text, 'currency', before.currency,
                'amount_refunded', refunded::text
            )
        );
    end if;
end
$$;

-- Sends the notices that came with a look: [{to, kind, key, context, only_while}], where only_while lists the statuses
-- that the subscription must have now, whichever look it shows. Callers: write_stripe_look.
create function public.send_stripe_notices(
    notices jsonb, owner uuid, subscription public.subscriptions
) returns void
language plpgsql security invoker set search_path = pg_catalog, pg_temp
as $$
declare
    known public.subscriptions;
    notice jsonb;
begin
    select * into known
    from public.subscriptions as s
    where s.stripe_subscription_id = subscription.stripe_subscription_id;
    for notice in select given.notice from jsonb_array_elements(notices) as given (notice) loop
        if notice ->> 'to' = 'operators' then
            perform public.tell_operators('Payments', notice ->> 'kind', notice ->> 'key', notice -> 'context');
        elsif notice -> 'only_while' ? known.status then
            perform public.tell_payer(
                owner, notice ->> 'kind', notice ->> 'key',
                public.stripe_words(known.id) || (notice -> 'context')
            );
        end if;
    end loop;
end
$$;

-- Writes what a look saw: {customer, subscription?, payment?, money_back?, notices?, note?}. The customer is as above;
-- subscription and payment go by the names of their tables' columns. Answers {status, changed?, note?}; the status is
--   processed       it is written;
--   skipped         there was nothing to write, and `note` says why;
--   unknown_user    nobody we know is this customer, and nothing is written.
-- Callers: apply_stripe_event, sync_stripe_subscriptions.
create function public.write_stripe_look(ticket bigint, seen jsonb) returns jsonb
language plpgsql security invoker set search_path = pg_catalog, pg_temp
as $$
declare
    owner constant uuid := public.owner_of_stripe_objects(seen);
    subscription public.subscriptions := jsonb_populate_record(null::public.subscriptions, seen -> 'subscription');
    payment public.payments := jsonb_populate_record(null::public.payments, seen -> 'payment');
    changed boolean := false;
begin
    if owner is null and (seen ? 'subscription' or seen ? 'payment') then
        return '{"status": "unknown_user"}';
    end if;
    if seen -> 'customer' ? 'email' then
        perform public.write_stripe_customer(seen -> 'customer', ticket);
    end if;
    if seen ? 'subscription' then
        subscription.user_id := owner;
        subscription.ticket := ticket;
        changed := public.write_stripe_subscription(subscription);
    end if;
    if seen ? 'payment' then
        payment.user_id := owner;
        payment.ticket := ticket;
        payment.subscription_id := (
            select s.id from public.subscriptions as s
            where s.stripe_subscription_id = seen #>> '{payment,stripe_subscription_id}'
        );
        perform public.write_stripe_payment(
            payment, coalesce((seen #>> '{payment,asked}')::boolean, false), seen #> '{payment,words}'
        );
        if seen ? 'money_back' then
            perform public.write_stripe_money_back(payment, seen -> 'money_back');
        end if;
    end if;
    if seen ? 'notices' then
        perform public.send_stripe_notices(seen -> 'notices', owner, subscription);
    end if;
    if owner is null or seen ? 'note' then
        return jsonb_build_object(
            'status', 'skipped', 'note', coalesce(seen ->> 'note', 'Nobody we know is this customer of Stripe''s.')
        );
    end if;
    return jsonb_build_object('status', 'processed', 'changed', changed);
end
$$;

revoke all on function
public.owner_of_stripe_objects(jsonb),
public.write_stripe_customer(jsonb, bigint),
public.write_stripe_subscription(public.subscriptions),
public.stripe_words(uuid),
public.write_stripe_payment(public.payments, boolean, jsonb),
public.write_stripe_money_back(public.payments, jsonb),
public.send_stripe_notices(jsonb, uuid, public.subscriptions),
public.write_stripe_look(bigint, jsonb)
from public, anon, authenticated, service_role, pulse_worker;
