"""Mails that tests send, and the clients of one double as a worker opens them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from handlers.clients.alerts.mail import Mail, Mailer
from handlers.clients.alerts.told import Told
from tests.doubles.sendgrid import SendGridDouble

UNSUBSCRIBE = {
    "PULSE_DOOR_URL": "https://jobs.example.com",
    "EMAIL_UNSUBSCRIBE_SECRET": "the secret of these tests",
}


def a_mail(to: str = "ann@example.com", words: str = "10 AAPL", subject: str = "Filled") -> Mail:
    """One with words of its own between words that all have."""
    return Mail(
        uuid4(),
        to,
        subject,
        f"You hear that\n{words}\nwere bought.\n",
        f"<p>You hear that</p><p>{words}</p>",
        f"https://jobs.example.com/unsubscribe/{uuid4().hex}",
    )


def sendgrid_settings(double: SendGridDouble) -> dict[str, str]:
    """What a worker reads from the environment."""
    return {
        **UNSUBSCRIBE,
        "EMAIL_BACKEND": "sendgrid",
        "EMAIL_FROM": f"PulseEngine <{double.sender}>",
        "SENDGRID_API_KEY": double.key,
        "SENDGRID_API_BASE": double.url,
    }


@asynccontextmanager
async def mailer_of(double: SendGridDouble, **settings: str) -> AsyncIterator[Mailer]:
    """Mails by SendGrid, as a worker sends them."""
    async with Mailer.open(sendgrid_settings(double) | settings) as mailer:
        yield mailer


def outcomes(told: list[Told]) -> list[str]:
    """What became of each, as a word, with the reason."""
    return [f"{one.outcome} {getattr(one, 'reason', '')}".strip() for one in told]
