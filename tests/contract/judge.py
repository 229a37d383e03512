"""A real PostgREST over a database of ours, as the judge of what an answer should be."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from yarl import URL

from devstack.keys import JWT_SECRET, mint
from tests.contract.recorded import Reply, steady
from tests.contract.rest_questions import Question
from tests.skips import POSTGREST


@asynccontextmanager
async def judging(
    dsn: str, folder: Path, *, table: str, schemas: str = "public, graphql_public", max_rows: int = 1000
) -> AsyncIterator[str]:
    """Its address, once it has read the schema: then `table` can be read. Its files are in `folder`."""
    binary = POSTGREST.path()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "postgrest.conf"
    config.write_text(
        f'db-uri = "{dsn.replace("//postgres", "//authenticator")}"\n'
        f'db-schemas = "{schemas}"\ndb-extra-search-path = "public, extensions"\ndb-anon-role = "anon"\n'
        f'jwt-secret = "{JWT_SECRET}"\ndb-max-rows = {max_rows}\nserver-host = "127.0.0.1"\nserver-port = {port}\n'
        'log-level = "crit"\n'
    )
    log = (folder / "postgrest.log").open("wb")
    process = await asyncio.create_subprocess_exec(str(binary), str(config), stdout=log, stderr=log)
    try:
        async with aiohttp.ClientSession() as session:
            await _until_up(session, f"http://127.0.0.1:{port}", table)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()
        log.close()


async def asked(session: aiohttp.ClientSession, url: str, question: Question) -> Reply:
    """The answer to one question."""
    headers = {"Authorization": f"Bearer {mint(question.role)}", **question.headers}
    body = question.body
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
    data = body if body is None or isinstance(body, str) else json.dumps(body)
    address = URL(url + question.encoded, encoded=True)
    async with session.request(question.method, address, data=data, headers=headers) as response:
        return steady(response.status, dict(response.headers), await response.text())


async def _until_up(session: aiohttp.ClientSession, url: str, table: str) -> None:
    """Waits until it has read the schema: before that it refuses the connection or answers 503."""
    headers = {"Authorization": f"Bearer {mint('service_role')}"}
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with session.get(f"{url}/{table}", headers=headers) as up:
                    if up.status == 200:
                        return
            await asyncio.sleep(0.02)
