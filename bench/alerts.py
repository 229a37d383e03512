"""A day's alerts at once: to many users, over their channels, while providers say "too fast", lose webhooks, and hang.

    .venv/bin/python -m bench.alerts --alerts 10000 --users 1000 --processes 2

The database, the API and the workers are processes of their own; the providers are doubles that hold to the limits
that are documented, and share this process. One webhook and one device of fifty are dead, one answer of a hundred is a
429 that nobody could foresee, and Firebase hangs until the other channels are done.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from uuid import UUID, uuid4

import asyncpg

from bench.stack import listening, running_stack
from devstack.alerts.discord import DiscordDouble
from devstack.alerts.firebase import FirebaseDouble
from devstack.keys import LOCAL

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
ONE_DEAD_OF: Final = 50
SHARED_429: Final = {"X-RateLimit-Scope": "shared", "Retry-After": "1"}
OPEN: Final = """
    select count(*) from alert_deliveries
    where status in ('pending', 'sending') and channel = any ($1)
"""


@dataclass(slots=True)
class Town:
    """The users, and the doubles of the providers by which they are told."""

    discord: DiscordDouble
    firebase: FirebaseDouble
    users: list[UUID] = field(default_factory=list[UUID])

    def environment(self, url: str) -> dict[str, str]:
        """The settings of a worker."""
        return {
            "SUPABASE_URL": url,
            "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret,
            "DISCORD_API_BASE": self.discord.url,
            "FIREBASE_KEY": json.dumps(self.firebase.key),
            "FIREBASE_API_BASE": self.firebase.url,
        }

    async def settle(self, owner: Owner, users: int) -> None:
        """So many users move in, each with a webhook and a device."""
        for number in range(users):
            user, webhook = uuid4(), self.discord.webhook()
            is_dead = number % ONE_DEAD_OF == ONE_DEAD_OF - 1
            webhook.is_deleted = is_dead
            device = self.firebase.device(state="unregistered" if is_dead else "fine")
            await owner.execute("select keep_discord_webhook($1, $2, 'home')", user, webhook.url)
            await owner.execute(
                "insert into alert_targets (user_id, channel, address, kind) values ($1, 'push', $2, 'token')",
                user,
                device.token,
            )
            self.users.append(user)


async def tell(owner: Owner, town: Town, alerts: int) -> None:
    """So many alerts, to one user after the other."""
    jobs = [
        {
            "userId": str(town.users[number % len(town.users)]),
            "alertType": "order_filled",
            "title": f"Order {number} was filled",
            "message": "Bought 10 AAPL at 190.10",
            "metadata": {"symbol": "AAPL", "quantity": "10"},
        }
        for number in range(alerts)
    ]
    await owner.execute(
        "insert into alerts_jobs (type, data) select 'notify', value from jsonb_array_elements($1::jsonb)",
        json.dumps(jobs),
    )


async def until_done(owner: Owner, *channels: str) -> None:
    """Returns when each alert is routed and no delivery of these channels is open any more."""
    routing = "select count(*) from alerts_jobs where type = 'notify' and finished_at is null"
    while await owner.fetchval(routing) or await owner.fetchval(OPEN, channels):  # noqa: ASYNC110 - the database is asked
        await asyncio.sleep(0.2)


async def ends(owner: Owner) -> Mapping[tuple[str, str, str | None], int]:
    """How many deliveries ended how: by channel, status and reason."""
    rows = await owner.fetch(
        "select channel, status, reason, count(*) as n from alert_deliveries group by 1, 2, 3 order by 1, 4 desc"
    )
    return {(row["channel"], row["status"], row["reason"]): row["n"] for row in rows}


async def _measure(alerts: int, users: int, processes: int) -> int:
    async with running_stack() as stack, DiscordDouble() as discord, FirebaseDouble() as firebase:
        owner = await asyncpg.connect(stack.dsn)
        town = Town(discord, firebase)
        await town.settle(owner, users)
        discord.fail_next(
            429,
            alerts // 100,
            headers=SHARED_429,
            body={"message": "The resource is being rate limited.", "retry_after": 0.5, "global": False},
        )
        firebase.may_take_messages.clear()
        _say(f"{alerts} alerts to {users} users over Discord and push, {processes} workers …")
        workers = ("worker", "--queues", "alerts", "--no-scheduler")
        async with listening(*workers, processes=processes, environment=town.environment(stack.url)):
            began = time.perf_counter()
            await tell(owner, town, alerts)
            await until_done(owner, "discord")
            discord_in = time.perf_counter() - began
            _say("Discord is done; Firebase answers again …")
            firebase.may_take_messages.set()
            await until_done(owner, "discord", "push")
            all_in = time.perf_counter() - began
        told = await ends(owner)
        alerts = await owner.fetchval("select count(*) from alerts")
        resent = await owner.fetchval("select sum(resends) from alert_deliveries")
        await owner.close()
    _print(town, told, alerts, resent, discord_in, all_in)
    return 0 if not discord.exceeded and max(discord.most_at_once.values()) == 1 else 1


def _print(
    town: Town,
    told: Mapping[tuple[str, str, str | None], int],
    alerts: int,
    resent: int,
    discord_in: float,
    all_in: float,
) -> None:
    discord, firebase = town.discord, town.firebase
    for (channel, status, reason), number in told.items():
        print(f"{channel:8} {status:10} {reason or '':16} {number}")
    arrived: Counter[str] = Counter()
    for device in firebase.devices.values():
        arrived["pushes that arrived"] += len(device.came)
        arrived["notifications seen"] += len(device.shown)
    print(f"alerts                      {alerts}, with those about dead webhooks")
    print(f"sent again                  {resent}")
    print(f"messages on Discord         {len(discord.messages)}")
    print(f"pushes that arrived, seen   {arrived['pushes that arrived']}, {arrived['notifications seen']}")
    print(
        f"requests to Discord         {dict(discord.answers)}, {sum(discord.answers.values()) / alerts:.2f} an alert"
    )
    print(
        f"requests to Firebase        {dict(firebase.answers)}, {sum(firebase.answers.values()) / alerts:.2f} an alert"
    )
    print(f"limits exceeded             {discord.exceeded}")
    print(f"most at once to a webhook   {max(discord.most_at_once.values())}")
    print(
        f"Discord done after          {discord_in:.0f} s, while Firebase hung ({alerts / discord_in:.0f} a second)"
    )
    print(f"all done after              {all_in:.0f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measures and prints; exits with 1 if a limit was exceeded."""
    parser = argparse.ArgumentParser(prog="python -m bench.alerts", description=__doc__)
    parser.add_argument("--alerts", type=int, default=10_000, help="alerts (default: 10000)")
    parser.add_argument("--users", type=int, default=1_000, help="users (default: 1000)")
    parser.add_argument("--processes", type=int, default=2, help="workers (default: 2)")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(_measure(arguments.alerts, arguments.users, arguments.processes)))


if __name__ == "__main__":
    main()
