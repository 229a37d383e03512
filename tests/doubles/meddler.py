"""A provider between us and a chain: it passes questions on, and answers as a test wants it to."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

Change = Callable[[str, Any], Any]
"""From the method and the true result to the one that is answered."""


def unchanged(method: str, result: Any) -> Any:
    return result


class Meddler:
    """Answers JSON-RPC on loopback, under a path that holds a key as providers have it."""

    KEY = "key-of-this-provider-0123456789"

    def __init__(self, behind: str) -> None:
        self._behind = behind
        self.change: Change = unchanged
        self.status = 200
        """Other than 200: an answer of this status, in HTML."""
        self.hangs = False
        app = web.Application()
        app.router.add_post("/v2/" + self.KEY, self._answer)
        self._server = TestServer(app)

    async def __aenter__(self) -> Self:
        await self._server.start_server(access_log=None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("/v2/" + self.KEY))

    async def _answer(self, request: web.Request) -> web.Response:
        if self.hangs:
            await asyncio.Event().wait()
        if self.status != 200:
            return web.Response(status=self.status, text="<html>not now</html>", content_type="text/html")
        question = await request.json()
        async with aiohttp.ClientSession() as session, session.post(self._behind, json=question) as answer:
            said = await answer.json()
        if "result" in said:
            said["result"] = self.change(question["method"], said["result"])
        return web.json_response(said)
