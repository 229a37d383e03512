"""What a broker called back about an account: receives it at the door, and has the broker asked where it points.

A callback is a hint, whoever signed it. The orders that it names are looked at, and positions read; nothing that it
says is believed, so a forged, doubled, late or reordered one costs a look and no more (`sql/340_callbacks.sql`).

    order_…       the orders that it names; if nobody knows them, whatever is new at the account
    position_…    the positions of the account
    all others    are noted as ignored
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final, cast
from uuid import UUID

from pydantic import AwareDatetime, Field

from handlers.clients.broker.callback_signature import (
    BROKER_CALLBACK_SECRET,
    PATH,
    Callback,
    CallbackMasters,
    NoMaster,
    open_callback,
    open_delivery,
)
from handlers.clients.database import Database, call
from handlers.clients.signed_delivery import BadDelivery
from listener import Cancel, Delivery, Job, NewJob, Payload, Queue, Reject, Settings, handler, webhook

MOST_ORDERS: Final = 50
DEEPEST: Final = 4
_NAMES_AN_ORDER: Final = re.compile(r"(client|broker)?_?(order)?_?ids?", re.IGNORECASE)
_NAMES_THE_ACCOUNT: Final = ("connection_id", "connectionId", "broker_connection_id", "brokerConnectionId")


class HandleCallback(Payload):
    """A callback that the door, or the app's server, has verified; or the delivery it came in, to be verified here."""

    connection_id: UUID | None = None
    version: int | None = None
    """Of the secret that signed it; none where the app's server vouches for it."""
    event_id: str | None = Field(default=None, max_length=200)
    event: str | None = Field(default=None, max_length=64)
    payload: dict[str, object] = Field(default_factory=dict[str, object])
    received_at: AwareDatetime | None = None
    broker: str | None = None
    raw_body: str | None = None
    signature: str | None = None


@handler(Queue.BROKER)
async def handle_callback(
    payload: HandleCallback, *, job: Job, masters: CallbackMasters, db: Database
) -> Mapping[str, object] | Cancel:
    """The result says what became of the hint: noted, repeated or ignored."""
    told = _opened(payload, masters) if payload.raw_body is not None else _vouched(payload, job)
    noted = await call(db, "note_callback", told=told)
    match noted["outcome"]:
        case "unknown":
            raise Reject("There is no broker connection with this id.")
        case "other_broker":
            raise Reject("This connection is with another broker than the callback says.")
        case "old_version":
            return Cancel("The secret that signed this does not count any more: it was rotated.")
        case _:
            return noted


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
    # With the version: who has a secret that does not count any more cannot take the place of an event.
    key = f"callback:{callback.connection_id}:{callback.version}:{callback.event_id}"
    return NewJob(Queue.BROKER, handle_callback.__name__, data, idempotency_key=key)


def _opened(payload: HandleCallback, masters: CallbackMasters) -> dict[str, object]:
    """A delivery that nobody has verified yet."""
    signed = (
        payload.raw_body,
        payload.signature,
        payload.connection_id,
        payload.version,
        payload.received_at,
    )
    match signed:
        case (str(raw_body), str(signature), UUID() as account, int(version), received_at) if received_at:
            pass
        case _:
            raise Reject("With raw_body go signature, connection_id, version and received_at.")
    try:
        callback = open_callback(raw_body.encode(), signature, account, version, masters.all(), received_at)
    except (BadDelivery, NoMaster) as error:
        raise Reject(str(error)) from None
    return _words(callback) | {"version": callback.version}


def _vouched(payload: HandleCallback, job: Job) -> dict[str, object]:
    """One that was verified before it became a job."""
    account = payload.connection_id or _account_in(payload.payload)
    if account is None or payload.event is None:
        raise Reject("Say which connection_id this is about, and the event.")
    callback = Callback(
        account,
        payload.version or 0,
        payload.event_id or job.key,
        payload.event,
        payload.payload,
        payload.received_at or job.created_at,
    )
    return _words(callback) | {"version": payload.version, "broker": payload.broker}


def _words(callback: Callback) -> dict[str, object]:
    """What note_callback takes."""
    return {
        "broker_connection_id": callback.connection_id,
        "event_id": callback.event_id,
        "event": callback.event,
        "received_at": callback.received_at,
        "order_ids": list(dict.fromkeys(_order_ids(callback.payload, DEEPEST)))[:MOST_ORDERS],
    }


def _account_in(payload: Mapping[str, object]) -> UUID | None:
    for name in _NAMES_THE_ACCOUNT:
        try:
            return UUID(str(payload[name]))
        except (KeyError, ValueError):
            continue
    return None


def _order_ids(value: object, deepest: int) -> Iterator[str]:
    """Whatever may be the id of an order, ours or the broker's."""
    if deepest and isinstance(value, dict):
        for name, one in cast("dict[str, object]", value).items():
            if _NAMES_AN_ORDER.fullmatch(name):
                yield from (str(each) for each in _each(one) if isinstance(each, str | int))
            yield from _order_ids(one, deepest - 1)
    elif deepest and isinstance(value, list):
        for one in _each(cast("object", value)):
            yield from _order_ids(one, deepest - 1)


def _each(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else [value]
