"""Providers that are wrong, dead, slow, lying or of two minds: a payment is never refused for what they do."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from devstack.chain.anvil import Anvil, Token, anvil_process
from handlers.clients.chains import evm
from handlers.clients.chains.chain import Misconfigured, Unavailable
from handlers.clients.chains.client import Chains
from handlers.payment.crypto_verification import CryptoVerification, crypto_verification
from listener import ConfigError, Snooze
from tests.doubles.meddler import Meddler
from tests.handlers.conftest import Json, a_job
from tests.handlers.crypto.conftest import Shop
from tests.skips import ANVIL

DEAD = "http://127.0.0.1:9"


class Cashier:
    """Verifies one payment of 29 USDT again and again, by the endpoints of the moment."""

    def __init__(self, shop: Shop, chain: Anvil, request: Json, paid: str) -> None:
        self.shop, self.chain, self.request, self.paid = shop, chain, request, paid

    async def verify(self, *endpoints: str, chain: str | None = None) -> dict[str, object] | Snooze:
        settings = {"CRYPTO_ENDPOINTS": json.dumps({chain or self.chain.name: endpoints})}
        payload = CryptoVerification(crypto_payment_id=UUID(self.request["id"]), tx_hash=self.paid)
        async with Chains.open(settings) as chains:
            return await crypto_verification(payload, job=a_job({}), chains=chains, db=self.shop.db)

    async def confirms(self, *endpoints: str) -> None:
        ended = await self.verify(*endpoints)
        assert isinstance(ended, dict)
        assert ended["status"] == "confirmed"

    async def is_not_refused(self) -> None:
        """And all goes well as soon as the endpoint is the right one."""
        statuses = await self.shop.owner.fetchval("select array_agg(status) from crypto_transactions")
        assert statuses == ["submitted"]
        await self.confirms(self.chain.url, self.chain.url)


@pytest.fixture
async def cashier(shop: Shop, chain: Anvil, usdt: Token, user_id: UUID) -> Cashier:
    return await cashier_for(shop, chain, usdt, user_id)


async def cashier_for(shop: Shop, chain: Anvil, usdt: Token, user: UUID, **columns: Any) -> Cashier:
    asset = await shop.asset(chain.name, usdt, **{"required_confirmations": 1} | columns)
    request = await shop.request(asset, user)
    return Cashier(shop, chain, request, await usdt.pay(chain.accounts[1], request["pay_to_address"], 29))


@pytest.fixture
async def meddler(chain: Anvil) -> AsyncIterator[Meddler]:
    async with Meddler(chain.url) as running:
        yield running


async def test_an_endpoint_of_another_chain_is_our_mistake_and_names_its_mend(cashier: Cashier) -> None:
    with anvil_process(ANVIL.path(), chain_id=5) as other, pytest.raises(Misconfigured) as refused:
        await cashier.verify(other)
    assert "Endpoint 1 of evm:31337 answers for the chain 5. Mend CRYPTO_ENDPOINTS" in str(refused.value)
    await cashier.is_not_refused()


async def test_no_endpoint_is_our_mistake(cashier: Cashier) -> None:
    with pytest.raises(Misconfigured, match="has no endpoint of evm:31337"):
        await cashier.verify(cashier.chain.url, chain="evm:1")
    await cashier.is_not_refused()


async def test_decimals_that_the_token_does_not_have_are_our_mistake(
    shop: Shop, chain: Anvil, user_id: UUID
) -> None:
    """As a token has 6 on one chain and 18 on another: the amount would be wrong by powers of ten."""
    token = await chain.token("USDT", 18)
    cashier = await cashier_for(shop, chain, token, user_id, decimals=6)
    with pytest.raises(Misconfigured, match="has 18 decimals on this chain, and crypto_assets says 6"):
        await cashier.verify(chain.url)
    assert await shop.owner.fetchval("select status from crypto_transactions") == "submitted"


async def test_a_dead_endpoint_is_retried_and_the_next_one_asked(cashier: Cashier) -> None:
    with pytest.raises(Unavailable, match="Endpoint 1 of evm:31337 did not answer"):
        await cashier.verify(DEAD)
    await cashier.confirms(DEAD, cashier.chain.url)


async def test_an_endpoint_that_refuses_is_retried_and_its_key_is_told_nowhere(
    cashier: Cashier, meddler: Meddler, caplog: pytest.LogCaptureFixture
) -> None:
    for status in (401, 429, 500, 503):
        meddler.status = status
        with caplog.at_level(logging.INFO), pytest.raises(Unavailable) as failed:
            await cashier.verify(meddler.url)
        assert Meddler.KEY not in str(failed.value)
        assert failed.value.__suppress_context__
    assert Meddler.KEY not in caplog.text
    await cashier.is_not_refused()


async def test_an_endpoint_that_hangs_is_left_after_its_time(
    cashier: Cashier, meddler: Meddler, monkeypatch: pytest.MonkeyPatch
) -> None:
    meddler.hangs = True
    with monkeypatch.context() as patched:
        patched.setattr(evm, "TIMEOUT_SECONDS", 0.5)
        with pytest.raises(Unavailable, match="Endpoint 1 of evm:31337 did not answer as it should"):
            await cashier.verify(meddler.url)
    meddler.hangs = False
    await cashier.is_not_refused()


async def test_an_answer_that_makes_no_sense_is_no_verdict(cashier: Cashier, meddler: Meddler) -> None:
    nonsense: list[tuple[str, Any]] = [
        ("eth_getTransactionReceipt", {"status": "0x1"}),
        ("eth_getTransactionReceipt", "no"),
        ("eth_getTransactionByHash", []),
        ("eth_getBlockByNumber", {"number": "x"}),
        ("eth_chainId", "main"),
        ("eth_call", "0x"),
    ]
    for method, answer in nonsense:

        def change(asked: str, result: Any, method: str = method, answer: Any = answer) -> Any:
            return answer if asked == method else result

        meddler.change = change
        with pytest.raises((Unavailable, Misconfigured)):
            await cashier.verify(meddler.url)
    await cashier.is_not_refused()


async def test_a_receipt_of_a_block_that_was_replaced_does_not_confirm(
    cashier: Cashier, meddler: Meddler
) -> None:
    """The receipt says one block, the chain has another at that height: the answers are from before and after."""

    def forked(method: str, result: Any) -> Any:
        return result | {"blockHash": "0x" + "fe" * 32} if method == "eth_getTransactionReceipt" else result

    meddler.change = forked
    ended = await cashier.verify(meddler.url)
    assert isinstance(ended, Snooze)
    assert ended.reason == "The transaction is pending."
    await cashier.confirms(cashier.chain.url)


async def test_blocks_of_a_proof_of_authority_chain_are_read(cashier: Cashier, meddler: Meddler) -> None:
    """Their extraData is longer than the rules of Ethereum allow."""

    def sealed(method: str, result: Any) -> Any:
        return result | {"extraData": "0x" + "00" * 97} if method == "eth_getBlockByNumber" else result

    meddler.change = sealed
    await cashier.confirms(meddler.url)


async def test_a_large_amount_needs_two_providers(
    shop: Shop, chain: Anvil, usdt: Token, user_id: UUID
) -> None:
    cashier = await cashier_for(shop, chain, usdt, user_id, two_providers_above=28_000_000)
    with pytest.raises(Misconfigured, match="has one of evm:31337"):
        await cashier.verify(chain.url)
    with pytest.raises(Unavailable):
        await cashier.verify(chain.url, DEAD)
    await cashier.is_not_refused()


async def test_the_amount_at_the_threshold_does_not(
    shop: Shop, chain: Anvil, usdt: Token, user_id: UUID
) -> None:
    cashier = await cashier_for(shop, chain, usdt, user_id, two_providers_above=29_000_000)
    await cashier.confirms(chain.url)


@pytest.mark.parametrize("lie", ["a transaction of its own making", "a larger amount"])
async def test_of_two_providers_that_disagree_none_is_believed(
    shop: Shop, chain: Anvil, usdt: Token, user_id: UUID, meddler: Meddler, lie: str
) -> None:
    cashier = await cashier_for(shop, chain, usdt, user_id, two_providers_above=0)

    def lying(method: str, result: Any) -> Any:
        if lie == "a transaction of its own making":
            return None if method == "eth_getTransactionByHash" else result
        if method == "eth_getTransactionReceipt":
            return result | {"logs": [one | {"data": "0x" + "0" * 63 + "1"} for one in result["logs"]]}
        return result

    meddler.change = lying
    for look in range(1, 7):
        ended = await cashier.verify(meddler.url, chain.url)
        assert isinstance(ended, Snooze)
        assert await shop.alerts() == (["crypto_providers_disagree"] if look >= 5 else [])
    await cashier.is_not_refused()


async def test_the_shallower_of_two_views_counts(
    shop: Shop, chain: Anvil, usdt: Token, user_id: UUID, meddler: Meddler
) -> None:
    cashier = await cashier_for(shop, chain, usdt, user_id, two_providers_above=0, required_confirmations=4)
    behind = await chain.rpc("eth_blockNumber")
    await chain.mine(3)
    meddler.change = lambda method, result: behind if method == "eth_blockNumber" else result
    for order in ((meddler.url, chain.url), (chain.url, meddler.url)):
        assert isinstance(await cashier.verify(*order), Snooze)
    await cashier.confirms(chain.url, chain.url)


async def test_a_client_that_is_closed_leaves_no_thread_behind(cashier: Cashier) -> None:
    before = set(threading.enumerate())
    await cashier.confirms(cashier.chain.url)
    left = {one.name for one in set(threading.enumerate()) - before}
    assert not {name for name in left if not name.startswith("asyncio")}  # those end with the loop


def test_without_endpoints_nothing_heavy_is_loaded() -> None:
    program = (
        "import asyncio, sys\n"
        "from handlers.clients.chains.client import Chains\n"
        "async def main():\n"
        "    async with Chains.open({}): print(*{'web3', 'eth_account'} & set(sys.modules))\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_library_does_not_let_deep_json_of_a_stranger_end_the_process() -> None:
    program = (
        "import asyncio, json\n"
        "from handlers.clients.chains.client import Chains\n"
        "async def main():\n"
        f"    async with Chains.open({{'CRYPTO_ENDPOINTS': json.dumps({{'evm:1': [{DEAD!r}]}})}}):\n"
        "        try: json.loads('[' * 100_000)\n"
        "        except RecursionError: print('refused')\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["refused"]), done.stderr[-500:]


async def test_a_worker_that_lacks_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "web3", None)
    with pytest.raises(ConfigError, match=r"pip install 'pulseengine-workers\[crypto\]'"):
        async with Chains.open({"CRYPTO_ENDPOINTS": json.dumps({"evm:1": [DEAD]})}):
            pass


@pytest.mark.parametrize(
    "said", ["x", "[]", '{"evm:1": "x"}', '{"solana:1": []}', '{"evm:main": []}', '{"bitcoin:1": []}']
)
async def test_endpoints_that_are_not_as_they_should_be_stop_the_process_with_a_sentence(said: str) -> None:
    with pytest.raises(ConfigError, match=r"CRYPTO_ENDPOINTS"):
        async with Chains.open({"CRYPTO_ENDPOINTS": said}):
            pass
