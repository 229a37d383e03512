"""Chains of EVM kind (Ethereum, Polygon, Base …) through web3: coins, and tokens by their contract's own logs.

The library is imported when an endpoint is opened, and only then: it comes with `pulseengine-workers[crypto]`.
"""

from __future__ import annotations

import importlib
import logging
import sys
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, cast

import aiohttp
from pydantic import BaseModel, Field

from handlers.clients.chains.chain import Block, Misconfigured, Sighting, Transfer, Unavailable, Wanted
from listener import ConfigError

if TYPE_CHECKING:
    from eth_typing import Hash32
    from web3 import AsyncWeb3
    from web3.providers import AsyncHTTPProvider

TIMEOUT_SECONDS: Final = 10.0
TRANSFER: Final = bytes.fromhex("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef")
"""keccak256 of `Transfer(address,address,uint256)`: the first topic of a token's transfer."""
DECIMALS: Final = bytes.fromhex("313ce567")
"""The call of a token's `decimals()`."""
INSTALL: Final = "EVM chains need more than what is installed: pip install 'pulseengine-workers[crypto]'"
THE_COIN_ITSELF: Final = -1
"""The place of the coins that a transaction carries, beside those of its logs."""


class _Tx(BaseModel):
    to: str | None
    value: int
    input: bytes
    sender: str = Field(alias="from")


class _Log(BaseModel):
    address: str
    topics: list[bytes]
    data: bytes


class _Receipt(BaseModel):
    status: int
    blockNumber: int  # noqa: N815 - the chain's own name
    blockHash: bytes  # noqa: N815
    logs: list[_Log]


class _Block(BaseModel):
    number: int
    hash: bytes
    timestamp: datetime


def load() -> None:
    """Imports the library and what it brings, which raises Python's limit of recursion; leaves the limit as it was.

    Else deep JSON of a stranger, read anywhere in this process, would end it instead of being refused.
    """
    limit = sys.getrecursionlimit()
    try:
        for name in ("web3", "eth_account"):
            importlib.import_module(name)
    finally:
        sys.setrecursionlimit(limit)


class EvmChain:
    """One endpoint. Opened once per process by `open`."""

    clock_error = timedelta(minutes=1)

    def __init__(self, w3: AsyncWeb3[AsyncHTTPProvider], chain_id: int, name: str) -> None:
        self._w3 = w3
        self._chain_id = chain_id
        self._name = name
        self._decimals: dict[str, int] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, chain_id: int, name: str) -> AsyncIterator[EvmChain]:
        """`name` is what errors call it: the URL may hold a key."""
        try:
            await to_thread(load)  # seconds, on a cold disk
        except ModuleNotFoundError:
            raise ConfigError([f"{name}: {INSTALL}"]) from None
        from web3 import AsyncWeb3
        from web3.middleware import ExtraDataToPOAMiddleware as Poa  # pyright: ignore[reportUnknownVariableType]
        from web3.middleware import Middleware
        from web3.providers import AsyncHTTPProvider

        provider = AsyncHTTPProvider(
            url,
            {"timeout": aiohttp.ClientTimeout(TIMEOUT_SECONDS)},
            exception_retry_configuration=None,  # the job's own retries, or the next endpoint
        )
        w3 = AsyncWeb3(provider)
        w3.middleware_onion.inject(cast(Middleware, Poa), layer=0)  # changes nothing on other chains
        provider.logger.setLevel(logging.WARNING)  # it would write the URL
        try:
            yield cls(w3, chain_id, name)
        finally:
            await provider.disconnect()
            provider._request_session_manager.session_pool.shutdown()  # noqa: SLF001 - its threads have no other end

    async def look(self, wanted: Wanted) -> Sighting:
        """What this endpoint shows of a transaction."""
        from web3.exceptions import Web3Exception

        try:
            return await self._look(wanted)
        except (aiohttp.ClientError, TimeoutError, OSError, Web3Exception, ValueError) as error:
            raise Unavailable(f"{self._name} did not answer as it should ({type(error).__name__}).") from None

    async def _look(self, wanted: Wanted) -> Sighting:
        from web3.exceptions import TransactionNotFound

        eth, tx_hash = self._w3.eth, _hash(wanted.tx_hash)
        await self._check_chain()
        try:
            tx = _Tx.model_validate(dict(await eth.get_transaction(tx_hash)))
        except TransactionNotFound:
            return Sighting("not_found")
        try:
            receipt = _Receipt.model_validate(dict(await eth.get_transaction_receipt(tx_hash)))
        except TransactionNotFound:
            return Sighting("pending")
        block = _Block.model_validate(dict(await eth.get_block(receipt.blockNumber)))
        if block.hash != receipt.blockHash:  # its block was replaced between two answers
            return Sighting("pending")
        if wanted.token_contract is not None:
            await self._check_decimals(wanted.token_contract, wanted.decimals)
        final = wanted.needs_finality and await self._final_block() >= block.number
        head = await eth.get_block_number()
        return Sighting(
            "mined" if receipt.status == 1 else "failed",
            Block(block.number, "0x" + block.hash.hex(), block.timestamp, final),
            confirmations=max(head - block.number + 1, 1),
            transfers=_transfers(wanted, tx, receipt),
            carries_call=len(tx.input) > 0,
        )

    async def _final_block(self) -> int:
        return _Block.model_validate(dict(await self._w3.eth.get_block("finalized"))).number

    async def _check_chain(self) -> None:
        found = await self._w3.eth.chain_id
        if found != self._chain_id:
            raise Misconfigured(
                f"{self._name} answers for the chain {found}. Mend CRYPTO_ENDPOINTS, then replay this job: "
                "the payment itself was not judged."
            )

    async def _check_decimals(self, contract: str, configured: int) -> None:
        """Asked once per token: a wrong number here would be a wrong amount of money, by powers of ten."""
        from web3 import AsyncWeb3

        if contract not in self._decimals:
            answer = await self._w3.eth.call(
                {"to": AsyncWeb3.to_checksum_address(contract), "data": DECIMALS}
            )
            self._decimals[contract] = int.from_bytes(answer) if len(answer) == 32 else -1
        if self._decimals[contract] != configured:
            found = self._decimals[contract]
            raise Misconfigured(
                f"The token {contract} "
                + ("is no token" if found < 0 else f"has {found} decimals")
                + f" on this chain, and crypto_assets says {configured} decimals. Mend that row; requests that were "
                "opened with it are for a person. The payment itself was not judged."
            )


def signer_of(message: str, signature: str) -> str | None:
    """The address whose key signed the message (EIP-191), in lower case; None if this is no signature."""
    try:
        from eth_account import Account
        from eth_account.messages import encode_defunct
    except ModuleNotFoundError:
        raise Misconfigured(INSTALL) from None
    from eth_keys.exceptions import BadSignature
    from eth_utils.exceptions import ValidationError

    try:
        raw = bytes.fromhex(signature.removeprefix("0x"))
        return str(Account.recover_message(encode_defunct(text=message), signature=raw)).lower()
    except (ValueError, BadSignature, ValidationError):
        return None


def _hash(tx_hash: str) -> Hash32:
    return cast("Hash32", bytes.fromhex(tx_hash.removeprefix("0x")))


def _transfers(wanted: Wanted, tx: _Tx, receipt: _Receipt) -> tuple[Transfer, ...]:
    """A token is known by the contract that wrote the log, and by nothing that it says of itself."""
    if wanted.token_contract is None:
        ours = _same(tx.to, wanted.pay_to_address) and tx.value > 0
        return (Transfer(THE_COIN_ITSELF, tx.value, tx.sender.lower()),) if ours else ()
    return tuple(
        Transfer(place, amount, _address(log.topics[1]))
        for place, log in enumerate(receipt.logs)
        if _same(log.address, wanted.token_contract)
        and len(log.topics) == 3
        and log.topics[0] == TRANSFER
        and _address(log.topics[2]) == wanted.pay_to_address
        and len(log.data) == 32
        and (amount := int.from_bytes(log.data)) > 0
    )


def _same(found: str | None, ours: str) -> bool:
    return found is not None and found.lower() == ours


def _address(topic: bytes) -> str:
    return "0x" + topic[-20:].hex()
