"""One throw-away Realtime client, from its handshake to its last closed socket: all that speaks Realtime.

The client (`realtime` 2.34) can go deaf for good without a word: after an exception in a callback, an outage
longer than its retries, an error of the server that it answers with a second join, an expired token, a slow
join. It then looks connected, or has forgotten its channel. So nothing of it is trusted or used again: whatever
is unusual ends the epoch, and `subscription.py` begins another with a new client. The client's own reconnecting
and rejoining never get a turn.

One channel carries all tables, because one join is then the whole truth: the server drops the good bindings
together with a bad one and says so, the epoch ends, and its reason names the table and the mend. With a channel
for each table, a forgotten table would be silent while all else looks well. Broadcasts have no filter, so a second
channel carries the canary of this process alone; the epoch ends when either does.

Races: everything here runs on one event loop. The first ending stands, later ones are its echo. Once over, an
epoch reports nothing more, so a late "Subscribed" cannot revive it; a late INSERT may still ring, which is harmless.
"""

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias, cast

from realtime import AsyncRealtimeChannel, AsyncRealtimeClient
from realtime.message import SuccessSystemPayload
from realtime.types import RealtimeChannelConfig, RealtimePostgresChangesListenEvent, RealtimeSubscribeStates
from realtime.version import __version__ as installed

from listener.errors import ConfigError

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

# The client offers no other way to see whether it still lives, and to be rid of it for certain. pyproject.toml
# keeps to the versions that have these names, and `require_supported_client` asserts them before anything starts.
_SUPPORTED = "realtime>=2.34,<3"
_TASKS_OF_CLIENT = ("_listen_task", "_heartbeat_task")
_TASKS_OF_CHANNEL = ("join_push.timeout_task", "rejoin_timer.timer")
_MORE_OF_CLIENT = ("_ws_connection",)
_MORE_OF_CHANNEL = ("_background_tasks", "messages_waiting_for_ack")

_INSERT = RealtimePostgresChangesListenEvent.Insert
_TOPIC = "pulse"
_CANARY_TABLE = "realtime_canary"

Task: TypeAlias = asyncio.Task[None]


class Pace(Enum):
    """How soon it makes sense to begin again."""

    AT_ONCE = auto()
    """The ending was planned."""
    SOON = auto()
    """Trouble that may be over in a second."""
    PATIENT = auto()
    """Haste would make it worse (rate limits), or a person has to act first (a refused key)."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why an epoch is over, in words for an operator (foreign text in it is not yet redacted)."""

    reason: str
    pace: Pace = Pace.SOON


class Epoch:
    """A client that is opened once, watched, and closed for good.

    `inserted` has, for each table of schema public that is listened to, what to call for each INSERT heard.
    `subscribed` is called when the server says that INSERTs will be heard from now on; when called again, some may
    have been missed. `proven` is called before anything else for whatever is heard, canaries included.
    `key` says who listens; `apikey` is for the gateway, where that alone would not open it.
    `token` marks this process's rows in the canary table: letters, digits, - and _ only.
    """

    def __init__(
        self,
        *,
        url: str,
        key: str,
        inserted: Mapping[str, Callable[[], None]],
        subscribed: Callable[[], None],
        proven: Callable[[], None],
        token: str,
        deadline: float,
        by_broadcast: bool = False,
        apikey: str | None = None,
    ) -> None:
        self.canary_heard = asyncio.Event()
        self.heard_at: float | None = None
        """When an INSERT, of a job or of a canary, was last heard: the only proof of hearing."""
        self._subscribed = subscribed
        self._proven = proven
        self._deadline = deadline
        self._open_or_over = asyncio.Event()
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._socket: ClientConnection | None = None
        # The client's timeout is the longer one, so that it never comes to join a second time by itself.
        timeout = math.ceil(deadline) + 1
        self._client = AsyncRealtimeClient(
            url, apikey or key, auto_reconnect=False, max_retries=1, timeout=timeout
        )
        self._client.access_token = key  # with which it joins
        heard = {table: partial(self._heard, ring) for table, ring in inserted.items()}
        canary = partial(self._heard, self.canary_heard.set)
        if by_broadcast:
            self._ready_word = "system"
            self._channels = self._broadcasts(heard, canary, token)
        else:
            self._ready_word = "postgres_changes"
            self._channels = [self._changes(heard, canary, token)]
        self._channels[0].on_system(self._system_said)

    def _changes(
        self, heard: Mapping[str, Callable[..., None]], canary: Callable[..., None], token: str
    ) -> AsyncRealtimeChannel:
        channel = self._client.channel(_TOPIC)
        for table, ring in heard.items():
            # The id alone: a wake-up carries nothing that is used, so payloads stay out of frames and logs.
            channel.on_postgres_changes(_INSERT, ring, table, "public", select=["id"])
        return channel.on_postgres_changes(_INSERT, canary, _CANARY_TABLE, "public", f"token=eq.{token}")

    def _broadcasts(
        self, heard: Mapping[str, Callable[..., None]], canary: Callable[..., None], token: str
    ) -> list[AsyncRealtimeChannel]:
        """Private channels: their messages come from the database alone, and only service keys may join them."""
        config = RealtimeChannelConfig(broadcast={"replication_ready": True}, presence=None, private=True)
        tables = self._client.channel(_TOPIC, {"config": config})
        for table, ring in heard.items():
            tables.on_broadcast(table, ring)
        own = self._client.channel(f"{_TOPIC}-{token}", {"config": config})
        return [tables, own.on_broadcast(_CANARY_TABLE, canary)]

    async def open(self) -> bool:
        """Connects, joins, and waits for the word that changes are streamed. False: the epoch is over."""
        try:
            async with asyncio.timeout(self._deadline):
                await self._client.connect()
                self._socket = self._client._ws_connection
                for channel in reversed(self._channels):  # the one that says "Subscribed" is the last to join
                    await channel.subscribe(self._state_changed)
                await self._open_or_over.wait()
        except TimeoutError:
            self.end(Ending(f"not ready within {self._deadline:g} s"))
        except Exception as error:  # noqa: BLE001  # The client lets through what it meets, of any kind.
            self.end(ending_of_handshake(error))
        return not self._ending.done()

    async def over(self, look_every: float) -> Ending:
        """Waits for the ending. Looks every so many seconds whether the client's own tasks still live."""
        while not self._ending.done():
            await asyncio.wait({self._ending}, timeout=look_every)
            self._look()
        return self._ending.result()

    def end(self, ending: Ending) -> None:
        """Ends the epoch, unless it is over already. Does not close it."""
        if not self._ending.done():
            self._ending.set_result(ending)
        self._open_or_over.set()

    async def close(self, within: float) -> None:
        """Leaves no task and no socket, whatever the state; a polite goodbye gets `within` seconds."""
        self.end(Ending("closed"))  # what still comes in counts no more
        socket = self._socket or self._client._ws_connection
        tasks = self._tasks()
        if socket is not None and socket.keepalive_task is not None:
            tasks.add(socket.keepalive_task)
        try:
            async with asyncio.timeout(within):
                await self._client.close()
        except Exception:  # noqa: BLE001, S110  # How the goodbye failed concerns nobody any more.
            pass
        finally:
            # A peer that stopped reading can hold up a polite close for ever; an abort asks nobody.
            if socket is not None:
                socket.transport.abort()
            await _put_away(tasks | self._tasks())
            if socket is not None:
                await socket.wait_closed()

    def _tasks(self) -> set[Task]:
        """All tasks that the client has begun, in every corner where it keeps some."""
        found = [attrgetter(name)(self._client) for name in _TASKS_OF_CLIENT]
        for channel in self._channels:
            found += [attrgetter(name)(channel) for name in _TASKS_OF_CHANNEL]
            found += [attrgetter("timeout_task")(push) for push in channel.messages_waiting_for_ack.values()]
            found += channel._background_tasks
        return {task for task in found if task is not None}

    def _look(self) -> None:
        """Ends the epoch when a task of the client has died, which the client itself does not notice."""
        if not self._client.is_connected:
            self.end(Ending("the connection was lost"))
        for name in _TASKS_OF_CLIENT:
            task: Task | None = attrgetter(name)(self._client)
            if task is None or task.done():
                self.end(Ending(f"the client's {name.strip('_').replace('_', ' ')} died ({_cause(task)})"))

    def _heard(self, act: Callable[[], None], _message: object = None) -> None:
        """For each INSERT: the proof that changes come through, and what is to be done about it."""
        if not self._ending.done():
            self.heard_at = time.monotonic()
            self._safely(self._proven)
        self._safely(act)

    def _safely(self, act: Callable[[], None]) -> None:
        """Where the client calls back: its listening task would silently die of an exception."""
        try:
            act()
        except Exception as error:  # noqa: BLE001  # Any kind would kill it.
            self.end(Ending(f"a callback failed with {type(error).__name__}"))

    def _system_said(self, message: SuccessSystemPayload) -> None:
        """The client passes only messages with status ok; those with an error come as a state."""
        if message.extension == self._ready_word and not self._ending.done():
            self._open_or_over.set()
            self._safely(self._subscribed)

    def _state_changed(self, state: RealtimeSubscribeStates, error: Exception | None) -> None:
        if state is not RealtimeSubscribeStates.SUBSCRIBED:
            self.end(ending_of_state(state, error))


def _cause(task: Task | None) -> str:
    if task is None or task.cancelled():
        return "cancelled"
    return type(task.exception()).__name__ if task.exception() else "returned"


def require_supported_client() -> None:
    """Raises ConfigError when the installed client lacks one of the inner names that an epoch relies on."""
    client = AsyncRealtimeClient("ws://localhost", "key")
    channel = client.channel(_TOPIC)
    missing = [name for name in _TASKS_OF_CLIENT + _MORE_OF_CLIENT if not _has(client, name)]
    missing += [name for name in _TASKS_OF_CHANNEL + _MORE_OF_CHANNEL if not _has(channel, name)]
    if missing or not _is_supported(installed):
        lacks = f" and lacks {', '.join(missing)}" if missing else ""
        raise ConfigError([f"realtime {installed} is installed{lacks}; needed is {_SUPPORTED}: run uv sync"])


def _has(owner: object, dotted: str) -> bool:
    try:
        attrgetter(dotted)(owner)
    except AttributeError:
        return False
    return True


def _is_supported(version: str) -> bool:
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major) == 2 and int(minor) >= 34


def ending_of_handshake(error: Exception) -> Ending:
    """Why connecting or joining failed, from whatever the client let through."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if not isinstance(status, int):
        return Ending(f"cannot connect: {str(error) or type(error).__name__}", _pace(str(error)))
    said = _word_in(getattr(response, "body", b""), "error")
    what = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    if status in (401, 403):
        return _refused(what)
    return Ending(f"the server refused the connection ({what})", Pace.PATIENT if status == 429 else Pace.SOON)


def ending_of_state(state: RealtimeSubscribeStates, error: Exception | None) -> Ending:
    """Why the channel is no longer subscribed. The client puts the server's own words as JSON into `error`."""
    if state is RealtimeSubscribeStates.TIMED_OUT:
        return Ending("the server did not answer the join")
    if state is RealtimeSubscribeStates.CLOSED:
        return Ending("the server closed the channel")
    text = str(error or "")
    if text == "{}":
        return Ending("the channel crashed on the server")
    said = _word_in(text, "message") or _word_in(text, "reason")
    if said is None:
        return Ending(f"the connection broke: {text}")
    if unheard := re.search(r"Unable to subscribe to changes.*?table: (\w+)", said, re.DOTALL):
        why = re.search(r"Exception: (.*)", said, re.DOTALL)
        mend = why[1] if why else f"alter publication supabase_realtime add table public.{unheard[1]}"
        return Ending(f"{unheard[1]} cannot be listened to: {mend}")
    if said.startswith("Unauthorized: You do not have permissions to read"):
        return Ending(f"{said}: only a service key may hear broadcasts (PULSE_LISTEN)", Pace.PATIENT)
    if re.match(r"InvalidJWTToken|MalformedJWT|JwtSign|Unauthorized", said):
        return _refused(said)
    return Ending(f"the server said: {said}", _pace(said))


def _refused(what: str) -> Ending:
    return Ending(f"the key is refused ({what}): is it this project's, and still valid?", Pace.PATIENT)


def _pace(said: str) -> Pace:
    limits = r"RateLimitReached|Too many (?:channels|connected users|joins|messages|presence messages)"
    return Pace.PATIENT if re.search(limits, said) else Pace.SOON


def _word_in(document: str | bytes | bytearray, name: str) -> str | None:
    """The text under that name in a JSON object; None for anything else that the server may have sent."""
    try:
        found: object = json.loads(document)
    except ValueError:
        return None
    word = cast("dict[str, object]", found).get(name) if isinstance(found, dict) else None
    return word if isinstance(word, str) else None


async def _put_away(tasks: Iterable[Task]) -> None:
    """Cancels what still runs, waits for it, and takes the errors, which would be wailed about otherwise."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
