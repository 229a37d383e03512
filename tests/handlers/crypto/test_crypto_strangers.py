"""Hashes are public: whoever names somebody else's, or the same one twice, gets nothing and spoils nothing."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from devstack.chain.anvil import COIN, Anvil, Token, new_address
from handlers.clients.chains.client import Chains
from handlers.clients.database import Database
from listener import Reject
from tests.handlers.conftest import Json, Owner
from tests.handlers.crypto.conftest import Shop, Verify, attempt_at

TREASURY = new_address()


class Payer:
    """Somebody with a key of their own, some coins and some tokens."""

    def __init__(self) -> None:
        self._account: Any = Account.create()
        self.address = str(self._account.address).lower()

    def sign(self, request: Json) -> str:
        message = encode_defunct(text=request["sign_message"])
        return str(self._account.sign_message(message).signature.hex())

    async def endow(self, chain: Anvil, usdt: Token) -> None:
        await chain.rpc("anvil_setBalance", self.address, hex(COIN))
        await chain.rpc("anvil_impersonateAccount", self.address)
        await usdt.pay(chain.accounts[1], self.address, 1000)


@pytest.fixture
async def alice(chain: Anvil, usdt: Token) -> Payer:
    payer = Payer()
    await payer.endow(chain, usdt)
    return payer


@pytest.fixture
async def asset(shop: Shop, chain: Anvil, usdt: Token) -> str:
    """Everybody pays to one address, and signs."""
    return await shop.asset(chain.name, usdt, required_confirmations=1, treasury_address=TREASURY)


async def test_whoever_signed_the_request_has_paid_it(
    shop: Shop, verify: Verify, asset: str, alice: Payer, usdt: Token, user_id: UUID
) -> None:
    request = await shop.request(asset, user_id)
    assert request["pay_to_address"] == TREASURY
    assert request["sign_message"] == f"I pay for the request {request['id']} from this address."
    paid = await usdt.pay(alice.address, TREASURY, 29)
    assert (await verify(request, paid, alice.sign(request)))["status"] == "confirmed"
    assert (await verify(request, paid))[
        "transaction"
    ] == "confirmed"  # the later look remembers the signature


@pytest.mark.parametrize(
    "way", ["unsigned", "own signature", "her signature", "nonsense", "an old one of hers"]
)
async def test_somebody_elses_payment_buys_nothing_and_is_not_taken_from_her(
    shop: Shop, verify: Verify, asset: str, alice: Payer, usdt: Token, user_id: UUID, way: str
) -> None:
    hers, thief = await shop.request(asset, user_id), uuid4()
    stolen = await shop.request(asset, thief)
    paid = await usdt.pay(alice.address, TREASURY, 29)
    signature = {
        "unsigned": None,
        "own signature": Payer().sign(stolen),
        "her signature": alice.sign(hers),
        "nonsense": "0x" + "1b" * 65,
        "an old one of hers": alice.sign({"sign_message": "I agree to the terms."}),
    }[way]
    ended = await verify(stolen, paid, signature)
    expected = "not_signed" if signature is None else "wrong_sender"
    assert (ended["transaction"], ended["reason"], ended["status"]) == ("rejected", expected, "awaiting")
    assert await shop.status(thief) is None

    assert (await verify(hers, paid, alice.sign(hers)))["status"] == "confirmed"
    assert (await verify(stolen, paid, signature))["reason"] == expected
    assert await shop.status(thief) is None


async def test_a_deposit_address_takes_no_claim_on_what_went_to_another(
    shop: Shop, verify: Verify, chain: Anvil, usdt: Token, user_id: UUID
) -> None:
    asset = await shop.asset(chain.name, usdt, required_confirmations=1)
    hers, stolen = await shop.request(asset, user_id), await shop.request(asset, uuid4())
    paid = await usdt.pay(chain.accounts[1], hers["pay_to_address"], 29)
    assert (await verify(stolen, paid))["reason"] == "no_transfer_to_us"
    assert (await verify(hers, paid))["status"] == "confirmed"


async def test_two_users_who_race_for_one_hash_do_not_both_get_it(
    shop: Shop, verify: Verify, asset: str, alice: Payer, usdt: Token, user_id: UUID, owner: Owner
) -> None:
    thief = Payer()
    hers, stolen = await shop.request(asset, user_id), await shop.request(asset, uuid4())
    paid = await usdt.pay(alice.address, TREASURY, 29)
    ended = await asyncio.gather(
        *(verify(stolen, paid, thief.sign(stolen)) for _ in range(3)),
        verify(hers, paid, alice.sign(hers)),
        *(verify(stolen, paid.upper(), alice.sign(hers)) for _ in range(3)),
    )
    assert ended[3]["status"] == "confirmed"
    assert await owner.fetchval("select array_agg(user_id) from payments") == [user_id]


async def test_one_payer_does_not_pay_two_requests_with_one_transaction(
    shop: Shop, verify: Verify, asset: str, alice: Payer, usdt: Token, user_id: UUID, owner: Owner
) -> None:
    """Both requests are hers and signed, so only the transfer itself can be the bar."""
    requests = [await shop.request(asset, user_id, interval) for interval in ("month", "year")]
    paid = await usdt.pay(alice.address, TREASURY, 290)
    ended = await asyncio.gather(*(verify(one, paid, alice.sign(one)) for one in requests))
    assert sorted(one["transaction"] for one in ended) == ["confirmed", "rejected"]
    assert {one["reason"] for one in ended} == {None, "paid_for_another_request"}
    assert await owner.fetchval("select count(*) from payments") == 1


async def test_a_hash_in_other_spellings_is_the_same_hash(
    shop: Shop, verify: Verify, asset: str, alice: Payer, usdt: Token, user_id: UUID, owner: Owner
) -> None:
    first = await shop.request(asset, user_id)
    paid = await usdt.pay(alice.address, TREASURY, 29)
    assert (await verify(first, paid, alice.sign(first)))["status"] == "confirmed"
    second = await shop.request(asset, user_id)
    assert second["id"] != first["id"]
    for spelling in ("0x" + paid[2:].upper(), paid.upper(), paid[2:], paid[2:].upper(), paid):
        ended = await verify(second, spelling, alice.sign(second))
        assert (ended["transaction"], ended["reason"]) == ("rejected", "paid_for_another_request")
    assert await owner.fetchval("select count(*) from payments") == 1
    hashes = await owner.fetchval("select array_agg(distinct tx_hash) from crypto_transactions")
    assert hashes == [paid]


async def test_the_earlier_sketchs_payload_finds_the_open_request_and_its_amount_is_ignored(
    shop: Shop, db: Database, chains: Chains, chain: Anvil, usdt: Token, user_id: UUID, owner: Owner
) -> None:
    """Once it activated the subscription on any hash and any amount. Now it buys what the chain shows, no more."""
    asset = await shop.asset(chain.name, usdt, required_confirmations=1)
    request = await shop.request(asset, user_id)
    paid = await usdt.pay(chain.accounts[1], request["pay_to_address"], 1)
    data = {"userId": str(user_id), "tierId": str(shop.tier), "txHash": paid, "amount": 1_000_000}
    assert (await attempt_at(data, db, chains))["status"] == "underpaid"
    assert await shop.status(user_id) is None
    rest = await usdt.pay(chain.accounts[1], request["pay_to_address"], 28)
    assert (await attempt_at(data | {"txHash": rest}, db, chains))["status"] == "confirmed"
    assert (await attempt_at(data | {"txHash": paid.upper()}, db, chains))["status"] == "confirmed"
    assert await shop.status(user_id) == "active"
    assert await owner.fetchval("select count(*) from payments") == 1


async def test_the_same_job_many_times_at_once_pays_once(
    shop: Shop, verify: Verify, chain: Anvil, usdt: Token, user_id: UUID, owner: Owner
) -> None:
    request = await shop.request(await shop.asset(chain.name, usdt, required_confirmations=1), user_id)
    paid = await usdt.pay(chain.accounts[1], request["pay_to_address"], 29)
    await asyncio.gather(*(verify(request, paid) for _ in range(8)))
    assert (await verify(request, paid))["status"] == "confirmed"
    assert await owner.fetchval("select count(*) from payments") == 1
    assert (await shop.notices()).count("payment_received") == 1
    months = await owner.fetchval(
        "select extract(epoch from current_period_end - started_at) / 86400 from subscriptions"
    )
    assert 28 <= months <= 31


async def test_a_user_who_may_insert_jobs_names_no_hash_for_somebody_else(
    shop: Shop, db: Database, chains: Chains, chain: Anvil, usdt: Token, user_id: UUID
) -> None:
    """A request takes twenty hashes; who could name them for others would lock them out."""
    request = await shop.request(await shop.asset(chain.name, usdt, required_confirmations=1), user_id)
    data = {"cryptoPaymentId": request["id"], "txHash": "0x" + "ab" * 32}
    with pytest.raises(Reject, match="no such request"):
        await attempt_at(data, db, chains, asked_by=uuid4())
    assert await shop.owner.fetchval("select count(*) from crypto_transactions") == 0
    for number in range(20):
        named = data | {"txHash": f"0x{number:064x}"}
        assert (await attempt_at(named, db, chains, asked_by=user_id))["again"]
    with pytest.raises(Reject, match="Too many hashes"):
        await attempt_at(data, db, chains, asked_by=user_id)


async def test_what_is_no_hash_or_no_request_is_a_dead_letter_with_a_sentence(
    shop: Shop, db: Database, chains: Chains, chain: Anvil, usdt: Token, user_id: UUID
) -> None:
    request = await shop.request(await shop.asset(chain.name, usdt), user_id)
    for said in ("0x12", "0x" + "zz" * 32, "", "ab" * 33):
        with pytest.raises(Reject, match="no hash of a transaction"):
            await attempt_at({"cryptoPaymentId": request["id"], "txHash": said}, db, chains)
    nobody = {"userId": str(uuid4()), "tierId": str(shop.tier), "txHash": "0x" + "ab" * 32, "amount": "29"}
    with pytest.raises(Reject, match="opened before anyone pays"):
        await attempt_at(nobody, db, chains)
