"""Cash, positions and buying power. What the account is worth never changes by a fill, fees aside.

    cash + the cost of all positions - what was realized + fees  =  the cash that it was opened with

Buying power is cash without what is held: for open buys their price with fees; for a short position one and a half
times what it was sold for (the cash of the sale and half as much again), for an order that would sell short that half.
What only closes a position is always affordable: nobody is locked into a loss.
"""

from collections.abc import Iterable
from dataclasses import replace
from decimal import ROUND_DOWN, Decimal

from paper.words import ZERO, Account, Book, Fill, Order, Position, rounded

_SHORT_HOLDS = Decimal("1.5")
_SHORT_NEEDS = Decimal("0.5")
_FEE_PLACES = Decimal("1e-8")


def fee(book: Book, order: Order, value: Decimal) -> Decimal:
    """What the broker takes for filling so much of an order; what it takes per order, with the first fill."""
    settings = book.settings
    per_order = ZERO if order.fills else settings.fee_per_order
    return (per_order + value * settings.fee_percent / 100).quantize(_FEE_PLACES, ROUND_DOWN)


def buying_power(book: Book, extra: Order | None = None) -> Decimal:
    """What is free; with an extra order: what would be left if it were accepted."""
    held = sum((-p.cost * _SHORT_HOLDS for p in book.positions.values() if p.quantity < 0), ZERO)
    waiting = [order for order in book.orders.values() if order.is_open]
    if extra is not None:
        waiting.append(extra)
    for symbol in {order.symbol for order in waiting}:
        held += _held_for(
            book, symbol, sorted((o for o in waiting if o.symbol == symbol), key=lambda o: o.number)
        )
    return book.cash - held


def _held_for(book: Book, symbol: str, orders: Iterable[Order]) -> Decimal:
    held = ZERO
    position = book.positions.get(symbol, Position(symbol)).quantity
    closable = {"buy": max(ZERO, -position), "sell": max(ZERO, position)}
    for order in orders:
        opening = max(ZERO, order.left - closable[order.side])
        closable[order.side] -= order.left - opening
        if opening:
            value = opening * order.reserve_price
            held += value * (1 if order.side == "buy" else _SHORT_NEEDS) + fee(book, order, value)
    return held


def opens(book: Book, order: Order) -> bool:
    """Whether filling the order would open or enlarge a position, the account's older orders being filled first."""
    position = book.positions.get(order.symbol, Position(order.symbol)).quantity
    ahead = sum(
        (
            other.left
            for other in book.orders.values()
            if other.is_open
            and (other.symbol, other.side) == (order.symbol, order.side)
            and other.number < order.number
        ),
        ZERO,
    )
    closable = max(ZERO, -position if order.side == "buy" else position)
    return ahead + order.left > closable


def book_fill(book: Book, order: Order, quantity: Decimal, price: Decimal) -> bool:
    """Books a fill. False, and nothing is changed, when that would open a position which the account cannot pay."""
    before = book.cash, book.fees, book.positions.get(order.symbol, Position(order.symbol))
    opening = quantity > max(ZERO, -before[2].quantity if order.side == "buy" else before[2].quantity)
    value = quantity * price
    charged = fee(book, order, value)
    filled = replace(
        order,
        filled_quantity=order.filled_quantity + quantity,
        filled_value=order.filled_value + value,
        fees=order.fees + charged,
        fills=order.fills + 1,
        status="filled" if quantity == order.left else "partially_filled",
        updated_at=book.as_of,
    )
    book.cash += (value if order.side == "sell" else -value) - charged
    book.fees += charged
    book.positions[order.symbol] = _moved(before[2], quantity if order.side == "buy" else -quantity, price)
    book.orders[order.id] = filled
    if opening and buying_power(book) < 0:
        book.cash, book.fees, book.positions[order.symbol] = before
        book.orders[order.id] = order
        return False
    book.fills.append(
        Fill(
            order_id=order.id,
            number=filled.fills,
            symbol=order.symbol,
            side=order.side,
            quantity=quantity,
            price=price,
            fee=charged,
            filled_at=book.as_of,
            filled_quantity=filled.filled_quantity,
            left_quantity=filled.left,
        )
    )
    return True


def _moved(position: Position, by: Decimal, price: Decimal) -> Position:
    """A position after so much more (a negative one: less) of it was traded at a price."""
    held = position.quantity
    if held * by >= 0:
        return replace(position, quantity=held + by, cost=position.cost + by * price)
    if abs(by) > abs(held):  # through zero: what is held is closed, the rest opened
        return _moved(_moved(position, -held, price), held + by, price)
    part = position.cost if by == -held else rounded(position.cost * -by, held)
    return replace(
        position,
        quantity=held + by,
        cost=position.cost - part,
        realized=position.realized - by * price - part,
    )


def account(book: Book) -> Account:
    """The account in figures, at the quotes of the book."""
    values = [position.quantity * price for position, price in _priced(book)]
    return Account(
        id=book.id,
        cash=book.cash,
        buying_power=max(ZERO, buying_power(book)),
        long_value=sum((v for v in values if v > 0), ZERO),
        short_value=sum((v for v in values if v < 0), ZERO),
        fees=book.fees,
        realized=sum((p.realized for p in book.positions.values()), ZERO),
        opened_at=book.opened_at,
        shorting=book.settings.shorting,
    )


def positions(book: Book) -> list[Position]:
    """What is held, with the prices of now, by symbol."""
    return sorted(
        (replace(position, current_price=price) for position, price in _priced(book)), key=lambda p: p.symbol
    )


def _priced(book: Book) -> list[tuple[Position, Decimal]]:
    found: list[tuple[Position, Decimal]] = []
    for position in book.positions.values():
        if position.quantity:
            quote = book.market.get(position.symbol)
            middle = quote.middle if quote is not None else None
            found.append((position, middle if middle is not None else position.avg_entry_price or ZERO))
    return found
