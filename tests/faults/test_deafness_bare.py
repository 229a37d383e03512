"""The faults bite: each makes the official client go deaf, or miss what was inserted, and it does not know."""

from typing import TypeAlias

import asyncpg
import pytest

from devstack.gateway import Gateway
from tests.faults.deafness import FAULTS, Harm
from tests.faults.listeners import SWEPT, Stage, bare_listening
from tests.waiting import until

# The client reads an attribute that its own websockets library no longer likes.
pytestmark = [
    pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning"),
]

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.mark.parametrize("name", FAULTS)
async def test_the_bare_client_comes_to_harm_by(
    name: str, gateway: Gateway, owner: Connection, database: str
) -> None:
    fault = FAULTS[name]
    by_broadcast = bool(fault.not_changes)
    if by_broadcast:
        await owner.execute("select announce_by_broadcast()")
    stage = Stage(gateway, owner, database, by_broadcast)
    async with bare_listening(stage) as bare:
        await fault.begin(stage)
        missed = await stage.insert(SWEPT)
        await stage.passed()
        await fault.end(stage)
        match fault.harm:
            case Harm.OVER:
                await until("it has given up", lambda: bare.is_over)
                heard = list(bare.heard)
                await others_hear(stage)
                assert bare.heard == heard
            case Harm.DEAF:
                await others_hear(stage)
                assert bare.heard == []
                assert bare.client.is_connected
                assert not bare.is_over
            case Harm.MISSES:
                await bare.hears()
                assert missed not in bare.heard
            case Harm.TWICE:
                await until("it heard it twice", lambda: bare.heard.count(missed) == 2)
            case Harm.LATE:
                await bare.hears()
                await until("it heard it late", lambda: missed in bare.heard[1:])


async def others_hear(stage: Stage) -> None:
    """A client that joins now hears inserts: so those who do not are deaf."""
    async with bare_listening(stage) as other:
        await other.hears()
