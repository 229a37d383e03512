"""Is never run, since its payloads do not fit."""

from listener import Payload, Queue, handler


class Misshapen(Payload):
    number: int


@handler(Queue.ALERTS)
async def misshapen(_: Misshapen) -> None:
    """Is never run."""
