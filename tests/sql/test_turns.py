"""Whose turn it is: no user waits behind the flood of another, and no job for ever behind higher priorities."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from tests.sql.calls import Calls, Connection
from tests.sql.laning import ids, laned, lanes, stop_clock

ANN, BOB, CAT = UUID(int=1), UUID(int=2), UUID(int=3)


async def test_users_take_turns_when_more_is_due_than_there_are_places(server: Calls) -> None:
    anns = [await server.insert(user_id=ANN) for _ in range(4)]
    bobs = [await server.insert(user_id=BOB) for _ in range(2)]
    assert ids(await server.claim(2)) == [anns[0], bobs[0]]
    assert ids(await server.claim(1)) == [anns[1]]
    assert ids(await server.claim(1)) == [bobs[1]]
    assert ids(await server.claim(5)) == anns[2:]
    await server.claim()
    assert await lanes(server) == 0
