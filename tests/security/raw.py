"""Bytes to a door and its answers back, without a client that would put them in order first."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

# Long enough for everything that is no hang: a door that says nothing for so long is a failure of its own.
_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Said:
    """One answer, as it came."""

    status: int
    headers: dict[str, str] = field(repr=False)
    body: bytes

    @property
    def words(self) -> dict[str, object]:
        """The JSON object that every answer is."""
        return cast("dict[str, object]", json.loads(self.body))

    @property
    def sentence(self) -> str:
        """What a refusal says."""
        return str(self.words["error"])


class Wire:
    """A connection to a door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Sends it, as far as the door still takes it."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            pass  # what it had to say can be read all the same

    async def answer(self, *, to_head: bool = False) -> Said | None:
        """The next answer, without any "100 Continue"; None when the connection has ended."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
                status = int(first.split()[1])
                if status == 100:
                    return await self.answer()
                headers = {
                    name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)
                }
                size = 0 if to_head else int(headers["content-length"])
                return Said(status, headers, await self.reader.readexactly(size))
            except (asyncio.IncompleteReadError, ConnectionError):
                return None

    async def answers(self) -> list[Said]:
        """All that it says until it closes."""
        found: list[Said] = []
        while (said := await self.answer()) is not None:
            found.append(said)
        return found

    async def everything(self) -> bytes:
        """Every byte that it says until it closes."""
        found = bytearray()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            try:
                while part := await self.reader.read(65536):
                    found += part
            except ConnectionError:
                pass
        return bytes(found)

    async def has_ended(self) -> bool:
        """Whether the door has closed: waits for it."""
        return await self.answer() is None


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    """Connects to the door at `url`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


async def ask(url: str, data: bytes) -> Said | None:
    """The first answer to these bytes on a connection of their own; None when it was closed instead."""
    async with wire(url) as one:
        await one.send(data)
        return await one.answer()


def request(
    method: str = "POST", target: str = "/", body: bytes = b"", headers: bytes = b"", version: str = "1.1"
) -> bytes:
    """A request that is in order where its parts are."""
    length = b"Content-Length: %d\r\n" % len(body) if body or method == "POST" else b""
    first = f"{method} {target} HTTP/{version}\r\n".encode("latin-1")
    return first + b"Host: 127.0.0.1\r\n" + length + headers + b"\r\n" + body
