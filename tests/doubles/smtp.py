"""A mail server for tests: aiosmtpd with a mailbox, and with refusals that a test names."""

import asyncio
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class MailServer:
    """Takes mail; `refuses` maps a word (MAIL, an address, DATA) to the answer, `cuts` names where it breaks off."""

    tls: "Certificate | None" = None
    from_the_start: bool = False
    """TLS at once, not by STARTTLS."""
    login: tuple[str, str] | None = None
    refuses: dict[str, str] = field(default_factory=dict[str, str])
    cuts: set[str] = field(default_factory=set[str])
    inbox: list[EmailMessage] = field(default_factory=list[EmailMessage])
    raw: list[bytes] = field(default_factory=list[bytes])
    recipients: list[list[str]] = field(default_factory=list[list[str]])
    connections: int = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        tls = self.tls.server if self.tls is not None else None
        self._server = await loop.create_server(
            self._protocol, "127.0.0.1", 0, ssl=tls if self.from_the_start else None
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    def _protocol(self) -> SMTP:
        self.connections += 1
        words: dict[str, Any] = {"hostname": "mx.example.com", "ident": "test"}
        if self.tls is not None and not self.from_the_start:
            words |= {"tls_context": self.tls.server, "require_starttls": True}
        if self.login is not None:
            words |= {
                "authenticator": self._check,
                "auth_required": not self.from_the_start,  # which it refuses without STARTTLS
                "auth_require_tls": not self.from_the_start,
            }
        return SMTP(self, **words)

    def _check(self, *said: object) -> AuthResult:
        asked = said[-1]
        assert isinstance(asked, LoginPassword)
        is_right = (asked.login.decode(), asked.password.decode()) == self.login
        return AuthResult(success=is_right, handled=False)

    async def handle_MAIL(  # noqa: N802 - aiosmtpd finds these by their names
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return self._answer(server, "MAIL") or "250 2.1.0 Ok"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if refusal := self._answer(server, address):
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if refusal := self._answer(server, "DATA"):
            return refusal
        content = envelope.content
        assert isinstance(content, bytes)
        self.raw.append(content)
        self.inbox.append(message_from_bytes(content, policy=default))
        self.recipients.append([str(one) for one in envelope.rcpt_tos])
        self._answer(server, "ANSWER")
        return "250 2.0.0 Ok: queued"

    def _answer(self, server: SMTP, where: str) -> str | None:
        if where in self.cuts:
            self.cuts.discard(where)
            transport = server.transport
            assert isinstance(transport, asyncio.WriteTransport)
            transport.abort()
        return self.refuses.get(where)


class Certificate:
    """A certificate for this machine that signs itself, and who trusts it."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("127.1")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        file = folder / "certificate.pem"
        file.write_bytes(
            made.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(file)
        self.client = ssl.create_default_context(cafile=str(file))
