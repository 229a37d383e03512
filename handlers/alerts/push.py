"""Push: one alert to one device, with those of the same moment; a copy takes the place of the first one."""

from collections.abc import Mapping
from datetime import timedelta

from handlers.clients.database import Database
from handlers.clients.delivery import AlertJob, Refused, Sending, Told, deliver, patience
from handlers.clients.push import PACE, Push
from handlers.clients.push_message import push_message
from listener import Job, Queue, Snooze, handler


@handler(Queue.ALERTS, backoff=patience, timeout=timedelta(minutes=2))
async def push(payload: AlertJob, *, job: Job, db: Database, devices: Push) -> Mapping[str, object] | Snooze:
    """Sends one delivery; or routes words to the user's devices."""

    async def send(sending: Sending) -> Told:
        alert, target = sending.alert, sending.target
        if alert is None or target.address is None:
            return Refused("no_alert", "There is no alert to send, or no device to send it to.")
        return await devices.send(push_message(alert, sending.delivery_id, target.address, target.kind))

    return await deliver(db, job, payload, send, PACE)
