"""Auth's side of the gateway: routes below /auth/v1, a database connection for each call, refusals as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Final

import asyncpg
from aiohttp import web

from devstack import cors
from devstack.auth import admin, people
from devstack.auth.call import Answer, Call
from devstack.auth.errors import VERSION_HEADER, AuthError, failure, not_implemented
from devstack.auth.sessions import Caller
from devstack.config import Config
from devstack.keys import Keys

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

PREFIX: Final = "/auth/v1"
LOG: Final = logging.getLogger("devstack.auth.server")
SESSION: Final = {"application_name": "devstack auth"}
AT_ONCE: Final = 8  # calls, each with a connection of its own for as long as it takes
EXPOSED: Final = f"X-Total-Count, Link, {VERSION_HEADER}"
USERS: Final = "/admin/users"
ROUTES: Final[dict[tuple[str, str], Callable[[Call], Awaitable[Answer]]]] = {
    ("POST", "/signup"): people.sign_up,
    ("POST", "/token"): people.token,
    ("GET", "/user"): people.get_user,
    ("PUT", "/user"): people.put_user,
    ("POST", "/logout"): people.sign_out,
    ("GET", USERS): admin.list_,
    ("POST", USERS): admin.create,
    ("GET", f"{USERS}/:id"): admin.get,
    ("PUT", f"{USERS}/:id"): admin.update,
    ("DELETE", f"{USERS}/:id"): admin.delete,
}
HEALTH: Final = {
    "version": "devstack",
    "name": "GoTrue",
    "description": "GoTrue is a user registration and authentication API",
}
# Tokens are signed with the project's secret, and the real server shows public keys only, so there are none.
KEYS_SHOWN: Final[dict[str, list[object]]] = {"keys": []}
PROVIDERS: Final = (
    "anonymous_users", "apple", "azure", "bitbucket", "discord", "facebook", "snapchat", "figma", "fly", "github",
    "gitlab", "google", "keycloak", "kakao", "linkedin", "linkedin_oidc", "notion", "spotify", "slack", "slack_oidc",
    "workos", "twitch", "twitter", "email", "phone", "zoom",
)  # fmt: skip


class Auth:
    """Serves one database. `dsn` logs in as `supabase_auth_admin`; `url` gives the gateway's address, which is
    known only once it listens; `poke` is called after each call that may have written, for triggers write too.
    """

    def __init__(
        self,
        dsn: str,
        *,
        keys: Keys,
        url: Callable[[], str],
        poke: Callable[[], None],
        config: Config,
    ) -> None:
        self._dsn = dsn
        self._keys = keys
        self._url = url
        self._poke = poke
        self._config = config
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers one request below /auth/v1."""
        if request.method == "OPTIONS":
            return cors.preflight(request)
        asked_version = request.headers.get(VERSION_HEADER)
        try:
            answer = await self._answer(request, request.path.removeprefix(PREFIX).rstrip("/"))
        except AuthError as refused:
            answer = Answer(refused.status, refused.body(asked_version), refused.headers(asked_version))
        if answer.status == 204:
            response = web.Response(status=204)
        else:
            response = web.json_response(answer.body, status=answer.status, headers=answer.headers)
        return cors.allow(request, response, expose=EXPOSED)

    async def _answer(self, request: web.Request, path: str) -> Answer:
        if request.method == "GET" and (known := self._without_database(path)) is not None:
            return known
        above, _, last = path.rpartition("/")
        pattern, id_ = (f"{USERS}/:id", last) if above == USERS else (path, "")
        route = ROUTES.get((request.method, pattern))
        if route is None:
            raise not_implemented(
                f"{request.method} {request.path} is not part of the development stack, which has of Auth: signup, "
                "token (password, refresh_token), user, logout, health, settings, jwks.json and admin/users."
            )
        body = await request.read()
        try:
            async with self._connection() as connection:
                call = Call(
                    connection=connection,
                    keys=self._keys,
                    config=self._config,
                    issuer=self._url() + PREFIX,
                    query=request.query,
                    authorization=self._keys.authorization(request.headers),
                    body=body,
                    caller=Caller(request.headers.get("User-Agent"), request.remote),
                    id=id_,
                )
                return await route(call)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            LOG.warning("%s %s: %s", request.method, request.path, type(error).__name__)
            raise failure("Database error querying schema") from error
        finally:
            if request.method != "GET":
                self._poke()

    def _without_database(self, path: str) -> Answer | None:
        if path == "/health":
            return Answer(body=HEALTH)
        if path == "/.well-known/jwks.json":
            return Answer(body=KEYS_SHOWN, headers={"Cache-Control": "public, max-age=600"})
        if path == "/settings":
            return Answer(body=self._shown_settings())
        return None

    def _shown_settings(self) -> dict[str, object]:
        return {
            "external": {name: name == "email" for name in PROVIDERS},
            "disable_signup": not self._config.enable_signup,
            "mailer_autoconfirm": True,
            "phone_autoconfirm": True,
            "sms_provider": "",
            "saml_enabled": False,
            "saml_private_key_next_configured": False,
            "passkeys_enabled": False,
        }

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Connection]:
        # One for each call: opening it is nothing beside hashing a password, and none can go stale.
        async with self._slots:
            connection = await asyncpg.connect(self._dsn, server_settings=SESSION)
            try:
                yield connection
            finally:
                await connection.close()
