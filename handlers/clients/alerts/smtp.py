"""SMTP: mails of one moment share a connection, and each command's answer says what became of which mail.

    MAIL FROM, a login, a certificate refused    our sender or our settings: nobody's mail goes
    RCPT TO refused                              this address: for good (5xx) or for now (4xx: full, grey-listed)
    DATA refused                                 this mail, in the same way
    no answer before DATA was complete           nothing was taken
    no answer after it                           Unknown: the server may have it

A delivery's mail has the same Message-ID each time, so that a server or a client can tell a second copy.
"""

import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as LINES
from email.utils import format_datetime
from ipaddress import ip_address
from typing import Final, Self
from urllib.parse import unquote, urlsplit

import aiosmtplib
from aiosmtplib import SMTPException, SMTPResponseException

from handlers.clients.alerts.gathering import Gathering
from handlers.clients.alerts.mail import LONGEST_SUBJECT, SMTP_URL, Mail, Sender, gathered, headers_of
from handlers.clients.alerts.plain_words import one_line
from handlers.clients.alerts.told import Later, NotSent, Refused, Sent, Told, Unknown
from listener import ConfigError

MOST: Final = 50
"""Mails by one connection."""
AT_ONCE: Final = 4
"""Connections."""
TIMEOUT_SECONDS: Final = 15.0
PATIENCE_SECONDS: Final = 45.0
"""For the mails of one connection: one that left after its sender has stopped to wait would be sent twice."""
_SOON: Final = timedelta(seconds=30)
"""After a time-out no mail waits for the same one: who came behind it is told so, and comes again."""
_GREY: Final = timedelta(minutes=6)
"""Servers that put strangers on a grey list let them in after five minutes."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where to connect, and how."""

    host: str
    port: int
    use_tls: bool
    start_tls: bool
    username: str | None
    password: str | None = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """From SMTP_URL. Raises ConfigError."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise _misread() from None
        if parts.scheme not in ("smtp", "smtps") or not host:
            raise _misread()
        use_tls = parts.scheme == "smtps"
        return cls(
            host,
            port or (465 if use_tls else 587),
            use_tls,
            start_tls=not use_tls and not _is_this_machine(host),
            username=_decoded(parts.username),
            password=_decoded(parts.password),
        )


class Smtp:
    """Opened once per process by `open`."""

    def __init__(self, server: Server, sender: Sender, context: ssl.SSLContext) -> None:
        self._server = server
        self._sender = sender
        self._context = context
        self._silent_until = 0.0
        self._gathering: Gathering[Mail, Told]

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, sender: Sender, context: ssl.SSLContext | None = None
    ) -> "AsyncIterator[Smtp]":
        """Closed at the end of the block, after what was begun."""
        client = cls(Server.of(url), sender, context or ssl.create_default_context())
        async with Gathering[Mail, Told].open(client._send_all, most=MOST, at_once=AT_ONCE) as gathering:
            client._gathering = gathering
            yield client

    async def send(self, mail: Mail) -> Told:
        """What became of this one."""
        return await gathered(self._gathering, mail)

    async def _send_all(self, mails: Sequence[Mail]) -> Sequence[Told]:
        """One after the other, by one connection as long as it holds."""
        if time.monotonic() < self._silent_until:
            return [Later(_SOON, "provider_away")] * len(mails)
        told: list[Told] = []
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        async with AsyncExitStack() as stack:
            client: aiosmtplib.SMTP | None = None
            for mail in mails:
                if time.monotonic() > give_up_at:
                    told.append(Later(_SOON, "too_many_mails"))
                    continue
                began = time.monotonic()
                if client is None or not client.is_connected:
                    opened = await self._connected(stack)
                    self._time(began)
                    if isinstance(opened, NotSent):
                        told += [opened] * (len(mails) - len(told))
                        break
                    client = opened
                began = time.monotonic()
                told.append(await self._send_one(client, mail))
                if self._time(began):  # each of the others would wait as long
                    told += [Later(_SOON, "provider_away")] * (len(mails) - len(told))
                    break
        return told

    def _time(self, began: float) -> bool:
        """Whether what began then has taken so long that it was a time-out."""
        now = time.monotonic()
        if now - began < TIMEOUT_SECONDS * 0.9:
            return False
        self._silent_until = now + _SOON.total_seconds()
        return True

    async def _connected(self, stack: AsyncExitStack) -> aiosmtplib.SMTP | NotSent:
        server = self._server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            use_tls=server.use_tls,
            start_tls=server.start_tls,
            tls_context=self._context,
            local_hostname=self._sender.domain,
            timeout=TIMEOUT_SECONDS,
        )
        try:
            return await stack.enter_async_context(client)
        except aiosmtplib.SMTPAuthenticationError:
            return NotSent(
                "key_refused",
                f"The mail server refuses our login: mend {SMTP_URL.name}, then replay.",
                is_ours=True,
            )
        except (SMTPException, OSError, TimeoutError) as error:
            return NotSent("no_connection", f"The mail server cannot be reached ({type(error).__name__}).")

    async def _send_one(self, client: aiosmtplib.SMTP, mail: Mail) -> Told:
        message = message_of(mail, self._sender)
        was_sent = False
        try:
            await client.mail(self._sender.address)
            await client.rcpt(mail.to)
            was_sent = True
            await client.data(message)
        except SMTPResponseException as error:
            if was_sent and not 400 <= error.code < 600:  # neither taken nor refused, or not SMTP at all
                client.close()
                return Unknown("odd_answer", f"The mail server answered {error.code} to a mail.")
            await _begin_anew(client)
            return _refused(error)
        except (SMTPException, OSError, TimeoutError) as error:
            client.close()
            if was_sent:
                return Unknown("no_answer", f"The mail server did not answer ({type(error).__name__}).")
            return Later(_SOON, "connection_lost")
        return Sent(message_id(mail, self._sender))


def message_id(mail: Mail, sender: Sender) -> str:
    """The same for every copy of a delivery's mail."""
    return f"<{mail.delivery_id}@{sender.domain}>"


def message_of(mail: Mail, sender: Sender) -> bytes:
    """The mail as it goes over the wire."""
    message = EmailMessage(LINES)
    local, _, domain = sender.address.rpartition("@")
    message["From"] = Address(sender.name, local, domain)
    message.set_content(mail.text, cte="quoted-printable")
    message.add_alternative(mail.html, subtype="html", cte="quoted-printable")
    # The library breaks long words of headers into parts that nobody can read, loses spaces between others, and decodes
    # what looks encoded in an address.
    exact = {
        "To": mail.to,
        "Subject": _encoded(one_line(mail.subject, LONGEST_SUBJECT)),
        "Message-ID": message_id(mail, sender),
        "Date": format_datetime(datetime.now(UTC)),
        **headers_of(mail),
    }
    return "".join(f"{name}: {value}\r\n" for name, value in exact.items()).encode("ascii") + bytes(message)


def _encoded(subject: str) -> str:
    """As ASCII; what looks as if it were encoded already is, too, so that it arrives as it was said."""
    if subject.isascii() and len(subject) < 65 and "=?" not in subject:
        return subject
    return Header(subject, "utf-8", header_name="Subject").encode(linesep="\r\n")


def _refused(error: SMTPResponseException) -> Told:
    """By which command, and for how long."""
    code, detail = error.code, _enhanced(error.message)
    # Many servers say what is wrong with the sender only when they are told the recipient.
    if code >= 500 and (isinstance(error, aiosmtplib.SMTPSenderRefused) or detail in ("5.1.7", "5.1.8")):
        return NotSent(
            "sender_refused", f"The mail server refuses our sender ({code}): see EMAIL_FROM.", is_ours=True
        )
    if code < 500:
        return Later(_GREY, "server_says_later")
    if isinstance(error, aiosmtplib.SMTPRecipientRefused):
        # No such mailbox, domain or form of one, or it has moved; other refusals, of a policy say, may end.
        gone = detail in ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10")
        return Refused(
            "address_refused",
            f"The mail server does not take this address ({code}).",
            suppress="invalid" if gone else None,
        )
    return Refused("mail_refused", f"The mail server refuses this mail ({code}).")


def _enhanced(message: str) -> str:
    """The code that a message begins with, such as 5.1.1; else nothing."""
    first = message.split(maxsplit=1)[0] if message.strip() else ""
    return first if first.replace(".", "").isdigit() else ""


async def _begin_anew(client: aiosmtplib.SMTP) -> None:
    """After a refusal the connection takes the next mail, when it forgets this one."""
    try:
        await client.rset()
    except (SMTPException, OSError, TimeoutError):
        client.close()


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _decoded(part: str | None) -> str | None:
    return None if part is None else unquote(part)


def _misread() -> ConfigError:
    return ConfigError([f"{SMTP_URL.name} has to be {SMTP_URL.where}."])
