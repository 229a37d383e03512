"""The demo's trader: an order at the paper broker whose answer gets lost on the way, and that is placed once."""

from typing import cast
from uuid import uuid4

from demo.stage import Stage

_SYMBOL = "AAPL"


async def trade(stage: Stage) -> None:
    """From the insert to filled."""
    stage.say(
        "\n6. Somebody buys 5 AAPL. The broker takes the order, and its answer is lost on the way to us."
    )
    account = await _account(stage)
    await _lose_an_answer(stage, account)
    order_id, job = await _place(stage, account)
    await stage.until("the order is looked for", lambda: stage.has_run(job, 1))
    stage.say(f"   select status from orders where id = …  →  {(await _order(stage, order_id))['status']}")
    await stage.until("its way is known", lambda: stage.is_done(job))
    order = await _order(stage, order_id)
    stage.say(
        f"   select status, filled_quantity, filled_avg_price, submission from orders where id = …  →  "
        f"{order['status']}, {order['filled_quantity']} at {order['filled_avg_price']}, sent {order['submission']} time"
    )
    stage.promise("the order is filled", order["status"] == "filled")
    stage.promise("it was sent once", order["submission"] == 1)
    at_the_broker = await stage.owner.fetch(
        "select client_order_id from paper_orders where account_id = $1", account["id"]
    )
    stage.say(f"   select client_order_id from paper_orders  →  {[row[0] for row in at_the_broker]}")
    stage.promise(
        "the broker has one order, by our id",
        [row[0] for row in at_the_broker] == [order["client_order_id"]],
    )


async def _account(stage: Stage) -> dict[str, object]:
    """An account at the paper broker, whose market is always open, and a price for what is bought."""
    connection = {
        "user_id": str(uuid4()),
        "broker": "paper",
        "settings": {"cash": "10000", "rules": {"market": "always"}},
    }
    made = await stage.database.table("broker_connections").insert(connection).execute()
    quote = {"symbol": _SYMBOL, "bid": "199.90", "ask": "200.10"}
    await stage.database.table("paper_quotes").insert(quote).execute()
    return cast("list[dict[str, object]]", made.data)[0]


async def _lose_an_answer(stage: Stage, account: dict[str, object]) -> None:
    opened = {"id": account["id"], "settings": {"market": "always"}, "cash": "10000"}
    await stage.database.rpc("open_paper_account", {"opened": opened}).execute()
    fault = {"account_id": account["id"], "kind": "lost_answer", "operation": "submit", "remaining": 1}
    await stage.database.table("paper_faults").insert(fault).execute()


async def _place(stage: Stage, account: dict[str, object]) -> tuple[str, int]:
    """As the app's server does: the order and its job in one transaction."""
    stage.expect_now()
    wish = {
        "user_id": account["user_id"],
        "broker_connection_id": account["id"],
        "symbol": _SYMBOL,
        "side": "buy",
        "order_type": "market",
        "quantity": "5",
    }
    placed = cast(
        "dict[str, object]", (await stage.database.rpc("place_order", {"placed": wish}).execute()).data
    )
    job = cast("int", placed["job_id"])
    stage.is_inserted(job, f"execute_order, of order {str(placed['order_id'])[:8]}…: buy 5 {_SYMBOL}")
    return str(placed["order_id"]), job


async def _order(stage: Stage, order_id: str) -> dict[str, object]:
    found = await stage.database.table("orders").select("*").eq("id", order_id).execute()
    return cast("list[dict[str, object]]", found.data)[0]
