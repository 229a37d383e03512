"""E-mail: one alert or digest to one address, as text and as HTML, and nothing more to who asked for no more."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from handlers.clients.alerts.alert_mail import alert_letter
from handlers.clients.alerts.delivery import AlertJob, Pace, Sending, deliver, patience
from handlers.clients.alerts.digest import facts_of_digest
from handlers.clients.alerts.digest_mail import digest_letter
from handlers.clients.alerts.mail import Mail, Mailer
from handlers.clients.alerts.mail_frame import Letter
from handlers.clients.alerts.told import NotSent, Refused, Told
from handlers.clients.database import Database
from listener import Job, Queue, Snooze, handler

PACE: Final = Pace(limit=timedelta(minutes=3), digests=True)
"""A mail may wait for a request under way, and then for the parts of one with a bad address in it."""


@handler(Queue.ALERTS, backoff=patience, timeout=timedelta(minutes=6))
async def email(
    payload: AlertJob, *, job: Job, db: Database, mailer: Mailer
) -> Mapping[str, object] | Snooze:
    """Sends one delivery, with those of the same moment; or routes words to the user's addresses."""

    async def send(sending: Sending) -> Told:
        address = sending.target.address
        if address is None:
            return Refused("no_address", "There is no address to send this to.")
        unsubscribe_url = mailer.unsubscribe_url(address, "all" if sending.digest_id is None else "digest")
        written = await _letter(db, sending, mailer.app_url, unsubscribe_url)
        if isinstance(written, NotSent):
            return written
        subject, letter = written
        return await mailer.send(
            Mail(sending.delivery_id, address, subject, letter.text(), letter.html(), unsubscribe_url)
        )

    return await deliver(db, job, payload, send, PACE)


async def _letter(
    db: Database, sending: Sending, app_url: str | None, unsubscribe_url: str | None
) -> tuple[str, Letter] | NotSent:
    """The subject, and the alert or the digest in words."""
    if sending.alert is not None:
        return alert_letter(
            sending.alert,
            sending.reader,
            app_url=app_url,
            unsubscribe_url=unsubscribe_url,
            is_resend=sending.resend,
        )
    facts = await facts_of_digest(db, sending)
    if isinstance(facts, NotSent):
        return facts
    return digest_letter(facts, app_url=app_url, unsubscribe_url=unsubscribe_url, is_resend=sending.resend)
