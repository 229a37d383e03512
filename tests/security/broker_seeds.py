"""Rows of the broker family for the matrix: in each table one for the user MINE, or for everybody, and another."""

from typing import Final

from tests.security.matrix import MINE

BROKER_SEEDS: Final = f"""
    insert into broker_connections (id, user_id, broker)
    select u::uuid, u::uuid, 'paper' from unnest(array['{MINE}', gen_random_uuid()::text]) as u;
    insert into trading_halts (user_id, reason) values ('{MINE}', 'a'), (gen_random_uuid(), 'a');
    insert into orders (id, user_id, broker_connection_id, client_order_id, symbol, side, order_type, quantity)
    select id, user_id, id, id::text, 'AAPL', 'buy', 'market', 1 from broker_connections;
    insert into order_fills (broker_connection_id, broker_fill_id, order_id, quantity, price, filled_at)
    select id, 'f', id, 1, 1, now() from broker_connections;
    insert into positions (broker_connection_id, symbol, user_id, quantity, sync_run_id, as_of)
    select id, 'AAPL', user_id, 1, gen_random_uuid(), now() from broker_connections;
    insert into broker_sync_runs (id, broker_connection_id) select id, id from broker_connections;
    insert into broker_callbacks (broker_connection_id, event_id, event_type, received_at)
    select id, 'e', 'order_filled', now() from broker_connections;
    insert into broker_looks (broker_connection_id) select id from broker_connections;
    insert into paper_accounts (id, key_id, secret_hash, opening_cash, cash)
    select id, id::text, '', 1, 1 from broker_connections;
    insert into paper_orders (
        id, account_id, number, client_order_id, dedupe, symbol, side, order_type, time_in_force, quantity,
        reserve_price, triggered, status, filled_quantity, filled_value, fees, fills, submitted_at, updated_at
    )
    select id, id, 1, 'c', 'none', 'AAPL', 'buy', 'market', 'day', 1, 1, true, 'filled', 1, 1, 0, 1, now(), now()
    from broker_connections;
    insert into paper_fills (
        order_id, number, account_id, symbol, side, quantity, price, fee, filled_quantity, left_quantity, filled_at
    )
    select id, 1, id, 'AAPL', 'buy', 1, 1, 0, 1, 0, now() from broker_connections;
    insert into paper_positions (account_id, symbol, quantity, cost, realized)
    select id, 'AAPL', 1, 1, 0 from broker_connections;
    insert into paper_quotes (symbol, bid, ask) values ('AAPL', 1, 2), ('MSFT', 1, 2);
    insert into paper_faults (account_id, kind) select id, 'hang' from broker_connections;
"""
