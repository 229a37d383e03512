"""E-mail as handlers see it: one mail to one address, sent by the backend that the settings name.

What became of it is told in the words of `told.py`. A backend is a class with the method of `Backend`, which knows
how its provider says each of these:

    it took the mail                                    Sent
    it refuses this address, or this mail               Refused; with `suppress` when no mail will ever get there
    it refuses all of us: a key, a sender, a setting    NotSent: mend it, then replay the dead letter
    too fast, a full mailbox, a grey list               Later
    no answer, or one that says nothing                 Unknown

`EMAIL_BACKEND` is `sendgrid`, `smtp`, or `console`, which only shows mails on the terminal. Without one a worker runs
all the same, and mails become dead letters that say so.
"""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.utils import parseaddr
from typing import Final, Protocol
from uuid import UUID

from handlers.clients.alerts.gathering import Gathering, NotCarried
from handlers.clients.alerts.mail_frame import is_link
from handlers.clients.alerts.outage import Outage
from handlers.clients.alerts.plain_words import one_line
from handlers.clients.alerts.told import Later, NotSent, Refused, Sent, Told, Unknown
from handlers.clients.alerts.unsubscribe import EMAIL_UNSUBSCRIBE_SECRET, PULSE_DOOR_URL, Scope, Unsubscribing
from listener import ConfigError, Setting, Settings

EMAIL_BACKEND = Setting("EMAIL_BACKEND", "sendgrid, smtp or console", required=False, secret=False)
EMAIL_FROM = Setting(
    "EMAIL_FROM",
    'the sender of all mails, such as "PulseEngine <alerts@example.com>"; your provider must know it',
    required=False,
    secret=False,
)
SENDGRID_API_KEY = Setting("SENDGRID_API_KEY", "SendGrid, Settings, API Keys, with Mail Send", required=False)
SENDGRID_API_BASE = Setting(
    "SENDGRID_API_BASE",
    "https://api.eu.sendgrid.com for subusers in the EU; or the URL of a double",
    required=False,
    secret=False,
)
SMTP_URL = Setting(
    "SMTP_URL",
    "smtps://user:password@host (TLS) or smtp://user:password@host:587 (STARTTLS; plain on this machine alone)",
    required=False,
)
APP_URL = Setting("APP_URL", "your web app, to which mails link", required=False, secret=False)
MAIL_SETTINGS: Final = (
    APP_URL,
    EMAIL_BACKEND,
    EMAIL_FROM,
    SENDGRID_API_KEY,
    SENDGRID_API_BASE,
    SMTP_URL,
    PULSE_DOOR_URL,
    EMAIL_UNSUBSCRIBE_SECRET,
)
SILENCE: Final = frozenset({"no_connection", "no_answer", "connection_lost", "provider_away"})
"""Reasons that say that nobody answered: others are answers, if only that our key is not taken."""
MOST_WAITING: Final = 1_000
"""Mails wait for their request together; what is slow with many of them is no outage."""
LONGEST_SUBJECT: Final = 150
"""Letters. Clients show about half of it."""
_PART: Final = r"[^\s@,;:<>()\[\]\\\"\x00-\x1f\x7f]"
_ADDRESS: Final = re.compile(rf"{_PART}{{1,64}}@{_PART}+\.{_PART}{{2,}}|{_PART}{{1,64}}@localhost")


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail to one address. All texts are as they go out: escaped, and links only where we made them."""

    delivery_id: UUID
    to: str = field(repr=False)
    subject: str = field(repr=False)
    text: str = field(repr=False)
    html: str = field(repr=False)
    unsubscribe_url: str | None = field(default=None, repr=False)
    """Answers a POST without login (RFC 8058); None: this mail has no such header."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who all mails are from."""

    address: str
    name: str

    @property
    def domain(self) -> str:
        """For the ids of messages."""
        return self.address.rpartition("@")[2]


def headers_of(mail: Mail) -> dict[str, str]:
    """Those beside the usual ones, for every backend."""
    headers = {"Auto-Submitted": "auto-generated"}  # no answers of absent people
    if mail.unsubscribe_url is not None:
        headers["List-Unsubscribe"] = f"<{mail.unsubscribe_url}>"
        headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    return headers


class Backend(Protocol):
    """A way for mails to leave."""

    async def send(self, mail: Mail) -> Told:
        """What became of this one. Raises nothing that it knows."""
        ...


async def gathered(gathering: Gathering[Mail, Told], mail: Mail) -> Told:
    """How a backend that gathers sends one."""
    try:
        return await gathering.send(mail)
    except NotCarried as error:
        return Unknown("broke", str(error)) if error.was_sent else NotSent("ending", str(error))


class Mailer:
    """Sends mails. Opened once per process by `open`."""

    def __init__(
        self, backend: Backend | None, unsubscribing: Unsubscribing | None, app_url: str | None
    ) -> None:
        self._backend = backend
        self._outage = Outage(most_waiting=MOST_WAITING)
        self._unsubscribing = unsubscribing
        self.app_url = app_url
        """Where the platform's pages are."""

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> "AsyncIterator[Mailer]":
        """With the backend of the settings, closed at the end of the block. Raises ConfigError."""
        unsubscribing, app_url = Unsubscribing.of(settings), settings.get(APP_URL.name) or None
        if app_url is not None and not is_link(app_url):
            raise ConfigError([f"{APP_URL.name} has to be an https address: {APP_URL.where}."])
        async with _backend_of(settings, unsubscribing) as backend:
            yield cls(backend, unsubscribing, app_url)

    def unsubscribe_url(self, address: str, scope: Scope) -> str | None:
        """The link by which the owner of this address ends such mails; None while nothing is set up for it."""
        return None if self._unsubscribing is None else self._unsubscribing.url(address, scope)

    async def send(self, mail: Mail) -> Told:
        """What became of it."""
        backend = self._backend
        if backend is None:
            return NotSent(
                "no_backend", "EMAIL_BACKEND is not set: sendgrid, smtp or console. Then replay this job."
            )
        if (to := sendable(mail.to)) is None:
            return Refused(
                "invalid_address", "This is no address that mail can be sent to.", suppress="invalid"
            )
        subject = one_line(mail.subject, LONGEST_SUBJECT) or "(no subject)"

        async def send() -> Told:
            told = await backend.send(replace(mail, to=to, subject=subject))
            is_silent = isinstance(told, NotSent | Unknown | Later) and told.reason in SILENCE
            self._outage.heard(answered=not is_silent)
            return told

        return await self._outage.watch(send, is_request=False)


class Console:
    """Shows mails instead of sending them."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def send(self, mail: Mail) -> Told:
        """The plain text, with its head."""
        head = f"From: {self._sender.name} <{self._sender.address}>\nTo: {mail.to}\nSubject: {mail.subject}"
        sys.stdout.write(f"\n----- mail -----\n{head}\n\n{mail.text.rstrip()}\n----- end -----\n")
        sys.stdout.flush()
        return Sent()


def sendable(address: str) -> str | None:
    """The address as providers take it (a domain in other letters by its ASCII name); None if there is none."""
    if len(address) > 254 or not _ADDRESS.fullmatch(address) or "=?" in address:
        return None  # with =? it looks encoded, and mail programs would show, or take it for, something else
    local, _, domain = address.rpartition("@")
    try:
        ascii_domain = domain.encode("idna")
        if ascii_domain.decode("idna").lower() != domain.lower():
            return None  # letters that it takes for others: somebody else's domain
        return f"{local.encode('ascii').decode()}@{ascii_domain.decode()}"
    except UnicodeError:
        return None


def sender_of(settings: Settings) -> Sender:
    """EMAIL_FROM, read. Raises ConfigError."""
    name, address = parseaddr(settings.get(EMAIL_FROM.name, ""))
    if (found := sendable(address)) is None:
        raise ConfigError([f"{EMAIL_FROM.name} has to be {EMAIL_FROM.where}."])
    return Sender(found, one_line(name, 60))


@asynccontextmanager
async def _backend_of(
    settings: Settings, unsubscribing: Unsubscribing | None
) -> AsyncIterator[Backend | None]:
    chosen = settings.get(EMAIL_BACKEND.name, "")
    if not chosen:
        yield None
    elif chosen == "console":
        yield Console(sender_of({EMAIL_FROM.name: "PulseEngine <alerts@localhost>", **settings}))
    elif chosen == "sendgrid":
        _need(settings, SENDGRID_API_KEY, EMAIL_FROM)
        _need_unsubscribing(unsubscribing)
        from handlers.clients.alerts.sendgrid import SendGrid

        base = settings.get(SENDGRID_API_BASE.name)
        async with SendGrid.open(settings[SENDGRID_API_KEY.name], sender_of(settings), base) as backend:
            yield backend
    elif chosen == "smtp":
        _need(settings, SMTP_URL, EMAIL_FROM)
        _need_unsubscribing(unsubscribing)
        from handlers.clients.alerts.smtp import Smtp

        async with Smtp.open(settings[SMTP_URL.name], sender_of(settings)) as backend:
            yield backend
    else:
        raise ConfigError([f"{EMAIL_BACKEND.name} has to be {EMAIL_BACKEND.where}."])


def _need(settings: Settings, *needed: Setting) -> None:
    if missing := [one for one in needed if not settings.get(one.name)]:
        backend = settings[EMAIL_BACKEND.name]
        raise ConfigError(
            [
                f"{one.name} is not set, and {EMAIL_BACKEND.name}={backend} needs it: {one.where}"
                for one in missing
            ]
        )


def _need_unsubscribing(unsubscribing: Unsubscribing | None) -> None:
    """Mail that cannot be ended by its reader ends in the folder for spam, and takes the rest of ours with it."""
    if unsubscribing is None:
        raise ConfigError(
            [
                f"{one.name} is not set, and mails need it for their link to unsubscribe: {one.where}"
                for one in (PULSE_DOOR_URL, EMAIL_UNSUBSCRIBE_SECRET)
            ]
        )
