"""All chains that payments are looked for on, by the endpoints of CRYPTO_ENDPOINTS; of two providers, both if asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final

from pydantic import TypeAdapter, ValidationError

from handlers.clients.chains.chain import Chain, Misconfigured, Sighting, Unavailable, Wanted
from handlers.clients.chains.esplora import GENESIS, BitcoinChain
from handlers.clients.chains.evm import EvmChain
from listener import ConfigError, Setting, Settings

CRYPTO_ENDPOINTS = Setting(
    "CRYPTO_ENDPOINTS",
    'your node or providers: JSON, for example {"evm:1": ["https://a", "https://b"], "bitcoin:main": ["https://c"]}',
    required=False,
)
_SHAPE: Final = TypeAdapter(dict[str, list[str]])


class Disagreement(Exception):
    """Two providers show two things; sooner or later one of them is right."""


class Chains:
    """Looks transactions up. Opened once per process by `open`; without endpoints it says so when it is asked."""

    def __init__(self, endpoints: Mapping[str, Sequence[Chain]]) -> None:
        self._endpoints = endpoints

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Chains]:
        """Every endpoint of the settings, closed at the end of the block."""
        async with AsyncExitStack() as stack:
            endpoints: dict[str, list[Chain]] = {}
            for chain, urls in _read(settings.get(CRYPTO_ENDPOINTS.name)).items():
                endpoints[chain] = [
                    await stack.enter_async_context(_open(chain, url, f"Endpoint {number} of {chain}"))
                    for number, url in enumerate(urls, start=1)
                ]
            yield cls(endpoints)

    def clock_error(self, chain: str) -> timedelta:
        """How far the times of this chain's blocks may be from the true ones."""
        return self._of(chain)[0].clock_error

    async def look(self, chain: str, wanted: Wanted, *, two_providers: bool) -> Sighting:
        """What the first endpoint that answers shows; with `two_providers`, what the first two both show."""
        endpoints = self._of(chain)
        if not two_providers:
            return await _first(endpoints, wanted)
        if len(endpoints) < 2:
            raise Misconfigured(
                f"This amount is looked up at two providers, and CRYPTO_ENDPOINTS has one of {chain}. Add a second, "
                "then replay this job: the payment itself was not judged."
            )
        one, other = [await endpoint.look(wanted) for endpoint in endpoints[:2]]
        if (one.state, one.block and one.block.hash, one.transfers) != (
            other.state,
            other.block and other.block.hash,
            other.transfers,
        ):
            raise Disagreement
        return min(one, other, key=lambda sighting: sighting.confirmations)

    def _of(self, chain: str) -> Sequence[Chain]:
        if not self._endpoints.get(chain):
            raise Misconfigured(
                f"CRYPTO_ENDPOINTS has no endpoint of {chain}. Add one, then replay this job: "
                "the payment itself was not judged."
            )
        return self._endpoints[chain]


async def _first(endpoints: Sequence[Chain], wanted: Wanted) -> Sighting:
    *others, last = endpoints
    for endpoint in others:
        try:
            return await endpoint.look(wanted)
        except Unavailable:
            continue
    return await last.look(wanted)


def _open(chain: str, url: str, name: str) -> AbstractAsyncContextManager[Chain]:
    kind, _, network = chain.partition(":")
    if kind == "evm":
        return EvmChain.open(url, int(network), name)
    return BitcoinChain.open(url, network, name)


def _read(text: str | None) -> dict[str, list[str]]:
    if not text:
        return {}
    try:
        endpoints = _SHAPE.validate_json(text)
    except ValidationError:
        raise ConfigError([f"CRYPTO_ENDPOINTS is not as it should be. {CRYPTO_ENDPOINTS.where}"]) from None
    for chain in endpoints:
        kind, _, network = chain.partition(":")
        if not (kind == "evm" and network.isdecimal()) and not (kind == "bitcoin" and network in GENESIS):
            known = ", ".join(GENESIS)
            raise ConfigError(
                [
                    f"CRYPTO_ENDPOINTS names {chain!r}: a chain is evm:<chain id>, or bitcoin: and one of {known}."
                ]
            )
    return endpoints
