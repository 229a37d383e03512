"""Accounts are opened once, kept while they are of use, guarded, and closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import pytest

from handlers.clients.broker import brokers as kept
from handlers.clients.broker.broker import (
    BadCredentials,
    BrokerError,
    BrokerOrder,
    Dedupe,
    NotSent,
    OutcomeUnknown,
    Refused,
    TooFast,
    Traits,
)
from handlers.clients.broker.brokers import Account, Brokers, Busy, Connection, NotOpened
from handlers.clients.database import Database
from tests.handlers.broker.adapters.house import SYMBOL, an_order
from tests.waiting import until

SECRET = "planted-broker-secret-0123"
NO_DATABASE = cast("Database", None)  # nobody here asks it


@dataclass
class Toy:
    """An adapter that does what a test says, wrongly if it says so."""

    does: Any = None
    closed: bool = False
    closes: asyncio.Event | None = None
    traits: Traits = field(default=Traits(Dedupe.ACCOUNT, timedelta(seconds=1), 1, True, 128))

    async def _act(self, *_: object) -> Any:
        if isinstance(self.does, BaseException):
            raise self.does
        return self.does

    objection = submit = find = get = cancel = open_orders = fills = positions = hours = _act

    async def close(self) -> None:
        self.closed = True
        if self.closes:
            await self.closes.wait()


@dataclass
class Shop:
    """Opens toys, and counts them."""

    toys: list[Toy] = field(default_factory=list[Toy])
    accounts: list[Account] = field(default_factory=list[Account])
    waits: asyncio.Event | None = None
    does: Any = None

    async def open(self, account: Account) -> Any:
        self.accounts.append(account)
        if self.waits:
            await self.waits.wait()
        if isinstance(self.does, BaseException):
            raise self.does
        self.toys.append(Toy())
        return self.toys[-1]


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
async def brokers(shop: Shop) -> AsyncIterator[Brokers]:
    async with Brokers.open({"toy": shop.open}, {}, NO_DATABASE) as found:
        yield found


def a_connection(**words: Any) -> Connection:
    who = uuid4()
    return replace(Connection(who, who, "toy:shop", "paper", 1), **words)


async def test_an_account_is_opened_once_however_many_ask_for_it_at_once(
    shop: Shop, brokers: Brokers
) -> None:
    shop.waits = asyncio.Event()
    connection = a_connection()

    async def ask() -> object:
        async with brokers.at(connection) as adapter:
            return adapter

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask()) for _ in range(2)]
        await until("the account is about to be opened", lambda: bool(shop.accounts))
        shop.waits.set()
    assert len(shop.accounts) == 1
    assert len({id(one.result()) for one in asked} | {id(await ask())}) == 1


async def test_new_credentials_and_new_settings_are_another_account(shop: Shop, brokers: Brokers) -> None:
    first = a_connection()
    for connection in (
        first,
        replace(first, credentials_version=2),
        replace(first, settings={"a": 1}),
        first,
    ):
        async with brokers.at(connection):
            pass
    assert [one.connection.credentials_version for one in shop.accounts] == [1, 2, 1]


async def test_two_calls_of_one_connection_at_once_and_the_third_is_told_that_nothing_was_sent(
    brokers: Brokers,
) -> None:
    connection = a_connection()
    async with brokers.at(connection), brokers.at(connection):
        with pytest.raises(Busy):
            async with brokers.at(connection):
                pytest.fail("a third call was let in")
        with pytest.raises(Busy):  # and not another version of it
            async with brokers.at(replace(connection, credentials_version=2)):
                pytest.fail("a third call was let in")
        async with brokers.at(a_connection()):
            pass  # others go on
    async with brokers.at(connection):
        pass
    assert issubclass(Busy, NotSent)


async def test_the_longer_a_broker_hangs_the_later_the_others_of_its_account_come_back(
    brokers: Brokers,
) -> None:
    connection = a_connection()
    async with brokers.at(connection), brokers.at(connection):
        under_way = brokers._calls[connection.id]
        began = under_way[0]
        for taken in (0, 100):
            under_way[0] = began - taken
            with pytest.raises(Busy) as busy:
                async with brokers.at(connection):
                    pytest.fail("a third call was let in")
            assert busy.value.after >= timedelta(seconds=max(taken, 1))
        under_way[0] = began


async def test_rejected_credentials_close_the_account_when_nobody_uses_it_any_more(
    shop: Shop, brokers: Brokers
) -> None:
    connection = a_connection()
    async with brokers.at(connection):
        with pytest.raises(BadCredentials):
            async with brokers.at(connection) as adapter:
                shop.toys[0].does = BadCredentials("no")
                await adapter.positions()
        assert not shop.toys[0].closed
        async with brokers.at(connection):
            assert len(shop.toys) == 2
    assert shop.toys[0].closed
    assert not shop.toys[1].closed


async def test_beyond_the_most_the_one_that_was_not_used_longest_is_closed(
    shop: Shop, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST_KEPT", 2)
    one, two, three = (a_connection() for _ in range(3))
    for connection in (one, two, one, three):
        async with brokers.at(connection):
            pass
    assert [toy.closed for toy in shop.toys] == [False, True, False]


async def test_what_is_in_use_is_not_closed_for_others(
    shop: Shop, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST_KEPT", 1)
    async with AsyncExitStack() as stack:
        for connection in [a_connection() for _ in range(3)]:
            await stack.enter_async_context(brokers.at(connection))
        assert not any(toy.closed for toy in shop.toys)
    assert sum(not toy.closed for toy in shop.toys) == 1


async def test_what_is_asked_for_while_another_one_is_closed_is_not_closed_with_it(
    shop: Shop, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = a_connection(), a_connection()
    for connection in (first, second):
        async with brokers.at(connection):
            pass
    monkeypatch.setattr(kept, "MOST_KEPT", 1)
    shop.toys[0].closes = asyncio.Event()

    async def crowd_out() -> None:
        async with brokers.at(a_connection()):
            pass

    async with asyncio.TaskGroup() as group:
        crowding = group.create_task(crowd_out())
        await until("the first is being closed", lambda: shop.toys[0].closed)
        async with brokers.at(second) as adapter:
            shop.toys[0].closes.set()
            await crowding
            assert not cast("Any", adapter)._adapter.closed


async def test_all_are_closed_at_the_end(shop: Shop) -> None:
    async with Brokers.open({"toy": shop.open}, {}, NO_DATABASE) as brokers:
        for _ in range(3):
            async with brokers.at(a_connection()):
                pass
    assert [toy.closed for toy in shop.toys] == [True] * 3


@pytest.mark.parametrize("error", [RuntimeError(SECRET), OutcomeUnknown("no markets"), TimeoutError(SECRET)])
async def test_an_account_that_cannot_be_opened_has_sent_nothing_and_is_opened_anew(
    shop: Shop, brokers: Brokers, error: Exception
) -> None:
    connection = a_connection()
    shop.does = error
    with pytest.raises(NotSent) as told:
        async with brokers.at(connection):
            pytest.fail("it was opened")
    assert SECRET not in str(told.value)
    shop.does = None
    async with brokers.at(connection):
        assert len(shop.toys) == 1


async def test_a_broker_without_an_adapter_is_told_by_its_name(brokers: Brokers) -> None:
    with pytest.raises(NotOpened, match=r"no adapter for the lumber:yard connection .* one of toy"):
        async with brokers.at(a_connection(broker="lumber:yard")):
            pytest.fail("it was opened")


STRANGE: list[tuple[BaseException, type[BrokerError]]] = [
    (RuntimeError(SECRET), OutcomeUnknown),
    (KeyError(SECRET), OutcomeUnknown),
    (TimeoutError(SECRET), OutcomeUnknown),
    (ConnectionResetError(SECRET), OutcomeUnknown),
    (TooFast(timedelta(seconds=3)), TooFast),
]


@pytest.mark.parametrize(
    "method", ["submit", "find", "get", "cancel", "open_orders", "fills", "positions", "hours"]
)
@pytest.mark.parametrize(("error", "told"), STRANGE, ids=lambda one: getattr(one, "__name__", repr(one)[:20]))
async def test_whatever_an_adapter_raises_is_told_in_the_words_of_the_table(
    shop: Shop, brokers: Brokers, method: str, error: BaseException, told: type[BrokerError]
) -> None:
    arguments: dict[str, tuple[object, ...]] = {
        "submit": (an_order(),),
        "fills": (datetime.now(),),  # noqa: DTZ005 - never looked at
        "hours": (SYMBOL,),
    }
    async with brokers.at(a_connection()) as adapter:
        shop.toys[0].does = error
        with pytest.raises(told) as raised:
            await getattr(adapter, method)(
                *arguments.get(method, () if method.endswith("s") else ("1", SYMBOL))
            )
    assert SECRET not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value is error


async def test_an_answer_about_another_order_is_no_answer(shop: Shop, brokers: Brokers) -> None:
    ours = an_order()
    other = BrokerOrder(
        **{
            name: getattr(ours, name)
            for name in ("symbol", "side", "order_type", "time_in_force", "quantity")
        },
        broker_order_id="1",
        client_order_id="somebody else's",
        status="accepted",  # type: ignore[arg-type]  # nobody looks at it
        filled_quantity=ours.quantity,
        filled_avg_price=None,
        updated_at=datetime.now(),  # noqa: DTZ005
    )
    async with brokers.at(a_connection()) as adapter:
        shop.toys[0].does = other
        for call in (adapter.submit(ours), adapter.find(ours.client_order_id, SYMBOL)):
            with pytest.raises(OutcomeUnknown, match="another order"):
                await call


async def test_an_id_that_is_too_long_for_a_broker_is_objected_to(brokers: Brokers) -> None:
    async with brokers.at(a_connection()) as adapter:
        found = adapter.objection(an_order(client_order_id="x" * 129))
        assert found is not None
        assert found.code == "invalid_order"


async def test_a_refusal_is_no_answer_to_a_question(shop: Shop, brokers: Brokers) -> None:
    async with brokers.at(a_connection()) as adapter:
        shop.toys[0].does = Refused("no", "no")
        with pytest.raises(OutcomeUnknown):
            await adapter.positions()
        with pytest.raises(Refused):
            await adapter.submit(an_order())


async def test_a_connection_is_read_from_what_the_database_answers() -> None:
    who = uuid4()
    told = {
        "id": str(who), "user_id": str(who), "broker": "ccxt:kraken", "environment": "live", "settings": {"a": 1},
        "credentials_version": 3, "credentials_env": None, "more": "than that",
    }  # fmt: skip
    assert Connection.read(told) == Connection(who, who, "ccxt:kraken", "live", 3, {"a": 1}, None)
