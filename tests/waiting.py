"""Waiting for a named condition, the only way in which a test lets time pass."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

PATIENCE = 40.0
"""Seconds after which a test gives up waiting for what it names. Nothing waits this long when all is well."""
_LOOK_SECONDS = 0.005


async def until(
    what: str, holds: Callable[[], bool | Awaitable[bool]], *, patience: float = PATIENCE
) -> None:
    """Returns as soon as the condition holds; fails with its name when it does not within `patience` seconds."""
    try:
        async with asyncio.timeout(patience):
            while True:
                answer = holds()
                if await answer if inspect.isawaitable(answer) else answer:
                    return
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        raise AssertionError(f"waited {patience:g} s in vain until {what}") from None
