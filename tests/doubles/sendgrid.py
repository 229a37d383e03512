"""A double of SendGrid, written from its documentation: `/v3/mail/send` with its limits and errors, and its events.

It checks what it receives: the key, the sender, sizes, counts, headers, addresses, and that a recipient's words are not
in a part that others receive too. What it takes it renders as SendGrid does, into `inbox`, one mail per recipient. What
the documentation allows and we never want is noted in `strange`.
"""

import asyncio
import base64
import json
import re
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Json = dict[str, Any]
RESERVED = {
    "x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-transfer-encoding", "content-type",
    "to", "from", "subject", "reply-to", "cc", "bcc",
}  # fmt: skip
ADDRESS = re.compile(r"[^\s@<>(),;:\"]+@[^\s@<>(),;:\"]+\.[a-z0-9-]{2,}", re.IGNORECASE)


@dataclass(frozen=True)
class Received:
    """One mail as its recipient has it."""

    request: int
    to: str
    subject: str
    text: str
    html: str
    headers: dict[str, str]
    custom_args: dict[str, str]
    message_id: str


class Refusal(Exception):
    def __init__(self, status: int, message: str, place: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.errors = [{"message": message, "field": place, "help": None}]


@dataclass
class SendGridDouble:
    """One account with one key and one sender that is verified."""

    key: str = field(default_factory=lambda: f"SG.{secrets.token_urlsafe(16)}.{secrets.token_urlsafe(32)}")
    sender: str = "alerts@example.com"
    bad: set[str] = field(default_factory=set[str])
    """Addresses that it finds invalid beside those that are."""
    names_fields: bool = True
    """Whether a refusal says which recipient it is about."""
    next: list[str] = field(default_factory=list[str])
    """What it does with the coming requests: a status, `cut` (takes it, and breaks the connection), `hang`."""
    allowed: int | None = None
    """Requests until it answers 429, …"""
    reset_in: int = 30
    """… for so many seconds."""
    inbox: list[Received] = field(default_factory=list[Received])
    requests: list[int] = field(default_factory=list[int])
    """How many recipients each had."""
    strange: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self._signing = ec.generate_private_key(ec.SECP256R1())
        self._let_go = asyncio.Event()
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v3/mail/send", self._send)
        self._server = TestServer(app)

    async def __aenter__(self) -> Self:
        await self._server.start_server(access_log=None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go.set()
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    def let_go(self) -> None:
        """Answers those that hang."""
        self._let_go.set()

    # -- what it tells of mails later

    @property
    def public_key(self) -> str:
        """As its settings show it."""
        der = self._signing.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return base64.b64encode(der).decode()

    def signed(self, events: object, at: int | None = None) -> tuple[bytes, dict[str, str]]:
        """A delivery of its event webhook: the body and the headers."""
        body = json.dumps(events).encode() + b"\r\n"
        stamp = str(at or int(time.time()))
        signature = self._signing.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        return body, {
            "Content-Type": "application/json",
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": stamp,
        }

    def event(self, kind: str, mail: Received, **more: object) -> Json:
        """One event about a mail of the inbox."""
        return {
            "email": mail.to,
            "timestamp": int(time.time()),
            "smtp-id": f"<{secrets.token_hex(8)}@geopod-ismtpd-1>",
            "event": kind,
            "sg_event_id": secrets.token_urlsafe(16),
            "sg_message_id": f"{mail.message_id}.filter0001.16648.5515E0B88.0",
            **mail.custom_args,
            **more,
        }

    # -- what it answers

    async def _send(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        number = len(self.requests)
        self.requests.append(0)
        act = self.next.pop(0) if self.next else ""
        if act.isdigit():
            return web.json_response({"errors": [{"message": "as told", "field": None}]}, status=int(act))
        if act == "hang":
            await self._let_go.wait()
        headers = {"X-RateLimit-Limit": "600", "X-RateLimit-Remaining": "599"}
        if self.allowed is not None:
            headers = {
                "X-RateLimit-Remaining": str(max(self.allowed - 1, 0)),
                "X-RateLimit-Reset": str(int(time.time()) + self.reset_in),
            }
            if self.allowed == 0:
                return web.json_response(
                    {"errors": [{"message": "too many requests", "field": None}]}, status=429, headers=headers
                )
            self.allowed -= 1
        try:
            mails = self._take(request, body, number)
        except Refusal as refusal:
            return web.json_response({"errors": refusal.errors}, status=refusal.status, headers=headers)
        self.inbox += mails
        if act == "cut":
            assert request.transport is not None
            request.transport.close()
        return web.Response(status=202, headers={**headers, "X-Message-Id": mails[0].message_id})

    def _take(self, request: web.Request, body: bytes, number: int) -> list[Received]:
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            raise Refusal(401, "The provided authorization grant is invalid, expired, or revoked")
        if request.content_type != "application/json":
            raise Refusal(415, "Content-Type should be application/json.")
        if len(body) > 30 * 1024 * 1024:
            raise Refusal(413, "Payload too large")
        said: Json = json.loads(body)
        if said["from"]["email"] != self.sender:
            raise Refusal(403, "The from address does not match a verified Sender Identity.", "from")
        if not said["from"].get("name", "").isascii():
            raise Refusal(400, "Unicode is not supported.", "from.name")
        parts = said["personalizations"]
        self.requests[number] = len(parts)
        self._check_content(said)
        if not 1 <= len(parts) <= 1000:
            raise Refusal(400, "The personalization block is limited to 1000.", "personalizations")
        addresses = Counter(one["email"].lower() for part in parts for one in part["to"])
        if addresses.most_common(1)[0][1] > 1:
            raise Refusal(400, "Each unique email address should only be included once.", "personalizations")
        message_id = secrets.token_urlsafe(16)
        for at, part in enumerate(parts):
            self._check_part(at, part, said)
        return [self._rendered(part, said, number, message_id) for part in parts]

    def _check_content(self, said: Json) -> None:
        kinds = [one["type"] for one in said["content"]]
        if kinds != ["text/plain", "text/html"] or not all(one["value"] for one in said["content"]):
            raise Refusal(400, "text/plain first, then text/html, with something in them.", "content")
        settings = said.get("tracking_settings", {})
        for one in ("click_tracking", "open_tracking", "subscription_tracking"):
            if settings.get(one, {}).get("enable") is not False:
                self.strange.append(f"{one} is on")

    def _check_part(self, at: int, part: Json, said: Json) -> None:
        place = f"personalizations.{at}"
        if len(part["to"]) != 1 or "cc" in part or "bcc" in part:
            self.strange.append("two people see each other")
        for one in part["to"]:
            if not ADDRESS.fullmatch(one["email"]) or one["email"] in self.bad:
                where = f"{place}.to.0.email" if self.names_fields else None
                raise Refusal(400, f"{one['email']} is not a valid address.", where)
        subject = part.get("subject") or said.get("subject")
        if not subject:
            raise Refusal(400, "The subject is required.", f"{place}.subject")
        if "\n" in subject or "\r" in subject:
            self.strange.append("a subject of two lines")
        for limited in ("substitutions", "custom_args"):
            values = part.get(limited, {})
            if not all(isinstance(value, str) for value in values.values()):
                raise Refusal(400, "Only strings.", f"{place}.{limited}")
            if sum(len(f"{name}{value}".encode()) for name, value in values.items()) > 10_000:
                raise Refusal(400, "More than 10000 bytes.", f"{place}.{limited}")
        for name, value in part.get("headers", {}).items():
            if name.lower() in RESERVED or not value.isascii() or not value.isprintable():
                raise Refusal(400, "This header cannot be set so.", f"{place}.headers")
        UUID(part["custom_args"]["delivery_id"])

    def _rendered(self, part: Json, said: Json, number: int, message_id: str) -> Received:
        def filled(text: str) -> str:
            for name, value in part.get("substitutions", {}).items():
                text = text.replace(name, value)
            return text

        text, html = (filled(one["value"]) for one in said["content"])
        subject = filled(part.get("subject") or said["subject"])
        headers = {**said.get("headers", {}), **part.get("headers", {})}
        to = part["to"][0]["email"]
        return Received(number, to, subject, text, html, headers, part["custom_args"], message_id)
