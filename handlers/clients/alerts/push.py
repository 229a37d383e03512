"""Push messages through Firebase: gathered, sent with a token that is always fresh, each device its own outcome.

    answer                                      told as
    ------------------------------------------  -----------------------------------------------------------------
    a message's name                            Sent
    UNREGISTERED                                Refused, the device is forgotten: its app is gone
    SENDER_ID_MISMATCH                          Refused, the device is disabled: it belongs to another project
    INVALID_ARGUMENT about the token            Refused, the device is disabled
    one of these, and our key reaches nobody    NotSent: the key is of another project, and the devices stay
    INVALID_ARGUMENT about anything else        Refused: a fault of ours, and the device stays
    QUOTA_EXCEEDED                              Later, for the device; for all, when it was said to all
    our key, or the one that Apple wants        NotSent
    no connection, no token                     NotSent
    UNAVAILABLE, INTERNAL, time-out, a cut      Unknown; the copy replaces the first one, if there is one

A call of the library is a request for each message, side by side, since Firebase has no request for many. It takes up
to 500 and has 100 connections; those that wait for one time out, when there are many. So a call is 100 messages here.
The library tries again by itself when Firebase is unavailable: four times within seven seconds.
"""

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from handlers.clients.alerts.delivery import Pace
from handlers.clients.alerts.gathering import Gathering, NotCarried
from handlers.clients.alerts.outage import Outage
from handlers.clients.alerts.push_key import (
    FIREBASE_KEY,
    Key,
    KeyRefused,
    NoToken,
    TokenRefused,
    service_account,
)
from handlers.clients.alerts.push_message import GOOD_FOR, PushMessage
from handlers.clients.alerts.told import Hold, Later, NotSent, Refused, Sent, Told, Unknown
from listener import ConfigError, Setting, Settings

FIREBASE_API_BASE = Setting(
    "FIREBASE_API_BASE", "set it only to use a double of Firebase: its URL", required=False, secret=False
)
PUSH_SETTINGS: Final = (FIREBASE_KEY, FIREBASE_API_BASE)
PACE: Final = Pace(limit=timedelta(minutes=1), repeatable=True, digests=True)
"""A message may be tried five times, and wait for a token before."""

MOST: Final = 100
AT_ONCE: Final = 2
TIMEOUT_SECONDS: Final = 5
"""For each step of a try, such as to connect, or to wait for the answer."""
QUOTA_PAUSE: Final = timedelta(minutes=1)
"""What Firebase asks for at least, unless it says how long."""
LONGEST_PAUSE: Final = timedelta(hours=1)
BELIEVED: Final = 20
"""So many devices in a row may be gone; of more, it is the key that has gone wrong."""
DOUBTED: Final = NotSent(
    "key_doubted",
    "Firebase refuses this device, and our key reaches no other: is FIREBASE_KEY of the project of the app?",
    is_ours=True,
)


class Push:
    """Sends notifications. Opened once per process by `open`."""

    def __init__(self, gathering: Gathering[PushMessage, Told] | None, outage: Outage) -> None:
        self._gathering = gathering
        self._outage = outage

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> "AsyncIterator[Push]":
        """With the key of the settings; without one, messages become dead letters that say so. Raises ConfigError."""
        outage = Outage()
        if not settings.get(FIREBASE_KEY.name):
            yield cls(None, outage)
            return
        account = service_account(settings[FIREBASE_KEY.name])
        key = Key(account)
        firebase = _Firebase(str(account["project_id"]), settings.get(FIREBASE_API_BASE.name), key)
        await asyncio.to_thread(firebase.load)
        try:
            async with key.kept():
                line = _Line(firebase, key, outage)
                async with Gathering[PushMessage, Told].open(
                    line.carry, most=MOST, at_once=AT_ONCE
                ) as gathering:
                    yield cls(gathering, outage)
        finally:
            await firebase.close()

    async def send(self, message: PushMessage) -> Told:
        """What became of it. Raises nothing that Firebase or the network could cause."""
        gathering = self._gathering
        if gathering is None:
            return NotSent("no_key", f"FIREBASE_KEY is not set: {FIREBASE_KEY.where}. Then replay this job.")

        async def send() -> Told:
            try:
                return await gathering.send(message)
            except NotCarried as error:
                return Unknown("broke", str(error)) if error.was_sent else NotSent("ending", str(error))

        return await self._outage.watch(send, is_request=False)


class _Firebase:
    """The library, with our types at its edge."""

    def __init__(self, project: str, base: str | None, key: Key) -> None:
        self._project = project
        self._base = base
        self._key = key
        self._service: Any = None
        self._app: Any = None

    def load(self) -> None:
        """In a thread: it takes a second or two. Raises ConfigError."""
        self._key.load()
        self._admin: Any = importlib.import_module("firebase_admin")
        self._messaging: Any = importlib.import_module("firebase_admin.messaging")
        self._exceptions: Any = importlib.import_module("firebase_admin.exceptions")
        options = {"projectId": self._project, "httpTimeout": TIMEOUT_SECONDS}
        self._app = self._admin.initialize_app(self._key.badge, options, f"pulse-{uuid4().hex}")
        # The library has no public way to close what it opened for asyncio, to send elsewhere, and to leave tokens.
        self._service = self._messaging._get_messaging_service(self._app)  # noqa: SLF001
        self._service._async_client.async_client.auth._max_refresh_attempts = 0  # noqa: SLF001
        if self._base:
            if urlsplit(self._base).scheme not in ("http", "https"):
                raise ConfigError([f"{FIREBASE_API_BASE.name} has to be a URL; {FIREBASE_API_BASE.where}."])
            path = urlsplit(str(self._service._fcm_url)).path  # noqa: SLF001
            self._service._fcm_url = self._base.rstrip("/") + path  # noqa: SLF001

    async def close(self) -> None:
        """First what belongs to this loop; the library's own way begins another one, which cannot be done here."""
        await self._service._async_client.aclose()  # noqa: SLF001
        await asyncio.to_thread(self._admin.delete_app, self._app)

    async def send(self, messages: Sequence[PushMessage]) -> list["Told | None"]:
        """An outcome each; None: our token is refused, and nothing was sent."""
        batch = await self._messaging.send_each_async([self._worded(one) for one in messages], app=self._app)
        return [self._understood(one) for one in batch.responses]

    def _worded(self, message: PushMessage) -> Any:
        words, lasts = self._messaging, str(int(GOOD_FOR.total_seconds()))
        made = words.Message(
            data=dict(message.data),
            notification=words.Notification(title=message.title, body=message.body),
            android=words.AndroidConfig(
                collapse_key=message.key,
                priority="high" if message.is_urgent else "normal",
                ttl=GOOD_FOR,
                notification=words.AndroidNotification(tag=message.key),
            ),
            apns=words.APNSConfig(
                headers={
                    "apns-collapse-id": message.key,
                    "apns-priority": "10" if message.is_urgent else "5",
                    "apns-expiration": str(int(time.time() + GOOD_FOR.total_seconds())),
                },
                payload=words.APNSPayload(aps=words.Aps(thread_id=message.group)),
            ),
            webpush=words.WebpushConfig(
                headers={
                    "Topic": message.key,
                    "TTL": lasts,
                    "Urgency": "high" if message.is_urgent else "normal",
                },
                fcm_options=words.WebpushFCMOptions(link=message.link) if message.link else None,
            ),
        )
        setattr(
            made, message.kind, message.address
        )  # by name: the constructor warns of `token`, which is most of them
        return made

    def _understood(self, response: Any) -> Told | None:
        """What an answer means."""
        error, kinds = response.exception, self._exceptions
        if error is None:
            return Sent(str(response.message_id)[-200:])
        cause = error.cause
        if isinstance(cause, TokenRefused):
            return None
        if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            return NotSent("no_connection", "Firebase cannot be reached from here.")
        if (refused := self._refused(error)) is not None:
            return refused
        match error:
            case kinds.ResourceExhaustedError():
                after = _pause(error, QUOTA_PAUSE)
                return Later(after, hold=Hold(after))
            case kinds.UnauthenticatedError():
                return None
            case kinds.PermissionDeniedError() | kinds.NotFoundError():
                return NotSent(
                    "key_refused",
                    "Firebase does not let the key in FIREBASE_KEY send for its project.",
                    is_ours=True,
                )
            case kinds.DeadlineExceededError():
                return Unknown("timed_out", "Firebase did not answer in time.")
            case _:
                return Unknown("failed", "Firebase failed.", _pause(error, timedelta(seconds=30)))

    def _refused(self, error: Any) -> Refused | NotSent | None:
        """What is wrong with this device or this message. These errors are kinds of those above."""
        kinds, words = self._exceptions, self._messaging
        match error:
            case words.UnregisteredError():
                return Refused("unregistered", "The app is not on this device any more.", target="remove")
            case words.SenderIdMismatchError():
                return Refused("other_project", "This device belongs to another project.", target="disable")
            case words.ThirdPartyAuthError():
                return NotSent(
                    "apns_key",
                    "Apple or the browser's service refuses the key that Firebase has for it.",
                    is_ours=True,
                )
            case kinds.InvalidArgumentError() if _is_about_the_token(str(error)):
                return Refused("invalid_token", "Firebase does not know this device.", target="disable")
            case kinds.InvalidArgumentError():
                return Refused("bad_request", "Firebase refused the notification: a fault of this program.")
            case _:
                return None


class _Line:
    """Carries what was gathered."""

    def __init__(self, firebase: _Firebase, key: Key, outage: Outage) -> None:
        self._firebase = firebase
        self._key = key
        self._outage = outage
        self._believes = 0

    async def carry(self, messages: Sequence[PushMessage]) -> Sequence[Told]:
        """One outcome each."""
        answered = False
        try:
            told = await self._carry(messages)
            answered = not all(map(_is_silence, told))
        finally:
            self._outage.heard(answered=answered)
        told = self._believed(told)
        if len(told) > 1 and all(isinstance(one, Later) for one in told):
            return [Later(one.after, hold=Hold(one.after, True)) for one in told if isinstance(one, Later)]
        return told

    def _believed(self, told: list[Told]) -> list[Told]:
        """A refusal costs a device only while the key is known to reach others; else all of them would be lost by it.

        The key is known from the first message that is taken, and doubted again after many refusals in a row.
        """
        if any(isinstance(one, Sent) for one in told):
            self._believes = BELIEVED
        believed = list[Told]()
        for one in told:
            costs = isinstance(one, Refused) and one.target != "keep"
            believed.append(DOUBTED if costs and self._believes == 0 else one)
            self._believes -= costs and self._believes > 0
        return believed

    async def _carry(self, messages: Sequence[PushMessage]) -> list[Told]:
        told: list[Told | None] = [None] * len(messages)
        refused = NotSent(
            "key_refused", "Firebase does not take tokens of the key in FIREBASE_KEY.", is_ours=True
        )
        try:
            await self._key.fresh()
            told = await self._firebase.send(messages)
            left = [number for number, one in enumerate(told) if one is None]
            if left:  # the token was called back, or a clock is wrong
                await self._key.renew()
                again = await self._firebase.send([messages[number] for number in left])
                for number, one in zip(left, again, strict=True):
                    told[number] = one
        except KeyRefused as error:
            refused = NotSent("key_refused", str(error), is_ours=True)
        except NoToken as error:
            refused = NotSent("no_token", str(error))
        return [refused if one is None else one for one in told]


def _is_silence(told: Told) -> bool:
    """A key that is refused is an answer: who waits for another one waits in vain, and a dead letter says so."""
    return isinstance(told, Unknown) or (
        isinstance(told, NotSent) and told.reason in ("no_connection", "no_token")
    )


def _is_about_the_token(words: str) -> bool:
    """Whether an INVALID_ARGUMENT blames the device and not the message; Firebase has one error for both."""
    said = words.lower()
    return any(
        name in said for name in ("registration token", "message.token", "message.fid", "installation id")
    )


def _pause(error: Any, at_least: timedelta) -> timedelta:
    """How long to wait, as far as the answer says so."""
    response = error.http_response
    said = response.headers.get("Retry-After", "") if response is not None else ""
    seconds = timedelta(seconds=int(said)) if said.isdecimal() and len(said) < 7 else timedelta(0)
    return min(max(seconds, at_least), LONGEST_PAUSE)
