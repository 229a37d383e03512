"""A bench for Realtime: a database like the recorded one, a gateway before it, and bare sockets to talk through."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import asyncpg
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from devstack.gateway import Gateway
from devstack.keys import SECRET_KEY
from devstack.postgres import SUPERUSER, Postgres, bootstrap

SCHEMA = Path(__file__).with_name("realtime_recorded.sql")
PATIENCE = 10.0  # seconds after which a frame that was promised is missed
MARKER = "marker"
_numbers = itertools.count(1)
_prepared: set[int] = set()

Frame = dict[str, Any]
Binding = Mapping[str, object]


@dataclass(eq=False)
class Client:
    """One bare socket. Frames of version 2 are shown with the names that version 1 gives their parts."""

    socket: ClientWebSocketResponse
    version: str = "1.0.0"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    sent: int = 0
    sizes: list[int] = field(default_factory=list[int])

    async def send(self, topic: str, event: str, payload: object, *, join_ref: str | None = "1") -> str:
        """Sends one push and answers its ref."""
        self.sent += 1
        ref = str(self.sent)
        if self.version == "2.0.0":
            await self.socket.send_json([join_ref, ref, topic, event, payload])
        else:
            push = {"topic": topic, "event": event, "payload": payload, "ref": ref, "join_ref": join_ref}
            await self.socket.send_json(push)
        return ref

    async def shout(self, event: str, payload: object, *, topic: str = "realtime:t") -> str:
        """Sends a broadcast as the official client of version 2 does, in a binary frame, and answers its ref."""
        self.sent += 1
        ref = str(self.sent)
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        names = [b"1", ref.encode(), topic.encode(), event.encode(), b""]
        head = bytes([3, *map(len, names), not isinstance(payload, bytes)])
        await self.socket.send_bytes(b"".join([head, *names, body]))
        return ref

    async def receive(self) -> Frame:
        """The next frame, passing over those of the marker table. A binary one has its size under `binary`."""
        while True:
            message = await self.socket.receive(timeout=PATIENCE)
            if message.type == WSMsgType.BINARY:
                return _broadcast(cast(bytes, message.data))
            assert message.type == WSMsgType.TEXT, f"the socket closed: {message!r}"
            frame = self.named(json.loads(message.data))
            if frame["payload"].get("data", {}).get("table") != MARKER:
                self.sizes.append(len(message.data.encode()))
                return frame

    async def closed(self) -> int | None:
        """The close code with which the server ends the socket; other frames before that are an error."""
        message = await self.socket.receive(timeout=PATIENCE)
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING), (
            f"not closed: {message!r}"
        )
        return self.socket.close_code

    async def join(self, *bindings: Binding, topic: str = "realtime:t", token: str | None = None) -> None:
        """Joins and waits for `Subscribed to PostgreSQL`."""
        await self.ask(*bindings, topic=topic, token=token)
        reply, system = await self.receive(), await self.receive()
        assert reply["payload"]["status"] == "ok", reply
        assert system["payload"]["message"] == "Subscribed to PostgreSQL", system

    async def ask(
        self,
        *bindings: Binding,
        topic: str = "realtime:t",
        token: str | None = None,
        config: Binding | None = None,
    ) -> None:
        """Sends a join and waits for nothing."""
        payload: dict[str, object] = {"config": {"postgres_changes": list(bindings), **(config or {})}}
        if token is not None:
            payload["access_token"] = token
        await self.send(topic, "phx_join", payload, join_ref=str(self.sent + 1))

    async def enter(
        self, topic: str = "realtime:t", *, token: str | None = None, **config: object
    ) -> Frame | None:
        """Joins a topic with this configuration; gives the presence state if that was asked for."""
        await self.ask(topic=topic, token=token, config=config)
        reply = await self.receive()
        assert reply["payload"]["status"] == "ok", reply
        if config.get("presence") is None:
            return None
        state = await self.receive()
        assert state["event"] == "presence_state", state
        return cast(Frame, state["payload"])

    async def refused(self, topic: str = "realtime:t", *, token: str | None = None, **config: object) -> str:
        """Asks to join and gives the reason why not."""
        await self.ask(topic=topic, token=token, config=config)
        reply = await self.receive()
        assert reply["payload"]["status"] == "error", reply
        return str(reply["payload"]["response"]["reason"])

    async def heard(self) -> Frame:
        """The payload of the next frame, which must be a broadcast."""
        frame = await self.receive()
        assert (frame["event"], frame["ref"]) == ("broadcast", None), frame
        return cast(Frame, frame["payload"])

    async def change(self) -> Frame:
        """The `data` of the next event, which must be a change."""
        frame = await self.receive()
        assert frame["event"] == "postgres_changes", frame
        data: Frame = frame["payload"]["data"]
        return data

    async def quiet(self) -> None:
        """Makes sure that no frame is on its way: the next one is the answer to a heartbeat sent now."""
        ref = await self.send("phoenix", "heartbeat", {}, join_ref=None)
        frame = await self.receive()
        assert (frame["topic"], frame["ref"]) == ("phoenix", ref), f"not expected: {frame}"

    def named(self, frame: Any) -> Frame:
        """The frame with the names of version 1."""
        if self.version == "1.0.0":
            return cast(Frame, frame)
        join_ref, ref, topic, event, payload = frame
        return {"join_ref": join_ref, "ref": ref, "topic": topic, "event": event, "payload": payload}


def _broadcast(data: bytes) -> Frame:
    """The frame that a binary broadcast stands for."""
    kind, *lengths, is_json = data[:5]
    assert kind == 4, data
    names: list[str] = []
    at = 5
    for length in lengths:
        names.append(data[at : at + length].decode())
        at += length
    topic, event, meta = names
    payload = {
        "type": "broadcast",
        "event": event,
        "payload": json.loads(data[at:]) if is_json else data[at:],
    }
    if meta:
        payload["meta"] = json.loads(meta)
    return {"topic": topic, "event": "broadcast", "ref": None, "payload": payload, "binary": len(data)}


@dataclass(eq=False)
class Bench:
    """`dsn` is the owner's; `witness` hears of every marker row and thus knows what has been delivered."""

    dsn: str
    superuser_dsn: str
    gateway: Gateway
    owner: "asyncpg.Connection[asyncpg.Record]"
    http: ClientSession
    cluster: Postgres
    delivers: bool = True
    """False when nothing is to be delivered, so that nobody waits for a marker."""
    _witness: Client | None = None
    _sockets: list[ClientWebSocketResponse] = field(default_factory=list[ClientWebSocketResponse])
    _port: int = 0
    _timing: Mapping[str, float] = field(default_factory=dict[str, float])

    async def sql(self, statement: str) -> None:
        """Runs a statement as the owner of the tables, committed when it has no BEGIN of its own."""
        await self.owner.execute(statement)

    async def connect(
        self, key: str = SECRET_KEY, *, version: str = "1.0.0", query: str | None = None
    ) -> Client:
        """A socket; raises aiohttp.WSServerHandshakeError when it is refused."""
        asked = query if query is not None else f"apikey={key}&vsn={version}"
        url = f"{self.gateway.url}/realtime/v1/websocket?{asked}"
        socket = await self.http.ws_connect(url, max_msg_size=0, autoping=False)
        self._sockets.append(socket)
        return Client(socket, version, socket._response.headers)

    async def delivered(self) -> None:
        """Everything committed so far is in the sockets of those who are to hear of it."""
        if self._witness is None:
            self._witness = await self.connect()
            await self._witness.join({"event": "INSERT", "schema": "aside", "table": MARKER})
        marker = await self.owner.fetchval("insert into aside.marker default values returning id")
        while True:
            message = json.loads((await self._witness.socket.receive(timeout=PATIENCE)).data)
            if message["payload"].get("data", {}).get("record", {}).get("id") == marker:
                return

    async def stop_database(self) -> None:
        """Stops PostgreSQL as `pg_ctl stop -m fast` does."""
        self._witness = None
        await self.owner.close()
        await self.cluster.stop()

    async def start_database(self) -> None:
        """Starts it again, on the same port."""
        await self.cluster.start()
        self.owner = await asyncpg.connect(self.dsn)

    async def stop_gateway(self) -> None:
        """Closes the server in order: sockets end with 1012, and nobody listens on its port."""
        self._witness = None
        self._port = int(self.gateway.url.rpartition(":")[2])
        await self.gateway.close()

    async def kill_gateway(self) -> None:
        """The same without a word to anyone."""
        self.gateway.realtime.acts.drop_sockets()
        await self.stop_gateway()

    async def start_gateway(self) -> None:
        """Starts the server anew on the port it had; nothing happens while it runs."""
        if self._port:
            port, self._port = self._port, 0
            self.gateway = Gateway(self.dsn, port=port)
            self.take(self._timing)
            await self.gateway.start()

    def take(self, timing: Mapping[str, float]) -> None:
        """Lets Realtime take so many seconds over things, also after it was started anew."""
        self._timing = timing
        for what, seconds in timing.items():
            setattr(self.gateway.realtime.timing, what, seconds)

    async def close(self) -> None:
        """Closes the server, the clients' sockets and the owner's connection."""
        await self.gateway.close()
        for (
            socket
        ) in self._sockets:  # one that was cut off keeps its connection until it is collected, with a warning
            socket._response.close()
        await self.owner.close()

    async def quiet(self, client: Client) -> None:
        """No change committed so far has anything more to say to `client`."""
        await self.delivered()
        await client.quiet()


@asynccontextmanager
async def serving(cluster: Postgres, *, deliver_at_once: bool = True) -> AsyncIterator[Bench]:
    """A bench of its own: database, gateway, connections; all gone afterwards."""
    admin = cluster.dsn("postgres", SUPERUSER)
    if cluster.port not in _prepared:
        await _run(admin, "create database realtime_template")
        await bootstrap(cluster.dsn("realtime_template", SUPERUSER))
        await _run(cluster.dsn("realtime_template"), await _schema(cluster))
        _prepared.add(cluster.port)
    name = f"realtime_{next(_numbers)}"
    await _run(admin, f"create database {name} template realtime_template owner postgres")
    try:
        async with AsyncExitStack() as stack:
            gateway = Gateway(cluster.dsn(name), deliver_at_once=deliver_at_once)
            await gateway.start()
            owner = await asyncpg.connect(cluster.dsn(name))
            http = await stack.enter_async_context(ClientSession())
            bench = Bench(cluster.dsn(name), cluster.dsn(name, SUPERUSER), gateway, owner, http, cluster)
            stack.push_async_callback(bench.close)
            yield bench
    finally:
        await _run(admin, f"drop database {name} with (force)")


async def _schema(cluster: Postgres) -> str:
    """The schema; `xml` is a domain of our own where PostgreSQL was built without libxml."""
    script = await asyncio.to_thread(SCHEMA.read_text)
    try:
        await _run(cluster.dsn("postgres", SUPERUSER), "select '<a/>'::xml")
    except asyncpg.FeatureNotSupportedError:
        return 'create domain "xml" as text;\n' + script.replace("c_xml xml", 'c_xml public."xml"')
    return script


async def _run(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
