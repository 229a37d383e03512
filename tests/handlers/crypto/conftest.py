"""What crypto tests stand on: a local chain with a token, what may be paid in, and one attempt at a job."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

import pytest

from devstack.chain.anvil import Anvil, Token, anvil_process, new_address
from devstack.gateway import Gateway
from devstack.keys import LOCAL
from handlers import resources
from handlers.clients.chains import evm
from handlers.clients.chains.client import Chains
from handlers.clients.database import Database, call
from handlers.payment.crypto_verification import CryptoVerification, crypto_verification
from listener import Snooze
from listener.resources import opened, resources_in
from tests.handlers.conftest import Json, Owner, a_job
from tests.skips import ANVIL

evm.load()  # before a test imports what would raise the limit of recursion for the whole run
Verify = Callable[..., Awaitable[Json]]
PRICE = 29
LATER = timedelta(hours=25)
"""When a request that was opened now is over."""


@pytest.fixture
def environment(gateway: Gateway) -> dict[str, str]:
    """The settings of a worker that has no business with Stripe."""
    return {"SUPABASE_URL": gateway.url, "SUPABASE_SERVICE_ROLE_KEY": LOCAL.service_role}


@pytest.fixture(scope="module")
def chain_url() -> Iterator[str]:
    """One chain for all tests of a file; each has addresses of its own."""
    with anvil_process(ANVIL.path()) as url:
        yield url


@pytest.fixture
async def chain(chain_url: str) -> AsyncIterator[Anvil]:
    async with Anvil.open(chain_url) as running:
        yield running


@pytest.fixture
async def usdt(chain: Anvil) -> Token:
    return await chain.token()


@pytest.fixture
def endpoints(chain: Anvil) -> dict[str, list[str]]:
    """What CRYPTO_ENDPOINTS says."""
    return {chain.name: [chain.url]}


@pytest.fixture
async def chains(environment: dict[str, str], endpoints: dict[str, list[str]]) -> AsyncIterator[Chains]:
    """The chains as the worker's resource gives them."""
    settings = environment | {"CRYPTO_ENDPOINTS": json.dumps(endpoints)}
    async with opened([resources_in(resources)[Chains]], settings) as found:
        client = found[Chains]
        assert isinstance(client, Chains)
        yield client


@dataclass
class Shop:
    """What may be bought and paid in, and one who opens requests for it."""

    db: Database
    owner: Owner
    tier: UUID

    async def asset(self, chain: str, token: Token | None = None, **columns: object) -> str:
        """One more asset; its id."""
        values: dict[str, object] = {
            "id": f"asset-{await self.owner.fetchval('select count(*) from crypto_assets')}",
            "chain": chain,
            "token_contract": token and token.address,
            "symbol": "USDT" if token else "ETH",
            "decimals": token.decimals if token else 18,
            "required_confirmations": 3,
            **columns,
        }
        places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
        words = f"insert into crypto_assets ({', '.join(values)}) values ({places}) returning id"
        return str(await self.owner.fetchval(words, *values.values()))

    async def addresses(self, *addresses: str, network: str = "evm") -> None:
        for address in addresses:
            await self.owner.execute(
                "insert into crypto_addresses (network, address) values ($1, $2)", network, address
            )

    async def request(self, asset: str, user: UUID, interval: str = "month") -> Json:
        """Opens a request, with a deposit address that is free if need be."""
        if await self.owner.fetchval(
            "select treasury_address is null and chain like 'evm:%' from crypto_assets where id = $1", asset
        ):
            await self.addresses(new_address())
        return await self.open(asset, user, interval)

    async def open(self, asset: str, user: UUID, interval: str = "month") -> Json:
        """Opens a request as the app's server does."""
        words = {"user_id": user, "tier_id": self.tier, "billing_interval": interval, "asset_id": asset}
        return dict(await call(self.db, "open_crypto_request", **words))

    async def row(self, request: Json) -> Json:
        """The request as it stands."""
        found = await self.owner.fetchrow("select * from crypto_payments where id = $1", UUID(request["id"]))
        assert found is not None
        return dict(found)

    async def status(self, user: UUID) -> str | None:
        """As the brief's own test asks."""
        found = await self.owner.fetchval("select status from user_subscriptions where user_id = $1", user)
        return None if found is None else str(found)

    async def notices(self) -> list[str]:
        """What users were told."""
        rows = await self.owner.fetch(
            "select data ->> 'type' from jobs where type = 'payment_notification' order by id"
        )
        return [row[0] for row in rows]

    async def alerts(self) -> list[str]:
        """What operators were told, beside that few addresses are left, as in most tests."""
        rows = await self.owner.fetch(
            "select data ->> 'alert_type' from jobs where data ->> 'audience' = 'operators'"
            " and data ->> 'alert_type' <> 'crypto_addresses_low' order by id"
        )
        return [row[0] for row in rows]


@pytest.fixture
async def shop(db: Database, owner: Owner) -> Shop:
    tier = await owner.fetchval(
        "insert into subscription_tiers (slug, name, price_monthly, price_yearly)"
        " values ('pro', 'Pro', $1, 290) returning id",
        PRICE,
    )
    return Shop(db, owner, tier)


@pytest.fixture
def verify(db: Database, chains: Chains) -> Verify:
    """One attempt at a job; what it leads to, `again` saying that it comes back."""

    async def attempt(request: Json, tx_hash: str | None = None, signature: str | None = None) -> Json:
        data = {"crypto_payment_id": request["id"], "tx_hash": tx_hash, "payer_signature": signature}
        return await attempt_at(data, db, chains)

    return attempt


async def attempt_at(data: Json, db: Database, chains: Chains, asked_by: UUID | None = None) -> Json:
    job = replace(a_job(data, type_="crypto_verification"), user_id=asked_by)
    ended = await crypto_verification(CryptoVerification.model_validate(data), job=job, chains=chains, db=db)
    if isinstance(ended, Snooze):
        return {"again": True, "reason": ended.reason, "delay": ended.delay.total_seconds()}
    return dict(ended)
