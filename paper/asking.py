"""What clients ask the paper broker's HTTP face, as Alpaca's API documents it, and the errors that it answers."""

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar, cast, get_args
from uuid import UUID, uuid4

from paper.words import OrderType, Refused, Request, Side, TimeInForce

Json = dict[str, Any]
N = TypeVar("N", int, Decimal)
OPERATIONS = "submit", "cancel", "find", "list", "any"
_FORBIDDEN = frozenset({"insufficient_buying_power", "insufficient_quantity"})


class Answered(Exception):
    """An error as the API answers it."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message}

    @classmethod
    def of(cls, refused: Refused) -> "Answered":
        """A refusal of the broker."""
        if refused.code in _FORBIDDEN:
            return cls(403, 40310000, str(refused))
        return cls(422, 42210000, str(refused))


UNAUTHORIZED = 401, 40110000, "request is not authorized"
NO_ORDER = 404, 40410000, "order not found"
NO_POSITION = 404, 40410000, "position does not exist"
DUPLICATE = 422, 40010001, "client_order_id must be unique"


def words_of(body: bytes) -> Json:
    """The JSON object of a body; its numbers are Decimal."""
    try:
        asked: object = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise Answered(400, 40010000, "request body format is invalid")
    return cast("Json", asked)


def request_of(body: bytes) -> Request:
    """What a client asks for. Raises Answered for what cannot be understood, or is no order of ours."""
    words = words_of(body)
    for name in ("symbol", "qty", "side", "type", "time_in_force"):
        if words.get(name) in (None, ""):
            raise Answered(422, 40010001, f"{name} is required")
    for name in ("notional", "legs", "take_profit", "stop_loss", "trail_price", "trail_percent"):
        if words.get(name) is not None:
            raise Answered(422, 42210000, f"{name} is not supported by this broker")
    if not str(words["symbol"]).isprintable() or not str(words.get("client_order_id")).isprintable():
        raise Answered(422, 42210000, "symbol and client_order_id must be printable")
    if words.get("order_class") not in (None, "", "simple") or words.get("extended_hours") not in (
        None,
        False,
    ):
        raise Answered(422, 42210000, "only simple orders in regular hours are supported by this broker")
    return Request(
        client_order_id=str(words.get("client_order_id") or uuid4()),
        symbol=str(words["symbol"]),
        side=cast("Side", _one_of(words, "side", get_args(Side))),
        order_type=cast("OrderType", _one_of(words, "type", get_args(OrderType))),
        time_in_force=cast("TimeInForce", _one_of(words, "time_in_force", get_args(TimeInForce))),
        quantity=_number(words, "qty") or Decimal(0),
        limit_price=_number(words, "limit_price"),
        stop_price=_number(words, "stop_price"),
    )


def fault_of(body: bytes, kinds: Collection[str]) -> Json:
    """The fault that is asked for, with nothing in it that the database would refuse."""
    words = words_of(body)
    if words.get("kind") not in list(kinds):
        raise Answered(422, 42210000, f"invalid kind: it is one of {', '.join(sorted(kinds))}")
    try:
        fault: Json = {"kind": words["kind"]}
        for name, known in (("operation", OPERATIONS), ("seed", None)):
            if (word := words.get(name)) is not None:
                if not str(word).isprintable() or (known and word not in known):
                    raise ValueError
                fault[name] = str(word)
        for name, most in (("seconds", 86_400), ("probability", 1)):
            if (said := words.get(name)) is not None:
                fault[name] = str(_within(Decimal(str(said)), 0, most))
        if (count := words.get("remaining")) is not None:
            fault["remaining"] = _within(int(count), 0, 10**9)
    except (ValueError, TypeError, InvalidOperation):
        raise Answered(422, 42210000, "this fault makes no sense") from None
    return fault


def _within(number: N, least: int, most: int) -> N:
    if not least <= number <= most:
        raise ValueError
    return number


def _one_of(words: Json, name: str, known: tuple[str, ...]) -> str:
    if words[name] not in known:
        raise Answered(422, 42210000, f"invalid {name}")
    return str(words[name])


def _number(words: Json, name: str) -> Decimal | None:
    value = words.get(name)
    if value is None:
        return None
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise Answered(422, 40010001, f"{name} must be a number") from None


def time_of(query: Mapping[str, str], name: str) -> datetime | None:
    """A time, or a day, of a query."""
    if not (text := query.get(name)):
        return None
    try:
        found = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise Answered(422, 42210000, f"invalid {name}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def whole_of(query: Mapping[str, str], name: str, otherwise: int, most: int) -> int:
    """A count of a query."""
    text = query.get(name, str(otherwise))
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= most:
        raise Answered(422, 42210000, f"invalid {name}: must be between 1 and {most}")
    return int(text)


def place_of(token: str) -> Json:
    """The fill that an activity's id names."""
    order_id, _, number = token.rpartition("::")[2].rpartition("-")
    try:
        return {"order_id": str(UUID(order_id)), "number": _within(int(number), 0, 10**9)}
    except ValueError:
        raise Answered(422, 42210000, "invalid page_token") from None
