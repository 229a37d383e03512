"""Does nothing, at once: what remains is the job system itself."""

from listener import Payload, Queue, handler


class Noop(Payload):
    """Padding, so that rows have a usual size."""

    padding: str


@handler(Queue.MAINTENANCE)
async def noop(payload: Noop) -> None:
    """Returns."""
    del payload
