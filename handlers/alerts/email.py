"""E-mail: one alert to one address, as text and as HTML, and nothing more to who asked for no more."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from handlers.clients.alert_mail import alert_letter
from handlers.clients.database import Database
from handlers.clients.delivery import AlertJob, Pace, Refused, Sending, Told, deliver, patience
from handlers.clients.mail import Mail, Mailer
from listener import Job, Queue, Snooze, handler

PACE: Final = Pace(limit=timedelta(minutes=3))
"""A mail may wait for a request under way, and then for the parts of one with a bad address in it."""


@handler(Queue.ALERTS, backoff=patience, timeout=timedelta(minutes=6))
async def email(
    payload: AlertJob, *, job: Job, db: Database, mailer: Mailer
) -> Mapping[str, object] | Snooze:
    """Sends one delivery, with those of the same moment; or routes words to the user's addresses."""

    async def send(sending: Sending) -> Told:
        if sending.alert is None or sending.target.address is None:
            return Refused("no_address", "There is no alert to send, or no address to send it to.")
        address = sending.target.address
        unsubscribe_url = mailer.unsubscribe_url(address, "all")
        subject, letter = alert_letter(
            sending.alert,
            sending.reader,
            app_url=mailer.app_url,
            unsubscribe_url=unsubscribe_url,
            is_resend=sending.resend,
        )
        return await mailer.send(
            Mail(sending.delivery_id, address, subject, letter.text(), letter.html(), unsubscribe_url)
        )

    return await deliver(db, job, payload, send, PACE)
