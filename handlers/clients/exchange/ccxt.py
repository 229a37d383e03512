"""The library ccxt as the exchange adapter sees it: loaded when needed, and watched at its one door to the network.

What an error of the library means for an order depends on how far its request came, and that the library does not say:
it may raise the same class for an order that it would not send, for an answer that was cut, and for a refusal. So each
call of ours notes what passes the door. A trial ends at the door: nothing that could place an order goes out.

The library is imported when an account is opened, and only then: it comes with `pulseengine-workers[ccxt]`.
"""

from __future__ import annotations

import base64
import importlib
import logging
from asyncio import to_thread
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import localcontext
from typing import Any, Final, Protocol, cast
from urllib.parse import unquote

from handlers.clients.broker.account import NotOpened
from handlers.clients.broker.broker import OutcomeUnknown

INSTALL: Final = "Exchanges need more than what is installed: pip install 'pulseengine-workers[ccxt]'"
TIMEOUT_MS: Final = 10_000
Words = Mapping[str, Any]
"""JSON as the library gives it, in its own unified words."""


class Exchange(Protocol):
    """What we use of one exchange of the library."""

    id: str
    has: Mapping[str, object]
    urls: dict[str, Any]
    options: dict[str, Any]
    markets: dict[str, Words] | None
    features: Words | None
    requiredCredentials: Mapping[str, bool]  # noqa: N815 - the library's own name

    decimal_to_precision: Callable[..., str]

    def set_sandbox_mode(self, enabled: bool) -> None: ...
    def parse_order(self, order: object, market: object = None) -> Words: ...
    def amount_to_precision(self, symbol: str, amount: float) -> str: ...
    def price_to_precision(self, symbol: str, price: float) -> str: ...
    async def load_markets(self) -> object: ...
    async def create_order(
        self, symbol: str, type_: str, side: str, amount: float, price: float | None, params: Words
    ) -> Words: ...
    async def fetch_order(self, id_: str, symbol: str, params: Words = ...) -> Words: ...
    async def cancel_order(self, id_: str, symbol: str) -> object: ...
    async def fetch_orders(self, symbol: str | None, since: int | None, limit: int | None) -> list[Words]: ...
    async def fetch_open_orders(
        self, symbol: str | None = None, since: int | None = None, limit: int | None = None
    ) -> list[Words]: ...
    async def fetch_closed_orders(
        self, symbol: str | None, since: int | None, limit: int | None
    ) -> list[Words]: ...
    async def fetch_my_trades(
        self, symbol: str | None, since: int | None, limit: int | None, params: Words
    ) -> list[Words]: ...
    async def fetch_positions(self) -> list[Words]: ...
    async def fetch_balance(self) -> Words: ...
    async def close(self) -> None: ...


class Stopped(Exception):
    """A trial has come to the door."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is about to go out. Signed: nothing of it is for a log."""

    url: str = field(repr=False)
    body: str = field(repr=False)
    hidden: tuple[str, ...] = field(repr=False)
    """What its headers say; some exchanges take all that is said from a header, in Base64."""

    @classmethod
    def of(cls, url: str, headers: Words | None, body: object) -> Request:
        text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
        return cls(unquote(url), text, tuple(_hidden(headers or {})))

    @property
    def texts(self) -> tuple[str, ...]:
        return self.url, self.body, *self.hidden


def _hidden(headers: Words) -> Iterator[str]:
    for value in headers.values():
        yield str(value)
        for part in str(value).split("."):
            try:
                yield base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_").decode("latin-1")
            except ValueError:
                continue


@dataclass(slots=True)
class Passage:
    """What of one call of ours has passed the door. `client_order_id`: what to look out for."""

    client_order_id: str | None = None
    is_trial: bool = False
    asked: list[Request] = field(default_factory=list[Request])
    """Each request that carried our id."""
    sent: int = 0
    """How often something with our id left that can have placed an order."""
    has_begun: bool = False
    """Whether a request began that can have done something: any but a GET, or one with our id."""
    status: int | None = None
    """Of the last answer that came whole; None while there is none to the last request."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    is_json: bool = False
    all_json: bool = True
    """Of all answers."""


_passage: ContextVar[Passage | None] = ContextVar("passage", default=None)


@contextmanager
def passage(client_order_id: str | None = None, *, is_trial: bool = False) -> Iterator[Passage]:
    """Notes what passes the door within the block."""
    token = _passage.set(found := Passage(client_order_id, is_trial))
    try:
        yield found
    finally:
        _passage.reset(token)


def watched(kind: type[Any]) -> type[Any]:
    """The library's class of an exchange, with a door that notes."""

    class Watched(kind):  # type: ignore[misc]  # a class of the library, which has no types
        async def fetch(
            self, url: str, method: str = "GET", headers: Words | None = None, body: object = None
        ) -> object:
            call = _passage.get()
            if call is not None:
                request = Request.of(url, headers, body)
                ours = call.client_order_id or "\0"
                is_ours = any(ours in text for text in request.texts)
                call.asked += [request] * is_ours
                call.status = None
                if call.is_trial and (is_ours or method != "GET"):
                    raise Stopped
                call.has_begun = call.has_begun or is_ours or method != "GET"
                call.sent += is_ours and method != "GET"
                if call.sent > 1:  # the library tries again, if its options say so
                    raise OutcomeUnknown("An order leaves once, whatever the library wants.")
            above: Any = super()
            return await above.fetch(url, method, headers, body)

        def on_rest_response(self, code: int, *others: Any) -> object:
            above: Any = super()
            text = above.on_rest_response(code, *others)
            if (call := _passage.get()) is not None:
                call.status = code
                call.headers = dict(others[3])
                call.is_json = str(text)[:1] in {"{", "["}
                call.all_json = call.all_json and call.is_json
            return text

    return cast("type[Any]", Watched)


async def library() -> Any:
    """The library. Raises NotOpened where it is not installed."""
    try:
        return await to_thread(importlib.import_module, "ccxt.async_support")  # seconds
    except ModuleNotFoundError:
        raise NotOpened(INSTALL) from None


def _apart(rounds: Callable[..., str]) -> Callable[..., str]:
    """The library rounds by setting the decimal context of its caller, which the whole process shares."""

    def rounded(*number: object, **how: object) -> str:
        with localcontext():
            return rounds(*number, **how)

    return rounded


def made(ccxt: Any, name: str, config: Words) -> Exchange:
    """An exchange of the library, by its name there."""
    exchange = watched(getattr(ccxt, name))(
        {
            **config,
            "timeout": TIMEOUT_MS,
            "enableRateLimit": False,  # limits are kept in the database, for all processes
            "timeout_on_exit": 0,
            "maxRetriesOnFailure": 0,
        }
    )
    # Binance would rather list nothing than all.
    exchange.options["warnOnFetchOpenOrdersWithoutSymbol"] = False
    exchange.decimal_to_precision = _apart(exchange.decimal_to_precision)
    exchange.logger = logging.getLogger("ccxt")
    exchange.logger.setLevel(logging.WARNING)  # else it would write requests with their headers
    return cast("Exchange", exchange)
