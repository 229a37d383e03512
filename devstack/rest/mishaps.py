"""Lets a planned fault happen to one request."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from devstack.rest.errors import RestError, connection_lost, database_away
from devstack.rest.faults import RestFault

Serve = Callable[[web.Request], Awaitable[web.Response]]

KNOWN: Final = {
    "schema_cache": database_away(),
    "database_away": connection_lost(),
    "pool": RestError(504, "PGRST003", "Timed out acquiring connection from connection pool."),
    "statement_timeout": RestError(500, "57014", "canceling statement due to statement timeout"),
}
# What stands between a client and the real server says by itself.
GATEWAY: Final = '{{"message":"{}"}}'
BY_STATUS: Final = {
    500: GATEWAY.format("An unexpected error occurred"),
    502: GATEWAY.format("An invalid response was received from the upstream server"),
    503: GATEWAY.format("The upstream server is currently unavailable"),
    504: GATEWAY.format("The upstream server is timing out"),
    520: "<!DOCTYPE html><html><head><title>520: Web server is returning an unknown error</title></head></html>",
}
RESET: Final = struct.pack("ii", 1, 0)  # linger for no time: closing sends RST instead of FIN


async def befall(fault: RestFault, request: web.Request, serve: Serve) -> web.StreamResponse:
    """What the client gets instead of, or after, the answer that `serve` makes."""
    if fault.what in KNOWN:
        known = KNOWN[fault.what]
        return web.Response(status=known.status, headers=known.all_headers(), body=known.body())
    match fault.what:
        case "status":
            return _answered(fault)
        case "delay":
            await asyncio.sleep(fault.seconds)
            return await serve(request)
        case "silence":
            await _until_gone(request)
            return web.Response()
        case "cut":
            _reset(request)
            return web.Response()
        case "cut_body":
            return await _half(request, await serve(request))
        case _:
            answer = await serve(request)
            _abort(request)
            return answer


def _answered(fault: RestFault) -> web.Response:
    body = fault.body if fault.body is not None else BY_STATUS.get(fault.status, "")
    kind = "text/html" if body.startswith("<") else "application/json"
    return web.Response(status=fault.status, text=body, content_type=kind)


async def _half(request: web.Request, whole: web.Response) -> web.StreamResponse:
    """The headers of the answer and half of its body; then the connection is cut."""
    body = whole.body if isinstance(whole.body, bytes) else b""
    headers = {**whole.headers, "Content-Length": str(len(body))}
    half = web.StreamResponse(status=whole.status, headers=headers)
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    _abort(request)
    return half


async def _until_gone(request: web.Request) -> None:
    """Returns when the client has closed the connection; cancelled when the server closes."""
    transport = request.transport
    # aiohttp tells a handler of a lost connection in no other way
    while transport is not None and not transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def _reset(request: web.Request) -> None:
    raw = request.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    _abort(request)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
