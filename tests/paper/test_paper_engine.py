"""What the paper broker's engine makes of orders: kind of order, time in force and quotes, worked by hand."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest

from paper import engine, ledger
from paper.words import (
    Book,
    DuplicateClientId,
    OrderType,
    Quote,
    Refused,
    Request,
    Settings,
    Side,
    TimeInForce,
)

D = Decimal
OPENING = datetime(2026, 11, 23, 14, 30, tzinfo=UTC)  # a Monday, 09:30 in New York
CLOSE = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return OPENING + timedelta(seconds=seconds)


def a_book(*quotes: Quote, cash: str = "10000", now: datetime = OPENING, **settings: Any) -> Book:
    """An account that has seen these quotes, at their last moment or later."""
    book = Book("account", Settings(**settings), now - timedelta(days=9), now - timedelta(days=9), D(cash))
    engine.advance(book, quotes, max([now, *(quote.at for quote in quotes)]))
    return book


def q(
    seconds: float, bid: str | None, ask: str | None, sizes: tuple[str | None, str | None] = (None, None)
) -> Quote:
    bid_size, ask_size = (None if size is None else D(size) for size in sizes)
    bid_price, ask_price = (None if price is None else D(price) for price in (bid, ask))
    return Quote("AAPL", at(seconds), bid_price, ask_price, bid_size, ask_size)


def wish(words: str, client_order_id: str = "one") -> Request:
    """For example: buy 10 limit day 99.5, or: sell 10 stop_limit gtc 98 97.5 (the stop price comes last)."""
    side, quantity, kind, in_force, *prices = words.split()
    limit = D(prices[0]) if kind in ("limit", "stop_limit") else None
    stop = D(prices[-1]) if kind in ("stop", "stop_limit") else None
    return Request(
        client_order_id,
        "AAPL",
        cast("Side", side),
        cast("OrderType", kind),
        cast("TimeInForce", in_force),
        D(quantity),
        limit,
        stop,
    )


def story(words: str, quotes: Sequence[Quote], before: Quote, **settings: Any) -> tuple[str, str, str | None]:
    """An order after one quote and before others: its status, what it was filled with, and why it ended."""
    book = a_book(before, **settings)
    order = engine.submit(book, wish(words), "id")
    engine.advance(book, quotes, at(100))
    order = book.orders[order.id]
    filled = " ".join(f"{fill.quantity}@{fill.price}" for fill in book.fills)
    return order.status, filled, order.reason


FIRST = q(0, "99", "100", ("5", "5"))
CASES: list[tuple[str, list[Quote], tuple[str, str, str | None]]] = [
    ("buy 5 market day", [], ("filled", "5@100", None)),
    ("buy 8 market day", [], ("partially_filled", "5@100", None)),
    ("buy 8 market day", [q(1, "99", "101", ("9", "2"))], ("partially_filled", "5@100 2@101", None)),
    ("buy 8 market gtc", [q(1, "99", "101"), q(2, "99", "50")], ("filled", "5@100 3@101", None)),
    ("buy 8 market ioc", [q(1, "99", "101")], ("canceled", "5@100", "not_filled_at_once")),
    ("buy 8 market fok", [q(1, "99", "101")], ("canceled", "", "not_filled_at_once")),
    ("buy 5 market fok", [], ("filled", "5@100", None)),
    ("buy 5 limit day 100", [], ("filled", "5@100", None)),
    ("buy 5 limit day 100.5", [], ("filled", "5@100", None)),
    ("buy 5 limit day 99.5", [], ("accepted", "", None)),
    ("buy 5 limit day 99.5", [q(1, "99", "99.51"), q(2, "99", "99.5")], ("filled", "5@99.5", None)),
    (
        "buy 5 limit gtc 99.5",
        [q(1, "98", "98.7", ("1", "2")), q(2, "99", "99.6")],
        ("partially_filled", "2@98.7", None),
    ),
    ("buy 5 limit ioc 99.5", [q(1, "98", "99")], ("canceled", "", "not_filled_at_once")),
    ("buy 8 limit fok 100", [q(1, "98", "99")], ("canceled", "", "not_filled_at_once")),
    ("buy 5 stop day 101", [q(1, "100", "100.9")], ("accepted", "", None)),
    (
        "buy 5 stop day 101",
        [q(1, "100", "102", (None, "4")), q(2, "90", "95")],
        ("filled", "4@102 1@95", None),
    ),
    ("buy 5 stop_limit day 101 101", [q(1, "100", "102"), q(2, "99", "100.5")], ("filled", "5@100.5", None)),
    ("buy 5 stop_limit gtc 101.5 101", [q(1, "100", "101.2")], ("filled", "5@101.2", None)),
    ("buy 5 limit day 99.5", [q(1, "98", None), q(2, None, "99")], ("filled", "5@99", None)),
    ("sell 5 market day", [], ("filled", "5@99", None)),
    ("sell 5 limit day 99.5", [q(1, "99.7", "100")], ("filled", "5@99.7", None)),
    ("sell 5 stop gtc 97", [q(1, "97.5", "99"), q(2, "96.5", "97")], ("filled", "5@96.5", None)),
    ("sell 5 stop_limit gtc 96.8 97", [q(1, "96", "97"), q(2, "96.9", "98")], ("filled", "5@96.9", None)),
]


@pytest.mark.parametrize(("words", "quotes", "expected"), CASES)
def test_an_order_is_filled_as_worked_by_hand(
    words: str, quotes: list[Quote], expected: tuple[str, str, str | None]
) -> None:
    assert story(words, quotes, FIRST, shorting=True) == expected


def test_the_older_order_takes_what_a_quote_offers_and_the_younger_one_what_is_left() -> None:
    book = a_book(q(0, "99", "100", ("5", "5")))
    first = engine.submit(book, wish("buy 3 market day", "one"), "1")
    second = engine.submit(book, wish("buy 3 market day", "two"), "2")
    assert (first.filled_quantity, second.filled_quantity) == (D(3), D(2))
    engine.advance(book, [q(1, "99", "101", ("5", "5"))], at(1))
    third = engine.submit(book, wish("buy 9 market ioc", "three"), "3")
    assert (book.orders["2"].status, third.filled_quantity) == ("filled", D(4))


def test_a_position_knows_its_entry_its_profit_and_its_way_through_zero() -> None:
    book = a_book(q(0, "99", "100"), shorting=True)
    engine.submit(book, wish("buy 2 market day", "1"), "1")
    engine.advance(book, [q(1, "110", "120")], at(1))
    engine.submit(book, wish("buy 2 market day", "2"), "2")
    assert book.positions["AAPL"].avg_entry_price == D(110)
    engine.advance(book, [q(2, "130", "131")], at(2))
    engine.submit(book, wish("sell 7 market day", "3"), "3")
    position = book.positions["AAPL"]
    assert (position.quantity, position.avg_entry_price, position.realized) == (D(-3), D(130), D(80))
    engine.advance(book, [q(3, "99", "100")], at(3))
    engine.submit(book, wish("buy 3 market day", "4"), "4")
    assert (book.positions["AAPL"].quantity, book.positions["AAPL"].realized) == (D(0), D(170))
    assert book.cash == D(10170)


def test_fees_are_taken_once_per_order_and_by_the_value_of_each_fill() -> None:
    book = a_book(FIRST, fee_per_order=D(1), fee_percent=D("0.1"))
    engine.submit(book, wish("buy 8 market day"), "1")
    engine.advance(book, [q(1, "99", "200")], at(1))
    assert [fill.fee for fill in book.fills] == [D("1.5"), D("0.6")]
    assert (book.fees, book.cash) == (D("2.1"), 10000 - D(1100) - D("2.1"))


REFUSALS: list[tuple[str, str, dict[str, Any]]] = [
    ("buy 101 market day", "insufficient_buying_power", {}),
    ("buy 100 market day", "insufficient_buying_power", {"fee_per_order": D(1)}),
    ("buy 110 limit day 99", "insufficient_buying_power", {}),
    ("sell 1 market day", "insufficient_quantity", {}),
    ("sell 203 market day", "insufficient_buying_power", {"shorting": True}),
    ("buy 0 market day", "bad_quantity", {}),
    ("buy -1 market day", "bad_quantity", {}),
    ("buy NaN market day", "bad_quantity", {}),
    ("buy 1.5 market day", "bad_quantity", {"quantity_places": 0}),
    ("buy 1.0000000001 market day", "bad_quantity", {}),
    (f"buy 1.{'0' * 70}1 market day", "bad_quantity", {}),
    ("buy 1e400 market day", "bad_quantity", {}),
    ("buy 1.0 limit day 99.123", "bad_price", {}),
    ("buy 1 limit day 0.12345", "bad_price", {}),
    ("buy 1 stop ioc 101", "bad_order", {}),
]


@pytest.mark.parametrize(("words", "code", "settings"), REFUSALS)
def test_what_the_broker_refuses_changes_nothing(words: str, code: str, settings: dict[str, Any]) -> None:
    book = a_book(q(0, "99", "100"), **settings)
    with pytest.raises(Refused) as refused:
        engine.submit(book, wish(words), "1")
    assert (refused.value.code, book.orders, book.cash) == (code, {}, D(10000))


def test_a_symbol_without_a_quote_is_unknown() -> None:
    with pytest.raises(Refused, match="not found"):
        engine.submit(a_book(), wish("buy 1 market day"), "1")


def test_open_orders_hold_buying_power_until_they_end() -> None:
    book = a_book(q(0, "99", "100"))
    engine.submit(book, wish("buy 60 limit gtc 90", "one"), "1")
    assert ledger.buying_power(book) == D(4600)
    with pytest.raises(Refused):
        engine.submit(book, wish("buy 50 market day", "two"), "2")
    engine.cancel(book, "1")
    assert engine.submit(book, wish("buy 50 market day", "two"), "2").status == "filled"


def test_a_queued_order_that_the_account_cannot_pay_any_more_is_rejected_at_the_opening() -> None:
    evening = CLOSE + timedelta(hours=1)
    book = a_book(q(0, "99", "100"), now=evening)
    engine.submit(book, wish("buy 90 market day"), "1")
    morning = Quote("AAPL", evening + timedelta(hours=1), D(149), D(150))
    engine.advance(book, [morning], OPENING + timedelta(days=1))
    assert (book.orders["1"].status, book.orders["1"].reason) == ("rejected", "insufficient_buying_power")
    assert (book.cash, book.fills) == (D(10000), [])


def test_a_loss_can_always_be_closed() -> None:
    book = a_book(q(0, "99", "100"), shorting=True)
    engine.submit(book, wish("sell 100 market day", "one"), "1")
    engine.advance(book, [q(1, "299", "300")], at(1))
    assert engine.submit(book, wish("buy 100 market day", "two"), "2").status == "filled"
    assert book.cash == D(-10100)


@pytest.mark.parametrize(
    ("dedupe", "while_open", "when_closed"),
    [("account", True, True), ("open_orders", True, False), ("none", False, False)],
)
def test_a_client_order_id_is_taken_as_long_as_the_account_says(
    dedupe: str, while_open: bool, when_closed: bool
) -> None:
    def taken() -> bool:
        try:
            engine.submit(book, wish("buy 1 limit gtc 90"), f"{len(book.orders)}")
        except DuplicateClientId:
            return True
        return False

    book = a_book(q(0, "99", "100"), dedupe=dedupe)
    assert not taken()
    assert taken() == while_open
    for order_id in list(book.orders):
        engine.cancel(book, order_id)
    assert taken() == when_closed


def test_a_day_order_ends_with_its_session_and_one_from_the_evening_with_the_next() -> None:
    book = a_book(q(0, "99", "100"))
    engine.submit(book, wish("buy 1 limit day 90", "one"), "1")
    engine.advance(book, [], CLOSE - timedelta(microseconds=1))
    assert book.orders["1"].status == "accepted"
    engine.advance(book, [], CLOSE + timedelta(hours=3))
    assert (book.orders["1"].status, book.orders["1"].updated_at) == ("expired", CLOSE)
    engine.submit(book, wish("buy 1 limit day 90", "two"), "2")
    engine.submit(book, wish("buy 1 market day", "three"), "3")
    engine.advance(book, [], OPENING + timedelta(days=1, hours=1))
    assert book.orders["2"].is_open
    assert [(fill.order_id, fill.filled_at) for fill in book.fills] == [("3", OPENING + timedelta(days=1))]
    engine.advance(book, [], CLOSE + timedelta(days=1))
    assert book.orders["2"].status == "expired"


def test_quotes_of_a_closed_market_fill_nothing() -> None:
    book = a_book(q(0, "99", "100"), now=CLOSE + timedelta(minutes=1))
    engine.submit(book, wish("buy 1 limit gtc 95"), "1")
    night = Quote("AAPL", CLOSE + timedelta(hours=1), D(80), D(81))
    engine.advance(
        book, [night, Quote("AAPL", CLOSE + timedelta(hours=2), D(99), D(100))], CLOSE + timedelta(hours=3)
    )
    assert book.fills == []


@pytest.mark.parametrize(
    ("words", "when_closed"), [("buy 1 market ioc", "queue"), ("buy 1 market day", "refuse")]
)
def test_what_cannot_wait_for_the_opening_is_refused(words: str, when_closed: str) -> None:
    book = a_book(q(0, "99", "100"), now=CLOSE, when_closed=when_closed)
    with pytest.raises(Refused) as refused:
        engine.submit(book, wish(words), "1")
    assert refused.value.code == "market_closed"


def test_an_order_that_arrives_late_is_one_of_its_time_and_may_meet_its_own_repetition() -> None:
    book = a_book(q(0, "99", "100"))
    engine.send_late(book, wish("buy 1 market day", "one"), "late", at(5))
    engine.advance(book, [q(4, "99", "103"), q(6, "99", "104")], at(4))
    assert book.orders == {}
    engine.advance(book, [q(6, "99", "104")], at(10))
    assert book.orders["late"].filled_avg_price == D(103)
    engine.send_late(book, wish("buy 1 market day", "one"), "later", at(11))
    engine.advance(book, [], at(12))
    assert set(book.orders) == {"late"}


def test_a_quote_that_was_noted_too_late_is_met_now_and_an_older_one_never() -> None:
    book = a_book(q(0, "99", "100"))
    engine.submit(book, wish("buy 1 limit gtc 95"), "1")
    engine.advance(book, [], at(10))
    engine.advance(book, [q(5, "90", "91"), q(-1, "80", "81")], at(11))
    [fill] = book.fills
    assert (fill.price, fill.filled_at) == (D(91), at(10))


def test_holidays_and_early_closes_can_be_replaced() -> None:
    tuesday = OPENING + timedelta(days=1)
    settings: dict[str, Any] = {"holidays": {date(2026, 11, 24): None, date(2026, 11, 25): time(12)}}
    book = a_book(q(0, "99", "100"), now=tuesday, **settings)
    order = engine.submit(book, wish("buy 1 market day"), "1")
    assert (order.status, order.expires_at) == ("accepted", datetime(2026, 11, 25, 17, tzinfo=UTC))
    engine.advance(book, [], tuesday + timedelta(days=1))
    assert book.orders["1"].status == "filled"
