"""The pages about doors and keys: what they tell people to type is typed here, against a real door and real workers."""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import pytest

from devstack.gateway import Gateway
from devstack.keys import Keys
from listener.tokens import Limit, read_tokens
from tests.listener.answering import Door, count, door_of
from tests.listener.working import Connection
from tests.projects import Worker
from tests.waiting import until

StartWorker: TypeAlias = Callable[..., AbstractAsyncContextManager[Worker]]
QUIET = '''
"""Does nothing."""

from listener import Payload, Queue, handler


@handler(Queue.MAINTENANCE)
async def quiet(payload: Payload) -> None: ...
'''
EXAMPLE = "https://worker.example.com"
LOCALLY = "http://localhost:8000"


def blocks(page: str, language: str = "bash") -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    return found


async def typed(words: str, folder: Path, **variables: str) -> str:
    """What a shell prints for these lines; `pulse` is the one of this checkout."""
    shell = await asyncio.create_subprocess_exec(
        str(shutil.which("bash")),
        *("-euc", words),
        cwd=folder,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, wrong = await shell.communicate()
    assert shell.returncode == 0, wrong.decode()
    return said.decode()


async def answers(lines: str, door: Door, folder: Path) -> list[dict[str, object]]:
    """The JSON that each curl of the block got."""
    here = lines.replace(EXAMPLE, door.url).replace(LOCALLY, door.url).replace("curl ", "curl -sS -w '\\n' ")
    return [json.loads(line) for line in (await typed(here, folder)).splitlines() if line]


async def test_what_the_page_of_doors_says_is_inserted_is(
    gateway: Gateway, owner: Connection, checkout: Path, tmp_path: Path
) -> None:
    page = (checkout / "docs" / "doors.md").read_text()
    first, second, twice, tokens, with_token, look = blocks(page)
    async with door_of(gateway.url) as door:
        for lines in (first, second):
            (said,) = await answers(lines, door, tmp_path)
            assert said["created"] is True
        one, again = await answers(twice, door, tmp_path)
        assert (one["created"], again) == (True, {"id": one["id"], "created": False})
        for said in await answers(look, door, tmp_path):
            assert said.keys() >= {"ready", "problems"}
    name, _, value = tokens.strip().removeprefix("export ").partition("=")
    found = read_tokens({name: value})
    assert not found.problems
    (shop,) = [token for token in found.tokens if token.name == "shop"]
    assert isinstance(shop.limit, Limit)
    async with door_of(gateway.url, token=found.tokens) as door:
        (said,) = await answers(with_token, door, tmp_path)
        assert said["created"] is True
    assert await count(owner) == 4


@pytest.fixture
async def gateway(database: str) -> AsyncIterator[Gateway]:
    """One whose keys can be withdrawn."""
    async with Gateway(database, keys=Keys()) as running:
        yield running


async def test_the_page_of_keys_makes_a_key_and_replaces_it(
    gateway: Gateway, owner: Connection, checkout: Path, project: Path, start_worker: StartWorker
) -> None:
    page = (checkout / "docs" / "keys.md").read_text()
    make, look, replace = blocks(page)
    public = {"SUPABASE_PUBLISHABLE_KEY": gateway.keys.publishable}
    (project / "handlers" / "resources.py").write_text('"""None are asked for."""')
    (project / "handlers" / "maintenance" / "trace.py").unlink()
    (project / "handlers" / "maintenance" / "quiet.py").write_text(QUIET)
    await typed(make, project)
    old = (project / "worker_key").read_text().strip()
    environment = {"PULSE_WORKER_KEY_FILE": str(project / "worker_key"), **public}
    said = await typed(look, project, **environment)
    assert "pulse_worker" in said
    assert "in 89 d" in said or "in 90 d" in said
    assert old not in said
    async with start_worker(SUPABASE_SERVICE_ROLE_KEY="", **environment) as worker:
        next_key = gateway.keys.mint("pulse_worker", jti="the next one")
        await typed(replace, project, NEXT_KEY=next_key, WORKER_PID=str(worker.pid))
        await until("it is taken", lambda: worker.said("the project takes the next key"))
        gateway.keys.withdrawn.add(old)
        await owner.execute("insert into maintenance_jobs (type) values ('quiet')")
        await until("it works", lambda: owner.fetchval("select bool_and(status = 'completed') from jobs"))
        assert worker.code is None
