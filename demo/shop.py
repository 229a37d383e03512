"""Something to buy on a local chain, and the one who buys it: what the demo's payment in crypto stands on."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

from supabase import AsyncClient

from demo.clock import Connection
from devstack.chain.anvil import Anvil, Token, anvil_process, find_anvil, new_address

CONFIRMATIONS = 3


@contextmanager
def local_chain() -> Iterator[str | None]:
    """The URL of a chain that runs as long as the block lasts; None where its program is not installed."""
    program = find_anvil()
    if program is None:
        yield None
        return
    with anvil_process(program) as url:
        yield url


def settings(chain_url: str | None) -> Mapping[str, str]:
    """What the worker is told of the chain."""
    return {} if chain_url is None else {"CRYPTO_ENDPOINTS": json.dumps({"evm:31337": [chain_url]})}


class Shop:
    """Sells one tier for a token that was made for it."""

    def __init__(self, chain: Anvil, token: Token, tier: str) -> None:
        self.chain = chain
        self._token = token
        self._tier = tier

    @classmethod
    async def opened(cls, chain: Anvil, owner: Connection) -> "Shop":
        """Puts the tier, the token and a deposit address where their owner keeps them."""
        token = await chain.token("USDT", 6)
        tier = await owner.fetchval(
            "insert into subscription_tiers (slug, name, price_monthly) values ('pro', 'Pro', 29) returning id"
        )
        await owner.execute(
            "insert into crypto_assets (id, chain, token_contract, symbol, decimals, required_confirmations)"
            " values ('usdt', $1, $2, 'USDT', 6, $3)",
            chain.name,
            token.address,
            CONFIRMATIONS,
        )
        await owner.execute(
            "insert into crypto_addresses (network, address) values ('evm', $1)", new_address()
        )
        return cls(chain, token, str(tier))

    async def request(self, database: AsyncClient, user: str) -> Mapping[str, str]:
        """As the app's server asks for it, before anyone pays."""
        words = {"user_id": user, "tier_id": self._tier, "billing_interval": "month", "asset_id": "usdt"}
        return cast("Mapping[str, str]", (await database.rpc("open_crypto_request", words).execute()).data)

    async def pay(self, request: Mapping[str, str]) -> str:
        """The user's wallet sends what was asked for; the hash of its transaction, which is in the next block."""
        return await self._token.pay(
            self.chain.accounts[1], request["pay_to_address"], float(request["amount"])
        )
