"""What a broker called back about an account: receives it at the door, and looks where it points."""

from typing import Any
from uuid import UUID

from pydantic import AwareDatetime

from handlers.clients.callback_signature import BROKER_CALLBACK_SECRET, PATH, open_delivery
from listener import Delivery, NewJob, Payload, Queue, Settings, handler, webhook


class HandleCallback(Payload):
    """A callback that the door has verified."""

    connection_id: UUID
    version: int
    event_id: str
    event: str
    payload: dict[str, Any]
    received_at: AwareDatetime


@handler(Queue.BROKER)
async def handle_callback(payload: HandleCallback) -> dict[str, object]:
    """Not yet: what it points at is looked at by monitor_orders."""
    return {"callback": payload.event_id}


@webhook(PATH, BROKER_CALLBACK_SECRET)
def receive(delivery: Delivery, settings: Settings) -> NewJob:
    """Turns a signed callback into a job; the same event of an account twice is the same job."""
    callback = open_delivery(delivery, settings)
    data = {
        "connection_id": str(callback.connection_id),
        "version": callback.version,
        "event_id": callback.event_id,
        "event": callback.event,
        "payload": callback.payload,
        "received_at": callback.received_at.isoformat(),
    }
    key = f"callback:{callback.connection_id}:{callback.event_id}"
    return NewJob(Queue.BROKER, handle_callback.__name__, data, idempotency_key=key)
