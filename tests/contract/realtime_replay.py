"""Plays the client's side of a recorded conversation to our server and holds the answers against the recorded ones."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from aiohttp import WSServerHandshakeError

from tests.contract.realtime_bench import Bench, Client, Frame

RECORDINGS = Path(__file__).parents[1] / "recordings"
_EXPIRED = re.compile(r"Token has expired \d+ seconds ago")

Line = dict[str, Any]


def lines(recording: str) -> list[Line]:
    """A recording, line by line."""
    found = next(RECORDINGS.glob(f"{recording}*.jsonl"))
    return [json.loads(line) for line in found.read_text().splitlines()]


class Replay:
    """One run through a recording. `sql` spells out statements that the recording abbreviates."""

    def __init__(self, bench: Bench, *, sql: Mapping[str, str] | None = None) -> None:
        self._bench = bench
        self._sql = sql or {}
        self._clients: dict[int, Client] = {}
        self._ids: dict[int, int] = {}
        self.compared = 0

    async def run(self, recorded: Sequence[Line]) -> None:
        """Plays it all; raises AssertionError at the first frame that differs."""
        for line in recorded:
            match line["dir"], line.get("kind"):
                case "c->s", "connect":
                    await self._connect(line, recorded)
                case "c->s", "text":
                    frame = line["frame"]
                    text = frame if isinstance(frame, str) else json.dumps(frame)
                    await self._clients[line["conn"]].socket.send_str(text)
                case "c->s", "binary":
                    await self._clients[line["conn"]].socket.send_bytes(
                        base64.b64decode(line["frame"]["b64"])
                    )
                case "c->s", "close":
                    await self._close(line["conn"])
                case "s->c", "text" if line["conn"] in self._clients:
                    await self._compare(line)
                case "note", "sql":
                    await self._bench.sql(self._sql.get(line["sql"], line["sql"]))
                case _:
                    pass

    async def _connect(self, line: Line, recorded: Sequence[Line]) -> None:
        answers = (each for each in recorded if each.get("conn") == line["conn"] and each["dir"] == "s->c")
        answer = next(answers)
        query = line["path"].partition("?")[2]
        version = "2.0.0" if "vsn=2.0.0" in query else "1.0.0"
        try:
            self._clients[line["conn"]] = await self._bench.connect(query=query, version=version)
        except WSServerHandshakeError as error:
            assert answer["kind"] == "handshake_refused", line
            assert error.status == answer["status"]
        else:
            assert answer["kind"] == "handshake_ok", line
        self.compared += 1

    async def _close(self, conn: int) -> None:
        client = self._clients.pop(conn)
        await client.socket.close(code=1000)

    async def _compare(self, line: Line) -> None:
        client = self._clients[line["conn"]]
        if "clipped" in line["frame"]:
            frame = await client.receive()
            assert frame["payload"]["data"]["errors"] is None
            return
        expected = client._frame(line["frame"])  # pyright: ignore[reportPrivateUsage]
        got = await client.receive()
        self._learn(expected, got)
        assert _normal(got, {}) == _normal(expected, self._ids), f"at {line['t_ms']} ms of the recording"
        self.compared += 1

    def _learn(self, expected: Frame, got: Frame) -> None:
        """Ids differ from server to server; what counts is that the same binding keeps its id."""
        ours = _bindings(got)
        for theirs, mine in zip(_bindings(expected), ours, strict=True) if ours else ():
            assert self._ids.setdefault(theirs["id"], mine["id"]) == mine["id"]
            assert 0 < mine["id"] < 2**27


def _bindings(frame: Frame) -> list[Frame]:
    response = frame["payload"].get("response", {})
    return cast(list[Frame], response.get("postgres_changes", []))


def _normal(frame: Frame, ids: Mapping[int, int]) -> Frame:
    """The frame without what differs from run to run; `ids` renames the recorded binding ids."""
    copy: Frame = json.loads(_EXPIRED.sub("Token has expired N seconds ago", json.dumps(frame)))
    for binding in _bindings(copy):
        binding["id"] = ids.get(binding["id"], binding["id"])
    if copy["event"] == "postgres_changes":
        copy["payload"]["ids"] = sorted(ids.get(each, each) for each in copy["payload"]["ids"])
        _blank(copy["payload"]["data"])
    return copy


def _blank(data: Frame) -> None:
    if data["commit_timestamp"] is not None:
        data["commit_timestamp"] = len(data["commit_timestamp"])
    for record in (data.get("record"), data.get("old_record")):
        if record and "created_at" in record:
            record["created_at"] = "at"
        if record and isinstance(record.get("id"), str):
            record["id"] = "id"
        if record and "body" in record:
            record["body"] = "body"
