"""Mails by SMTP: what arrives, by how many connections, and what each refusal of a server means."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.clients.alerts import smtp as smtp_file
from handlers.clients.alerts.mail import Mail, Sender
from handlers.clients.alerts.smtp import Server, Smtp
from handlers.clients.alerts.told import NotSent, Refused, Sent, Told
from listener import ConfigError
from tests.doubles.smtp import Certificate, MailServer
from tests.handlers.alerts.mails import a_mail, outcomes

SENDER = Sender("alerts@example.com", "Pülse, Engine")


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with MailServer() as running:
        yield running


@asynccontextmanager
async def smtp_of(
    server: MailServer,
    scheme: str = "smtp",
    host: str = "127.0.0.1",
    login: str = "",
    trusts: ssl.SSLContext | None = None,
) -> AsyncIterator[Smtp]:
    async with Smtp.open(f"{scheme}://{login}{host}:{server.port}", SENDER, trusts) as smtp:
        yield smtp


async def sent(server: MailServer, *mails: Mail) -> list[Told]:
    async with smtp_of(server) as smtp:
        return await asyncio.gather(*(smtp.send(mail) for mail in mails))


async def test_a_mail_arrives_with_both_parts_and_its_headers_whole(server: MailServer) -> None:
    mail = replace(a_mail(words="für 10 Ünïts"), subject="Grüße 🎉 " * 12 + "!")
    [told] = await sent(server, mail)
    [got] = server.inbox
    assert told == Sent(f"<{mail.delivery_id}@example.com>")
    assert str(got["Subject"]) == mail.subject
    assert str(got["From"]) == '"Pülse, Engine" <alerts@example.com>'
    assert str(got["To"]) == mail.to
    assert server.recipients == [[mail.to]]
    assert got["Auto-Submitted"] == "auto-generated"
    parts = [(part.get_content_type(), part.get_content()) for part in got.iter_parts()]
    assert [kind for kind, _ in parts] == ["text/plain", "text/html"]
    assert [words.split() for _, words in parts] == [mail.text.split(), mail.html.split()]
    # As they are, on one line: a client looks for the address between < and >.
    head = server.raw[0].split(b"\r\n\r\n")[0].split(b"\r\n")
    assert f"Message-ID: <{mail.delivery_id}@example.com>".encode() in head
    assert f"List-Unsubscribe: <{mail.unsubscribe_url}>".encode() in head
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in head
    assert max(len(line) for line in server.raw[0].split(b"\r\n")) <= 998


@pytest.mark.parametrize("name", ["=?utf-8?q?x=0D=0ABcc=3Ay?=", "=?utf-8?q?=C3=A9=F0?="])
async def test_an_address_is_no_header_and_no_trouble_for_others(server: MailServer, name: str) -> None:
    """The library would decode such a name: into a header of its own, or into what it cannot send."""
    mails = [a_mail(), a_mail(f"{name}@example.com"), a_mail("bob@example.com")]
    assert outcomes(await sent(server, *mails)) == ["sent"] * 3
    head = server.raw[1].split(b"\r\n\r\n")[0].split(b"\r\n")
    assert f"To: {mails[1].to}".encode() in head
    assert not any(line.startswith(b"Bcc") for line in head)


async def test_a_second_copy_has_the_id_of_the_first(server: MailServer) -> None:
    mail = a_mail()
    await sent(server, mail, mail)
    assert len({one["Message-ID"] for one in server.inbox}) == 1


async def test_mails_of_one_moment_share_a_connection(server: MailServer) -> None:
    told = await sent(server, *(a_mail(f"user-{n}@example.com") for n in range(40)))
    assert outcomes(told) == ["sent"] * 40
    assert sorted(server.recipients) == sorted([f"user-{n}@example.com"] for n in range(40))
    assert server.connections == 1


@pytest.mark.parametrize(
    ("where", "answer", "outcome", "suppress"),
    [
        ("bob@example.com", "550 5.1.1 No such user", "refused address_refused", "invalid"),
        ("bob@example.com", "550 5.7.1 Not by you", "refused address_refused", None),
        ("bob@example.com", "550 5.1.0 Rejected", "refused address_refused", None),
        ("bob@example.com", "550 5.1.8 Sender rejected: no such domain", "not_sent sender_refused", None),
        ("bob@example.com", "451 4.7.1 Greylisted", "later server_says_later", None),
        ("bob@example.com", "452 4.2.2 Mailbox full", "later server_says_later", None),
    ],
)
async def test_a_refused_address_is_told_to_its_own_mail_alone(
    server: MailServer, where: str, answer: str, outcome: str, suppress: str | None
) -> None:
    server.refuses[where] = answer
    told = await sent(server, *(a_mail(f"{name}@example.com") for name in ("ann", "bob", "cat")))
    assert outcomes(told) == ["sent", outcome, "sent"]
    assert server.connections == 1
    if isinstance(told[1], Refused):
        assert told[1].suppress == suppress


@pytest.mark.parametrize(
    ("where", "answer", "outcome"),
    [
        ("MAIL", "553 5.7.1 Sender not owned by you", "not_sent sender_refused"),
        ("MAIL", "421 4.7.0 Too many mails", "later server_says_later"),
        ("DATA", "554 5.6.0 Spam", "refused mail_refused"),
        ("DATA", "451 4.3.0 Disk full", "later server_says_later"),
        ("DATA", "299 Perhaps", "unknown odd_answer"),
        ("DATA", "What?", "unknown odd_answer"),
    ],
)
async def test_a_refusal_means_what_its_command_was_about(
    server: MailServer, where: str, answer: str, outcome: str
) -> None:
    server.refuses[where] = answer
    assert outcomes(await sent(server, a_mail())) == [outcome]
    assert server.inbox == []


async def test_what_a_slow_server_is_not_asked_in_time_comes_again(
    server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_file, "PATIENCE_SECONDS", -1.0)
    assert outcomes(await sent(server, a_mail(), a_mail())) == ["later too_many_mails"] * 2
    assert server.inbox == []


@pytest.mark.parametrize(
    ("where", "outcome"), [("MAIL", "later"), ("bob@example.com", "later"), ("ANSWER", "unknown")]
)
async def test_what_is_cut_off_is_unknown_only_once_the_mail_was_on_the_wire(
    server: MailServer, where: str, outcome: str
) -> None:
    server.cuts.add(where)
    told = await sent(server, *(a_mail(f"{name}@example.com") for name in ("bob", "cat")))
    assert [one.outcome for one in told] == [outcome, "sent"]  # the second by a new connection
    assert server.connections == 2


async def test_a_server_that_is_away_took_nothing() -> None:
    async with Smtp.open("smtp://127.0.0.1:1", SENDER) as smtp:
        told = await asyncio.gather(*(smtp.send(a_mail()) for _ in range(3)))
    assert outcomes(list(told)) == ["not_sent no_connection"] * 3


@pytest.mark.parametrize(("scheme", "from_the_start"), [("smtp", False), ("smtps", True)])
async def test_beyond_this_machine_mail_and_password_go_encrypted(
    scheme: str, from_the_start: bool, tmp_path: Path
) -> None:
    certificate = Certificate(tmp_path)
    async with MailServer(
        tls=certificate, from_the_start=from_the_start, login=("us", "p@ss:word")
    ) as server:
        # This machine under a name that does not look like it, so that nothing is spared.
        host, login = "127.1", "us:p%40ss%3Aword@"
        assert Server.of(f"smtp://{host}").start_tls
        async with smtp_of(server, scheme, host, login, certificate.client) as smtp:
            assert outcomes([await smtp.send(a_mail())]) == ["sent"]
        async with smtp_of(server, scheme, host, "us:wrong@", certificate.client) as smtp:
            wrong = await smtp.send(a_mail())
        async with smtp_of(server, scheme, host, login) as smtp:  # trusts nobody who signs for himself
            untrusted = await smtp.send(a_mail())
    assert outcomes([wrong, untrusted]) == ["not_sent key_refused", "not_sent no_connection"]
    assert isinstance(wrong, NotSent)
    assert "wrong" not in wrong.words
    assert len(server.inbox) == 1


async def test_a_server_that_offers_no_encryption_gets_nothing(server: MailServer) -> None:
    async with smtp_of(server, host="127.1") as smtp:
        assert outcomes([await smtp.send(a_mail())]) == ["not_sent no_connection"]
    assert server.inbox == []


@pytest.mark.parametrize(
    "url", ["", "mail.example.com", "http://mail.example.com", "smtp://", "smtp://a:b@c:port"]
)
def test_an_address_that_cannot_be_read_is_said_at_start_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="SMTP_URL has to be"):
        Server.of(url)
    assert "secret" not in repr(Server.of("smtps://us:secret@mail.example.com"))
