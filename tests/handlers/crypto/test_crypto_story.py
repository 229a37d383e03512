"""A user opens a request, pays on a real chain, names the hash, and has what was paid for."""

from decimal import Decimal
from uuid import UUID

from devstack.chain.anvil import COIN, Anvil, Token
from tests.handlers.conftest import Owner
from tests.handlers.crypto.conftest import Shop, Verify


async def test_a_token_payment_confirms_and_makes_the_subscription_active(
    shop: Shop, verify: Verify, chain: Anvil, usdt: Token, user_id: UUID, owner: Owner
) -> None:
    request = await shop.request(await shop.asset(chain.name, usdt), user_id)
    assert (request["amount"], request["amount_units"], request["status"]) == ("29", "29000000", "awaiting")
    paid = await usdt.pay(chain.accounts[1], request["pay_to_address"], 29)

    first = await verify(request, paid)
    assert first == {"again": True, "reason": "The transaction is confirming.", "delay": 15}
    assert (await shop.row(request))["status"] == "confirming"
    assert await shop.status(user_id) is None

    await chain.mine(2)
    ended = await verify(request, paid)
    assert ended == {"status": "confirmed", "transaction": "confirmed", "reason": None, "again": False}
    assert await shop.status(user_id) == "active"
    payment = await owner.fetchrow("select * from payments")
    assert payment is not None
    assert (payment["provider"], payment["status"]) == ("crypto", "succeeded")
    assert (payment["amount"], payment["currency"]) == (Decimal(29), "usd")
    assert payment["crypto_payment_id"] == UUID(request["id"])
    assert payment["subscription_id"] == (await shop.row(request))["subscription_id"]
    assert payment["period_end"] > payment["period_start"] == payment["paid_at"]
    assert await shop.notices() == ["subscription_activated", "payment_received"]


async def test_a_payment_in_the_chains_own_coin_confirms(
    shop: Shop, verify: Verify, chain: Anvil, user_id: UUID
) -> None:
    asset = await shop.asset(chain.name, unit_price=2900, required_confirmations=1)
    request = await shop.request(asset, user_id)
    assert (request["symbol"], request["amount"]) == ("ETH", "0.01")
    paid = await chain.pay(chain.accounts[1], request["pay_to_address"], COIN // 100)
    assert (await verify(request, paid))["status"] == "confirmed"
    assert await shop.status(user_id) == "active"
