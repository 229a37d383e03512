"""A scripted Realtime server on loopback: speaks the wire protocol, checks what it is told, and fails on request.

It holds no database: a test says `insert("jobs_payment")` and the double announces the row to whoever has joined
with a binding that fits. What a client does wrong on the wire is collected in `complaints`, which is raised at
the end of the test. Protocol version 1.0.0 only, since that is what the Python client speaks.
"""

import asyncio
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self, cast

from aiohttp import WSMsgType, web


@dataclass(eq=False)
class Binding:
    """One thing that a channel wants to hear of."""

    id: int
    table: str
    filter: str | None
    select: Sequence[str] | None

    def fits(self, table: str, row: Mapping[str, object]) -> bool:
        if table != self.table:
            return False
        if self.filter is None:
            return True
        column, _, value = self.filter.partition("=eq.")
        return str(row.get(column)) == value


@dataclass(eq=False)
class Member:
    """One socket, and the channel it has joined on it."""

    socket: web.WebSocketResponse
    transport: asyncio.Transport
    topic: str | None = None
    join_ref: str | None = None
    bindings: Sequence[Binding] = ()
    streaming: bool = False
    """Whether the server would announce rows to it: from the "Subscribed" message until it loses the subscription."""
    heartbeats: int = 0

    async def send(self, event: str, payload: Mapping[str, object], ref: str | None = None) -> None:
        await self.raw(json.dumps({"topic": self.topic, "event": event, "payload": payload, "ref": ref}))

    async def raw(self, text: str) -> None:
        # A client may be gone at any moment; that is its right.
        with suppress(ConnectionError):
            await self.socket.send_str(text)

    async def say(self, status: str, message: str, extension: str = "postgres_changes") -> None:
        """A `system` message."""
        name = str(self.topic).removeprefix("realtime:")
        await self.send(
            "system", {"status": status, "message": message, "extension": extension, "channel": name}
        )

    async def subscribed(self) -> None:
        self.streaming = True
        await self.say("ok", "Subscribed to PostgreSQL")

    async def leave(self, event: str = "phx_close") -> None:
        """The server ends the channel: `phx_close` for a reason, `phx_error` after a crash. The socket stays."""
        self.streaming = False
        await self.send(event, {}, self.join_ref)


@dataclass(eq=False)
class Phoenix:
    """Async context manager. `url` is what a worker takes for SUPABASE_URL."""

    key: str = "service-key"
    refuse: int | None = None
    """Handshakes are answered with this HTTP status."""
    refusal: str = "refused"
    """The text in the body of such an answer; empty: no body."""
    join_answer: str | None = None
    """Joins are answered with an error of this reason."""
    mute_joins: bool = False
    """Joins are not answered."""
    cold: bool = False
    """Joins are answered, but the "Subscribed" message does not come."""
    deaf: bool = False
    """All looks well, but no row is announced."""
    joins: int = 0
    members: list[Member] = field(default_factory=list[Member])
    """Sockets that are open, the newest last."""
    complaints: list[str] = field(default_factory=list[str])
    url: str = ""

    async def __aenter__(self) -> Self:
        self._changed = asyncio.Condition()
        self._next_row = 1
        app = web.Application()
        app.router.add_get("/realtime/v1/websocket", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.reset()
        await self._runner.cleanup()
        if self.complaints:
            raise AssertionError("; ".join(self.complaints))

    async def listen(self) -> None:
        """Takes connections (again, on the same port)."""
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        self._site = web.TCPSite(self._runner, "127.0.0.1", port)
        await self._site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def go_away(self) -> None:
        """Connections are refused, and those that exist are reset."""
        await self._site.stop()
        self.reset()

    def reset(self) -> None:
        """Drops every socket without a goodbye."""
        for member in list(self.members):
            member.transport.abort()

    def freeze(self) -> None:
        """Half-open: the present sockets stay, and nothing is read from or written to them any more."""
        for member in self.members:
            member.streaming = False
            member.transport.pause_reading()

    def lose_subscriptions(self) -> None:
        """What happens when the server's change reader dies: those who have joined hear nothing any more."""
        for member in self.members:
            member.streaming = False

    @property
    def member(self) -> Member:
        """The newest socket."""
        return self.members[-1]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until that is so; looks after each frame, each connection and each disconnection."""
        async with self._changed:
            await self._changed.wait_for(holds)

    async def insert(self, table: str, row: Mapping[str, object] | None = None) -> int:
        """Announces a row to those who would hear of it. Answers to how many."""
        whole = {"id": self._next_row, **(row or {})}
        self._next_row += 1
        told = 0
        for member in list(self.members):
            bindings = [binding for binding in member.bindings if binding.fits(table, whole)]
            if self.deaf or not member.streaming or not bindings:
                continue
            chosen = bindings[0].select or list(whole)
            record = {column: value for column, value in whole.items() if column in chosen}
            await member.send("postgres_changes", change(table, record, [binding.id for binding in bindings]))
            told += 1
        return told

    async def canary(self, token: str) -> None:
        """What the database does with the canary of a worker."""
        await self.insert("realtime_canary", {"token": token})

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self._expect(request.query.get("apikey") == self.key, "the handshake has no apikey or another")
        self._expect(request.query.get("vsn") == "1.0.0", "the handshake does not ask for protocol 1.0.0")
        if self.refuse is not None:
            return web.Response(
                status=self.refuse,
                text=json.dumps({"error": self.refusal}) if self.refusal else "",
                content_type="application/json",
            )
        socket = web.WebSocketResponse(autoclose=True, heartbeat=None)
        await socket.prepare(request)
        member = Member(socket, cast(asyncio.Transport, request.transport))
        self.members.append(member)
        try:
            await self._tell()
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._hear(member, json.loads(cast(str, message.data)))
                    await self._tell()
        except ConnectionResetError:
            pass
        finally:
            self.members.remove(member)
            await self._tell()
        return socket

    async def _hear(self, member: Member, frame: dict[str, object]) -> None:
        missing = {"topic", "event", "payload", "ref"} - frame.keys()
        self._expect(not missing, f"a frame lacks {missing}")
        ref = cast("str | None", frame["ref"])
        match frame["event"]:
            case "heartbeat":
                self._expect(frame["topic"] == "phoenix", "a heartbeat on another topic than phoenix")
                member.heartbeats += 1
                reply = {"topic": "phoenix", "event": "phx_reply", "ref": ref, "payload": _ok({})}
                await member.raw(json.dumps(reply))
            case "phx_join":
                payload = cast("dict[str, object]", frame["payload"])
                await self._join(member, str(frame["topic"]), ref, payload)
            case "phx_leave":
                await member.send("phx_reply", _ok({}), ref)
                await member.leave()
            case event:
                self._expect(False, f"an event that a worker has no use for: {event}")

    async def _join(self, member: Member, topic: str, ref: str | None, payload: dict[str, object]) -> None:
        self._expect(topic.startswith("realtime:") and topic != "realtime:", f"cannot join {topic}")
        self._expect(payload.get("access_token") == self.key, "the join carries no access_token or another")
        self._expect(isinstance(ref, str), "a join without a ref")
        config = cast("dict[str, object]", payload["config"])
        self._expect(config.get("private") is False, "the channel of a worker is a public one")
        wanted = cast("list[dict[str, object]]", config["postgres_changes"])
        self.joins += 1
        earlier, member.topic, member.join_ref = member.join_ref, topic, ref
        member.bindings = [self._bind(one) for one in wanted]
        if self.mute_joins:
            return
        if self.join_answer is not None:
            await member.send("phx_reply", {"status": "error", "response": {"reason": self.join_answer}}, ref)
            return
        answer = [one | {"id": binding.id} for one, binding in zip(wanted, member.bindings, strict=True)]
        await member.send("phx_reply", _ok({"postgres_changes": answer}), ref)
        if earlier is not None:
            # A second join on a socket is answered first, and then the first join's channel closes.
            await member.send("phx_close", {}, earlier)
        if not self.cold:
            await member.subscribed()

    def _bind(self, wanted: dict[str, object]) -> Binding:
        self._expect(wanted.get("event") == "INSERT", f"a binding for {wanted.get('event')}")
        self._expect(wanted.get("schema") == "public", f"a binding to schema {wanted.get('schema')}")
        # The same wish has the same id in every join, as on the real server.
        number = zlib.crc32(json.dumps(wanted, sort_keys=True).encode()) % 2**27 + 1
        chosen = cast("list[str] | None", wanted.get("select"))
        return Binding(number, str(wanted["table"]), cast("str | None", wanted.get("filter")), chosen)

    def _expect(self, holds: bool, complaint: str) -> None:
        if not holds:
            self.complaints.append(complaint)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def change(
    table: str, record: Mapping[str, object], ids: Sequence[int], *, error: str | None = None
) -> dict[str, object]:
    """The payload of an announced INSERT. With an error it is as bare as the real ones are: not even a time."""
    return {
        "ids": list(ids),
        "data": {
            "type": "INSERT",
            "schema": "public",
            "table": table,
            "commit_timestamp": "2026-11-23T10:41:36.989Z" if error is None else None,
            "errors": None if error is None else [error],
            "columns": [{"name": name, "type": "text"} for name in record] if error is None else [],
            "record": dict(record) if error is None else {},
        },
    }


def _ok(response: Mapping[str, object]) -> dict[str, object]:
    return {"status": "ok", "response": response}
