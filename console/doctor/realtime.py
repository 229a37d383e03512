"""Whether Realtime announces an insert, and how long that takes: measured with a canary of our own."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from console.doctor.finding import Finding
from listener.config import Config, Timings
from listener.events import Deaf, Event, Hearing, Unannounced
from listener.subscription import Subscription


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of listening."""

    findings: list[Finding]
    took_seconds: float | None = None
    """From the insert of a row to its announcement."""


async def listen(
    config: Config,
    canary: Callable[[str], Awaitable[str | None]],
    patience: timedelta,
) -> Heard:
    """Listens until a canary was heard, or for so long."""
    sent_at: list[float] = []
    heard_at: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    troubles: list[str] = []

    async def send(token: str) -> str | None:
        sent_at.append(time.monotonic())
        return await canary(token)

    def hear(event: Event) -> None:
        match event:
            case Hearing() if not heard_at.done():
                heard_at.set_result(time.monotonic())
            case Deaf(reason):
                troubles.append(reason)
            case Unannounced(problem):
                troubles.append(problem)
            case _:
                pass

    subscription = Subscription(
        url=config.supabase_url,
        key=config.key,
        apikey=config.apikey,
        bells={},
        canary=send,
        worker_id=f"pulse-doctor-{time.time_ns()}",
        timings=Timings(),
        emit=hear,
        by_broadcast=config.listens_to_broadcast,
    )
    listening = asyncio.ensure_future(subscription.run())
    try:
        async with asyncio.timeout(patience.total_seconds()):
            arrived = await heard_at
    except TimeoutError:
        return Heard([_deaf(patience, troubles)])
    finally:
        listening.cancel()
        await asyncio.wait([listening])
    return Heard([], arrived - sent_at[-1] if sent_at else None)


def _deaf(patience: timedelta, troubles: list[str]) -> Finding:
    why = f" What it said: {troubles[-1]}." if troubles else ""
    return Finding(
        "realtime_deaf",
        f"Realtime announced nothing within {patience.total_seconds():g} s",
        f"Jobs start up to a sweep (5 s) late, and browsers do not see theirs move.{why}",
        "Supabase dashboard: switch Realtime on, then `pulse check`",
    )
