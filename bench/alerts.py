"""A day's alerts at once: to many users, over three channels, while providers say "too fast", lose webhooks, and hang.

    .venv/bin/python -m bench.alerts --alerts 10000 --users 1000 --processes 2 --hanging push

The database, the API and the workers are processes of their own; the providers are doubles that hold to the limits
that are documented, and share this process. Of fifty users one has a dead webhook, device and address; one
answer of Discord in a hundred is a 429 that nobody could foresee; the provider that is named hangs
until the others are done.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast
from uuid import UUID, uuid4

import aiohttp
import asyncpg
from aiosmtpd.smtp import SMTP, Envelope, Session

from bench.stack import listening, running_stack
from devstack.alerts.discord import HANGS, DiscordDouble
from devstack.alerts.firebase import FirebaseDouble
from devstack.keys import LOCAL

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
ONE_DEAD_OF: Final = 50
CHANNELS: Final = {"discord": "Discord", "email": "e-mail", "push": "push"}
BY_NAME: Final = {"mail": "email", "push": "push", "discord": "discord"}
SHARED_429: Final = {"X-RateLimit-Scope": "shared", "Retry-After": "1"}
OPEN: Final = """
    select count(*) from alert_deliveries
    where status in ('pending', 'sending') and channel = any ($1)
"""


@dataclass(slots=True)
class PostOffice:
    """Takes mails for everybody but the dead."""

    url: str = ""
    mails: int = 0
    dead: set[str] = field(default_factory=set[str])
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    """Not set: it takes what is sent, and does not answer."""

    async def handle_RCPT(  # noqa: N802 - aiosmtpd finds these by their names
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Whether there is somebody at this address."""
        if address in self.dead:
            return "550 5.1.1 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802
        """Takes a mail."""
        await self.is_open.wait()
        self.mails += 1
        return "250 2.0.0 Ok"


@asynccontextmanager
async def post_office() -> AsyncIterator[PostOffice]:
    """One that is open."""
    office = PostOffice()
    office.is_open.set()
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(office), "127.0.0.1", 0)
    async with server:
        office.url = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield office


@dataclass(slots=True)
class Town:
    """The users, and the doubles of the providers by which they are told. Without a post office: no mails."""

    discord: DiscordDouble
    firebase: FirebaseDouble
    post: PostOffice | None = None
    users: list[UUID] = field(default_factory=list[UUID])

    def environment(self, url: str) -> dict[str, str]:
        """The settings of a worker."""
        mail = {
            "EMAIL_BACKEND": "smtp",
            "EMAIL_FROM": "PulseEngine <alerts@example.com>",
            "PULSE_DOOR_URL": "https://jobs.example.com",
            "EMAIL_UNSUBSCRIBE_SECRET": "the secret of this bench",
        }
        return {
            **(mail | {"SMTP_URL": self.post.url} if self.post else {}),
            "SUPABASE_URL": url,
            "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret,
            "DISCORD_API_BASE": self.discord.url,
            "FIREBASE_KEY": json.dumps(self.firebase.key),
            "FIREBASE_API_BASE": self.firebase.url,
        }

    def hang(self, channel: str) -> None:
        """From now on its provider takes what is sent and answers nobody."""
        if channel == "discord":
            self.discord.fail_next(HANGS, sys.maxsize)
        elif channel == "push":
            self.firebase.may_take_messages.clear()
        elif self.post is not None:
            self.post.is_open.clear()

    def heal(self) -> None:
        """All providers answer."""
        self.discord.heal()
        self.firebase.may_take_messages.set()
        if self.post is not None:
            self.post.is_open.set()

    async def settle(self, owner: Owner, users: int) -> None:
        """So many users move in, each with a webhook and a device."""
        for number in range(users):
            user, webhook = uuid4(), self.discord.webhook()
            is_dead = number % ONE_DEAD_OF == ONE_DEAD_OF - 1
            webhook.is_deleted = is_dead
            device = self.firebase.device(state="unregistered" if is_dead else "fine")
            if self.post is not None:
                address = f"user{number}@example.com"
                self.post.dead |= {address} if is_dead else set[str]()
                await owner.execute(
                    "insert into auth.users (id, email, email_confirmed_at) values ($1, $2, now())",
                    user,
                    address,
                )
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


async def _measure(alerts: int, users: int, processes: int, hanging: str) -> int:
    others = [channel for channel in CHANNELS if channel != hanging]
    names = " and ".join(CHANNELS[channel] for channel in others)
    async with (
        running_stack() as stack,
        DiscordDouble() as discord,
        FirebaseDouble() as firebase,
        post_office() as post,
    ):
        owner = await asyncpg.connect(stack.dsn)
        town = Town(discord, firebase, post)
        await town.settle(owner, users)
        discord.fail_next(
            429,
            alerts // 100,
            headers=SHARED_429,
            body={"message": "The resource is being rate limited.", "retry_after": 0.5, "global": False},
        )
        town.hang(hanging)
        _say(f"{alerts} alerts to {users} users over Discord, e-mail and push, {processes} workers …")
        workers, environment = ("worker", "--queues", "alerts", "--no-scheduler"), town.environment(stack.url)
        async with listening(*workers, processes=processes, environment=environment) as doors:
            began = time.perf_counter()
            await tell(owner, town, alerts)
            await until_done(owner, *others)
            others_in = time.perf_counter() - began
            _say(f"{names} are done; {CHANNELS[hanging]} answers again …")
            town.heal()
            await until_done(owner, *CHANNELS)
            all_in = time.perf_counter() - began
            calls, busy = await _work(doors)
        told = await ends(owner)
        alerts = await owner.fetchval("select count(*) from alerts")
        resent = await owner.fetchval("select sum(resends) from alert_deliveries")
        await owner.close()
    _print(town, told, alerts, resent)
    print(f"calls of the queue          {calls / alerts:.1f} an alert")
    print(f"the workers' CPU time       {busy / alerts * 1000:.0f} ms an alert")
    print(f"{names} done".ljust(27), f"after {others_in:.0f} s, while {CHANNELS[hanging]} hung")
    print(f"all done                    after {all_in:.0f} s")
    return 0 if not discord.exceeded and max(discord.most_at_once.values()) == 1 else 1


async def _work(doors: list[str]) -> tuple[int, float]:
    """How often the workers called the database, and for how many seconds they computed."""
    calls, busy = 0, 0.0
    async with aiohttp.ClientSession() as http:
        for door in doors:
            async with http.get(f"{door}/health") as answer:
                words = cast("dict[str, float]", await answer.json())
            calls, busy = calls + int(words["calls"]), busy + words["cpu_seconds"]
    return calls, busy


def _print(town: Town, told: Mapping[tuple[str, str, str | None], int], alerts: int, resent: int) -> None:
    discord, firebase = town.discord, town.firebase
    for (channel, status, reason), number in told.items():
        print(f"{channel:8} {status:10} {reason or '':16} {number}")
    came = sum(len(device.came) for device in firebase.devices.values())
    shown = sum(len(device.shown) for device in firebase.devices.values())
    print(f"alerts                      {alerts}, with those about dead webhooks")
    print(f"sent again                  {resent}")
    print(f"messages on Discord         {len(discord.messages)}")
    print(f"pushes that arrived         {came}, of which a person sees {shown}")
    print(f"mails that arrived          {town.post.mails if town.post else 0}")
    for name, double in (("Discord ", discord), ("Firebase", firebase)):
        print(
            f"requests to {name}        {dict(double.answers)}, {double.answers.total() / alerts:.2f} an alert"
        )
    print(f"limits exceeded             {discord.exceeded}")
    print(f"most at once to a webhook   {max(discord.most_at_once.values())}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measures and prints; exits with 1 if a limit was exceeded."""
    parser = argparse.ArgumentParser(prog="python -m bench.alerts", description=__doc__)
    parser.add_argument("--alerts", type=int, default=10_000, help="alerts (default: 10000)")
    parser.add_argument("--users", type=int, default=1_000, help="users (default: 1000)")
    parser.add_argument("--processes", type=int, default=2, help="workers (default: 2)")
    parser.add_argument(
        "--hanging", choices=sorted(BY_NAME), default="push", help="whose provider hangs (default: push)"
    )
    arguments = parser.parse_args()
    measured = _measure(arguments.alerts, arguments.users, arguments.processes, BY_NAME[arguments.hanging])
    sys.exit(asyncio.run(measured))


if __name__ == "__main__":
    main()
