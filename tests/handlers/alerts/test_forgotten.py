"""What people were told a year ago is forgotten, and what is of use stays."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from handlers.clients.alerts.delivery import Pace
from handlers.clients.database import Database, call
from tests.handlers.alerts.conftest import ALERT, Office, Person, Post
from tests.handlers.conftest import Owner


async def test_prune_forgets_old_alerts_and_devices_that_are_gone(
    office: Office,
    pager: Post,
    person: Person,
    owner: Owner,
    db: Database,
    move_clock: Callable[[timedelta], Awaitable[None]],
) -> None:
    async def left() -> list[int]:
        tables = ("alerts", "alert_deliveries", "digests", "alert_targets", "delivery_lanes")
        return [await owner.fetchval(f"select count(*) from {table}") for table in tables]

    pager.pace = Pace(one_at_a_time=True)
    user = await person(pager="1", push="a-token-of-a-device")
    await office.tell(userId=str(user), **ALERT)
    await office.rounds()
    await owner.execute(
        "insert into digests (user_id, period, period_key, window_start, window_end)"
        " values ($1, 'daily', '2026-01-01', '2026-01-01', '2026-01-02')",
        user,
    )
    assert await left() == [1, 2, 1, 2, 1]
    await call(db, "prune")
    assert await left() == [1, 2, 1, 2, 0]
    await move_clock(timedelta(days=300))
    assert (await call(db, "prune", max_jobs=1))["more"]
    assert await left() == [1, 2, 1, 1, 0]
    await move_clock(timedelta(days=367))
    await call(db, "prune")
    assert await left() == [0, 0, 0, 1, 0]
