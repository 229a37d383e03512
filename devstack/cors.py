"""What a page of another origin may do: everything, as at the local gateway, for development is done on many ports."""

from __future__ import annotations

from typing import Final

from aiohttp import web

METHODS: Final = "GET, HEAD, PUT, PATCH, POST, DELETE, OPTIONS"


def preflight(request: web.Request) -> web.Response:
    """The answer to a browser that asks first."""
    headers = {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Max-Age": "86400",
    }
    if asked := request.headers.get("Access-Control-Request-Headers"):
        headers["Access-Control-Allow-Headers"] = asked
    return web.Response(headers=headers)


def allow(request: web.Request, response: web.Response, *, expose: str = "") -> web.Response:
    """The same answer, readable for the page that asked; `expose` names headers that its script may see."""
    if "Origin" in request.headers:
        response.headers["Access-Control-Allow-Origin"] = "*"
        if expose:
            response.headers["Access-Control-Expose-Headers"] = expose
    return response
