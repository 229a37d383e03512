"""Whatever is ordered and quoted: no value comes from nowhere, nothing is overfilled, and looking changes nothing."""

from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paper import engine, ledger
from paper.words import Book, DuplicateClientId, Quote, Refused, Request, Settings
from tests.paper.test_paper_engine import OPENING

D = Decimal
CASH = D(10_000)
SYMBOLS = ("AAPL", "MSFT")
NAMES = "abcdefghijklmnopqrst"
thorough = settings(
    max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
"""The same stories in each run: they are many, and no machine is too slow for them."""


@dataclass(frozen=True)
class Cancel:
    """The order that was accepted as the nth."""

    nth: int


@dataclass(frozen=True)
class Late:
    request: Request
    after: timedelta


Step = tuple[timedelta, Quote | Request | Cancel | Late]

prices = st.integers(360, 440).map(lambda quarters: D(quarters) / 4)
sizes = st.none() | st.integers(0, 20).map(D)
quantities = st.integers(1, 60).map(D) | st.integers(1, 300).map(lambda n: (D(n) / 7).quantize(D("1e-9")))
waits = st.sampled_from([timedelta(seconds=1), timedelta(minutes=40), timedelta(hours=5), timedelta(days=1)])


@st.composite
def quotes(draw: st.DrawFn) -> Quote:
    low, high = sorted((draw(prices), draw(prices)))
    bid, ask = draw(st.sampled_from([(low, high), (low, high), (low, None), (None, high)]))
    return Quote(draw(st.sampled_from(SYMBOLS)), OPENING, bid, ask, draw(sizes), draw(sizes))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    kind: Any = draw(st.sampled_from(["market", "limit", "stop", "stop_limit"]))
    return Request(
        draw(st.sampled_from(NAMES)),
        draw(st.sampled_from(SYMBOLS)),
        draw(st.sampled_from(["buy", "sell"])),
        kind,
        draw(st.sampled_from(["day", "gtc", "ioc", "fok"])),
        draw(quantities),
        draw(prices) if "limit" in kind else None,
        draw(prices) if "stop" in kind else None,
    )


cancels = st.builds(Cancel, st.integers(0, 5))
late_ones = st.builds(Late, requests(), waits)
steps = st.lists(
    st.tuples(waits, st.one_of(quotes(), quotes(), requests(), requests(), requests(), cancels, late_ones)),
    min_size=10,
    max_size=40,
)
accounts = st.builds(
    Settings,
    market=st.sampled_from(["us_equities", "always"]),
    dedupe=st.sampled_from(["account", "open_orders", "none"]),
    shorting=st.booleans(),
    fee_per_order=st.sampled_from([D(0), D("0.35")]),
    fee_percent=st.sampled_from([D(0), D("0.07")]),
)


def play(story: list[Step], how: Settings, *, looks: bool) -> Book:
    """Plays a story. With looks, the book is moved on at each quote; else only where somebody does something."""
    book = Book("account", how, OPENING, OPENING, CASH)
    now, unseen = OPENING, [Quote(symbol, OPENING, D(99), D(100), D(30), D(30)) for symbol in SYMBOLS]
    engine.advance(book, unseen, now)
    for ordinal, (wait, step) in enumerate(story):
        now += wait
        if isinstance(step, Quote):
            unseen.append(Quote(step.symbol, now, step.bid, step.ask, step.bid_size, step.ask_size))
        if looks or not isinstance(step, Quote):
            engine.advance(book, unseen, now)
            unseen = []
        if isinstance(step, Request):
            with suppress(Refused, DuplicateClientId):
                engine.submit(book, step, f"{ordinal:03}")
        elif isinstance(step, Late):
            engine.send_late(book, step.request, f"{ordinal:03}", now + step.after)
        elif isinstance(step, Cancel) and len(book.orders) > step.nth:
            engine.cancel(book, sorted(book.orders)[step.nth])
    engine.advance(book, unseen, now + timedelta(days=2))
    return book


@thorough
@given(steps, accounts)
def test_whoever_looks_and_how_often_the_book_is_the_same(story: list[Step], how: Settings) -> None:
    assert play(story, how, looks=True) == play(story, how, looks=False)


@thorough
@given(steps, accounts)
def test_what_an_account_is_worth_at_cost_changes_by_profit_and_fees_alone(
    story: list[Step], how: Settings
) -> None:
    book = play(story, how, looks=True)
    cost = sum((p.cost for p in book.positions.values()), D(0))
    realized = sum((p.realized for p in book.positions.values()), D(0))
    assert book.cash + cost - realized + book.fees == CASH
    assert book.fees == sum((fill.fee for fill in book.fills), D(0))
    for symbol in SYMBOLS:
        traded = sum(
            (f.quantity if f.side == "buy" else -f.quantity for f in book.fills if f.symbol == symbol), D(0)
        )
        assert traded == (book.positions[symbol].quantity if symbol in book.positions else 0)


@thorough
@given(steps, accounts)
def test_no_order_is_filled_beyond_its_quantity_or_its_limit(story: list[Step], how: Settings) -> None:
    book = play(story, how, looks=True)
    for order in book.orders.values():
        fills = [fill for fill in book.fills if fill.order_id == order.id]
        assert sum((fill.quantity for fill in fills), D(0)) == order.filled_quantity <= order.quantity
        assert (order.status == "filled") == (order.left == 0)
        assert [fill.number for fill in fills] == list(range(1, order.fills + 1))
        assert order.time_in_force != "fok" or order.filled_quantity in (0, order.quantity)
        assert order.time_in_force in ("day", "gtc") or not order.is_open
        if order.limit_price is not None:
            assert all(
                fill.price <= order.limit_price if order.side == "buy" else fill.price >= order.limit_price
                for fill in fills
            )


@thorough
@given(steps, accounts)
def test_a_client_order_id_names_one_order_where_the_account_says_so(
    story: list[Step], how: Settings
) -> None:
    book = play(story, how, looks=True)
    for name in NAMES:
        same = [order for order in book.orders.values() if order.client_order_id == name]
        if how.dedupe == "account":
            assert len(same) <= 1
        if how.dedupe == "open_orders":
            assert sum(order.is_open for order in same) <= 1


@thorough
@given(steps, accounts)
def test_without_shorting_nothing_is_ever_sold_short_or_bought_on_credit(
    story: list[Step], how: Settings
) -> None:
    book = play(story, how, looks=True)
    if not how.shorting:
        assert all(position.quantity >= 0 for position in book.positions.values())
        assert book.cash >= 0
        assert ledger.account(book).equity >= 0


@thorough
@given(steps, accounts)
def test_a_book_that_was_moved_on_is_not_changed_by_being_looked_at_again(
    story: list[Step], how: Settings
) -> None:
    book = play(story, how, looks=True)
    before = deepcopy(book)
    engine.advance(book, list(book.market.values()), book.as_of)
    assert book == before
