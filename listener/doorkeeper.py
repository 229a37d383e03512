"""Keeps the door's clients within bounds: how many there are, how long each may take, how much of them is held.

A connection costs its client nothing and us a place, so whoever is slow is somebody who takes places. The bounds:

    until its request is complete     `request` for the head, `body` for the rest of it, then 408
    until it has read our answer      `answer`, then it is cut off
    between two requests              `idle`: longer than a proxy in front of us keeps its own connections
    places                            when all are taken, whoever keeps us waiting longest has to go, so that any
                                      number of idle or slow clients does not shut out one that says what it wants;
                                      when all are being answered, the new one is told to come again (503)
    bytes of unfinished bodies        the same: who has kept us waiting longest has to go

What is no HTTP is answered in JSON too, without its bytes: they may be a secret that went to the wrong port.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from listener.errors import PulseError
from listener.events import Emit, Swallowed
from listener.uncaught import place_of

LARGEST_BODY = 2 * 1024 * 1024
# How long requests under way may take when the process ends, and how long a body that nobody wants is read on.
_CLOSING_SECONDS = 1.5
_LINGERING_SECONDS = 2.0
_BUSY = "Too many are being answered at this moment. Send it again."
_TOO_SLOW = "The request did not arrive in time. Send it again, all of it at once."
_NO_HTTP = "This is no HTTP request, or not one that can be read only in one way."
_TOO_LONG = "A line of the request is too long."


@dataclass(frozen=True, slots=True)
class Patience:
    """The bounds. The defaults are for production; tests hand in small ones."""

    request: timedelta = timedelta(seconds=10)
    body: timedelta = timedelta(seconds=15)
    answer: timedelta = timedelta(seconds=60)
    idle: timedelta = timedelta(seconds=95)
    places: int = 256
    held: int = 64 * 1024 * 1024


class Refused(Exception):
    """Answer the client with this status and sentence. `hangs_up`: what else it sends is not to be read."""

    def __init__(
        self,
        status: int,
        sentence: str,
        *,
        hangs_up: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.hangs_up = hangs_up
        self.headers = headers or {}


def says(status: int, sentence: str) -> web.Response:
    """An answer that is only a sentence."""
    return web.json_response({"error": sentence}, status=status)


class Guest(web.RequestHandler):
    """One connection. The door says when a request of it begins, is complete and is answered."""

    __slots__ = ("_deadline", "_heard", "_keeper", "held", "waiting_since")

    def __init__(self, keeper: "Doorkeeper", server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to say "none"
            # Later than any deadline of ours, which know what a client has said so far.
            keepalive_timeout=(keeper.patience.idle + keeper.patience.request).total_seconds(),
            lingering_time=_LINGERING_SECONDS,
            auto_decompress=False,  # a small body could become a large one
        )
        self._keeper = keeper
        self._deadline: asyncio.TimerHandle | None = None
        self._heard = False
        self.held = 0
        """Bytes of its unfinished body."""
        self.waiting_since: float | None = None
        """Since when it keeps us waiting; None while we keep it waiting."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._keeper.guests.add(self)
        self._waits(self._keeper.patience.request)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._set_deadline(None)
        self._keeper.guests.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._heard:
            self._heard = True
            self._waits(self._keeper.patience.request)
        super().data_received(data)

    def begins(self) -> None:
        """The head of a request is here."""
        self._heard = True
        self._waits(self._keeper.patience.answer)

    def is_complete(self) -> None:
        """All of a request is here: from now on it waits for us."""
        self.held = 0
        self.waiting_since = None

    def is_answered(self) -> None:
        """Its next request may take until `idle`, and from its first byte as long as a first one."""
        self.held = 0
        self._heard = False
        self._waits(self._keeper.patience.idle)

    def go(self) -> None:
        """Ends the connection now; says why if it had begun to say something."""
        transport = self.transport
        if transport is None:
            return
        if self._heard and self.waiting_since is not None:
            transport.write(_raw(408, "Request Timeout", _TOO_SLOW))
        self.force_close()
        # Who does not read the answer either would hold the place on.
        self._loop.call_later(_LINGERING_SECONDS, transport.abort)

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - prescribed by aiohttp
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - quotes what came
    ) -> web.StreamResponse:
        """For what aiohttp itself refuses: in JSON, and not into the log, which strangers could fill."""
        if isinstance(exc, LineTooLong):
            answer = says(431, _TOO_LONG)
        elif status < 500:
            answer = says(status, _NO_HTTP)
        else:
            self.log_exception(exc_info=exc)
            answer = says(500, "This broke here; the log says where.")
        answer.force_close()
        return answer

    def log_exception(self, *_: object, **words: object) -> None:
        """Tells it by its place."""
        error = words.get("exc_info")
        text = place_of(error) if isinstance(error, BaseException) else "something went wrong"
        self._keeper.emit(Swallowed("door", PulseError(text)))

    def _waits(self, patience: timedelta) -> None:
        self.waiting_since = self._loop.time()
        self._set_deadline(patience)

    def _set_deadline(self, patience: timedelta | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = (
            None if patience is None else self._loop.call_later(patience.total_seconds(), self.go)
        )


class Doorkeeper:
    """Lets clients in, and shows out those who take too long."""

    def __init__(self, patience: Patience, emit: Emit) -> None:
        self.patience = patience
        self.emit = emit
        self.guests: set[Guest] = set()

    @asynccontextmanager
    async def receives(
        self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], host: str, port: int
    ) -> AsyncIterator[int]:
        """Answers requests until the block ends; gives the port. Raises OSError when it cannot listen."""
        loop = asyncio.get_running_loop()

        async def attended(request: web.BaseRequest) -> web.StreamResponse:
            guest = cast("Guest", request.protocol)
            guest.begins()
            if not request.can_read_body:
                guest.is_complete()
            try:
                return await answer(request)
            finally:
                guest.is_answered()

        server = web.Server(attended, loop=loop)
        listening = await loop.create_server(lambda: self._let_in(server, loop), host, port)
        try:
            yield cast("int", listening.sockets[0].getsockname()[1])
        finally:
            listening.close()
            server.pre_shutdown()
            await server.shutdown(_CLOSING_SECONDS)
            await listening.wait_closed()

    async def body(self, request: web.BaseRequest) -> bytes:
        """The whole body, within bounds; raises Refused."""
        guest = cast("Guest", request.protocol)
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused(415, "Send the body as it is, without Content-Encoding.", hangs_up=True)
        if (request.content_length or 0) > LARGEST_BODY:
            raise _too_large()
        await _go_on(request)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self.patience.body.total_seconds()):
                async for part in request.content.iter_any():
                    parts.append(part)
                    guest.held += len(part)
                    if guest.held > LARGEST_BODY:
                        raise _too_large()
                    while sum(one.held for one in self.guests) > self.patience.held:
                        self._show_out([one for one in self.guests if one.held])
        except TimeoutError:
            raise Refused(408, _TOO_SLOW, hangs_up=True) from None
        except web.RequestPayloadError:
            raise Refused(400, _NO_HTTP, hangs_up=True) from None
        guest.is_complete()
        return b"".join(parts)

    def _let_in(self, server: web.Server, loop: asyncio.AbstractEventLoop) -> asyncio.Protocol:
        if len(self.guests) >= self.patience.places and not self._show_out(list(self.guests)):
            return _NoRoom()
        return Guest(self, server, loop)

    def _show_out(self, guests: list[Guest]) -> bool:
        """Ends the connection that keeps us waiting longest; False when none does."""
        waiting = [(one.waiting_since, id(one), one) for one in guests if one.waiting_since is not None]
        if not waiting:
            return False
        _, _, slowest = min(waiting)
        self.guests.discard(slowest)
        slowest.held = 0
        slowest.go()
        return True


class _NoRoom(asyncio.Protocol):
    """Tells a client to come again, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writer = cast("asyncio.WriteTransport", transport)
        writer.write(_raw(503, "Service Unavailable", _BUSY))
        writer.close()


async def _go_on(request: web.BaseRequest) -> None:
    """Answers `Expect: 100-continue`, which is how a client asks before it sends a large body."""
    asked = request.headers.get("Expect")
    if asked is None or request.version < (1, 1):
        return
    if asked.lower() != "100-continue":
        raise Refused(417, "The only Expect that is understood here is 100-continue.", hangs_up=True)
    if request.transport is not None and not request.content.is_eof():
        cast("asyncio.WriteTransport", request.transport).write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _too_large() -> Refused:
    return Refused(413, f"The body is larger than {LARGEST_BODY} bytes.", hangs_up=True)


def _raw(status: int, phrase: str, sentence: str) -> bytes:
    body = json.dumps({"error": sentence}).encode()
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
