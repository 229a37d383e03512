"""A door under test: in front of a real database, with a webhook of its own."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp

from devstack.keys import LOCAL
from listener.config import Config
from listener.doorkeeper import Patience
from listener.errors import DeliveryRefused
from listener.jobs import NewJob
from listener.registry import Delivery, Registry, Webhook
from listener.resources import Setting, Settings
from listener.store import connected
from listener.telemetry.counts import Counts, Numbers
from listener.tokens import Token, Tokens
from listener.web import Health, open_door
from tests.listener.working import Connection, Told

TOKEN = "a-long-door-token"
JOB: dict[str, object] = {"type": "prune", "data": {"completed_days": 3}}


class Door:
    def __init__(self, url: str, http: aiohttp.ClientSession, told: Told) -> None:
        self.url, self._http, self.told = url, http, told
        self.problems: list[str] = []

    async def ask(
        self, method: str, path: str, *, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, object]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self._http.request(
            method, self.url + path, data=None if body is None else data, headers=headers
        ) as response:
            assert response.content_type == "application/json"
            return response.status, await response.json()

    async def post(
        self, body: object, headers: Mapping[str, str] | None = None, path: str = "/"
    ) -> tuple[int, dict[str, object]]:
        return await self.ask("POST", path, body=body, headers=headers)


def mail(delivery: Delivery, settings: Settings) -> NewJob:
    """A webhook that trusts its signature alone."""
    if delivery.headers.get("x-signature") != settings["MAIL_SECRET"]:
        raise DeliveryRefused(400, "The signature does not fit.")
    if delivery.body == b"break":
        raise KeyError("a secret of the delivery")
    assert delivery.received_at.tzinfo is not None
    return NewJob(
        "alerts", "email", {"size": len(delivery.body)}, idempotency_key=delivery.body.decode("latin-1")
    )


REGISTRY = Registry({}, (Webhook("/webhooks/mail", mail, (Setting("MAIL_SECRET", "there"),)),), ())


@asynccontextmanager
async def door_of(
    gateway_url: str,
    *,
    token: str | Sequence[Token] | None = None,
    tokens: Tokens | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    exact: bool = True,
    patience: Patience | None = None,
    registry: Registry = REGISTRY,
    settings: Settings | None = None,
) -> AsyncIterator[Door]:
    told = Told()
    given = [Token("door", token)] if isinstance(token, str) else token or []
    config = Config(gateway_url, LOCAL.service_role, settings or {"MAIL_SECRET": "signed"}, (), given)
    door: Door | None = None

    def health() -> Health:
        return Health(door.problems if door else [], {"worker_id": "test-worker"})

    async def numbers() -> Numbers:
        return Counts({}).read()

    async with (
        connected(gateway_url, LOCAL.service_role, "test-worker") as store,
        aiohttp.ClientSession() as http,
        open_door(
            host,
            port,
            exact=exact,
            config=config,
            registry=registry,
            store=store,
            health=health,
            numbers=numbers,
            emit=told,
            tokens=tokens,
            patience=patience,
        ) as url,
    ):
        door = Door(url.replace("0.0.0.0", "127.0.0.1"), http, told)
        yield door


async def count(owner: Connection) -> int:
    """How many jobs there are."""
    return int(await owner.fetchval("select count(*) from jobs"))
