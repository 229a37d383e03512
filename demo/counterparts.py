"""What stands in for the providers of alerts: a mail server with one mailbox, a Discord and a Firebase."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

from aiosmtpd.smtp import SMTP, Envelope, Session

from devstack.alerts.discord import DiscordDouble
from devstack.alerts.firebase import FirebaseDouble

SENDER = "alerts@example.com"


@dataclass
class Mailbox:
    """Takes each mail that comes."""

    came: list[EmailMessage] = field(default_factory=list[EmailMessage])

    async def handle_DATA(  # noqa: N802 - aiosmtpd finds it by this name
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        """A mail is there, whole."""
        content = envelope.content
        self.came.append(message_from_bytes(content if isinstance(content, bytes) else b"", policy=default))
        return "250 2.0.0 Ok"


@dataclass(frozen=True)
class Counterparts:
    """All three, and how a worker finds them."""

    mailbox: Mailbox
    mail_port: int
    discord: DiscordDouble
    firebase: FirebaseDouble

    @classmethod
    @asynccontextmanager
    async def open(cls) -> "AsyncIterator[Counterparts]":
        """As long as the block lasts."""
        mailbox = Mailbox()
        server = await asyncio.get_running_loop().create_server(
            lambda: SMTP(mailbox, hostname="mail.localhost"), "127.0.0.1", 0
        )
        async with server, DiscordDouble() as discord, FirebaseDouble() as firebase:
            yield cls(mailbox, int(server.sockets[0].getsockname()[1]), discord, firebase)

    @property
    def settings(self) -> Mapping[str, str]:
        """What the worker is told of them."""
        return {
            "EMAIL_BACKEND": "smtp",
            "EMAIL_FROM": f"PulseEngine <{SENDER}>",
            "SMTP_URL": f"smtp://127.0.0.1:{self.mail_port}",
            "PULSE_DOOR_URL": "http://127.0.0.1:8000",
            "EMAIL_UNSUBSCRIBE_SECRET": "a secret of this demo and of nothing else",
            "DISCORD_API_BASE": self.discord.url,
            "FIREBASE_API_BASE": self.firebase.url,
            "FIREBASE_KEY": json.dumps(self.firebase.key),
        }
