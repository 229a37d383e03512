"""Turns one fact about a payment into one alert for its user, in words, amounts and dates that the user is used to."""

from collections.abc import Mapping
from typing import cast
from uuid import UUID

from pydantic import Field

from handlers.clients.database import Database, call
from handlers.clients.payment_texts import Notice, Reader, told
from listener import Job, Payload, Queue, handler


class PaymentNotification(Payload):
    """Which fact; the functions in `sql/` that write facts enqueue this with them."""

    user_id: UUID
    type: Notice
    context: Mapping[str, object] = Field(default_factory=dict[str, object])
    """What the text tells: amounts and currency as text, moments in ISO format, names, addresses of pages."""


@handler(Queue.PAYMENT)
async def payment_notification(
    payload: PaymentNotification, *, job: Job, db: Database
) -> Mapping[str, object]:
    """Enqueues the alert, with the job's key: a second attempt finds the first one's."""
    title, message = told(payload.type, payload.context, await _reader(db, payload.user_id))
    return await call(
        db,
        "alert_payer",
        job_key=job.key,
        user_id=payload.user_id,
        alert_type=payload.type,
        title=title,
        message=message,
        metadata=payload.context,
    )


async def _reader(db: Database, user_id: UUID) -> Reader:
    answer = (
        await db.table("notification_preferences")
        .select("locale,timezone")
        .eq("user_id", str(user_id))
        .execute()
    )
    rows = cast("list[dict[str, str]]", answer.data)
    return Reader(**rows[0]) if rows else Reader()
