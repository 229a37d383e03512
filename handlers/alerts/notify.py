"""Routes an alert: to each channel that its reader wants, and each target there, one delivery, as a job of its own."""

from collections.abc import Mapping

from handlers.clients.alerts.delivery import AlertJob, route
from handlers.clients.database import Database
from listener import Job, Queue, handler


@handler(Queue.ALERTS)
async def notify(payload: AlertJob, *, job: Job, db: Database) -> Mapping[str, object]:
    """The result says which alert it is, and how many deliveries were made or left out, and why."""
    return await route(db, job, payload)
