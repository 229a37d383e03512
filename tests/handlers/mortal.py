"""A worker that dies between any two of its steps: right after its n-th word with the outside."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from handlers.clients.stripe import client as client_file
from handlers.payment import stripe_webhook as handler_file

_left: ContextVar[int] = ContextVar("_left", default=0)


class Died(Exception):
    """The worker is no more; what it had written is written."""


def make_mortal(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on each call of the database and each look at Stripe counts for those who are to die."""
    for file, name in ((handler_file, "call"), (client_file, "_look"), (client_file, "_page")):
        monkeypatch.setattr(file, name, _counted(getattr(file, name)))


@contextmanager
def dies_after(calls: int) -> Iterator[None]:
    """What runs inside raises Died after so many, whatever their answers."""
    token = _left.set(calls)
    try:
        yield
    finally:
        _left.reset(token)


def _counted(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def counted(*arguments: object, **named: object) -> Any:
        answer = await function(*arguments, **named)
        if (left := _left.get()) > 0:
            _left.set(left - 1)
            if left == 1:
                raise Died
        return answer

    return counted
