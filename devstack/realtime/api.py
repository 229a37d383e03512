"""Broadcasts over HTTP: many messages in one request, or one message with its topic and event in the path.

A batch passes over private messages that the token may not send, without a word; a single one is refused.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from aiohttp import hdrs, web

from devstack import cors
from devstack.realtime import tokens
from devstack.realtime.access import Access
from devstack.realtime.broadcasts import Broadcast, Event, Passed, compact
from devstack.realtime.faults import RealtimeFaults
from devstack.realtime.frames import parse
from devstack.realtime.joining import PREFIX, mapping
from devstack.realtime.refusals import Refused
from devstack.realtime.services import Services
from devstack.realtime.sizes import too_large
from devstack.realtime.tokens import Token, TokenRefused

LOG: Final = logging.getLogger("devstack.realtime.server")
LARGEST_BODY: Final = 8_000_000  # bytes
NO_LIMIT: Final = 100  # events per second; what is announced while there is none
JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
UNSUPPORTED: Final = f"Unsupported Media Type. Use {JSON} or {BYTES}"
BLANK: Final = "can't be blank"
INVALID: Final = "is invalid"
TOO_LARGE: Final = "Payload size exceeds tenant limit"
FAILURES: Final = {  # by the code of the refusal
    "MissingPartition": "Missing messages partition",
    "QueryCanceled": "Query canceled",
    "UnableToConnectToProject": "Tenant database unavailable",
}

Errors = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class _Message:
    topic: str
    message: Broadcast
    private: bool


class _Answered(Exception):
    """The request has its answer already."""

    def __init__(self, status: int, body: object = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class Api:
    """Mount `batch` and `single`; both answer POST."""

    def __init__(self, services: Services, faults: RealtimeFaults) -> None:
        self._services = services
        self._faults = faults

    async def batch(self, request: web.Request) -> web.Response:
        """Takes `{"messages": [{"topic", "event", "payload", "private"?}, …]}`: all of it or, malformed, nothing."""
        return await self._answer(request, self._batch)

    async def single(self, request: web.Request) -> web.Response:
        """Takes a payload, JSON or bytes, for the topic and event in the path; `?private=true` for a private topic."""
        return await self._answer(request, self._single)

    async def _answer(
        self, request: web.Request, act: Callable[[web.Request], Awaitable[None]]
    ) -> web.Response:
        try:
            if self._faults.off:
                raise _Answered(503, {"message": "realtime.off: this development stack refuses broadcasts"})
            if self._services.meter.full():
                raise _Answered(429, {"message": "Too many requests"})
            await act(request)
            answered = _Answered(202)
        except _Answered as early:
            answered = early
        text = "" if answered.body is None else compact(answered.body)
        response = web.Response(status=answered.status, text=text, headers=self._headers())
        if answered.body is None:
            del response.headers[hdrs.CONTENT_TYPE]
        else:
            response.headers[hdrs.CONTENT_TYPE] = f"{JSON}; charset=utf-8"
        return cors.allow(request, response)

    async def _batch(self, request: web.Request) -> None:
        body = await _body(request)
        token = self._token(request)
        messages = _read(mapping(_value(body)) if request.content_type == JSON else {})
        for each in messages:
            if not each.private:
                self._send(each)
        for topic in {each.topic: None for each in messages if each.private}:
            try:
                allowed = await self._access(request, token, topic).may_write("broadcast")
            except Refused as error:
                LOG.error("broadcasts on %s dropped: %s", topic, error)
                continue
            for each in messages:
                if allowed and each.private and each.topic == topic:
                    self._send(each)

    async def _single(self, request: web.Request) -> None:
        body = await _body(request)
        topic, event = request.match_info["topic"], request.match_info["event"]
        private = request.query.get("private") == "true"
        given = request.headers.get(hdrs.CONTENT_TYPE)
        if given is not None and request.content_type not in (JSON, BYTES):
            raise _Answered(415, {"error": UNSUPPORTED})
        is_json = given is None or request.content_type == JSON
        value: object = _value(body) if given is not None and is_json else {}
        token = self._token(request)
        fields = mapping(value)
        payload = fields if isinstance(value, dict) else {"_json": value}
        if too_large(payload if is_json else body):
            raise _Answered(422, {"errors": {"payload": [TOO_LARGE]}})
        if private:
            await self._check(self._access(request, token, topic))
        sent = compact(payload).encode() if is_json else body
        self._send(_Message(topic, Event(event, sent, is_json), private))

    async def _check(self, access: Access) -> None:
        try:
            allowed = await access.may_write("broadcast")
        except Refused as error:
            LOG.error("broadcast refused: %s", error)
            message = FAILURES.get(error.code, "RLS policy error")
            raise _Answered(422, {"message": message}) from error
        if not allowed:
            raise _Answered(403, {"message": "Unauthorized"})

    def _send(self, each: _Message) -> None:
        self._services.meter.count()
        self._services.rooms.broadcast(PREFIX + each.topic, each.message, private=each.private)

    def _headers(self) -> dict[str, str]:
        limit, average = self._services.limits.events_per_second, int(self._services.meter.average())
        limit = NO_LIMIT if limit is None else int(limit)
        return {
            "Cache-Control": "max-age=0, private, must-revalidate",
            "Vary": "accept-encoding",
            "x-rate-limit": str(limit),
            "x-rate-limit-remaining": str(limit - average),
            "x-rate-rolling": str(average),
            "X-Request-ID": secrets.token_urlsafe(15),
        }

    def _access(self, request: web.Request, token: Token, topic: str) -> Access:
        headers = json.dumps({name.lower(): value for name, value in request.headers.items()})
        return Access(self._services.database, topic, token, headers)

    def _token(self, request: web.Request) -> Token:
        header = self._services.keys.authorization(request.headers) or ""
        try:
            return tokens.read(header.rpartition(" ")[2], self._services.keys)
        except TokenRefused as error:
            raise _Answered(401, {"message": "Unauthorized"}) from error


async def _body(request: web.Request) -> bytes:
    if (request.content_length or 0) > LARGEST_BODY:
        raise _Answered(413, "Request Entity Too Large")
    body = await request.read()
    if len(body) > LARGEST_BODY:
        raise _Answered(413, "Request Entity Too Large")
    return body


def _value(body: bytes) -> object:
    """The JSON value of a body; nothing at all counts as an empty object."""
    if not body:
        return {}
    try:
        return parse(body.decode())
    except ValueError as error:
        raise _Answered(400, "Bad Request") from error


def _read(attributes: Mapping[str, object]) -> list[_Message]:
    """The messages of a batch; one that is malformed spoils them all."""
    wanted = attributes.get("messages")
    if wanted is None or wanted == []:
        raise _Answered(422, {"errors": {"messages": [BLANK]}})
    listed = cast("list[object]", wanted) if isinstance(wanted, list) else []
    if not listed or not all(isinstance(each, dict) for each in listed):
        raise _Answered(422, {"errors": {"messages": [INVALID]}})
    messages = [mapping(each) for each in listed]
    errors = [_errors(each) for each in messages]
    if any(errors):
        raise _Answered(422, {"errors": {"messages": errors}})
    return [_message(each) for each in messages]


def _errors(message: Mapping[str, object]) -> Errors:
    errors: Errors = {}
    for name, kind in (("topic", str), ("payload", dict), ("event", str)):
        value = message.get(name)
        if value is None or (isinstance(value, str) and kind is str and not value.strip()):
            errors[name] = [BLANK]
        elif not isinstance(value, kind):
            errors[name] = [INVALID]
    if message.get("private") not in (None, True, False, "true", "false", "1", "0", ""):
        errors["private"] = [INVALID]
    if "payload" not in errors and too_large(message["payload"]):
        errors["payload"] = [TOO_LARGE]
    return errors


def _message(message: Mapping[str, object]) -> _Message:
    sent: dict[str, object] = {
        "event": message["event"],
        "payload": message["payload"],
        "type": "broadcast",
    }
    if isinstance(identity := message.get("id"), str):
        sent["meta"] = {"id": identity}
    private = message.get("private") in (True, "true", "1")
    return _Message(str(message["topic"]), Passed(sent), private)
