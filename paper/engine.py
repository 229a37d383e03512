"""What becomes of orders: pure, by the quotes and the moments that it is given. `ledger` keeps cash and positions.

A book is moved on by replaying, in the order of time, all that happened since it was last looked at: quotes, openings
of the market, ends of day orders, requests that arrive late. So it is the same book whoever looked, and how often.

    market      is filled at once: a buy at the ask, a sell at the bid, as much as the quote offers, the rest later
    limit       is filled when the quote reaches its limit, at the quote's price: the limit or better
    stop        becomes a market order when the ask (for a sell: the bid) reaches its stop price
    stop_limit  becomes a limit order then
    day, gtc    what is left waits: until the close of the session, or for ever
    ioc, fok    what is not filled at once is canceled; fok is filled as a whole or not at all

A quote's size is used up by the orders of the account, the oldest first, until the next quote of that symbol.
"""

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Literal

from paper import ledger
from paper.hours import Calendar, calendar_of
from paper.rules import check
from paper.words import EXACT, ZERO, Book, DuplicateClientId, Landing, Order, Quote, Refused, Request

_Kind = Literal["end of a day order", "opening", "quote", "landing"]
_AT_ONCE: tuple[_Kind, ...] = ("end of a day order", "opening", "quote", "landing")
"""What happens first of what happens at the same moment."""


def advance(book: Book, quotes: Iterable[Quote], now: datetime) -> None:
    """Replays what happened until now. A quote that was noted too late for its own time is met now."""
    calendar = calendar_of(book.settings)
    coming = deque(sorted(quotes, key=lambda quote: (quote.at, quote.symbol)))
    with localcontext(EXACT):
        while (event := _next(book, calendar, coming, now)) is not None:
            at, kind = event
            book.as_of = max(book.as_of, at)
            if kind == "quote":
                _quoted(book, calendar, coming.popleft())
            elif kind == "landing":
                _land(book)
            elif kind == "opening":
                _try_all(book, calendar, None)
            else:
                _expire(book, at)
    book.as_of = max(book.as_of, now)


def submit(book: Book, request: Request, order_id: str) -> Order:
    """Accepts a request at the moment of the book, and fills what can be. Raises Refused or DuplicateClientId."""
    calendar = calendar_of(book.settings)
    with localcontext(EXACT):
        order = check(book, request, order_id, calendar)
        book.numbers += 1
        book.orders[order.id] = order
        _try(book, calendar, order)
    return book.orders[order.id]


def cancel(book: Book, order_id: str) -> Order | None:
    """Cancels what is left of an order, if it is open; the order as it stands, if it is known."""
    order = book.orders.get(order_id)
    if order is not None and order.is_open:
        _end(book, order, "canceled", "canceled_by_client")
    return book.orders.get(order_id)


def send_late(book: Book, request: Request, order_id: str, at: datetime) -> None:
    """Lets a request arrive at a later moment."""
    book.landings.append(Landing(at, order_id, request))
    book.landings.sort(key=lambda landing: (landing.at, landing.order_id))


def _next(
    book: Book, calendar: Calendar, coming: deque[Quote], now: datetime
) -> tuple[datetime, _Kind] | None:
    found: list[tuple[datetime, int]] = []
    waiting = [order for order in book.orders.values() if order.is_open]
    ends = [order.expires_at for order in waiting if order.expires_at is not None]
    if ends:
        found.append((min(ends), 0))
    if waiting and (opening := calendar.opening(book.as_of, now)) is not None:
        found.append((opening, 1))
    if coming:
        found.append((max(coming[0].at, book.as_of), 2))
    if book.landings:
        found.append((max(book.landings[0].at, book.as_of), 3))
    at, kind = min(found, default=(None, 0))
    return None if at is None or at > now else (at, _AT_ONCE[kind])


def _quoted(book: Book, calendar: Calendar, quote: Quote) -> None:
    known = book.market.get(quote.symbol)
    if known is None or quote.at > known.at:
        book.market[quote.symbol] = quote
        _try_all(book, calendar, quote.symbol)


def _land(book: Book) -> None:
    landing = book.landings.pop(0)
    with suppress(Refused, DuplicateClientId):  # nobody waits for the answer
        submit(book, landing.request, landing.order_id)


def _expire(book: Book, at: datetime) -> None:
    for order in list(book.orders.values()):
        if order.is_open and order.expires_at is not None and order.expires_at <= at:
            _end(book, order, "expired", "end_of_day")


def _try_all(book: Book, calendar: Calendar, symbol: str | None) -> None:
    waiting = [o for o in book.orders.values() if o.is_open and symbol in (None, o.symbol)]
    for order in sorted(waiting, key=lambda order: order.number):
        _try(book, calendar, order)


def _try(book: Book, calendar: Calendar, order: Order) -> None:
    """Fills as much of an order as the quote of its symbol offers now."""
    quote = book.market.get(order.symbol)
    if quote is None or not calendar.at(book.as_of).is_open:
        return
    price, size = (quote.ask, quote.ask_size) if order.side == "buy" else (quote.bid, quote.bid_size)
    if not order.triggered and price is not None and _reaches(order.side, price, order.stop_price):
        order = replace(order, triggered=True, updated_at=book.as_of)
        book.orders[order.id] = order
    if not order.triggered:
        return
    quantity = order.left if size is None else min(order.left, size)
    if price is None or not _within(order.side, price, order.limit_price):
        quantity = ZERO
    if order.time_in_force == "fok" and quantity < order.left:
        quantity = ZERO
    if price is not None and quantity > 0:
        order = _fill(book, order, quote, quantity, price)
    if order.is_open and order.time_in_force in ("ioc", "fok"):
        _end(book, order, "canceled", "not_filled_at_once")


def _fill(book: Book, order: Order, quote: Quote, quantity: Decimal, price: Decimal) -> Order:
    """Fills it, or ends the order when the account cannot pay: the price may have moved since it was accepted."""
    if not ledger.book_fill(book, order, quantity, price):
        return _end(book, order, "canceled" if order.fills else "rejected", "insufficient_buying_power")
    if order.side == "buy" and quote.ask_size is not None:
        book.market[order.symbol] = replace(quote, ask_size=quote.ask_size - quantity)
    elif order.side == "sell" and quote.bid_size is not None:
        book.market[order.symbol] = replace(quote, bid_size=quote.bid_size - quantity)
    return book.orders[order.id]


def _end(book: Book, order: Order, status: Literal["canceled", "rejected", "expired"], reason: str) -> Order:
    ended = replace(order, status=status, reason=reason, updated_at=book.as_of)
    book.orders[order.id] = ended
    return ended


def _reaches(side: str, price: Decimal, stop: Decimal | None) -> bool:
    return stop is None or (price >= stop if side == "buy" else price <= stop)


def _within(side: str, price: Decimal, limit: Decimal | None) -> bool:
    return limit is None or (price <= limit if side == "buy" else price >= limit)
