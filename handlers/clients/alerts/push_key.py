"""The key to Firebase: read from its setting, and exchanged for tokens before they are needed.

Firebase's library fetches a token within a request, and stands still on the event loop until it has it: seconds, when
Google is slow, for all jobs of the process. So it gets a badge that shows the token which is there and never fetches
one; tokens are fetched here, in a thread, well before the one in use ends. Who comes when there is none waits for it.
"""

import asyncio
import base64
import binascii
import functools
import importlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, cast

import httpx

from listener import ConfigError, Setting

FIREBASE_KEY = Setting(
    "FIREBASE_KEY",
    "Firebase console, Project settings, Service accounts, Generate new private key: the JSON itself, or in Base64",
    required=False,
)
SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
TIMEOUT_SECONDS: Final = 10.0
"""For one try to get a token; the library makes three."""
SOON_SECONDS: Final = 600.0
"""A token that has no longer than this is replaced while it is still in use."""
LEAST_SECONDS: Final = 60.0
"""One that has less is not used any more."""
PAUSE_SECONDS: Final = 30.0
"""Between two tries to replace one that still serves."""

Json = Mapping[str, object]


class KeyRefused(Exception):
    """Google does not take this key."""


class NoToken(Exception):
    """Google did not answer; nothing was sent."""


class TokenRefused(httpx.HTTPError):
    """Firebase does not take this token. Of httpx's family, since the library gives such errors to their message."""

    def __init__(self) -> None:
        super().__init__("Firebase refused the token.")


def service_account(text: str) -> Json:
    """FIREBASE_KEY, read. Raises ConfigError, without quoting it."""
    wanted = f"{FIREBASE_KEY.name} has to be the key of a service account: {FIREBASE_KEY.where}."
    try:
        raw = text.strip()
        if not raw.startswith("{"):
            raw = base64.b64decode("".join(raw.split()), validate=True).decode()
        found: object = json.loads(raw)
    except (ValueError, binascii.Error, RecursionError):
        raise ConfigError([wanted]) from None
    account: Json = cast("Json", found) if isinstance(found, dict) else {}
    needed = ("project_id", "private_key", "client_email", "token_uri")
    if account.get("type") != "service_account" or any(
        not isinstance(account.get(one), str) or not account.get(one) for one in needed
    ):
        raise ConfigError([wanted])
    return account


class Key:
    """Has a token, or gets one: loaded by `load`, used within `kept`."""

    def __init__(self, account: Json) -> None:
        self._credentials: Any = None
        self._account = account
        self._group: asyncio.TaskGroup | None = None
        self._renewal: asyncio.Future[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._tried_at = 0.0
        self.badge: Any = None
        """What Firebase's library takes for a credential."""

    def load(self) -> None:
        """Reads the key, in a thread: the library takes a while to import. Raises ConfigError."""
        module: Any = importlib.import_module("google.oauth2.service_account")
        try:
            self._credentials = module.Credentials.from_service_account_info(self._account, scopes=[SCOPE])
        except ValueError:
            raise ConfigError([f"{FIREBASE_KEY.name} holds no private key that can be read."]) from None
        self.badge = _badge(self)

    @property
    def token(self) -> str:
        """The one in use."""
        return str(self._credentials.token)

    async def fresh(self) -> None:
        """Returns when there is a token to use. Raises KeyRefused and NoToken."""
        left = self._seconds_left()
        if left > SOON_SECONDS:
            return
        if left <= LEAST_SECONDS:
            await self.renew()
        elif time.monotonic() - self._tried_at > PAUSE_SECONDS:
            _ = self._begin()  # it ends by itself

    async def renew(self) -> None:
        """Returns when there is a new token. Raises KeyRefused and NoToken."""
        await asyncio.shield(self._begin())

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Tokens are fetched within the block."""
        async with asyncio.TaskGroup() as self._group:
            try:
                yield
            finally:
                if self._renewing is not None:
                    self._renewing.cancel()

    def _begin(self) -> asyncio.Future[None]:
        """The renewal under way, or a new one."""
        if self._renewal is None:
            if self._group is None:
                raise NoToken("The process has not begun, or is ending.")
            self._tried_at = time.monotonic()
            self._renewal = asyncio.get_running_loop().create_future()
            self._renewing = self._group.create_task(self._renew(self._renewal))
        return self._renewal

    async def _renew(self, told: asyncio.Future[None]) -> None:
        error: Exception = NoToken("The process is ending.")
        try:
            await asyncio.to_thread(self._fetch)
        except (KeyRefused, NoToken) as refused:
            error = refused
        else:
            told.set_result(None)
        finally:
            self._renewal = self._renewing = None
            if not told.done():
                told.set_exception(error)
                told.exception()  # perhaps nobody waits

    def _fetch(self) -> None:
        """In a thread."""
        errors: Any = importlib.import_module("google.auth.exceptions")
        transport: Any = importlib.import_module("google.auth.transport.requests")
        try:
            self._credentials.refresh(functools.partial(transport.Request(), timeout=TIMEOUT_SECONDS))
        except errors.RefreshError as error:
            if error.retryable:
                raise NoToken("Google gave no token.") from None
            raise KeyRefused("Google does not take the key in FIREBASE_KEY.") from None
        except (errors.GoogleAuthError, OSError):
            raise NoToken("Google cannot be reached for a token.") from None

    def _seconds_left(self) -> float:
        expiry = self._credentials.expiry
        if self._credentials.token is None or not isinstance(expiry, datetime):
            return 0.0
        return (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()


def _badge(key: Key) -> Any:
    """A credential of Google's library that shows the key's token, and fetches nothing."""
    base: Any = importlib.import_module("google.auth.credentials").Credentials

    class Badge(base):  # type: ignore[misc]  # the library is imported late, so its class is known to nobody
        def before_request(self, _request: object, _method: str, _url: str, headers: dict[str, str]) -> None:
            headers["authorization"] = f"Bearer {key.token}"

        def refresh(self, _request: object) -> None:
            raise TokenRefused

    return Badge()
