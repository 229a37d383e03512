"""The paper broker over its database: what a client sees of an order, and what two processes make of one account."""

from decimal import Decimal

from paper import Request
from tests.paper.conftest import Notes, Opens


def market(client_order_id: str, quantity: str = "1", side: str = "buy", symbol: str = "AAPL") -> Request:
    return Request(client_order_id, symbol, side, "market", "day", Decimal(quantity))  # type: ignore[arg-type]  # a word


async def test_a_market_order_is_filled_at_the_ask_and_found_again(open_account: Opens, quote: Notes) -> None:
    broker = await open_account()
    await quote("AAPL", "99.5", "100")
    placed = await broker.submit(market("one", "3"))
    assert (placed.status, placed.filled_quantity, placed.filled_avg_price) == ("filled", 3, Decimal(100))
    assert await broker.find("one") == placed
    assert await broker.get(placed.id) == placed
    [position] = await broker.positions()
    assert (position.quantity, position.avg_entry_price, position.current_price) == (3, 100, Decimal("99.75"))
    [fill] = await broker.fills(placed.submitted_at)
    assert (fill.id, fill.quantity, fill.price) == (f"{placed.id}-1", 3, 100)
    assert (await broker.account()).cash == 9700
