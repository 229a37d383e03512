"""Push: one alert or digest to one device, with those of the same moment; a copy takes the place of the first one."""

from collections.abc import Mapping
from datetime import timedelta

from handlers.clients.alerts.delivery import AlertJob, Sending, deliver, patience
from handlers.clients.alerts.digest import facts_of_digest
from handlers.clients.alerts.push import PACE, Push
from handlers.clients.alerts.push_message import push_digest, push_message
from handlers.clients.alerts.told import NotSent, Refused, Told
from handlers.clients.database import Database
from listener import Job, Queue, Snooze, handler


@handler(Queue.ALERTS, backoff=patience, timeout=timedelta(minutes=2))
async def push(payload: AlertJob, *, job: Job, db: Database, devices: Push) -> Mapping[str, object] | Snooze:
    """Sends one delivery; or routes words to the user's devices."""

    async def send(sending: Sending) -> Told:
        alert, target = sending.alert, sending.target
        if target.address is None:
            return Refused("no_address", "There is no device to send this to.")
        if alert is not None:
            message = push_message(alert, sending.delivery_id, target.address, target.kind)
        else:
            facts = await facts_of_digest(db, sending)
            if isinstance(facts, NotSent):
                return facts
            message = push_digest(facts, sending, target.address)
        return await devices.send(message)

    return await deliver(db, job, payload, send, PACE)
