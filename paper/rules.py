"""What the broker refuses, and with which words; what it accepts becomes an order here."""

from decimal import Decimal

from paper import ledger
from paper.hours import Calendar
from paper.words import (
    ZERO,
    Book,
    DuplicateClientId,
    Order,
    Position,
    Quote,
    Refused,
    Request,
    plain,
)

_LONGEST_ID = 128
_MOST = Decimal("1e12")


def check(book: Book, request: Request, order_id: str, calendar: Calendar) -> Order:
    """The order that a request becomes at the moment of the book. Raises Refused or DuplicateClientId."""
    _form(book, request)
    same = [o for o in book.orders.values() if o.client_order_id == request.client_order_id]
    dedupe = book.settings.dedupe
    if same and (dedupe == "account" or (dedupe == "open_orders" and any(order.is_open for order in same))):
        raise DuplicateClientId("client_order_id must be unique")
    quote = book.market.get(request.symbol)
    if quote is None:
        raise Refused("unknown_symbol", f"asset {request.symbol!r} not found")
    waits = not calendar.at(book.as_of).is_open
    if waits and (book.settings.when_closed == "refuse" or request.time_in_force in ("ioc", "fok")):
        raise Refused("market_closed", "the market is closed")
    order = Order(
        id=order_id,
        number=book.numbers + 1,
        client_order_id=request.client_order_id,
        symbol=request.symbol,
        side=request.side,
        order_type=request.order_type,
        time_in_force=request.time_in_force,
        quantity=request.quantity,
        limit_price=request.limit_price,
        stop_price=request.stop_price,
        reserve_price=_reserve_price(request, quote),
        expires_at=calendar.day_ends(book.as_of) if request.time_in_force == "day" else None,
        submitted_at=book.as_of,
        updated_at=book.as_of,
        triggered=request.stop_price is None,
    )
    _means(book, order)
    return order


def price_places(book: Book, price: Decimal) -> int:
    """How many decimals a price may have."""
    if book.settings.price_places is not None:
        return book.settings.price_places
    return 9 if book.settings.market == "always" else 2 if price >= 1 else 4


def _form(book: Book, request: Request) -> None:
    if not (0 < len(request.client_order_id) <= _LONGEST_ID and request.client_order_id.isprintable()):
        raise Refused(
            "bad_client_order_id", f"client_order_id must have 1 to {_LONGEST_ID} printable characters"
        )
    if not _fits(request.quantity, book.settings.quantity_places):
        raise Refused(
            "bad_quantity", f"qty must be > 0 and have at most {book.settings.quantity_places} decimal places"
        )
    wanted = {
        "limit price": (request.limit_price, request.order_type in ("limit", "stop_limit")),
        "stop price": (request.stop_price, request.order_type in ("stop", "stop_limit")),
    }
    for name, (price, needed) in wanted.items():
        if needed != (price is not None):
            raise Refused(
                "bad_order", f"{request.order_type} orders {'require' if needed else 'have no'} {name}"
            )
        if price is not None and not _fits(price, price_places(book, price)):
            raise Refused(
                "bad_price",
                f"invalid {name} {price}: must be > 0 with at most {price_places(book, price)} decimal places",
            )
    if request.stop_price is not None and request.time_in_force in ("ioc", "fok"):
        raise Refused("bad_order", "stop orders require time in force day or gtc")


def _fits(number: Decimal, places: int) -> bool:
    return number.is_finite() and ZERO < number < _MOST and number == round(number, places)


def _reserve_price(request: Request, quote: Quote) -> Decimal:
    """The limit, or the worse of the stop price and the ask; the bid where nothing else is known."""
    if request.limit_price is not None:
        return request.limit_price
    known = [price for price in (request.stop_price, quote.ask) if price is not None]
    if not known and quote.bid is None:
        raise Refused("no_price", f"nobody quotes a price for {request.symbol!r}")
    return max(known) if known else quote.bid or ZERO


def _means(book: Book, order: Order) -> None:
    """Whether the account can pay for it, or has what it sells."""
    if order.side == "sell" and not book.settings.shorting:
        held = book.positions.get(order.symbol, Position(order.symbol)).quantity
        selling = (
            o for o in book.orders.values() if o.is_open and o.side == "sell" and o.symbol == order.symbol
        )
        available = held - sum((o.left for o in selling), ZERO)
        if order.quantity > available:
            raise _lacking(order, available)
    elif ledger.opens(book, order) and (left := ledger.buying_power(book, order)) < 0:
        raise _lacking(order, ledger.buying_power(book), ledger.buying_power(book) - left)


def _lacking(order: Order, available: Decimal, needed: Decimal | None = None) -> Refused:
    """What the account has not enough of; pairs are told of as clients know it from crypto exchanges."""
    base, _, currency = order.symbol.partition("/")
    amounts = f"(requested: {plain(needed or order.quantity)}, available: {plain(max(ZERO, available))})"
    if needed is not None:
        words = f"insufficient balance for {currency} {amounts}" if currency else "insufficient buying power"
        return Refused("insufficient_buying_power", words)
    what = f"balance for {base}" if currency else "qty available for order"
    return Refused("insufficient_quantity", f"insufficient {what} {amounts}")
