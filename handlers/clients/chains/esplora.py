"""Bitcoin through an Esplora API: which outputs of a transaction pay to an address, and how deep it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import aiohttp
from pydantic import BaseModel, TypeAdapter, ValidationError

from handlers.clients.chains.chain import Block, Misconfigured, Sighting, Transfer, Unavailable, Wanted

TIMEOUT_SECONDS: Final = 10.0
GENESIS: Final = {
    "main": "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
    "test": "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
    "signet": "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
    "regtest": "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
}
"""The first block's hash, by which a network is known."""


class TxStatus(BaseModel):
    """Whether and where a transaction is in a block."""

    confirmed: bool
    block_height: int = -1
    block_hash: str = ""
    block_time: datetime = datetime.fromtimestamp(0, UTC)


class Output(BaseModel):
    """Where a part of the money went. Outputs of unusual kinds have no address."""

    scriptpubkey_address: str | None = None
    value: int


class Tx(BaseModel):
    """A transaction, as far as we read it."""

    vout: list[Output]
    status: TxStatus


class BlockStatus(BaseModel):
    """Whether a block is on the best branch."""

    in_best_chain: bool


class BitcoinChain:
    """One endpoint. Opened once per process by `open`."""

    clock_error = timedelta(hours=2)  # the rule that blocks keep is no tighter

    def __init__(self, session: aiohttp.ClientSession, url: str, network: str, name: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._network = network
        self._name = name
        self._checked = False

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, network: str, name: str) -> AsyncIterator[BitcoinChain]:
        """`name` is what errors call it: the URL may hold a key."""
        timeout = aiohttp.ClientTimeout(TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            yield cls(session, url, network, name)

    async def look(self, wanted: Wanted) -> Sighting:
        """What this endpoint shows of a transaction."""
        try:
            return await self._look(wanted)
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError, UnicodeDecodeError) as error:
            raise Unavailable(f"{self._name} did not answer as it should ({type(error).__name__}).") from None

    async def _look(self, wanted: Wanted) -> Sighting:
        await self._check_network()
        found = await self._get(f"/tx/{wanted.tx_hash}")
        if found is None:
            return Sighting("not_found")
        tx = Tx.model_validate_json(found)
        if not tx.status.confirmed:
            return Sighting("pending")  # whatever it promises: until it is in a block it can be replaced
        block = await self._get(f"/block/{tx.status.block_hash}/status")
        if block is None or not BlockStatus.model_validate_json(block).in_best_chain:
            return Sighting("pending")
        tip = TypeAdapter(int).validate_json(await self._get("/blocks/tip/height") or b"")
        return Sighting(
            "mined",
            Block(tx.status.block_height, tx.status.block_hash, tx.status.block_time, final=False),
            confirmations=max(tip - tx.status.block_height + 1, 1),
            transfers=tuple(
                Transfer(place, output.value, sender=None)
                for place, output in enumerate(tx.vout)
                if output.scriptpubkey_address == wanted.pay_to_address and output.value > 0
            ),
        )

    async def _check_network(self) -> None:
        if self._checked:
            return
        first = await self._get("/block-height/0")
        if first is None or first.decode().strip() != GENESIS[self._network]:
            raise Misconfigured(
                f"{self._name} does not answer for this network. Mend CRYPTO_ENDPOINTS, then replay this job: "
                "the payment itself was not judged."
            )
        self._checked = True

    async def _get(self, path: str) -> bytes | None:
        async with self._session.get(self._url + path) as answer:
            if answer.status == 404:
                return None
            answer.raise_for_status()
            return await answer.read()
