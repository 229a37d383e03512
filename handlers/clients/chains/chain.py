"""A chain as `crypto_verification` sees it: what we ask of a transaction, what it shows, and who can be asked.

This is the door for other kinds of chain: write a class with the method of `Chain`, and open it in `client.py`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from listener import Reject


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which transfers of a transaction are ours: of this token (None: the chain's own coin), to this address."""

    tx_hash: str
    pay_to_address: str
    token_contract: str | None
    decimals: int
    needs_finality: bool
    """Whether the chain's own word that a block stays is to be asked for."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One movement of the wanted token to the wanted address."""

    place: int
    """Where in its transaction; stays the same when the transaction comes into another block."""
    amount: int
    sender: str | None
    """None where a chain has no one sender."""


@dataclass(frozen=True, slots=True)
class Block:
    """The block of a transaction, which was on the chain's best branch when we looked."""

    number: int
    hash: str
    mined_at: datetime
    final: bool
    """Whether the chain itself says that it stays; False where a chain has no such word."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one endpoint shows of a transaction."""

    state: Literal["not_found", "pending", "failed", "mined"]
    """Failed: in a block, and without effect."""
    block: Block | None = None
    confirmations: int = 0
    """1: in the newest block."""
    transfers: tuple[Transfer, ...] = ()
    carries_call: bool = False
    """Whether it ran a contract, within which coins may have moved in ways that no endpoint shows."""


class Chain(Protocol):
    """One endpoint of one chain."""

    clock_error: timedelta
    """How far a block's own time may be from the true one."""

    async def look(self, wanted: Wanted) -> Sighting:
        """What is there now. Raises Unavailable when no answer comes, Misconfigured when the wrong one answers."""
        ...


class Unavailable(Exception):
    """An endpoint did not answer, or answered nonsense: worth another try. Names no address: it may hold a key."""


class Misconfigured(Reject):
    """Our settings do not fit the chain. Never the fault of who paid: mend them, then replay the job."""
