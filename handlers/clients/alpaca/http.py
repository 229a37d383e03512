"""One request to Alpaca at a time, and what its answer is taken for: see the table in client.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, Self, TypeVar, cast
from urllib.parse import urlsplit

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from handlers.clients.alpaca.words import AlpacaError, exact
from handlers.clients.broker.account import NotOpened
from handlers.clients.broker.broker import BadCredentials, NotSent, OutcomeUnknown, TooFast
from handlers.clients.broker.pause import pause_of
from listener import Setting, Settings

ALPACA_PAPER_API_BASE = Setting(
    "ALPACA_PAPER_API_BASE",
    "set it only to use a double of Alpaca: the URL for paper accounts; live accounts are never asked there",
    required=False,
    secret=False,
)
PAPER: Final = "https://paper-api.alpaca.markets"
LIVE: Final = "https://api.alpaca.markets"
TIMEOUT: Final = aiohttp.ClientTimeout(total=10, connect=4, sock_connect=4)
LARGEST_ANSWER: Final = 20_000_000
TOO_FAST: Final = timedelta(seconds=60)
"""What a 429 means that says no time."""
_NO_SUCH_ORDER: Final = range(40_400_000, 40_500_000)


Model = TypeVar("Model", bound=BaseModel)


def base_of(environment: Literal["paper", "live"], settings: Settings) -> str:
    """Where an account of this environment is asked."""
    if environment == "live":
        return LIVE
    base = (settings.get(ALPACA_PAPER_API_BASE.name) or PAPER).rstrip("/")
    try:
        host = urlsplit(base).hostname or ""
    except ValueError:
        host = ""
    if not host or not base.startswith(("http://", "https://")):
        raise NotOpened(f"{ALPACA_PAPER_API_BASE.name} has to be a URL: {ALPACA_PAPER_API_BASE.where}.")
    if base != PAPER and host.rstrip(".").endswith("alpaca.markets"):
        raise NotOpened(f"{ALPACA_PAPER_API_BASE.name} is for doubles of Alpaca, not for Alpaca itself.")
    return base


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, unless it was a 401 or a 429."""

    status: int
    body: bytes

    def read(self, model: type[Model]) -> Model:
        """The JSON of it. Raises OutcomeUnknown if it is not that."""
        return _read(model, self._json())

    def read_all(self, model: type[Model]) -> list[Model]:
        """The JSON list of them. Raises OutcomeUnknown if it is not that."""
        found = self._json()
        if not isinstance(found, list):
            raise OutcomeUnknown("Alpaca answered without a list.")
        return [_read(model, one) for one in cast("list[object]", found)]

    @property
    def error(self) -> AlpacaError | None:
        """Alpaca's own words of a refusal, if it has any."""
        try:
            return AlpacaError.model_validate(exact(self.body))
        except ValueError:
            return None

    @property
    def is_missing(self) -> bool:
        """Whether Alpaca says that there is no such order; its code is that of an account it cannot find, too."""
        error = self.error if self.status == 404 else None
        return error is not None and error.code in _NO_SUCH_ORDER and "account" not in error.message.lower()

    def done(self) -> Self:
        """Itself, if what was asked is done. Raises for all others."""
        if 200 <= self.status < 300:
            return self
        if self.status == 403 and self.error is not None:
            raise BadCredentials("Alpaca forbids it to these credentials.")
        raise OutcomeUnknown(f"Alpaca answered with HTTP {self.status}.")

    def _json(self) -> object:
        try:
            return exact(self.body)
        except ValueError:
            raise OutcomeUnknown("Alpaca's answer is no JSON.") from None


class Line:
    """To one account."""

    def __init__(self, base: str, headers: Mapping[str, str]) -> None:
        self._base = base
        self._headers = dict(headers)
        self._http = aiohttp.ClientSession(timeout=TIMEOUT, connector=aiohttp.TCPConnector(limit=4))

    async def ask(
        self, method: str, path: str, params: Mapping[str, str] | None = None, body: object = None
    ) -> Answer:
        """One request. Raises TooFast, BadCredentials, NotSent and OutcomeUnknown; all other answers are given back."""
        url = URL(self._base + path, encoded=True)
        raw = bytearray()
        try:
            async with self._http.request(
                method, url, params=params, json=body, headers=self._headers, allow_redirects=False
            ) as answer:
                status, headers = answer.status, answer.headers
                async for chunk in answer.content.iter_any():
                    raw += chunk
                    if len(raw) > LARGEST_ANSWER:
                        raise OutcomeUnknown("Alpaca's answer is too long to be read.")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotSent(f"Alpaca cannot be reached ({type(error).__name__}).") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise OutcomeUnknown(f"Alpaca did not answer ({type(error).__name__}).") from None
        if status == 429:
            raise TooFast(pause_of(headers, TOO_FAST))
        if status == 401:
            raise BadCredentials("Alpaca does not let these credentials in.")
        return Answer(status, bytes(raw))

    async def close(self) -> None:
        """Ends its connections."""
        await self._http.close()


def _read(model: type[Model], words: object) -> Model:
    try:
        return model.model_validate(words)
    except ValidationError:
        raise OutcomeUnknown(f"Alpaca's answer is no {model.__name__}.") from None
