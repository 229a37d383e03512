"""What one socket says: frames leave through one queue and one writer, in the order in which they were said."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from devstack.realtime.frames import Frame, Push, Version

FLUSH_SECONDS: Final = 0.5
LONGEST_QUEUE: Final = 50_000_000  # characters; at so many bytes production kills the socket's process


@dataclass(eq=False, slots=True)
class Line:
    """The way to one client. While it is blocked, and when it is `half_open`, nothing gets through."""

    socket: web.WebSocketResponse
    version: Version
    transport: asyncio.Transport | None = None
    half_open: bool = False
    _waiting: int = 0
    _outbox: asyncio.Queue[str | bytes] = field(default_factory=asyncio.Queue[str | bytes])
    _transport: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Writes until cancelled or until the client is gone."""
        while True:
            message = await self._outbox.get()
            self._waiting -= len(message)
            async with self._transport:
                try:
                    if self.half_open:
                        pass
                    elif isinstance(message, str):
                        await self.socket.send_str(message)
                    else:
                        await self.socket.send_bytes(message)
                except ConnectionError:
                    return  # the reader hears of it too, and ends the socket
                finally:
                    self._outbox.task_done()

    def say(self, frame: Frame) -> None:
        """Queues a frame."""
        self.put(frame.encode(self.version))

    def put(self, message: str | bytes | None) -> None:
        """Queues a frame that is encoded already; None is one that cannot be said in this version. A client that does
        not read is cut off when too much waits for it."""
        if message is None:
            return
        self._waiting += len(message)
        if self._waiting > LONGEST_QUEUE and self.transport is not None:
            self.transport.abort()
        else:
            self._outbox.put_nowait(message)

    def reply(self, push: Push, status: str, response: Mapping[str, object] | str) -> None:
        """Answers a push."""
        body = json.dumps({"response": response, "status": status})
        self.say(Frame(push.join_ref, push.ref, push.topic, "phx_reply", body))

    def refuse(self, push: Push, reason: str) -> None:
        """Answers a push with an error."""
        self.reply(push, "error", {"reason": reason})

    async def close(self, code: int) -> None:
        """Writes what is queued, if the client reads it soon, then closes the socket with `code`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self.half_open else FLUSH_SECONDS):
                await self._outbox.join()
        await self.socket.close(code=code)

    async def block(self, seconds: float) -> None:
        """Holds back the whole socket: the caller is its reader, so nothing is heard meanwhile either."""
        if seconds > 0:
            async with self._transport:
                await asyncio.sleep(seconds)
