"""The sweep finds the looks that were lost, of however many connections."""

from tests.handlers.broker.truth.conftest import Desk


async def test_a_sweep_asks_for_looks_that_were_lost_and_for_no_others(desk: Desk) -> None:
    await desk.order()
    waiting = await desk.ask("monitor_orders", {})
    assert waiting == {"connections": 1, "enqueued": 0}
    await desk.owner.execute("delete from jobs where type = 'monitor_orders'")
    assert await desk.ask("monitor_orders", {}) == {"connections": 1, "enqueued": 1}
    assert len(await desk.jobs()) == 1


async def test_a_sweep_goes_on_page_by_page(desk: Desk) -> None:
    await desk.owner.execute(
        """
        with c as (
            insert into broker_connections (user_id, broker)
            select gen_random_uuid(), 'test' from generate_series(1, 501) returning id, user_id
        )
        insert into orders (user_id, broker_connection_id, client_order_id, broker_order_id, symbol, side,
            order_type, quantity, status, next_check_at)
        select user_id, id, 'a', 'a', 'AAPL', 'buy', 'market', 1, 'accepted', clock_now() from c
        """
    )
    assert await desk.ask("monitor_orders", {}) == {"connections": 501, "enqueued": 501}
