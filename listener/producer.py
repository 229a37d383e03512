"""Enqueues one job for somebody who waits for the answer, and never twice.

An answer that is lost leaves open whether the job was inserted. So every job gets an idempotency key, its own or a
drawn one, and the call is repeated; whoever must give up in the end hands the key to the caller, who can repeat it too.
"""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

from listener.errors import StoreUnavailable
from listener.jobs import Enqueued, NewJob
from listener.store import Store

_PAUSES = (timedelta(milliseconds=200), timedelta(milliseconds=800), timedelta(seconds=2))


class NotSure(StoreUnavailable):
    """The database did not answer: the job may be there or not. Enqueueing it again with `key` is safe."""

    def __init__(self, key: str) -> None:
        super().__init__(
            "The database cannot be reached now, and the job may have been inserted or not. "
            f'Send it again with "idempotency_key": "{key}", so that it is inserted once.'
        )
        self.key = key


async def enqueue_once(store: Store, job: NewJob) -> Enqueued:
    """The job's id. Raises StoreRefused when the job does not fit, NotSure after some seconds without an answer."""
    key = job.idempotency_key or f"once-{uuid4()}"
    keyed = replace(job, idempotency_key=key)
    pauses = iter(_PAUSES)
    while True:
        try:
            (enqueued,) = await store.enqueue([keyed])
        except StoreUnavailable as error:
            pause = next(pauses, None)
            if pause is None:
                raise NotSure(key) from error
            await asyncio.sleep(pause.total_seconds())
        else:
            return enqueued


def read_json(text: str | bytes) -> object:
    """The JSON that somebody sent. Raises ValueError, with a sentence, for what could not arrive as it is."""
    try:
        words = text if isinstance(text, str) else text.decode()
        return json.loads(words, parse_float=_exact, parse_constant=_no_number, object_pairs_hook=_each_once)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _exact(digits: str) -> float:
    number = float(digits)
    try:
        rounded = Decimal(repr(number)) != Decimal(digits)
    except ArithmeticError:  # an exponent beyond all measure
        rounded = True
    if rounded:
        raise ValueError("a number in it would be rounded; send it as text")
    return number


def _no_number(word: str) -> object:
    raise ValueError(f"{word} is no JSON")


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    words = dict(pairs)
    if len(words) < len(pairs):
        raise ValueError("a key in it comes twice")
    return words
