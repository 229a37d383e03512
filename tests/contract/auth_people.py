"""People for the tests of Auth: official clients that end with the test, and plain requests as a browser makes them."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
from supabase import AsyncClientOptions, acreate_client

from devstack.gateway import Gateway
from tests.waiting import PATIENCE

ALICE, BOB = "alice@example.com", "bob@example.com"
PASSWORD = "correct horse"
Connect = Callable[[str], Awaitable[Any]]  # the client's own types are partly unknown to the checkers


@contextlib.asynccontextmanager
async def connecting(url: str) -> AsyncIterator[Connect]:
    """Gives a function that makes clients for a key; they end with the block."""
    async with AsyncExitStack() as until_the_end:

        async def connect(key: str) -> Any:
            http = await until_the_end.enter_async_context(httpx.AsyncClient(timeout=PATIENCE))
            client = await acreate_client(
                url, key, AsyncClientOptions(httpx_client=http, auto_refresh_token=False)
            )
            until_the_end.push_async_callback(client.realtime.close)
            return client

        yield connect


def words(email: str = ALICE, password: str = PASSWORD) -> dict[str, str]:
    """The body with which somebody signs up or in."""
    return {"email": email, "password": password}


@dataclass(frozen=True)
class Plain:
    """Requests without a client, as Auth gets them through the gateway; the answers in the older shape."""

    gateway: Gateway
    http: httpx.AsyncClient

    async def __call__(
        self, method: str, path: str, body: object = None, *, token: str | None = None, **headers: str
    ) -> httpx.Response:
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.http.request(
            method,
            f"{self.gateway.url}/auth/v1/{path}",
            json=body,
            headers={"apikey": self.gateway.keys.publishable} | bearer | headers,
        )

    async def sign_in(self, email: str = ALICE, password: str = PASSWORD) -> dict[str, Any]:
        """Signs in, and up before that if need be; the answer with both tokens."""
        answer = await self("POST", "token?grant_type=password", words(email, password))
        if answer.status_code != 200:
            answer = await self("POST", "signup", words(email, password))
        found: dict[str, Any] = answer.json()
        assert answer.status_code == 200, found
        return found

    async def refresh(self, token: str) -> httpx.Response:
        """Shows a refresh token."""
        return await self("POST", "token?grant_type=refresh_token", {"refresh_token": token})
