"""What the library's errors mean, by their class and by how far the request came.

The library's own text is left out: it quotes addresses and bodies, which hold signatures. A refusal keeps the words
of the exchange's answer.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, NoReturn, cast

import aiohttp

from handlers.clients.broker.broker import (
    BadCredentials,
    BrokerError,
    DuplicateClientId,
    NotSent,
    OutcomeUnknown,
    Refused,
    TooFast,
)
from handlers.clients.broker.pause import pause_of
from handlers.clients.exchange.ccxt import Passage

TOO_FAST: Final = timedelta(seconds=10)
"""What a refusal for speed means that says no time."""
_DUPLICATE: Final = ("client", "unique"), ("client", "duplicate"), ("client", "already")


class Missing(Exception):
    """The exchange says that it knows no such order."""


class Declined(Exception):
    """The exchange says that it does not do what it was asked for."""


class Unlisted(OutcomeUnknown):
    """The exchange has no such list, or only one for each symbol. It was not asked."""


class Errors:
    """Of one exchange."""

    def __init__(self, ccxt: Any, name: str) -> None:
        self._ccxt = ccxt
        self._name = name
        self._codes = (
            (ccxt.InsufficientFunds, "insufficient_funds"),
            (ccxt.BadSymbol, "unknown_symbol"),
            (ccxt.MarketClosed, "market_closed"),
            (ccxt.InvalidOrder, "invalid_order"),
            (ccxt.NotSupported, "unsupported"),
        )

    @contextmanager
    def of_submitting(self, passed: Passage) -> Iterator[None]:
        """As the table in broker/broker.py says."""
        try:
            yield
        except BrokerError:
            raise
        except self._ccxt.BaseError as error:
            self._of_submission(error, passed)
        except Exception as error:  # noqa: BLE001 - the library did not foresee an answer, or one of our values
            kind = OutcomeUnknown if passed.has_begun else NotSent
            raise kind(f"{self._name}: {type(error).__name__}") from None

    def _of_submission(self, error: Exception, passed: Passage) -> NoReturn:
        ccxt = self._ccxt
        if passed.has_begun and passed.status is None:
            self._of_no_answer(error)
        if passed.status is not None and (passed.status >= 500 or passed.status in {408, 409}):
            raise self._unknown(error)
        if isinstance(error, (ccxt.RateLimitExceeded, ccxt.DDoSProtection)):
            raise TooFast(pause_of(passed.headers, TOO_FAST)) from None
        if isinstance(error, ccxt.AuthenticationError) and not isinstance(error, ccxt.AccountNotEnabled):
            raise BadCredentials(f"{self._name} does not let these credentials in.") from None
        if not passed.has_begun:
            if isinstance(error, ccxt.OperationFailed):
                raise NotSent(f"{self._name} cannot be reached ({type(error).__name__}).") from None
            raise Refused(
                self._code(error), f"{self._name} would not take it ({type(error).__name__})."
            ) from None
        is_theirs = passed.is_json and (
            isinstance(error, ccxt.ExchangeError)
            or (type(error) is ccxt.ExchangeNotAvailable and passed.status in {400, 403, 422})
        )
        if not is_theirs:
            raise self._unknown(error)
        words = _words(error)
        if isinstance(error, ccxt.DuplicateOrderId) or any(
            all(part in words.lower() for part in parts) for parts in _DUPLICATE
        ):
            raise DuplicateClientId(f"{self._name} has an order with this client order id.") from None
        raise Refused(
            self._code(error), words or f"{self._name} refused it ({type(error).__name__})."
        ) from None

    def _of_no_answer(self, error: Exception) -> NoReturn:
        """By what broke underneath."""
        if isinstance(
            error.__cause__, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, socket.gaierror)
        ):
            raise NotSent(f"{self._name} cannot be reached ({type(error.__cause__).__name__}).") from None
        raise self._unknown(error)

    def _unknown(self, error: Exception) -> OutcomeUnknown:
        told = OutcomeUnknown(f"{self._name} did not answer as it should ({type(error).__name__}).")
        told.__suppress_context__ = True
        return told

    @contextmanager
    def of_reading(
        self, what: str, passed: Passage | None = None, *, may_be_silent: bool = False
    ) -> Iterator[None]:
        """No answer is never an empty one, although the library reads a page of a proxy as an empty list."""
        try:
            yield
            if passed is not None and not passed.all_json and not may_be_silent:
                raise OutcomeUnknown(f"{self._name} did not show {what}: its answer is no JSON.")
        except (BrokerError, Missing, Declined):
            raise
        except self._ccxt.AuthenticationError:
            raise BadCredentials(f"{self._name} does not let these credentials in.") from None
        except (self._ccxt.RateLimitExceeded, self._ccxt.DDoSProtection):
            raise TooFast(pause_of(passed.headers if passed else {}, TOO_FAST)) from None
        except self._ccxt.BaseError as error:
            if isinstance(error.__cause__, (aiohttp.ClientConnectorError, socket.gaierror)):
                self._of_no_answer(error)
            if isinstance(error, (self._ccxt.ArgumentsRequired, self._ccxt.NotSupported)):
                raise Unlisted(f"{self._name} does not show {what} like this.") from None
            raise OutcomeUnknown(f"{self._name} did not show {what} ({type(error).__name__}).") from None
        except Exception as error:  # noqa: BLE001 - the library did not foresee an answer
            raise OutcomeUnknown(f"{self._name} did not show {what} ({type(error).__name__}).") from None

    @contextmanager
    def of_looking(self, passed: Passage, *, may_be_silent: bool = False) -> Iterator[None]:
        """As of reading, and Missing."""
        with self.of_reading("an order", passed, may_be_silent=may_be_silent):
            try:
                yield
            except self._ccxt.InvalidOrder as error:
                if self._is_missing(error, passed):
                    raise Missing from None
                raise

    @contextmanager
    def of_canceling(self, passed: Passage) -> Iterator[None]:
        """As of looking, and Declined."""
        with self.of_looking(passed, may_be_silent=True):
            try:
                yield
            except (self._ccxt.AuthenticationError, self._ccxt.OperationFailed):
                raise
            except Exception as error:
                if passed.status is not None and passed.status < 300:
                    return  # done; the library could not read what was answered
                if not isinstance(error, self._ccxt.ExchangeError) or not passed.is_json:
                    raise
                if self._is_missing(error, passed):
                    raise Missing from None
                raise Declined from None

    def _is_missing(self, error: Exception, passed: Passage) -> bool:
        if isinstance(error, self._ccxt.OrderNotFound):
            return passed.status is not None and passed.status < 500
        return isinstance(error, self._ccxt.InvalidOrder) and passed.status == 404 and passed.is_json

    def _code(self, error: Exception) -> str:
        return next((code for kind, code in self._codes if isinstance(error, kind)), "refused")


def _words(error: Exception) -> str:
    """What the exchange said, out of the library's `name body`."""
    text = str(error)
    start = text.find("{")
    try:
        body: object = json.loads(text[start:]) if start >= 0 else None
    except ValueError:
        return ""
    found = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    said = next((found[name] for name in ("message", "msg", "error", "errorMessage") if found.get(name)), "")
    return str(said)[:300]
