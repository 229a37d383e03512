"""`pulse check`: whether this configuration works, seen from here."""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from datetime import timedelta

from console.command import DONE, NOT_DONE, Command, Group, names
from console.screen import Screen
from listener.config import Config, Tempo
from listener.events import Deaf, Event, Unannounced
from listener.jobs import WokenBy
from listener.process import configured
from listener.store import Store, connected
from listener.subscription import Subscription
from listener.wakeups import Bell

_HEAR_SECONDS = 45


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--queues", type=names, help="as for `pulse worker`")


async def _run(arguments: Namespace, screen: Screen) -> int:
    config, registry = configured(arguments.queues, runs=True, listens=True)
    queues: list[str] = arguments.queues or registry.queues
    screen.done(f"configuration, and handlers for {', '.join(queues)}")
    async with connected(config.supabase_url, config.key, "pulse-check", apikey=config.apikey) as store:
        await store.heartbeat([], timedelta(seconds=1))
        screen.done("the REST API answers, the key is accepted and our functions are there")
        screen.progress(f"waiting for Realtime, up to {_HEAR_SECONDS} s")
        heard, troubles = await _hears(config, store, queues)
    screen.answer({"queues": queues, "realtime": heard, "troubles": troubles})
    if not heard:
        screen.problem(
            f"Realtime announced nothing within {_HEAR_SECONDS} s. Jobs still run, up to one sweep late."
            " Is Realtime on, and are the job tables in the publication supabase_realtime?"
        )
        for trouble in troubles:
            screen.problem(trouble)
        return NOT_DONE
    screen.done("Realtime announces inserts")
    return DONE


async def _hears(config: Config, store: Store, queues: list[str]) -> tuple[bool, list[str]]:
    """Whether the subscription becomes ready in time, and what stood in its way."""
    bells = {queue: Bell() for queue in queues}
    troubles: list[str] = []
    subscription = Subscription(
        url=config.supabase_url,
        key=config.key,
        apikey=config.apikey,
        bells=bells,
        canary=store.canary,
        worker_id=f"pulse-check-{time.time_ns()}",
        timings=Tempo().listening,
        by_broadcast=config.listens_to_broadcast,
        emit=lambda event: troubles.extend(_trouble(event)),
    )
    listening = asyncio.ensure_future(subscription.run())
    try:
        heard = await bells[queues[0]].wait(_HEAR_SECONDS) is WokenBy.JOINED
    finally:
        listening.cancel()
        await asyncio.wait([listening])
    return heard, list(dict.fromkeys(troubles))


def _trouble(event: Event) -> list[str]:
    match event:
        case Deaf(reason):
            return [reason]
        case Unannounced(problem):
            return [problem]
        case _:
            return []


COMMAND = Command(
    "check",
    Group.LOOK,
    "Say whether this configuration works; exit code for CI.",
    _run,
    _arguments,
    "pulse check --queues payment,alerts",
)
