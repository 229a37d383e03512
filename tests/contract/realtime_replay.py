"""Plays the client's side of a recorded conversation to our server and holds the answers against the recorded ones."""

import base64
import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import WSServerHandshakeError

from devstack.keys import mint
from tests.contract.realtime_bench import Bench, Client, Frame

RECORDINGS = Path(__file__).parents[1] / "recordings"
_TOKEN = re.compile(r"eyJ[\w-]+\.(eyJ[\w-]+)\.[\w-]+")
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
        self._began = 0.0
        self.compared = 0

    async def run(self, recorded: Sequence[Line]) -> None:
        """Plays it all; raises AssertionError at the first frame that differs."""
        self._began = datetime.fromisoformat(recorded[0]["wall"]).timestamp()
        for at, line in enumerate(recorded):
            match line["dir"], line.get("kind"):
                case "c->s", "connect":
                    await self._connect(line, recorded)
                case "c->s", "text":
                    frame = line["frame"]
                    text = frame if isinstance(frame, str) else json.dumps(frame)
                    await self._clients[line["conn"]].socket.send_str(_renewed(text, self._began))
                case "c->s", "binary":
                    await self._clients[line["conn"]].socket.send_bytes(
                        base64.b64decode(line["frame"]["b64"])
                    )
                case "c->s", "close":
                    await self._close(line["conn"], recorded[at + 1 :])
                case "s->c", "text" if line["conn"] in self._clients:
                    await self._compare(line)
                case "note", "sql":
                    statement: str = line["sql"]
                    await self._bench.sql(self._sql.get(statement, statement))
                case _:
                    pass

    async def _connect(self, line: Line, recorded: Sequence[Line]) -> None:
        answers = (each for each in recorded if each.get("conn") == line["conn"] and each["dir"] == "s->c")
        answer = next(answers)
        query = line["path"].partition("?")[2]
        version = "2.0.0" if "vsn=2.0.0" in query else "1.0.0"
        if answer["kind"] == "handshake_ok":
            self._clients[line["conn"]] = await self._bench.connect(query=query, version=version)
        else:
            with pytest.raises(WSServerHandshakeError) as refused:
                await self._bench.connect(query=query, version=version)
            assert refused.value.status == answer["status"]
        self.compared += 1

    async def _close(self, conn: int, later: Sequence[Line]) -> None:
        """Closes as the client did; by then it has heard all that is recorded, and nothing else."""
        client = self._clients.pop(conn)
        if not any(line.get("conn") == conn and line.get("kind") == "text" for line in later):
            await self._bench.quiet(client)
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
        ours, theirs = _normal(got, {}), _normal(expected, self._ids)
        assert ours == theirs, f"at {line['t_ms']} ms\nrecorded {theirs}\nnow      {ours}"
        if expected["event"] == "postgres_changes":
            self._same_size(line, expected, got, client.sizes[-1])
        self.compared += 1

    def _same_size(self, line: Line, expected: Frame, got: Frame, size: int) -> None:
        """JSON parsers round numbers; the length of the text shows that every digit was sent."""
        assert size - _unsteady(got) == line["len"] - _unsteady(expected), f"at {line['t_ms']} ms"

    def _learn(self, expected: Frame, got: Frame) -> None:
        """Ids differ from server to server; what counts is that the same binding keeps its id."""
        ours = _bindings(got)
        for theirs, mine in zip(_bindings(expected), ours, strict=True) if ours else ():
            assert self._ids.setdefault(theirs["id"], mine["id"]) == mine["id"]
            assert 0 < mine["id"] < 2**27


def _renewed(text: str, began: float) -> str:
    """The text with the tokens that have run out since then minted anew; those that were bad then stay bad."""

    def renewed(token: re.Match[str]) -> str:
        claims = json.loads(base64.urlsafe_b64decode(token[1] + "=="))
        if began < claims.get("exp", 0) <= time.time():
            return mint(**claims | {"exp": time.time() + 3600})
        return token[0]

    return _TOKEN.sub(renewed, text)


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


def _unsteady(frame: Frame) -> int:
    """The length of the values whose length changes from run to run: binding ids, and times without trailing zeros."""
    record: Frame = frame["payload"]["data"].get("record", {})
    return len(f"{frame['payload']['ids']}{record.get('created_at')}{record.get('body')}")


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
