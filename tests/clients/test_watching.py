"""The page of docs/watching.md, in a browser: a user follows their own job from pending to completed, and no other."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from playwright.async_api import Page, async_playwright

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener import Progress
from listener.jobs import WokenBy
from tests.clients.test_javascript import FLAGS
from tests.listener.working import Anything, Connection, runs, working
from tests.security.matrix import READS
from tests.skips import CHROMIUM, SUPABASE_JS

PASSWORD = "correct horse"
PATIENCE = 30_000.0
"""Milliseconds that a promised line may take to appear."""
INSERT = "insert into maintenance_jobs (type, data, user_id) values ('imports', '{\"secret\": 1}', $1) returning id"


async def signed_up(gateway: Gateway, email: str) -> str:
    async with httpx.AsyncClient(headers={"apikey": LOCAL.publishable}) as http:
        answer = await http.post(f"{gateway.url}/auth/v1/signup", json={"email": email, "password": PASSWORD})
    return str(answer.json()["user"]["id"])


def blocks(checkout: Path) -> Mapping[str, str]:
    """The page's code by its language."""
    text = (checkout / "docs" / "watching.md").read_text()
    return dict(re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))


@asynccontextmanager
async def served(files: Mapping[str, tuple[str, str]]) -> AsyncIterator[str]:
    """The files by their path, each with its kind, at an origin of their own."""

    async def serve(request: web.Request) -> web.Response:
        if request.path not in files:
            return web.Response(status=404)
        kind, text = files[request.path]
        return web.Response(text=text, content_type=kind)

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def watching(gateway: Gateway, checkout: Path, email: str) -> AsyncIterator[tuple[Page, list[Any]]]:
    """The page, signed in, and all that Realtime has told it of changes."""
    code = blocks(checkout)
    html = code["html"]
    for name, value in (
        ("SUPABASE_URL", gateway.url),
        ("SUPABASE_PUBLISHABLE_KEY", LOCAL.publishable),
        ("EMAIL", email),
        ("PASSWORD", PASSWORD),
    ):
        html = html.replace(f'"{name}"', json.dumps(value))
    library = SUPABASE_JS.path() / "@supabase" / "supabase-js" / "dist" / "umd" / "supabase.js"
    files = {
        "/": ("text/html", html),
        "/watch.js": ("text/javascript", code["js"]),
        "/supabase.js": ("text/javascript", library.read_text()),
    }
    heard: list[Any] = []
    async with served(files) as address, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM.path(), args=list(FLAGS))
        try:
            page = await browser.new_page()
            page.on(
                "websocket",
                lambda socket: socket.on(
                    "framereceived",
                    lambda frame: heard.append(frame) if "postgres_changes" in str(frame) else None,
                ),
            )
            await page.goto(address)
            yield page, heard
        finally:
            await browser.close()


async def shows(page: Page, line: str) -> None:
    """Waits until the page is this one line."""
    await page.wait_for_function(
        "line => document.querySelector('#jobs').innerText.trim() === line", arg=line, timeout=PATIENCE
    )


async def test_a_user_follows_a_job_from_pending_to_its_result_and_hears_of_no_other(
    gateway: Gateway, owner: Connection, checkout: Path
) -> None:
    ann, eve = await signed_up(gateway, "ann@example.com"), await signed_up(gateway, "eve@example.com")
    go_on = asyncio.Event()

    async def imports(_payload: Anything, *, progress: Progress) -> dict[str, object]:
        await progress(3, of=10, note="March")
        await go_on.wait()
        await progress(10, of=10, note="December")
        return {"imported": 10}

    async with working(gateway, runs(imports)) as shop:
        await shop.has_looked()
        async with watching(gateway, checkout, "ann@example.com") as (page, heard):
            for user in (eve, ann, None):
                await owner.execute(INSERT, user)
            await shows(page, "imports pending")
            shop.bell.ring(WokenBy.REALTIME)
            await shows(page, "imports running 3 of 10: March")
            go_on.set()
            await shows(page, 'imports completed 10 of 10: December {"imported":10}')
            await shop.finishes(3)
            records = [change["record"] for change in changes(heard)]
    assert records
    assert {record["user_id"] for record in records} == {ann}
    assert all(set(record) <= set(READS["jobs", "user"]) for record in records)


def changes(heard: list[Any]) -> list[Any]:
    """What the frames told of rows, in either version of the protocol."""
    told: list[Any] = []
    for frame in heard:
        message: Any = json.loads(frame)
        if isinstance(message, dict):
            message = [None, None, None, message["event"], message["payload"]]
        event, payload = message[3:]
        if event == "postgres_changes":
            told.append(payload["data"])
    return told


@pytest.mark.parametrize("name", ["js", "html", "python"])
def test_the_page_has_the_code_that_is_run_here(name: str, checkout: Path) -> None:
    assert blocks(checkout)[name]
