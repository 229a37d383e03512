"""Notes when it was started, for the latency from an insert to here."""

import time

from listener import Payload, Queue, handler


class Ping(Payload):
    """When the producer sent it, by this machine's clock."""

    sent_at: float


@handler(Queue.MAINTENANCE)
async def ping(payload: Ping) -> dict[str, object]:
    """Answers the milliseconds since it was sent."""
    return {"milliseconds": (time.time() - payload.sent_at) * 1000}
