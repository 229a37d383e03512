"""Keys and personal data are planted wherever a process meets them, and looked for in all that the run wrote."""

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from console.program import run as commands
from devstack.gateway import Gateway
from devstack.keys import LOCAL
from devstack.postgres import Postgres
from listener.errors import ConfigError
from listener.migrate import Migration, migrate, migrations
from tests.listener.working import Connection
from tests.security.planted import HANDLER, KEYS, WAYS, WHO, shapes_of, shapes_of_key, values_of
from tests.security.raw import ask, request
from tests.waiting import until

TYPE = "leak"
WEBHOOK = '''
"""A webhook that lets out what was delivered."""

import os

from listener import Delivery, DeliveryRefused, NewJob, Queue, Setting, Settings, webhook


@webhook("/webhooks/leak", Setting("STRIPE_WEBHOOK_SECRET", "there"))
def receive(delivery: Delivery, settings: Settings) -> NewJob:
    text = delivery.body.decode() + settings["STRIPE_WEBHOOK_SECRET"] + str(delivery.headers)
    if b"refuse" in delivery.body:
        raise DeliveryRefused(400, "The signature does not fit.")
    if b"database" in delivery.body:
        return NewJob(Queue.MAINTENANCE, "prune", {"text": text}, max_attempts=-1)
    raise KeyError(text)
'''
Words = dict[str, str]


def project_of(folder: Path, checkout: Path) -> Path:
    """A folder with the handlers of this test."""
    family = folder / "handlers" / "maintenance"
    family.mkdir(parents=True)
    for path in (folder / "handlers", family):
        (path / "__init__.py").touch()
    (folder / "handlers" / "clients").symlink_to(checkout / "handlers" / "clients")
    (folder / "handlers" / "resources.py").write_text(
        "from collections.abc import AsyncIterator\n"
        "from handlers.clients.database import Database\n"
        "from listener import Settings, resource\n"
        "from supabase import create_async_client\n"
        "@resource()\n"
        "async def database(settings: Settings) -> AsyncIterator[Database]:\n"
        "    yield await create_async_client(settings['SUPABASE_URL'], settings['SUPABASE_SERVICE_ROLE_KEY'])\n"
    )
    names = f"ENVIRONMENT = {[*KEYS, 'SUPABASE_SERVICE_ROLE_KEY']!r}\n"
    (family / f"{TYPE}.py").write_text(HANDLER.replace("KEPT = []", f"{names}KEPT = []"))
    (family / "webhooks.py").write_text(WEBHOOK)
    return folder


class Run:
    """All that a run writes, by where it was found."""

    def __init__(self, gateway: Gateway, project: Path, checkout: Path) -> None:
        self.wrote: dict[str, str] = {}
        self.environment = {
            **{name: value for name, value in os.environ.items() if name.isupper() and "KEY" not in name},
            **KEYS,
            "PYTHONPATH": str(checkout),
            "SUPABASE_URL": gateway.url,
            "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret,
            "PULSE_JOURNAL": str(project / "journal"),
            "PYTHONASYNCIODEBUG": "1",
            "PULSE_LISTEN": "",
        }
        self._project = project

    @asynccontextmanager
    async def process(self, *words: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A `pulse` process that is ended with the block; its words and its command line are part of the run."""
        name = " ".join(words[:1]) + f" #{len(self.wrote)}"
        files = [self._project / f"{len(self.wrote)}.{stream}" for stream in ("out", "err")]
        with files[0].open("wb") as out, files[1].open("wb") as err:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "listener", *words),
                cwd=self._project,
                env=self.environment | variables,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
            try:
                self.wrote[f"title of {name}"] = title_of(process.pid)
                yield process
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.wait()
        for file in files:
            self.wrote[f"{file.suffix[1:]} of {name}"] = file.read_text(errors="surrogateescape")

    def said(self, words: str) -> bool:
        """Whether a process that runs has said so."""
        return any(words in file.read_text(errors="replace") for file in self._project.glob("*.out"))

    def found(self, planted: Mapping[str, set[str]]) -> Iterator[str]:
        """Where something planted came out, in which shape."""
        for place, text in self.wrote.items():
            for name, shapes in planted.items():
                for shape in shapes:
                    if shape in text:
                        at = text.index(shape)
                        yield f"{place}: {name} as {shape[:50]!r} in …{text[max(at - 120, 0) : at + 80]!r}"
                        break


def title_of(pid: int) -> str:
    """As everybody on the machine can read it."""
    return "".join(Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "comm"))


def all_planted() -> dict[str, set[str]]:
    keys = {name: shapes_of_key(value) for name, value in KEYS.items() if name != "DATABASE_URL"}
    keys["DATABASE_URL"] = shapes_of("planted-db%2Fpass-0002") | shapes_of("planted-db/pass-0002")
    keys["SUPABASE_SERVICE_ROLE_KEY"] = shapes_of_key(LOCAL.secret)
    keys |= {
        f"line of SIGNING_KEY {n}": {line} for n, line in enumerate(KEYS["SIGNING_KEY"].splitlines()[1:3])
    }
    return keys | {f"data {value[:20]!r}": shapes_of(value) for value in values_of(dict(WHO))}


@pytest.fixture
def run(gateway: Gateway, tmp_path: Path, checkout: Path) -> Run:
    return Run(gateway, project_of(tmp_path, checkout), checkout)


async def enqueue(owner: Connection, data: Mapping[str, object], *, type_: str = TYPE) -> None:
    await owner.execute(
        "insert into maintenance_jobs (type, data, max_attempts) values ($1, $2, 1)", type_, json.dumps(data)
    )


async def rows(owner: Connection, run: Run) -> None:
    """What the tables keep of attempts, without the jobs as their producers wrote them."""
    producers = "array['job_data', 'data', 'type', 'priority', 'run_at', 'user_id', 'max_attempts', 'idempotency_key']"
    for table in ("failed_jobs", "jobs", "stale_outcomes"):
        found = await owner.fetchval(f"select jsonb_agg(to_jsonb(t) - {producers})::text from {table} as t")
        run.wrote[f"rows of {table}"] = str(found)
        run.wrote[f"rows of {table}, read"] = str(json.loads(found or "null"))


async def test_nothing_that_was_planted_comes_out_of_a_worker(
    gateway: Gateway, owner: Connection, cluster: Postgres, run: Run, tmp_path: Path
) -> None:
    log = cluster.data / "server.log"
    began_at = log.stat().st_size
    async with run.process("worker", "--no-door", "--no-scheduler", "--log-level", "DEBUG"):
        for how in WAYS:
            await enqueue(owner, {"how": how, **WHO})
        for data in ({**WHO, "how": {"x": WHO}}, WHO, {"how": [*values_of(dict(WHO))]}):
            await enqueue(owner, data)
        jobs = len(WAYS) + 3
        await until("all of them have run", lambda: told_of(run, jobs), patience=40)
        # The same again with nobody to tell: the outcomes are in the journal, and stale when they are told.
        gateway.faults.rest.plan("status", "finish", times=None, body='{"message": "away"}')
        for how in ("shapes", "group", "reject", "snooze", "pydantic"):
            await enqueue(owner, {"how": how, **WHO})
        journal = tmp_path / "journal"
        await until("they are in the journal", lambda: lines_in(journal) == 5)
        run.wrote["journal"] = "".join(path.read_text() for path in journal.iterdir())
        await owner.execute("update jobs set attempt = attempt + 1 where status = 'running'")
        gateway.faults.rest.clear()
        await until("they are stale", lambda: told_of(run, jobs + 5))
    await rows(owner, run)
    run.wrote["log of PostgreSQL"] = log.read_bytes()[began_at:].decode(errors="replace")
    assert await owner.fetchval("select count(*) from stale_outcomes") == 5
    assert await owner.fetchval("select count(*) from failed_jobs") >= 20
    assert len(run.wrote["out of worker #0"].splitlines()) > jobs + 100
    found = list(run.found(all_planted()))
    assert not found, "\n".join(found)


def told_of(run: Run, jobs: int) -> bool:
    """Whether the worker has told of so many attempts."""
    logs = Path(run.environment["PULSE_JOURNAL"]).parent.glob("*.out")
    told = [line for log in logs for line in log.read_text().splitlines() if '"answer": ' in line]
    return len(told) >= jobs


def lines_in(journal: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in journal.glob("*.outcomes"))


def odd_requests() -> Iterator[bytes]:
    """Requests that carry what is planted, and are refused at every step."""
    token = KEYS["PULSE_DOOR_TOKEN"].encode()
    right = b"Authorization: Bearer " + token + b"\r\n"
    who = json.dumps(dict(WHO)).encode()
    flat = " ".join(values_of(dict(WHO))).replace("\n", " ").encode()
    yield request(body=who)
    yield request(body=who, headers=right)
    yield request(body=who, headers=right[:-4] + b"x\r\n")
    yield request(body=who, headers=b"Authorization: Basic " + token + b"\r\nX-Who: " + flat + b"\r\n")
    yield request(body=who[:-1], headers=right)
    yield request(body=flat, headers=right)
    yield request(body=b'{"type": "prune", "data": {"x": 918273645.1234567890123456789}}', headers=right)
    for field in (
        "type",
        "queue",
        "priority",
        "run_at",
        "user_id",
        "max_attempts",
        "idempotency_key",
        "data",
    ):
        for value in ("\0" + str(WHO["name"]), *values_of(dict(WHO)), KEYS["BROKER_API_KEY"]):
            job = {
                "type": "prune",
                "queue": "maintenance",
                "data": dict(WHO),
                "max_attempts": -1,
                field: value,
            }
            yield request(body=json.dumps(job).encode(), headers=right)
    yield request(body=json.dumps({"type": "prune", "data": {"a": "\ud800", **WHO}}).encode(), headers=right)
    for target in ("/planted-deep-0006", "/?key=planted-deep-0006", "/webhooks/planted-deep-0006"):
        yield request("PUT", target, who)
    yield flat + b"\r\n\r\n"
    yield b"GET /" + flat + b"\r\n\r\n"
    yield request(headers=flat + b"\r\n")
    yield request(headers=b"X: " + flat * 20 + b"\r\n")
    for word in (b"refuse", b"database", b"break"):
        yield request(target="/webhooks/leak", body=word + flat, headers=b"X-Who: " + flat + b"\r\n")


async def test_nothing_that_was_planted_comes_out_of_a_door(
    gateway: Gateway, owner: Connection, cluster: Postgres, run: Run
) -> None:
    log = cluster.data / "server.log"
    began_at = log.stat().st_size
    async with run.process("web", "--port", "0", "--host", "0.0.0.0", "--log-level", "DEBUG"):
        await until("the door is open", lambda: run.said("door open"), patience=30)
        url = door_of(run)
        statuses: set[int] = set()
        for number, data in enumerate(odd_requests()):
            said = await ask(url, data)
            assert said is not None
            statuses.add(said.status)
            run.wrote[f"answer {number} ({said.status})"] = str(said.headers) + said.body.decode()
        assert statuses >= {400, 401, 404, 405, 422, 431, 500}
        gateway.faults.rest.plan("status", "enqueue", times=None, body=json.dumps({"message": dict(WHO)}))
        key = {"type": "prune", "data": dict(WHO), "idempotency_key": "of " + str(WHO["name"])}
        right = b"Authorization: Bearer " + KEYS["PULSE_DOOR_TOKEN"].encode() + b"\r\n"
        said = await ask(
            url, request(body=json.dumps(key).encode(), headers=right)
        )  # it is handed its own key
        assert said is not None
        assert said.status == 503
        gateway.faults.rest.clear()
        said = await ask(url, request("GET", "/health"))
        assert said is not None
        run.wrote["health"] = said.body.decode()
    await rows(owner, run)
    run.wrote["log of PostgreSQL"] = log.read_bytes()[began_at:].decode(errors="replace")
    found = list(run.found(all_planted()))
    assert not found, "\n".join(found)


def door_of(run: Run) -> str:
    """Its address, from the log."""
    for file in Path(run.environment["PULSE_JOURNAL"]).parent.glob("*.out"):
        for line in file.read_text().splitlines():
            if (url := json.loads(line).get("url")) is not None:
                return str(url)
    raise AssertionError("the door has told no address")


@pytest.fixture
def command(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Awaitable[int]]:
    """Runs a `pulse` command in this process; its words are part of the run."""

    async def say(*words: str, **variables: str) -> int:
        for name, value in (run.environment | variables).items():
            monkeypatch.setenv(name, value)
        code = await asyncio.to_thread(commands, words)
        said = capsys.readouterr()
        run.wrote[f"{words} #{len(run.wrote)}"] = said.out + said.err
        return code

    return say


async def test_nothing_that_was_planted_comes_out_of_a_command(
    gateway: Gateway, run: Run, command: Callable[..., Awaitable[int]]
) -> None:
    planted = KEYS["BROKER_API_KEY"]
    for url in (
        f"https://user:{planted}@planted.example",
        f"https://planted.example/?apikey={planted}",
        f"https://planted.example/{planted}",
        f"{gateway.url}/#{planted}",
    ):
        assert await command("retry", "1", SUPABASE_URL=url) == 2
    assert await command("retry", "1", SUPABASE_SERVICE_ROLE_KEY=planted) == 2
    assert await command("retry", "1", PULSE_LISTEN=planted) == 2
    assert await command("enqueue", "prune", json.dumps(dict(WHO))[:-1]) == 2
    assert await command("enqueue", "prune", json.dumps({**WHO, "x": "\0"})) == 1
    assert await command("migrate") == 2  # nobody is there
    refusal = json.dumps(
        {"message": f"Invalid API key {LOCAL.secret}", "hint": json.dumps(KEYS), "code": "PGRST301"}
    )
    gateway.faults.rest.plan("status", times=None, status=401, body=refusal)
    for words in (("retry", "1"), ("enqueue", "prune", "{}")):
        assert await command(*words) == 1
    found = list(run.found(all_planted()))
    assert not found, "\n".join(found)


async def test_a_migration_that_meets_rows_in_its_way_quotes_none(database: str, owner: Connection) -> None:
    await owner.execute("create table people (name text); insert into people values ($$Zoë O'Planted$$)")
    file = Migration("900", "names", "alter table people add constraint short check (length(name) < 3)")
    with pytest.raises(ConfigError) as first:
        await migrate(database, [*migrations(), file])
    file = Migration("900", "names", "alter table people alter name type integer using name::integer")
    with pytest.raises(ConfigError) as second:
        await migrate(database, [*migrations(), file])
    for raised in (first, second):
        assert "900_names.sql failed" in str(raised.value)
        assert "Planted" not in str(raised.value)


async def test_data_need_not_stand_on_a_command_line(
    run: Run, owner: Connection, command: Callable[..., Awaitable[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody on a machine can read the command lines of all."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(dict(WHO))))
    assert await command("enqueue", "prune", "-") == 0
    assert json.loads(await owner.fetchval("select data from jobs")) == WHO
