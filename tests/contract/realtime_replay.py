"""Plays the client's side of a recorded conversation to our server and holds the answers against the recorded ones.

Time is compressed: nothing waits because somebody waited then. What took the real server its time is brought about
when the recording has come to its answer (a look at the publication, the end of an outage), and what raced is put in
the recorded order: a row that was lost is committed before our server listens, one that was heard after.
"""

import asyncio
import base64
import json
import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from aiohttp import ClientConnectorError, WSMessage, WSMsgType, WSServerHandshakeError

from devstack.keys import mint
from tests.contract import realtime_steady as steady
from tests.contract.realtime_bench import MARKER, PATIENCE, Bench, Client, Frame
from tests.contract.realtime_lines import Line, heard, numbered, others
from tests.waiting import until

SUBSCRIBED = "Subscribed to PostgreSQL"
SHORT_TOKEN_SECONDS = 0.8  # for a token that runs out while the recording lasts
CLOSED = (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING)
_TOKEN = re.compile(r"eyJ[\w-]+\.(eyJ[\w-]+)\.[\w-]+")
_STOPS = re.compile(r"(postgres )?(restart|stop) begin")
_STARTS = re.compile(r"(postgres )?(restart end|start begin)")


@dataclass(frozen=True)
class Compared:
    """One thing the recorded server sent, and what ours sent in its place. `line` counts from 1."""

    line: int
    recorded: object
    got: object

    @property
    def exact(self) -> bool:
        return self.recorded == self.got


@dataclass(eq=False)
class _Peer:
    """A socket of the replay. Events may be heard earlier than recorded, since ours are delivered at once: they wait
    here for their turn. Among themselves both events and other frames keep their order."""

    client: Client
    changes: deque[tuple[Frame, str]] = field(default_factory=deque[tuple[Frame, str]])
    others: deque[tuple[Frame, str]] = field(default_factory=deque[tuple[Frame, str]])

    async def next(self, *, change: bool) -> tuple[Frame, str] | None:
        """The next event or the next other frame with its text; None when the socket closes or stays silent."""
        waiting = self.changes if change else self.others
        while not waiting:
            try:
                message = await self.client.socket.receive(timeout=PATIENCE)
            except TimeoutError:
                return None
            if message.type != WSMsgType.TEXT:
                return None
            self._sort(message)
        return waiting.popleft()

    async def pong(self) -> bool:
        """Whether a ping is answered."""
        await self.client.socket.ping()
        while (message := await self.client.socket.receive(timeout=PATIENCE)).type == WSMsgType.TEXT:
            self._sort(message)
        return message.type == WSMsgType.PONG

    async def closed(self) -> object:
        """The close code with which the server ends the socket, or what it says instead."""
        message = await self.client.socket.receive(timeout=PATIENCE)
        return self.client.socket.close_code if message.type in CLOSED else message

    def _sort(self, message: WSMessage) -> None:
        frame = self.client.named(json.loads(message.data))
        if frame["payload"].get("data", {}).get("table") == MARKER:
            return  # nothing of the recording's
        (self.changes if frame["event"] == "postgres_changes" else self.others).append((frame, message.data))


class Replay:
    """One run through a recording. `sql` spells out statements that the recording abbreviates; `others` says that
    somebody else wrote to the recorded database too: rows without a number, which are written before they are heard.
    """

    def __init__(
        self,
        bench: Bench,
        recorded: Sequence[Line],
        *,
        sql: Mapping[str, str] | None = None,
        others: bool = False,
    ) -> None:
        self._others = others
        self._bench = bench
        self._recorded = recorded
        self._sql = sql or {}
        self._peers: dict[int, _Peer] = {}
        self._ids: dict[int, int] = {}
        self._tokens: dict[str, str] = {}
        self._awaited = 0
        self._answer: object = None
        self._late: set[int] = set()
        self._heard = {key for line in recorded if (key := heard(line)) is not None}
        self._began = datetime.fromisoformat(recorded[0]["wall"]).timestamp()
        self._ended = self._began + max(line.get("t_ms") or 0 for line in recorded) / 1000
        self.compared: list[Compared] = []

    async def run(self) -> None:
        """Plays it all; `compared` then has one entry for each thing that the recorded server sent."""
        for at, line in enumerate(self._recorded):
            match line["dir"]:
                case "c->s":
                    await self._client(at, line)
                case "s->c":
                    await self._server(at, line)
                case _:
                    await self._aside(at, line)

    async def _client(self, at: int, line: Line) -> None:
        conn = line.get("conn", -1)
        match line["kind"]:
            case "http":
                self._answer = await self._request(line)
            case "connect":
                await self._connect(at, line)
            case "text":
                await self._send(line)
            case "binary":
                await self._peers[conn].client.socket.send_bytes(base64.b64decode(line["frame"]["b64"]))
            case "close" if conn in self._peers:
                await self._close(conn, self._recorded[at + 1 :])
            case _:
                pass

    async def _server(self, at: int, line: Line) -> None:
        conn = line.get("conn", -1)
        match line["kind"]:
            case "http":
                recorded = (line["status"], steady.headers(dict(line["headers"])), line["body"])
                self._note(at, recorded, self._answer)
            case "text":
                self._note(at, *await self._text(line))
                if conn in self._late:
                    await self._close(conn, self._recorded[at + 1 :])
            case "pong":
                self._note(at, True, await self._peers[conn].pong())
            case "close" | "tcp_end" if conn in self._peers:
                await self._server_closes(at, line)
            case _:
                pass

    async def _aside(self, at: int, line: Line) -> None:
        match line.get("kind"):
            case "sql":
                await self._run(line["sql"], self._recorded[at + 1 :])
            case "mark" if _STOPS.fullmatch(str(line.get("at"))):
                await self._bench.stop_database()
            case "mark" if _STARTS.fullmatch(str(line.get("at"))):
                await self._bench.start_database()
            case _:
                pass

    def _note(self, at: int, recorded: object, got: object) -> None:
        self.compared.append(Compared(at + 1, recorded, got))

    # -- sockets --

    async def _connect(self, at: int, line: Line) -> None:
        conn = line["conn"]
        answers = enumerate(self._recorded[at:], start=at)
        where, answer = next(
            (n, each) for n, each in answers if each.get("conn") == conn and each["dir"] == "s->c"
        )
        query = self._renewed(line["path"].partition("?")[2], line["t_ms"])
        version = "2.0.0" if "vsn=2.0.0" in query else "1.0.0"
        if answer["kind"] != "upstream_unreachable":
            await self._bench.start_gateway()
        recorded = (answer["kind"], answer.get("status"), steady.headers(answer.get("headers", {})))
        try:
            client = await self._bench.connect(query=query, version=version)
        except WSServerHandshakeError as refused:
            headers = steady.headers(dict(refused.headers or {}))
            self._note(where, recorded, ("handshake_refused", refused.status, headers))
        except ClientConnectorError:
            self._note(where, recorded, ("upstream_unreachable", None, steady.headers({})))
        else:
            self._peers[conn] = _Peer(client)
            self._note(where, recorded, ("handshake_ok", None, steady.headers(client.headers)))

    async def _send(self, line: Line) -> None:
        frame = line["frame"]
        text = self._renewed(frame if isinstance(frame, str) else json.dumps(frame), line["t_ms"])
        if "phx_join" in text or "access_token" in text:
            self._awaited += 1
        await self._peers[line["conn"]].client.socket.send_str(text)

    async def _close(self, conn: int, later: Sequence[Line]) -> None:
        """Closes as the client did; by then it has heard all that is recorded, and nothing else.

        A busy server hears of it late: what it still says is heard first, and more than that is not asked for.
        """
        if any(each.get("conn") == conn and each.get("kind") == "text" for each in later):
            self._late.add(conn)
            return
        peer = self._peers.pop(conn)
        if self._bench.delivers and conn not in self._late:
            await self._bench.delivered()
            while not peer.client.socket.closed and (extra := await self._extra(peer)) is not None:
                self._note(len(self._recorded) - len(later) - 1, "nothing more", extra)
        await peer.client.socket.close(code=1000)
        answer = next(
            (n for n, each in enumerate(later) if each.get("conn") == conn and each["dir"] == "s->c"), None
        )
        if answer is not None and later[answer].get("code") is not None:
            where = len(self._recorded) - len(later) + answer
            self._note(where, later[answer]["code"], peer.client.socket.close_code)

    async def _extra(self, peer: _Peer) -> Frame | None:
        """A frame that nobody recorded; None when a heartbeat sent now is answered first."""
        if peer.changes:
            return peer.changes.popleft()[0]
        ref = await peer.client.send("phoenix", "heartbeat", {}, join_ref=None)
        taken = await peer.next(change=False)
        if taken is None or (taken[0]["topic"] == "phoenix" and taken[0]["ref"] == ref):
            return peer.changes.popleft()[0] if peer.changes else None
        return taken[0]

    async def _server_closes(self, at: int, line: Line) -> None:
        """The server ends a socket: it goes away in order (1012), is killed (1006), or the client was idle (1000)."""
        code = line["code"] if line["kind"] == "close" else line["close_code"]
        peer = self._peers.pop(line["conn"])
        async with asyncio.TaskGroup() as group:
            if code == 1012:
                group.create_task(self._bench.stop_gateway())
            elif code == 1006:
                group.create_task(self._bench.kill_gateway())
            self._note(at, code, await peer.closed())

    async def _request(self, line: Line) -> object:
        """Status, headers and body of the answer to a request."""
        headers = {
            name: self._renewed(value, line["t_ms"])
            for name, value in line["headers"].items()
            if name.lower() not in ("host", "content-length")
        }
        url = self._bench.gateway.url + line["path"]
        async with self._bench.http.post(url, headers=headers, data=json.dumps(line["body"])) as answer:
            text = await answer.text()
            return answer.status, steady.headers(dict(answer.headers)), json.loads(text) if text else None

    # -- frames --

    async def _text(self, line: Line) -> tuple[object, object]:
        peer, recorded = self._peers[line["conn"]], line["frame"]
        if "clipped" in recorded:
            return await self._clipped(line, peer)
        expected = peer.client.named(recorded)
        if expected["event"] == "system" and expected["payload"]["message"] == SUBSCRIBED:
            await self._subscribed_again()
        taken = await peer.next(change=expected["event"] == "postgres_changes")
        if taken is None:
            return expected, None
        got, text = taken
        self._learn(expected, got)
        return (
            (steady.frame(expected, self._ids), steady.length(expected, line["len"])),
            (steady.frame(got, {}), steady.length(got, len(text.encode()))),
        )

    async def _clipped(self, line: Line, peer: _Peer) -> tuple[object, object]:
        cut: str = line["frame"]["clipped"]
        change = "postgres_changes" in cut[:100]
        taken = await peer.next(change=change)
        if taken is None:
            return cut, None
        got, text = taken
        if not change:
            return (steady.clipped(cut), line["len"]), (steady.clipped(text), len(text.encode()))
        theirs = {ours: theirs for theirs, ours in self._ids.items()}
        ids = [theirs.get(each, each) for each in got["payload"]["ids"]]
        size = len(text) - len(str(got["payload"]["ids"])) + len(str(ids))
        return (steady.clipped(cut), line["len"]), (steady.clipped(text), size)

    def _learn(self, expected: Frame, got: Frame) -> None:
        """Ids differ from server to server; what counts is that the same binding keeps its id."""
        for theirs, ours in zip(steady.bindings(expected), steady.bindings(got), strict=False):
            assert self._ids.setdefault(theirs["id"], ours["id"]) == ours["id"]
            assert 0 < ours["id"] < 2**27

    async def _subscribed_again(self) -> None:
        """A second "Subscribed" that no client asked for follows the server's look at the publication."""
        self._awaited -= 1
        if self._awaited < 0:
            self._awaited = 0
            await self._bench.delivered()
            await self._bench.gateway.realtime.acts.check_publication()

    # -- rows --

    async def _run(self, statement: str, later: Sequence[Line]) -> None:
        if "realtime." in statement:
            realtime = self._bench.gateway.realtime
            await until("the server listens to messages", lambda: realtime.hears_messages)
        key = numbered(statement)
        if key is None or key not in self._heard:
            await self._bench.sql(self._sql.get(statement, statement))
            return
        await self._ready()
        before, after = others(key, later) if self._others else ([], [])
        for data in before:
            await self._insert_row(data)
        await self._bench.sql(self._sql.get(statement, statement))
        for data in after:
            await self._insert_row(data)

    async def _ready(self) -> None:
        """Whoever has joined is subscribed, and our server reads the log."""
        realtime = self._bench.gateway.realtime
        realtime.acts.recover()
        await until("the server listens", lambda: realtime.listens)

    async def _insert_row(self, data: Frame) -> None:
        table, row = data["table"], json.dumps(data["record"]).replace("'", "''")
        await self._bench.sql(
            f"insert into {table} select * from jsonb_populate_record(null::{table}, '{row}')"
        )

    # -- tokens --

    def _renewed(self, text: str, t_ms: float) -> str:
        """The text with its tokens as old as they were then; one that ran out meanwhile runs out soon."""
        now = self._began + t_ms / 1000
        return _TOKEN.sub(lambda token: self._tokens.setdefault(token[0], self._minted(token, now)), text)

    def _minted(self, token: re.Match[str], now: float) -> str:
        claims = json.loads(base64.urlsafe_b64decode(token[1] + "=="))
        expires = claims.get("exp", 0)
        if not now < expires <= max(time.time(), self._ended):
            return token[0]
        left = SHORT_TOKEN_SECONDS if expires < self._ended else 3600
        return mint(**claims | {"exp": time.time() + left})
