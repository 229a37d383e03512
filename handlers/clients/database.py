"""The database as handlers see it: the official Supabase client, and one way to call a SQL function."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final, TypeAlias, cast

import httpx
from pydantic_core import to_jsonable_python
from supabase import AsyncClient, AsyncClientOptions, PostgrestAPIError, create_async_client

from listener import Keyring, traceparent

TIMEOUT_SECONDS: Final = 10.0
MOST_KEYS: Final = 4
"""Shown for one request: while it waits for a connection, the key may be replaced more than once."""

Database: TypeAlias = AsyncClient
"""Made once per process, with the service key: it sees and may do everything, so handlers check whose row it is."""


class _Shown(httpx.AsyncClient):
    """Shows the key of the process as it is at the moment of each request, and the next one when that is refused; and
    the trace that the work at hand belongs to.

    Only in place of the key that the client began with: what a handler asks as somebody else goes out as it is.
    """

    def __init__(self, keyring: Keyring) -> None:
        super().__init__(timeout=TIMEOUT_SECONDS)
        self._keyring = keyring
        self._first = keyring.proven.headers

    async def send(self, request: httpx.Request, **words: Any) -> httpx.Response:
        if (
            trace := traceparent()
        ) is not None:  # what a handler asks, and the jobs that come of it, are part of it
            request.headers["traceparent"] = trace
        if any(request.headers.get(name) != value for name, value in self._first.items()):
            return await super().send(request, **words)
        key, tries_left = self._keyring.proven, MOST_KEYS
        while True:
            request.headers.update(key.headers)
            answer = await super().send(request, **words)
            tries_left -= 1
            if answer.is_success:
                self._keyring.accepted(key)
            is_refused = answer.status_code == HTTPStatus.UNAUTHORIZED and tries_left
            if not is_refused or not await self._keyring.refused(key):
                return answer
            await answer.aclose()
            key = self._keyring.now


@asynccontextmanager
async def database_of(url: str, keyring: Keyring) -> AsyncIterator[Database]:
    """A client of the project. Its login session is never used: the key is the identity."""
    key = keyring.proven
    async with _Shown(keyring) as http:
        options = AsyncClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=http)
        options.headers["Authorization"] = key.headers["Authorization"]
        yield await create_async_client(url, key.apikey, options)


class CallFailed(Exception):
    """A SQL function refused its work. Says what the database said, without details: those would quote rows."""


async def call(db: Database, function: str, **arguments: object) -> Mapping[str, object]:
    """Runs a SQL function as one transaction and gives the JSON object that it answers.

    Times, uuids and Decimals go out as text, so nothing is rounded on the way. Raises CallFailed; a broken connection
    raises as it is. Both are retried by the table, so a function that handlers call must be safe to repeat.
    """
    try:
        answer = await db.rpc(function, cast("dict[str, object]", to_jsonable_python(arguments))).execute()
    except PostgrestAPIError as error:
        raise CallFailed(f"{function}: {error.message} ({error.code})") from None
    return cast("Mapping[str, object]", answer.data)
