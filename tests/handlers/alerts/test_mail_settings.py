"""What a worker says of its mail settings at start, and what mails do without any."""

import pytest

from handlers.clients.alerts.mail import Mailer, sender_of
from handlers.clients.alerts.told import NotSent, Refused, Sent
from listener import ConfigError
from tests.handlers.alerts.mails import UNSUBSCRIBE, a_mail

SENDGRID = {"EMAIL_BACKEND": "sendgrid", "SENDGRID_API_KEY": "SG.key", "EMAIL_FROM": "Us <us@example.com>"}
SMTP = {"EMAIL_BACKEND": "smtp", "SMTP_URL": "smtp://mail.example.com", "EMAIL_FROM": "us@example.com"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"EMAIL_BACKEND": "pigeon"}, "EMAIL_BACKEND has to be sendgrid, smtp or console"),
        (SENDGRID | UNSUBSCRIBE | {"SENDGRID_API_KEY": ""}, "SENDGRID_API_KEY is not set"),
        (SENDGRID | UNSUBSCRIBE | {"EMAIL_FROM": ""}, "EMAIL_FROM is not set"),
        (SENDGRID | UNSUBSCRIBE | {"EMAIL_FROM": "nobody"}, "EMAIL_FROM has to be"),
        (SENDGRID, "PULSE_DOOR_URL is not set, and mails need it"),
        (SMTP, "EMAIL_UNSUBSCRIBE_SECRET is not set, and mails need it"),
        (SMTP | UNSUBSCRIBE | {"SMTP_URL": "mail.example.com"}, "SMTP_URL has to be"),
        (SMTP | UNSUBSCRIBE | {"EMAIL_UNSUBSCRIBE_SECRET": "short"}, "EMAIL_UNSUBSCRIBE_SECRET is too short"),
        (SMTP | UNSUBSCRIBE | {"PULSE_DOOR_URL": "jobs.example.com"}, "PULSE_DOOR_URL has to be a URL"),
        (
            {"EMAIL_BACKEND": "console", "APP_URL": "http://app.example.com"},
            "APP_URL has to be an https address",
        ),
    ],
)
async def test_what_is_missing_or_wrong_is_said_at_start(settings: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        async with Mailer.open(settings):
            pass


async def test_without_a_backend_a_worker_runs_and_a_mail_says_what_is_missing() -> None:
    async with Mailer.open({}) as mailer:
        told = await mailer.send(a_mail())
        assert mailer.unsubscribe_url("ann@example.com", "all") is None
    assert isinstance(told, NotSent)
    assert "EMAIL_BACKEND is not set" in told.words


async def test_the_console_shows_a_mail_and_an_address_that_is_none_is_refused_by_any_backend(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with Mailer.open({"EMAIL_BACKEND": "console"}) as mailer:
        assert isinstance(await mailer.send(a_mail(words="10 AAPL", subject="Fi\nlled")), Sent)
        refused = await mailer.send(a_mail(to="ann@example.com\nBcc: all@evil.example"))
    assert isinstance(refused, Refused)
    assert refused.suppress == "invalid"
    shown = capsys.readouterr().out
    assert "To: ann@example.com\nSubject: Fi lled\n" in shown
    assert "10 AAPL" in shown
    assert "evil" not in shown


def test_a_sender_is_one_address_with_a_name_on_one_line() -> None:
    sender = sender_of({"EMAIL_FROM": '"Pülse, Engine" <Alerts@Example.com>'})
    assert (sender.name, sender.address, sender.domain) == (
        "Pülse, Engine",
        "Alerts@Example.com",
        "Example.com",
    )
