"""A proxy before the REST side that answers 502 to requests above a size, as some do."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import ClientSession, web

PASSED_ON = ("apikey", "Authorization", "Content-Type")


@dataclass(eq=False)
class Proxy:
    """`largest` and `is_cut` may be changed while it runs."""

    to: str
    largest: int
    http: ClientSession
    url: str = ""
    is_cut: bool = False
    """Whether connections break off, and nothing is passed on."""
    requests: int = 0
    """How many there were."""

    async def handle(self, request: web.Request) -> web.Response:
        self.requests += 1
        body = await request.read()
        if self.is_cut and request.transport is not None:
            request.transport.abort()
            return web.Response()  # to nobody
        if len(body) > self.largest:
            return web.Response(status=502, text="Bad Gateway")
        headers = {name: request.headers[name] for name in PASSED_ON}
        async with self.http.post(self.to + request.path, data=body, headers=headers) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), content_type="application/json"
            )


@asynccontextmanager
async def proxy(to: str, *, largest: int) -> AsyncIterator[Proxy]:
    """Runs one in front of the address."""
    async with ClientSession() as http:
        answers = Proxy(to, largest, http)
        async with answering(answers.handle) as answers.url:
            yield answers


@asynccontextmanager
async def answering(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A server that answers everything by that function; gives its address."""
    app = web.Application(client_max_size=10_000_000)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
