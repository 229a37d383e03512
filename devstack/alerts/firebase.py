"""A double of Firebase: Google's endpoint for tokens, and the messages of FCM's HTTP v1 API.

`key` is a service account as the console gives it out; its `token_uri` leads here. A token is given for an assertion
that is signed with that key, for this endpoint and not too old; a message is looked at field by field as the API does
(`firebase_form.py`) and arrives at its device. A device shows what came under one collapse key once. Whatever the API
answers when something is wrong is ordered: by the state of a device, or with `fail_next`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, Self, cast
from urllib.parse import parse_qs

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from devstack.alerts.firebase_form import fault_of

Json = dict[str, Any]
PROJECT: Final = "devstack"
DROPPED: Final = 0
"""As a status for `fail_next`: no answer, the connection breaks."""
DROPPED_AFTERWARDS: Final = 1
"""The same, but the message arrived."""
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
AUDIENCE: Final = "https://oauth2.googleapis.com/token"
"""What assertions are for, wherever they are sent."""
FCM_ERROR: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
State = Literal[
    "fine", "unregistered", "other_sender", "invalid", "over_quota", "apns_key", "unavailable", "hangs"
]
ERRORS: Final[Mapping[str, tuple[int, str, str | None, str]]] = {
    "unregistered": (404, "NOT_FOUND", "UNREGISTERED", "Requested entity was not found."),
    "other_sender": (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "SenderId mismatch"),
    "invalid": (
        400,
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "The registration token is not a valid FCM registration token",
    ),
    "over_quota": (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "Quota exceeded."),
    "apns_key": (
        401,
        "UNAUTHENTICATED",
        "THIRD_PARTY_AUTH_ERROR",
        "Auth error from APNS or Web Push Service",
    ),
    "unavailable": (503, "UNAVAILABLE", "UNAVAILABLE", "The service is currently unavailable."),
}


@functools.cache
def usual_key() -> rsa.RSAPrivateKey:
    """To make one takes a while, so all doubles of a process have the same unless they are given another."""
    return another_key()


def another_key() -> rsa.RSAPrivateKey:
    """One that nobody has."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(slots=True)
class Device:
    """One app on one device."""

    token: str
    kind: Literal["token", "fid"] = "token"
    state: State = "fine"
    came: list[Json] = field(default_factory=list[Json])
    """Each message that arrived, the oldest first."""
    shown: dict[str, Json] = field(default_factory=dict[str, Json])
    """What a person sees: by collapse key the newest."""


@dataclass(slots=True)
class _Fault:
    path: str
    status: int
    times: int
    words: Json


class FirebaseDouble:
    """A running double; async context manager. `url` and `key` are known inside the block."""

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        expires_in: int = 3600,
        private_key: rsa.RSAPrivateKey | None = None,
    ) -> None:
        self.devices: dict[str, Device] = {}
        self.answers: Counter[int] = Counter()
        """How often each status was answered to a message."""
        self.tokens_given = 0
        self.expires_in = expires_in
        self.may_give_tokens = asyncio.Event()
        """Not set: the endpoint for tokens takes its time."""
        self.may_give_tokens.set()
        self.may_take_messages = asyncio.Event()
        """Not set: no message is answered; those that came are taken when it is set again."""
        self.may_take_messages.set()
        self.ordered: list[_Fault] = []
        self._host, self._port = host, port
        self._private = private_key or usual_key()
        self._tokens: dict[str, float] = {}
        self._ended = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """What takes the place of https://fcm.googleapis.com."""
        return f"http://{self._host}:{self._port}"

    @property
    def key(self) -> Json:
        """A service account, as the console of Firebase gives it out."""
        pem = self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": f"firebase-adminsdk@{PROJECT}.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }

    def device(self, kind: Literal["token", "fid"] = "token", state: State = "fine") -> Device:
        """A new one."""
        made = Device(f"{secrets.token_urlsafe(16)[:22]}:APA91b{secrets.token_urlsafe(60)}", kind, state)
        self.devices[made.token] = made
        return made

    def fail_next(self, path: str, status: int, times: int = 1, words: Json | None = None) -> None:
        """The next so many requests to `/token` or `/v1` are answered so (`DROPPED`…: not at all)."""
        self.ordered.append(_Fault(path, status, times, words or {"error": {"status": "INTERNAL"}}))

    def call_back_tokens(self) -> None:
        """No token that was given is good any more."""
        self._tokens.clear()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/token", self._give_token)
        app.router.add_post(f"/v1/projects/{PROJECT}/messages:send", self._take_message)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port, backlog=1024).start()
        self._port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self.may_give_tokens.set()
        self.may_take_messages.set()
        if self._runner is not None:
            await self._runner.cleanup()

    # -- tokens --

    async def _give_token(self, request: web.Request) -> web.StreamResponse:
        body = parse_qs((await request.read()).decode())
        await self.may_give_tokens.wait()
        if (fault := self._fault("/token")) is not None:
            return (
                _broken(request) if fault.status <= 1 else web.json_response(fault.words, status=fault.status)
            )
        try:
            if body.get("grant_type") != [GRANT]:
                raise jwt.InvalidTokenError("no grant of this kind")
            claims = jwt.decode(
                body["assertion"][0],
                self._private.public_key(),
                algorithms=["RS256"],
                audience=AUDIENCE,
                issuer=self.key["client_email"],
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
            if claims["exp"] - claims["iat"] > 3600 or claims.get("scope") != SCOPE:
                raise jwt.InvalidTokenError("too long, or for something else")
        except (jwt.InvalidTokenError, KeyError) as error:
            return web.json_response({"error": "invalid_grant", "error_description": str(error)}, status=400)
        token = f"ya29.{secrets.token_urlsafe(40)}"
        self._tokens[token] = time.time() + self.expires_in
        self.tokens_given += 1
        words = {"access_token": token, "expires_in": self.expires_in, "token_type": "Bearer"}
        return web.json_response(words)

    # -- messages --

    async def _take_message(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.read()
        except ConnectionResetError:  # its sender gave up
            return web.Response()
        await self.may_take_messages.wait()
        fault = self._fault("/v1")
        if fault is not None and fault.status > DROPPED_AFTERWARDS:
            return self._answer(fault.status, fault.words)
        if fault is not None and fault.status == DROPPED:
            return _broken(request)
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._tokens.get(bearer, 0) < time.time():
            return self._error(
                401, "UNAUTHENTICATED", None, "Request had invalid authentication credentials."
            )
        try:
            words: object = json.loads(body)
        except ValueError:
            words = None
        if (wrong := fault_of(words)) is not None:
            return self._error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", wrong)
        message: Json = cast("dict[str, Json]", words)["message"]
        device = self.devices.get(message.get("token") or message.get("fid") or "")
        state: State = "invalid" if device is None or device.kind not in message else device.state
        if state == "hangs":
            await self._ended.wait()
            return _broken(request)
        if state != "fine" or device is None:
            return self._error(*ERRORS[state])
        device.came.append(message)
        device.shown[message["android"]["collapse_key"]] = message
        if fault is not None:
            return _broken(request)
        return self._answer(200, {"name": f"projects/{PROJECT}/messages/{secrets.token_hex(8)}"})

    def _fault(self, path: str) -> _Fault | None:
        for fault in self.ordered:
            if fault.path == path and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def _error(self, status: int, name: str, code: str | None, text: str) -> web.StreamResponse:
        error: Json = {"code": status, "message": text, "status": name}
        if code is not None:
            error["details"] = [{"@type": FCM_ERROR, "errorCode": code}]
        return self._answer(status, {"error": error})

    def _answer(self, status: int, words: Json) -> web.StreamResponse:
        self.answers[status] += 1
        return web.json_response(words, status=status)


def _broken(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # goes nowhere
