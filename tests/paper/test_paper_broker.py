"""The paper broker over its database: what a client sees of an order, whoever else is there, and after a restart."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from paper import Call, DuplicateClientId, Fault, PaperBroker, Refused, Request, Unusable
from paper.words import OrderType, Side, TimeInForce
from tests.paper.conftest import Notes, Opens

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Moves = Callable[[timedelta], Awaitable[None]]
D = Decimal
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def wish(
    client_order_id: str,
    quantity: str = "1",
    side: Side = "buy",
    kind: OrderType = "market",
    in_force: TimeInForce = "gtc",
    limit: str | None = None,
) -> Request:
    return Request(client_order_id, "AAPL", side, kind, in_force, D(quantity), D(limit) if limit else None)


async def test_an_order_is_filled_found_again_and_booked(open_account: Opens, quote: Notes) -> None:
    broker = await open_account(fee_per_order="1")
    await quote("AAPL", "99.5", "100")
    placed = await broker.submit(wish("one", "3"))
    assert (placed.status, placed.filled_quantity, placed.filled_avg_price) == ("filled", D(3), D(100))
    assert await broker.find("one") == placed
    assert await broker.get(placed.id) == placed
    assert await broker.find("two") is None
    assert await broker.get("no uuid") is None
    assert await broker.cancel(placed.id) == (False, placed)
    [position] = await broker.positions()
    assert (position.quantity, position.avg_entry_price, position.current_price) == (D(3), D(100), D("99.75"))
    [fill] = await broker.fills(placed.submitted_at)
    assert (fill.id, fill.quantity, fill.price, fill.fee) == (f"{placed.id}-1", D(3), D(100), D(1))
    account = await broker.account()
    assert (account.cash, account.equity, account.fees) == (D(9699), D("9998.25"), D(1))


async def test_no_number_is_rounded_on_its_way_through_the_database(
    open_account: Opens, quote: Notes
) -> None:
    broker = await open_account(cash="12345678901234567890.123456789")
    await quote("AAPL", "0.000000001", "98765.987654321")
    placed = await broker.submit(wish("one", "123456.123456789"))
    assert (placed.status, await broker.find("one")) == ("filled", placed)
    account = await broker.account()
    assert (account.cash, account.buying_power) == (D("12345678889041301924.939905196887364731"),) * 2
    assert [fill.price for fill in await broker.fills(LONG_AGO)] == [D("98765.987654321")]


async def test_the_book_survives_a_restart_and_goes_on_by_the_clock_of_the_database(
    open_account: Opens, quote: Notes, call: Call, move_clock: Moves
) -> None:
    now = datetime.now(UTC)
    noon = datetime(now.year, now.month, now.day, 12, tzinfo=UTC) + timedelta(days=1)  # no day ends meanwhile
    await move_clock(noon - now)
    before = await open_account()
    await quote("AAPL", "99", "100", ask_size="2")
    placed = await before.submit(wish("one", "5", in_force="day"))
    assert (placed.status, placed.left) == ("partially_filled", D(3))
    for minutes, ask in ((10, "101"), (20, "102")):
        await quote("AAPL", "99", ask, ask_size="1", at=(noon + timedelta(minutes=minutes)).isoformat())
    after = PaperBroker(call, before.account_id)
    await move_clock(noon - now + timedelta(minutes=15))
    assert [order.filled_quantity for order in await after.open_orders()] == [D(3)]
    await move_clock(noon - now + timedelta(days=2))
    found = await before.get(placed.id)
    assert found is not None
    assert (found.status, found.filled_value, found.updated_at) == ("expired", D(403), placed.expires_at)
    assert [fill.price for fill in await after.fills(LONG_AGO)] == [D(100), D(101), D(102)]


async def test_more_quotes_than_one_load_brings_are_all_replayed(
    open_account: Opens, quote: Notes, owner: Owner, move_clock: Moves
) -> None:
    broker = await open_account()
    await quote("AAPL", "99", "100")
    await broker.submit(wish("one", "3", kind="limit", limit="50"))
    await owner.execute(
        "insert into paper_quotes (symbol, at, bid, ask, ask_size)"
        " select 'AAPL', clock_now() + n * interval '1 millisecond', 40,"
        " case when n in (2, 7000, 11000) then 49 else 60 end, 1 from generate_series(1, 12000) as n"
    )
    await move_clock(timedelta(minutes=1))
    order = await broker.find("one")
    assert order is not None
    assert (order.status, order.fills) == ("filled", 3)


@pytest.mark.parametrize("dedupe", ["account", "open_orders", "none"])
async def test_a_client_order_id_is_taken_as_long_as_the_account_says(
    open_account: Opens, quote: Notes, dedupe: str, owner: Owner
) -> None:
    broker = await open_account(dedupe=dedupe)
    await quote("AAPL", "99", "100")

    async def taken() -> bool:
        try:
            await broker.submit(wish("one", kind="limit", limit="90"))
        except DuplicateClientId:
            return True
        return False

    found = [await taken(), await taken()]
    await broker.cancel_all()
    found.append(await taken())
    assert found == [False, dedupe != "none", dedupe == "account"]
    newest = await broker.find("one")
    assert newest is not None
    assert newest.number == await owner.fetchval("select max(number) from paper_orders")


@pytest.mark.parametrize(("dedupe", "status"), [("account", "filled"), ("open_orders", "accepted")])
async def test_the_database_itself_refuses_a_double(
    open_account: Opens, quote: Notes, owner: Owner, dedupe: str, status: str
) -> None:
    broker = await open_account(dedupe=dedupe)
    await quote("AAPL", "99", "100")
    await broker.submit(wish("one", kind="limit", limit="100" if status == "filled" else "90"))
    with pytest.raises(asyncpg.UniqueViolationError, match="paper_orders_once"):
        await owner.execute(
            "insert into paper_orders select (jsonb_populate_record(o, jsonb_build_object("
            " 'id', gen_random_uuid(), 'number', 99))).* from paper_orders as o"
        )


async def test_an_unknown_account_and_settings_without_sense_are_told(
    open_account: Opens, call: Call
) -> None:
    with pytest.raises(Unusable, match="no paper account"):
        await PaperBroker(call, "00000000-0000-0000-0000-000000000000").open_orders()
    with pytest.raises(Unusable, match="dedup"):
        await (await open_account(dedup="none")).open_orders()


async def test_opening_the_same_account_again_opens_no_second_one(call: Call) -> None:
    words = {"opened": {"id": "11111111-1111-1111-1111-111111111111", "cash": "5"}}
    first, second = await call("open_paper_account", words), await call("open_paper_account", words)
    assert first["secret"]
    assert second == {**first, "secret": None}


PROGRAM = """
import asyncio, sys
from decimal import Decimal
from paper import DuplicateClientId, PaperBroker, Request
from paper.rest import rest

async def main(url, key, account, name):
    async with rest(url, key) as call:
        broker, refused = PaperBroker(call, account), 0
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for n in range(10):
            for client_order_id in (f"both-{n}", f"{name}-{n}"):
                try:
                    await broker.submit(Request(client_order_id, "AAPL", "buy", "market", "gtc", Decimal(1)))
                except DuplicateClientId:
                    refused += 1
        print(refused)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_two_processes_at_one_account_make_one_book(
    open_account: Opens, quote: Notes, gateway: Gateway, checkout: Path, owner: Owner
) -> None:
    broker = await open_account()
    await quote("AAPL", "99", "100", ask_size="25")
    words = (sys.executable, "-c", PROGRAM, gateway.url, LOCAL.service_role, broker.account_id)
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(*words, name, cwd=checkout, stdin=pipe, stdout=pipe)
        for name in ("left", "right")
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    told = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    assert sum(int(out) for out, _ in told) == 10
    account = await broker.account()
    assert (account.cash, account.buying_power) == (D(7500), D(7000))
    orders, numbers, filled = await owner.fetchrow(
        "select count(*), max(number), sum(filled_quantity) from paper_orders"
    ) or (0, 0, 0)
    assert (orders, numbers, filled) == (30, 30, 25)
    assert await owner.fetchval("select sum(quantity) from paper_fills") == 25
    assert await owner.fetchval("select quantity from paper_positions") == 25


async def ask(call: Call, broker: PaperBroker, **fault: object) -> None:
    await call("ask_for_paper_fault", {"account_id": broker.account_id, "fault": fault})


@pytest.mark.parametrize(
    ("kind", "status", "placed"),
    [
        ("lost_before", None, False),
        ("lost_answer", None, True),
        ("unavailable", 503, False),
        ("gateway_timeout", 504, True),
        ("too_fast", 429, False),
        ("hang", None, False),
        ("unauthorized", 401, False),
    ],
)
async def test_a_fault_befalls_the_next_order_as_asked_for(
    open_account: Opens, quote: Notes, call: Call, kind: str, status: int | None, placed: bool
) -> None:
    broker = await open_account()
    await quote("AAPL", "99", "100")
    await ask(call, broker, kind=kind, remaining=1, seconds=0.01)
    with pytest.raises(Fault) as befallen:
        await broker.submit(wish("one"))
    assert befallen.value.status == status
    assert (await broker.find("one") is not None) == placed
    assert (await broker.submit(wish("two"))).status == "filled"


async def test_an_order_that_lands_late_is_there_later(
    open_account: Opens, quote: Notes, call: Call, move_clock: Moves
) -> None:
    broker = await open_account()
    await quote("AAPL", "99", "100")
    await ask(call, broker, kind="lands_late", remaining=1, seconds=3600)
    with pytest.raises(Fault):
        await broker.submit(wish("one"))
    assert await broker.find("one") is None
    await move_clock(timedelta(hours=2))
    order = await broker.find("one")
    assert order is not None
    assert order.status == "filled"
    with pytest.raises(DuplicateClientId):
        await broker.submit(wish("one"))


async def test_a_resubmission_that_overtakes_its_late_first_is_the_only_order(
    open_account: Opens, quote: Notes, call: Call, move_clock: Moves, owner: Owner
) -> None:
    broker = await open_account()
    await quote("AAPL", "99", "100")
    await ask(call, broker, kind="lands_late", remaining=1, seconds=3600)
    with pytest.raises(Fault):
        await broker.submit(wish("one"))
    assert (await broker.submit(wish("one"))).status == "filled"
    await move_clock(timedelta(hours=2))
    await broker.open_orders()
    assert await owner.fetchval("select count(*) from paper_orders") == 1


async def test_faults_befall_the_calls_that_they_name_and_a_refusal_is_lost_with_its_answer(
    open_account: Opens, quote: Notes, call: Call
) -> None:
    broker = await open_account()
    await quote("AAPL", "99", "100")
    await ask(call, broker, kind="unavailable", operation="find")
    await ask(call, broker, kind="lost_answer", remaining=1)
    with pytest.raises(Fault):
        await broker.submit(wish("one", "99999"))
    with pytest.raises(Refused):
        await broker.submit(wish("one", "99999"))
    for _ in range(2):
        with pytest.raises(Fault):
            await broker.find("one")
    assert await broker.open_orders() == []
    await broker.ask_for_fault(None)
    assert await broker.find("one") is None


async def test_the_same_seed_lets_the_same_calls_fail(open_account: Opens, quote: Notes, call: Call) -> None:
    await quote("AAPL", "99", "100")

    async def failing(seed: str) -> list[bool]:
        broker = await open_account()
        await ask(call, broker, kind="unavailable", operation="list", probability=0.5, seed=seed)
        found: list[bool] = []
        for _ in range(12):
            try:
                await broker.open_orders()
            except Fault:
                found.append(True)
            else:
                found.append(False)
        return found

    first = await failing("7")
    assert len(set(first)) == 2
    assert await failing("7") == first
    assert await failing("8") != first
