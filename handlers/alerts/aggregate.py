"""Digests: finds those that are due, and sends each on its way, once per local day or week of its reader.

What a digest says is summed in SQL (`sql/430_digests.sql` tells of windows and time zones); the channels of its reader
tell it, each like an alert.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Literal, Self
from uuid import UUID

from pydantic import model_validator

from handlers.clients.database import Database, call
from listener import Job, Payload, Queue, every, handler


class Aggregate(Payload):
    """Nothing: make those that are due. A user and a period: make that one now. A digest: send it on its way."""

    user_id: UUID | None = None
    period: Literal["daily", "weekly"] | None = None
    digest_id: UUID | None = None

    @model_validator(mode="after")
    def _names_one_thing(self) -> Self:
        if (self.user_id is None) != (self.period is None) or (self.user_id and self.digest_id):
            raise ValueError("name the user and the period, or the digest, or nothing")
        return self


@every(timedelta(minutes=15))
@handler(Queue.ALERTS)
async def aggregate(payload: Aggregate, *, job: Job, db: Database) -> Mapping[str, object]:  # noqa: ARG001
    """{"digests": made now}, or what became of one: {"status", "deliveries", "suppressed"}."""
    if payload.digest_id is not None:
        return await call(db, "route_digest", digest_id=payload.digest_id)
    made, more = 0, True
    while more:
        answer = await call(db, "sweep_digests", user_id=payload.user_id, period=payload.period)
        made, more = made + int(str(answer["digests"])), bool(answer["more"] and answer["digests"])
    return {"digests": made}
