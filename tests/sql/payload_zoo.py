"""Payload models with every kind of field, and data that is nearly right for them."""

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from functools import cache
from typing import Annotated, Any, Literal
from uuid import UUID

from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AliasPath,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    PlainValidator,
    StringConstraints,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel, to_snake

from listener import Payload
from listener.registry import load


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Forgiving(Enum):
    """Takes what it does not know."""

    ONE = "one"

    @classmethod
    def _missing_(cls, value: object) -> "Forgiving":
        return cls.ONE


class Numbers(Payload):
    whole: int
    small: int = Field(default=1, ge=1, le=10)
    share: float = Field(default=0.5, gt=0, lt=1)
    rounded: float = Field(default=0.1, ge=0.1, le=0.3)
    money: Decimal = Field(default=Decimal(1), ge=Decimal("0.01"), lt=100)
    flag: bool = False
    level: Level = Level.LOW
    odd: Literal[1, "one", True] = 1


class Texts(Payload):
    plain_text: str
    short_text: str = Field(default="ab", min_length=2, max_length=3)
    code: str = Field(default="a1", pattern="^[a-z][0-9]+$")
    other_code: str = Field(default="a", pattern=r"^\w+$")
    trimmed: Annotated[str, StringConstraints(strip_whitespace=True, max_length=2)] = ""
    colour: Colour | None = None
    side: Side = Side.BUY
    any_side: Forgiving = Forgiving.ONE
    word: Literal["daily", "weekly"] | None = None
    address: HttpUrl | None = None


class Moments(Payload):
    at: datetime
    aware: AwareDatetime | None = None
    day: date | None = None
    clock: time | None = None
    lasts: timedelta | None = None
    id: UUID | None = None


class Leaf(BaseModel):
    name: str


class Tree(BaseModel):
    name: str
    branches: list["Tree"] = Field(default_factory=list["Tree"], max_length=3)
    twig: "Tree | Leaf | int | None" = None


class Collections(Payload):
    ids: list[UUID] = Field(default_factory=list[UUID], min_length=1, max_length=3)
    leaves: Sequence[Leaf] = ()
    anything: Sequence[Any] = ()
    words: set[str] = Field(default_factory=set[str], max_length=2)
    pair: tuple[int, str] | None = None
    many: tuple[int, ...] = ()
    prices: dict[str, Decimal] = Field(default_factory=dict[str, Decimal])
    context: Mapping[str, object] = Field(default_factory=dict[str, object])
    tree: Tree | None = None


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    kind: Literal["square"]
    side: float


class Unions(Payload):
    either: int | Leaf
    shape: Annotated[Circle | Square, Field(discriminator="kind")] | None = None
    several: list[int | str | None] | None = None


class Judged(Payload):
    """With validators of its own, which see the data first."""

    before: Annotated[int, BeforeValidator(lambda value: 1)]
    plain: Annotated[str, PlainValidator(str)] = ""
    wrapped: Annotated[int, WrapValidator(lambda value, inner: 7)] = 7
    after: int = 2
    first: str = ""

    @field_validator("after")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value

    @field_validator("first", mode="before")
    @classmethod
    def _is_text(cls, value: object) -> str:
        return str(value)


class Rewritten(Payload):
    """Whose data a validator writes anew."""

    name: str

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, data: Any) -> Any:
        return {"name": str(data.get("called", data.get("name")))}


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")

    one: int = Field(alias="eins")
    two: int = Field(default=2, validation_alias=AliasChoices("zwei", "deux"))
    three: int = Field(default=3, validation_alias=AliasPath("deep", 0))


class Loose(BaseModel):
    """Unknown keys are left out, numbers are texts, and texts are trimmed."""

    model_config = ConfigDict(
        coerce_numbers_to_str=True, str_strip_whitespace=True, populate_by_name=True, regex_engine="python-re"
    )

    whose_name: str = Field(alias="whoseName", max_length=2)
    code: str = Field(default="a", pattern=re.compile("^a$"))
    inner: Leaf | None = None


ZOO: tuple[type[BaseModel], ...] = (
    Numbers, Texts, Moments, Collections, Unions, Judged, Rewritten, Aliased, Loose,
)  # fmt: skip


@cache
def models() -> dict[str, type[BaseModel]]:
    """The zoo, and the payload of each handler of this project."""
    handlers = load().handlers.values()
    return {one.__name__: one for one in ZOO} | {one.type: one.payload for one in handlers}


UUIDS = [
    "7b0e5c1e-9d9b-4d0e-8a52-0d0b9a7f0c11",
    "7B0E5C1E9D9B4D0E8A520D0B9A7F0C11",
    "{7b0e5c1e-9d9b-4d0e-8a52-0d0b9a7f0c11}",
    "urn:uuid:7b0e5c1e-9d9b-4d0e-8a52-0d0b9a7f0c11",
    "7b0e5c1e-9d9b-4d0e-8a52-0d0b9a7f0c1",
]
WORDS = [
    "", " ", "a", "ab", "abc", "abcd", " a ", "a1", "a1\n", "red", "RED", "buy", "daily", "one", "circle", "square",
    "true", "Yes", " on ", "off", "0", "1", "-1", " 12 ", "1_000", "12.0", "12.5", "0.1", "0.3", "0.30000000000000001",
    "1e3", "nan", "-inf", "Infinity", "٣", "１２", "ä1", "evt_1", "xevt_1", "delivered", "events", "v2.core.event",
    "2026-11-01", "2026-11-01T10:00:00", "2026-11-01T10:00:00Z", "2026-11-01 10:00+01:00", "10:00", "10:00:00.5",
    "P1D", "PT1H30M", "1 day, 10:00", "1700000000", "1700000000.5", "https://example.com/a", "user", "info",
]  # fmt: skip
NUMBERS = [
    "0", "1", "2", "3", "-1", "10", "11", "1.0", "2.0", "0.5", "0.1",
    "0.09999999999999999999", "0.3", "0.30000000000000000001",
    "1.5", "99.999", "100", "0.01", "0.009", "1e2", "1e400", "1e-400", "1700000000", "1700000000.5",
    "1e20", "123456789012345678901234567890",
]  # fmt: skip


class Raw(str):
    """A number as it stands in JSON text: digits that no float has."""

    __slots__ = ()


def json_text(value: Any) -> str:
    """Data as a producer sends it."""
    match value:
        case Raw():
            return str(value)
        case dict():
            return (
                "{" + ",".join(f"{json.dumps(key)}:{json_text(inner)}" for key, inner in value.items()) + "}"
            )
        case list():
            return "[" + ",".join(json_text(inner) for inner in value) + "]"
        case _:
            return json.dumps(value)


def parsed(text: str) -> Any:
    """Data as a worker reads it."""
    return json.loads(text, parse_float=Decimal)


_ID = UUIDS[0]
_EVENT = {
    "id": "evt_1",
    "type": "a",
    "livemode": False,
    "created": 1700000000,
    "data": {"object": {"id": "ch_1"}},
}
_ALERT = {
    "user_id": _ID,
    "alert_type": "a",
    "title": "a",
    "message": "",
    "severity": "info",
    "metadata": {"a": 1},
}
_LEAF = {"name": "a"}
_TREE = {"name": "a", "branches": [{"name": "a", "twig": _LEAF}], "twig": 1}
GOOD: Mapping[str, Sequence[Any]] = {
    "Numbers": [
        {"whole": 1, "small": 1, "share": 0.5, "rounded": 0.1, "money": "1", "flag": True, "level": 1, "odd": 1}
    ],
    "Texts": [
        {
            "plain_text": "a", "short_text": "ab", "code": "a1", "other_code": "a", "trimmed": " a ", "colour": "red",
            "side": "buy", "any_side": "x", "word": "daily", "address": "https://example.com",
        }
    ],
    "Moments": [
        {"at": "2026-11-01T10:00:00Z", "aware": 1700000000, "day": "2026-11-01",
            "clock": "10:00", "lasts": "P1D", "id": _ID}
    ],
    "Collections": [
        {
            "ids": [_ID], "leaves": [_LEAF], "anything": [1], "words": ["a", "b", "b"],
            "pair": [1, "a"], "many": [1, "2"],
            "prices": {"a": "1"}, "context": {"a": 1}, "tree": _TREE,
        }
    ],
    "Unions": [{"either": 1, "shape": {"kind": "circle", "radius": 1}, "several": [1, "a", None]}, {"either": _LEAF}],
    "Judged": [{"before": "x", "plain": 1, "wrapped": "x", "after": 2, "first": 1}],
    "Rewritten": [{"called": 1}, {"name": "a"}],
    "Aliased": [{"eins": 1, "zwei": 2, "deep": [3]}, {"eins": 1, "deux": 2}],
    "Loose": [{"whoseName": " ab ", "code": "a\n", "inner": _LEAF, "more": 1}, {"whose_name": 12, "inner": None}],
    "aggregate": [{}, {"user_id": _ID, "period": "daily"}, {"digestId": _ID}],
    **{name: [_ALERT, {"delivery_id": _ID}] for name in ("discord", "email", "push", "notify")},
    "email_event": [
        {
            "events": [
                {"kind": "bounce", "address": "a", "scope": "all", "delivery_id": _ID},
                {"kind": "spam", "address": ""},
            ]
        }
    ],
    "cancel_order": [{"order_id": _ID}, {"orderId": _ID}],
    "execute_order": [{"order_id": _ID}, {"orderId": _ID}],
    "handle_callback": [
        {
            "connection_id": _ID, "version": 1, "event_id": "a", "event": "a", "payload": {"a": 1},
            "received_at": "2026-11-01T10:00:00Z", "broker": "a", "raw_body": "a", "signature": "a",
        }
    ],
    "monitor_orders": [{"order_ids": [_ID, _ID], "broker_connection_id": _ID}],
    "sync_positions": [{"user_id": _ID, "broker_connection_id": _ID}],
    "prune": [{"completed_days": 1, "failed_days": 1.5}],
    "crypto_verification": [{"crypto_payment_id": _ID, "tx_hash": "a", "payer_signature": "a", "amount": [1]}],
    "payment_notification": [{"user_id": _ID, "type": "payment_failed", "context": {"a": 1}}],
    "reconcile_stripe": [{"since": "2026-11-01T10:00:00Z", "part": "events", "after": "a"}],
    "stripe_webhook": [
        _EVENT,
        _EVENT | {"object": "v2.core.event", "related_object": {"id": None}, "snapshot_event": "evt_2"},
        {"raw_body": "a", "signature": "a", "receivedAt": 1700000000},
    ],
    "subscription_renewal": [{"subscription_id": _ID}, {}],
}  # fmt: skip
"""Data that fits, with as much in it as there can be."""

LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(UUIDS),
    st.sampled_from(WORDS),
    st.sampled_from(NUMBERS).map(Raw),
    st.sampled_from([None, True, False]),
    st.text(alphabet="ab1.-: Ω", max_size=4),
    st.integers(-3, 12).map(lambda n: Raw(str(n))),
    st.sampled_from(
        [[], {}, [1], ["a", "b", "c", "d"], [_ID] * 4, [0, [1], -2], _LEAF, {"kind": "square", "side": "1"}]
    ),
)
"""What is put in the place of something good."""


# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# Data is of any kind here.


def _paths(data: Any) -> list[tuple[Any, ...]]:
    inner: Iterable[tuple[Any, Any]] = (
        data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    )
    return [()] + [(step, *path) for step, value in inner for path in _paths(value)]


@st.composite
def nearly_good(draw: st.DrawFn, name: str) -> Any:
    """Data that fits the model, with some parts of it replaced, left out, spelled otherwise, or added."""
    data = copy.deepcopy(draw(st.sampled_from(GOOD[name])))
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from(_paths(data)[1:] or [("name",)]))
        place = data
        for step in way:
            place = place[step]
        match draw(st.sampled_from(["replace", "replace", "replace", "leave out", "spell", "add"])):
            case "leave out" if isinstance(place, dict):
                place.pop(last, None)
            case "spell" if isinstance(place, dict) and last in place:
                words = draw(st.sampled_from([to_camel(last), to_snake(last)]))
                place[words] = draw(st.one_of(st.just(place[last]), LEAVES.map(copy.deepcopy)))
                if draw(st.booleans()) and words != last:
                    del place[last]
            case "add" if isinstance(place, dict):
                place[draw(st.sampled_from(["unknown", "name", "4000 1234"]))] = draw(
                    LEAVES.map(copy.deepcopy)
                )
            case _:
                place[last] = draw(LEAVES.map(copy.deepcopy))
    return data
