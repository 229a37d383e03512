"""A digest as a message on Discord: its sums, then its alerts, the most severe first, then trades, orders and payments.

It is short: whoever wants to see all of it opens the app, or has the digest by mail. Each part is lines that are whole,
as many as there is room for, and what is left out is counted. All rooms together keep to Discord's limit of 6,000.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from handlers.clients.alerts.alert_words import MARKS
from handlers.clients.alerts.digest import (
    MOST_SEVERE_FIRST,
    DigestFacts,
    Group,
    Trades,
    digest_title,
    many,
    money_of,
    plain,
    window_of,
    worst,
)
from handlers.clients.alerts.discord_message import MOST_OF_TITLE, RESENT, Json, words_of
from handlers.clients.alerts.plain_words import one_line

MOST_OF_ALERTS: Final = 2400
MOST_OF_PART: Final = 1000
MOST_OF_LINE: Final = 200
"""Letters of a name that somebody else chose; escaped it may have twice as many."""


def discord_digest(facts: DigestFacts, *, is_resend: bool = False) -> Json:
    """The body of a request to a webhook."""
    embed: Json = {
        "title": words_of(one_line(digest_title(facts), MOST_OF_TITLE)).fit(MOST_OF_TITLE),
        "color": int(MARKS[worst(facts.severities)][1].removeprefix("#"), 16),
        "footer": {"text": one_line(window_of(facts), 100)},
        "timestamp": facts.window_end.isoformat(),
    }
    if facts.groups:
        embed["description"] = _listed([_counts(facts), *map(_group, facts.groups)], MOST_OF_ALERTS)
    fields = [
        {"name": name, "value": _listed(said, MOST_OF_PART), "inline": False}
        for name, said in _parts(facts)
        if said
    ]
    if fields:
        embed["fields"] = fields
    message: Json = {"embeds": [embed], "allowed_mentions": {"parse": []}}
    return message | ({"content": RESENT} if is_resend else {})


def _parts(facts: DigestFacts) -> Iterator[tuple[str, Sequence[str]]]:
    money = money_of(facts)

    def trade(one: Trades) -> str:
        what = f"{one.symbol} {'bought' if one.side == 'buy' else 'sold'}"
        return _said(f"{what}: {plain(one.quantity, money)} for {plain(one.value, money)}")

    yield "Trades", [trade(one) for one in facts.trades]
    ended = [
        f"{name.replace('_', ' ').capitalize()}: {count}" for name, count in sorted(facts.orders.items())
    ]
    yield "Orders that ended", [_said(one) for one in ended]
    yield (
        "Payments",
        [
            _said(f"{money.amount(str(one.amount), one.currency)} in {many(one.count, 'payment')}")
            for one in facts.payments
        ],
    )


def _counts(facts: DigestFacts) -> str:
    counts = [(MARKS[one][0], facts.severities.get(one, 0)) for one in MOST_SEVERE_FIRST]
    return _said(", ".join(f"{mark}: {count}" for mark, count in counts if count))


def _group(group: Group) -> str:
    times = f"{group.count} × " if group.count > 1 else ""
    return f"{MARKS[group.severity][0]}: {times}{_said(group.title) or '…'}"


def _said(text: str) -> str:
    return words_of(one_line(text, MOST_OF_LINE)).fit(2 * MOST_OF_LINE)


def _listed(lines: Sequence[str], most: int) -> str:
    """As many lines as there is room for; the others are counted."""
    shown: list[str] = []
    room = most - len("\n… and 1000 more")
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            return "\n".join([*shown, f"… and {len(lines) - len(shown)} more"])
        shown.append(line)
    return "\n".join(shown)
