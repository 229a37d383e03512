"""The official JavaScript client does what users do, in Node and in a browser, with both versions of the protocol."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import async_playwright

from tests.clients.conftest import Project
from tests.skips import CHROMIUM, SUPABASE_JS

HERE = Path(__file__).parent
STORIES = HERE / "stories"
# Without these a browser looks up its maker's hosts at every start, and as root it refuses to start at all.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
# What does not speak Realtime is told once.
GROUPS = {"1.0.0": ["realtime"], "2.0.0": ["rest", "auth", "realtime"]}
Told = dict[str, str | None]


@pytest.mark.parametrize("version", GROUPS)
async def test_in_node(project: Project, version: str) -> None:
    modules, node = SUPABASE_JS.path(), shutil.which("node")
    assert node is not None, "PULSE_SUPABASE_JS is set, but there is no node on the PATH"
    told = await _output(node, str(HERE / "node.mjs"), str(modules), _words(project, version, project.secret))
    _went_well(json.loads(told))


@pytest.mark.parametrize("version", GROUPS)
async def test_in_a_browser(project: Project, version: str) -> None:
    browser_program, modules = CHROMIUM.path(), SUPABASE_JS.path()
    async with _page(modules) as address, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_program, args=list(FLAGS))
        try:
            page = await browser.new_page()
            await page.goto(address)
            told = await page.evaluate("project => tell(project)", json.loads(_words(project, version)))
        finally:
            await browser.close()
    _went_well(told)


def _words(project: Project, version: str, secret: str | None = None) -> str:
    words = {"url": project.url, "key": project.key, "secret": secret, "prefix": project.prefix}
    return json.dumps(words | {"vsn": version, "groups": GROUPS[version]})


def _went_well(told: Told) -> None:
    assert told
    wrong = [f"{story}: {why}" for story, why in told.items() if why is not None]
    assert not wrong, "\n\n".join(wrong)


async def _output(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        said, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complained.decode()
    return said


@asynccontextmanager
async def _page(modules: Path) -> AsyncIterator[str]:
    """Serves the page with the stories from an origin of its own."""
    files = {f"/stories/{path.name}": path for path in STORIES.glob("*.mjs")} | {
        "/": HERE / "page.html",
        "/supabase.js": modules / "@supabase" / "supabase-js" / "dist" / "umd" / "supabase.js",
    }

    async def serve(request: web.Request) -> web.StreamResponse:
        if request.path not in files:
            return web.Response(status=404)
        return web.FileResponse(
            files[request.path], headers={"Content-Type": KINDS[files[request.path].suffix]}
        )

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


KINDS = {".html": "text/html", ".mjs": "text/javascript", ".js": "text/javascript"}
