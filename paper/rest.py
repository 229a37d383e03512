"""A `Call` over a project's REST address, for the paper broker when it runs as a process of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from aiohttp import ClientError, ClientSession, ClientTimeout

from paper.store import Call, Json

_TIMEOUT = ClientTimeout(total=10)


class DatabaseFailed(Exception):
    """The database did not do what it was asked for, or nobody knows. Quotes no row."""


@asynccontextmanager
async def rest(url: str, key: str) -> AsyncIterator[Call]:
    """Calls functions of the project at SUPABASE_URL, with a service key."""
    headers = {"apikey": key, "Authorization": f"Bearer {key}"}
    async with ClientSession(headers=headers, timeout=_TIMEOUT) as session:

        async def call(function: str, arguments: Json) -> Json:
            try:
                async with session.post(
                    f"{url.rstrip('/')}/rest/v1/rpc/{function}", json=arguments
                ) as answer:
                    said: object = await answer.json(content_type=None)
            except (ClientError, TimeoutError, ValueError) as error:
                raise DatabaseFailed(f"{function}: no answer ({type(error).__name__})") from None
            if answer.status != 200:
                code = cast("Json", said).get("code") if isinstance(said, dict) else None
                raise DatabaseFailed(f"{function}: {answer.status} ({code})")
            return cast("Json", said)

        yield call
