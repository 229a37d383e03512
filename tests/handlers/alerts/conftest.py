"""What alert tests stand on: people, a channel that the test itself is, and a worker that runs what is due."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from devstack.alerts.discord import DiscordDouble, Webhook
from devstack.alerts.firebase import Device, FirebaseDouble
from devstack.gateway import Gateway
from devstack.keys import LOCAL
from handlers.alerts.discord import discord
from handlers.alerts.notify import notify
from handlers.alerts.push import push
from handlers.clients.alerts.delivery import AlertJob, Pace, Send, Sending, deliver, patience
from handlers.clients.alerts.discord import Discord
from handlers.clients.alerts.push import Push
from handlers.clients.alerts.told import Sent, Told
from handlers.clients.database import Database
from listener import Job, Payload
from listener.attempt import Attempt
from listener.jobs import AttemptRef, WokenBy
from listener.outcomes import Outcome
from listener.redaction import Redactor
from listener.registry import Handler
from listener.store import ClaimRequest, Store, connected
from tests.handlers.conftest import Json, Owner

Person = Callable[..., Awaitable[UUID]]
ALERT: Json = {"alertType": "order_filled", "title": "Filled", "message": "10 AAPL at 190.10"}


@dataclass
class Post:
    """A channel that is this test: what came, and what it answers next (`Sent`, when it has nothing to say)."""

    pace: Pace = field(default_factory=Pace)
    answers: list[Told | Exception] = field(default_factory=list[Told | Exception])
    came: list[Sending] = field(default_factory=list[Sending])

    async def send(self, sending: Sending) -> Told:
        self.came.append(sending)
        answer = self.answers.pop(0) if self.answers else Sent(f"message-{len(self.came)}")
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def titles(self) -> list[str]:
        return [one.alert.title for one in self.came if one.alert is not None]


class Office:
    """A worker of the alerts queue: each round it claims what is due and runs it, side by side with nothing."""

    def __init__(self, store: Store, db: Database, owner: Owner) -> None:
        self._store = store
        self._owner = owner
        self.db = db
        self._handlers = {"notify": _handler("notify", notify, AlertJob)}

    def neighbour(self) -> "Office":
        """Another process."""
        return Office(self._store, self.db, self._owner)

    def channel(self, name: str, post: Post, send: Send | None = None) -> Post:
        """From now on this office sends by `post` what is for that channel, or by `send`, at its pace."""

        async def run(payload: AlertJob, *, job: Job, db: Database) -> object:
            return await deliver(db, job, payload, send or post.send, post.pace)

        self._handlers[name] = _handler(name, run, AlertJob)
        return post

    def runs(self, name: str, run: Callable[..., Awaitable[object]]) -> None:
        """From now on this office runs jobs of that type so; they are handed what all are: `job` and `db`."""
        self._handlers[name] = _handler(name, run, AlertJob)

    async def tell(self, type_: str = "notify", **data: object) -> int:
        """Inserts a job of the alerts queue, as an app does."""
        answer = await self.db.from_("alerts_jobs").insert({"type": type_, "data": data}).execute()
        row: Json = dict(answer.data[0])  # type: ignore[arg-type]  # JSON
        return int(row["id"])

    async def round(self) -> list[Outcome]:
        """Claims what is due, runs it one by one, and records the outcomes."""
        request = ClaimRequest(
            "alerts", list(self._handlers), 100, timedelta(seconds=30), WokenBy.SWEEP, sweep=True
        )
        claim = await self._store.claim(request)
        ended: list[tuple[AttemptRef, Outcome]] = []
        for job in claim.jobs:
            attempt = Attempt(
                job,
                self._handlers[job.type],
                {Database: self.db},
                woken_by=WokenBy.SWEEP,
                redactor=Redactor(),
                emit=lambda _: None,
            )
            outcome = await attempt.run()
            assert outcome is not None
            ended.append((job.ref, outcome))
        if ended:
            await self._store.finish(ended, None)
        return [outcome for _, outcome in ended]

    async def rounds(self) -> list[Outcome]:
        """As many as find something due."""
        found: list[Outcome] = []
        while outcomes := await self.round():
            found += outcomes
        return found

    async def deliveries(self, *columns: str) -> list[tuple[Any, ...]]:
        """What the rows say, by channel."""
        names = ", ".join(columns or ("channel", "status", "reason"))
        rows = await self._owner.fetch(
            f"select {names} from alert_deliveries order by channel, created_at, id"
        )
        return [tuple(row) for row in rows]


def _handler(type_: str, run: Callable[..., Awaitable[object]], payload: type[Payload]) -> Handler:
    wants = {"job": Job, "db": Database}
    return Handler("alerts", type_, run, payload, wants, timedelta(minutes=5), patience)


@pytest.fixture
def environment(gateway: Gateway) -> dict[str, str]:
    """The settings of a worker that serves alerts alone."""
    return {"SUPABASE_URL": gateway.url, "SUPABASE_SERVICE_ROLE_KEY": LOCAL.service_role}


@pytest.fixture
async def store(environment: dict[str, str]) -> AsyncIterator[Store]:
    async with connected(environment["SUPABASE_URL"], LOCAL.secret, "office") as found:
        yield found


@pytest.fixture
def office(store: Store, db: Database, owner: Owner) -> Office:
    return Office(store, db, owner)


@pytest.fixture
def pager(office: Office) -> Post:
    """A channel that this project has never heard of."""
    return office.channel("pager", Post())


@pytest.fixture
def person(owner: Owner) -> Person:
    """Somebody with a confirmed address (or none) and targets: `await person(pager="1", discord="2")`."""

    async def make(*, email: str | None = None, confirmed: bool = True, **targets: str) -> UUID:
        made = uuid4()
        if email is not None:
            await owner.execute(
                "insert into auth.users (id, email, email_confirmed_at) values ($1, $2, case when $3 then now() end)",
                made,
                email,
                confirmed,
            )
        for channel, address in targets.items():
            await owner.execute(
                "insert into alert_targets (user_id, channel, address) values ($1, $2, $3)",
                made,
                channel,
                address,
            )
        return made

    return make


# -- the real clients of Discord and Firebase, and their doubles --


@pytest.fixture
async def discord_double() -> AsyncIterator[DiscordDouble]:
    async with DiscordDouble() as running:
        yield running


@pytest.fixture
async def firebase() -> AsyncIterator[FirebaseDouble]:
    async with FirebaseDouble() as running:
        yield running


@pytest.fixture
async def webhooks(discord_double: DiscordDouble) -> AsyncIterator[Discord]:
    async with Discord.open({"DISCORD_API_BASE": discord_double.url}) as client:
        yield client


@pytest.fixture
async def devices(firebase: FirebaseDouble) -> AsyncIterator[Push]:
    settings = {"FIREBASE_KEY": json.dumps(firebase.key), "FIREBASE_API_BASE": firebase.url}
    async with Push.open(settings) as client:
        yield client


@pytest.fixture
def channels(office: Office, webhooks: Discord, devices: Push) -> Office:
    """An office that serves both."""

    async def run_discord(payload: AlertJob, *, job: Job, db: Database) -> object:
        return await discord(payload, job=job, db=db, webhooks=webhooks)

    async def run_push(payload: AlertJob, *, job: Job, db: Database) -> object:
        return await push(payload, job=job, db=db, devices=devices)

    office.runs("discord", run_discord)
    office.runs("push", run_push)
    return office


@dataclass
class Home:
    """Somebody with a webhook and a device."""

    user: UUID
    webhook: Webhook
    device: Device


@pytest.fixture
async def home(owner: Owner, person: Person, discord_double: DiscordDouble, firebase: FirebaseDouble) -> Home:
    user, webhook, device = await person(), discord_double.webhook(), firebase.device()
    await owner.execute("select keep_discord_webhook($1, $2, 'my server')", user, webhook.url)
    await owner.execute(
        "insert into alert_targets (user_id, channel, address, kind) values ($1, 'push', $2, 'token')",
        user,
        device.token,
    )
    return Home(user, webhook, device)
