"""What tests of limits ask: which jobs a claim brought, and where the others wait."""

from datetime import UTC, datetime, timedelta

from tests.sql.calls import Calls, Connection, Json

BEGAN = datetime(2026, 11, 28, 12, tzinfo=UTC)


async def stop_clock(owner: Connection, seconds: float) -> None:
    """Stands still so long after the beginning, however slow the machine is."""
    at = (BEGAN + timedelta(seconds=seconds)).isoformat()
    await owner.execute(
        "create or replace function public.clock_now() returns timestamptz language sql stable parallel safe"
        f" return '{at}'::timestamptz;"
        " create or replace function public.call_moment() returns timestamptz language sql volatile"
        f" return '{at}'::timestamptz"
    )


def ids(claimed: Json) -> list[int]:
    return [job["id"] for job in claimed["jobs"]]


async def laned(server: Calls) -> dict[int, str]:
    rows = await server.connection.fetch(
        "select id, lane from jobs where lane is not null and status = 'pending'"
    )
    return {row["id"]: row["lane"] for row in rows}


async def lanes(server: Calls) -> int:
    return int(await server.value("select count(*) from lanes"))
