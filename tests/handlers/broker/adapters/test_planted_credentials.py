"""Credentials of brokers are planted in every way of configuration, and looked for in all that a worker writes."""

import asyncio
import contextvars
import itertools
import json
import os
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from handlers.clients.database import Database, call
from listener.redaction import Redactor, keep_at_hand, strike_out
from tests.doubles.proxy import answering
from tests.handlers.broker.conftest import an_account
from tests.handlers.conftest import Owner
from tests.security.planted import shapes_of_key
from tests.waiting import until

NAMES = (
    "key-of-two secret-of-two key-in-json secret-in-json key-in-vault secret-in-vault no-json half".split()
)
PLANTED = {name: f"planted-{name}-{number}/+00{number}" for number, name in enumerate(NAMES)}
ENVIRONMENT = {
    "BROKER_TWO_KEY_ID": PLANTED["key-of-two"],
    "BROKER_TWO_SECRET_KEY": PLANTED["secret-of-two"],
    "BROKER_JSON": json.dumps({"key_id": PLANTED["key-in-json"], "secret_key": PLANTED["secret-in-json"]}),
    "BROKER_WRONG": "{" + PLANTED["no-json"],
    "BROKER_HALF": json.dumps({"key_id": PLANTED["half"]}),
}
SYMBOLS = ("REFUSED", "BROKEN")
TABLES = "jobs, failed_jobs, orders, broker_connections, broker_sync_runs, stale_outcomes".split(", ")


async def echo(request: web.Request) -> web.Response:
    """A broker that quotes all that it was told, in whatever it answers."""
    body = await request.text()
    said = f"{dict(request.headers)} {request.url} {body}"
    status = {"REFUSED": 422, "BROKEN": 500}.get(json.loads(body)["symbol"] if body else "", 200)
    text = said if status == 200 else json.dumps({"code": 42210000, "message": said})
    if request.path == "/v2/clock":
        now = "2026-11-27T10:00:00-05:00"
        text = json.dumps({"timestamp": now, "is_open": True, "next_open": now, "next_close": now})
    return web.Response(status=status, text=text, reason=said[:50].replace("\n", " "))


@pytest.fixture
async def accounts(owner: Owner) -> list[UUID]:
    """For each way in which credentials are configured, right or wrong, one for each answer of the broker."""
    secret = await owner.fetchval(
        "select vault.create_secret($1)",
        json.dumps({"key_id": PLANTED["key-in-vault"], "secret_key": PLANTED["secret-in-vault"]}),
    )
    in_environment: list[dict[str, object]] = [
        {"credentials_env": f"BROKER_{name}"} for name in ("TWO", "JSON", "WRONG", "HALF")
    ]
    right = [*in_environment[:2], {"credentials_secret_id": secret}]
    user = uuid4()
    ways = [way for way in right for _ in SYMBOLS] + in_environment[2:]
    return [await an_account(owner, user, broker="alpaca", **columns) for columns in ways]


@asynccontextmanager
async def worker(gateway: Gateway, url: str, folder: Path, checkout: Path) -> AsyncIterator[None]:
    """A real process that runs the jobs of brokers, and says all that it has to say."""
    environment = {
        **{name: value for name, value in os.environ.items() if name.isupper() and "KEY" not in name},
        **ENVIRONMENT,
        "SUPABASE_URL": gateway.url,
        "SUPABASE_SERVICE_ROLE_KEY": LOCAL.service_role,
        "ALPACA_PAPER_API_BASE": url,
        "PYTHONASYNCIODEBUG": "1",
        "PULSE_JOURNAL": str(folder / "journal"),
    }
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "listener", "worker", "--queues", "broker"),
            cwd=checkout,
            env=environment,
            stdout=out,
            stderr=err,
        )
        try:
            yield
        finally:
            process.terminate()
            await process.wait()


async def test_no_credentials_of_a_broker_are_in_anything_that_a_worker_writes(
    gateway: Gateway, db: Database, owner: Owner, accounts: list[UUID], tmp_path: Path, checkout: Path
) -> None:
    wish = {"side": "buy", "order_type": "limit", "quantity": "5", "limit_price": "10.50"}
    user = await owner.fetchval("select user_id from broker_connections limit 1")
    for account, symbol in zip(accounts, itertools.cycle(SYMBOLS), strict=False):
        placed = {**wish, "user_id": user, "broker_connection_id": account, "symbol": symbol}
        await call(db, "place_order", placed=placed)
        data = json.dumps({"userId": str(user), "brokerConnectionId": str(account)})
        await owner.execute("insert into broker_jobs (type, data) values ('sync_positions', $1::jsonb)", data)

    async def all_were_tried() -> bool:
        waiting = await owner.fetchval("select count(*) from jobs where queue = 'broker' and attempt = 0")
        refused = await owner.fetchval(
            "select count(*) from orders where symbol = 'REFUSED' and status = 'rejected'"
        )
        return bool(waiting == 0 and refused == 3)

    async with answering(echo) as url, worker(gateway, url, tmp_path, checkout):
        await until("each order was tried, and three accounts were told why not", all_were_tried)

    wrote = {name: path.read_text(errors="replace") for name, path in files_in(tmp_path)}
    for table in TABLES:
        wrote[table] = str(await owner.fetchval(f"select string_agg(t::text, E'\n') from {table} as t"))
    assert "‹secret›" in wrote["orders"]  # what the broker quoted, and would have been kept of it
    shapes = {name: shapes_of_key(value) for name, value in PLANTED.items()}
    found = [
        (place, name, shape)
        for place, text in wrote.items()
        for name, forms in shapes.items()
        for shape in forms
        if shape in text
    ]
    assert found == []


def files_in(folder: Path) -> list[tuple[str, Path]]:
    return [(path.name, path) for path in folder.rglob("*") if path.is_file()]


def test_what_a_handler_looked_up_as_a_secret_is_struck_out_of_its_attempt() -> None:
    def attempt() -> None:
        secret = PLANTED["secret-in-vault"]
        strike_out("before there is an attempt: nothing happens")
        keep_at_hand({"order_id": "1"})
        redactor = Redactor()
        assert secret in redactor.text(f"saw {secret}")
        strike_out(secret)
        error = redactor.error(ValueError(f"saw {secret}, {json.dumps(secret)}"))
        assert secret not in error.message
        assert secret not in (error.stack or "")
        for shape in (repr(secret), quote(secret, safe=""), b64encode(f"user:{secret}".encode()).decode()):
            assert "‹secret›" in redactor.text(f"a {shape} b")
        keep_at_hand({"order_id": "2"})
        assert secret in redactor.text(f"saw {secret}")  # the next attempt looks up its own

    contextvars.copy_context().run(attempt)
