"""An alert as a message on Discord: within all of its limits, and with words that are words and nothing else.

What a message says comes from users, brokers and tokens of strangers. So every sign that Discord's Markdown knows is
escaped (mentions, masked links, headings, code fences, lists, spoilers), what is not shown is left out, nothing becomes
a link but `url` in the alert's metadata, which whoever made the alert wrote there, and nobody is mentioned, whatever
the text says. A message that Discord would refuse for its size is shortened here, with a mark; lengths are code points.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from handlers.clients.alerts.alert_words import MARKS, facts_of, link_of
from handlers.clients.alerts.delivery import Alert
from handlers.clients.alerts.plain_words import lines, one_line, without_links

Json = dict[str, object]

MOST_OF_TITLE: Final = 256
MOST_OF_DESCRIPTION: Final = 4096
MOST_FIELDS: Final = 25
MOST_OF_NAME: Final = 256
MOST_OF_VALUE: Final = 1024
MOST_OF_ALL: Final = 6000
"""Over all titles, descriptions, fields and footers of a message."""
FOR_FIELDS: Final = 2000
"""Of those, when the message is long."""
LONGEST_LINK: Final = 2000
MOST_READ: Final = 6_500
"""Letters of a text that are looked at."""
SHORTENED: Final = " … (shortened)"
RESENT: Final = "Sent again: it is not known whether the first copy arrived."
_INLINE: Final = 32
_SIGNS: Final = re.compile(r"[\\*_~`|<>\[\]#@+-]|(?<=\d)[.)](?=\s)")
# Letters that have a width and show nothing; Discord takes a text of nothing else for an empty one, or people do.
_BLANK: Final = re.compile(
    r"[\s\u00ad\u034f\u115f\u1160\u17b4\u17b5\u200b-\u200d\u2800\u3164\ufe00-\ufe0f\uffa0]*"
)


@dataclass(frozen=True, slots=True)
class Words:
    """An escaped text in pieces that must not be cut: a letter, an escaped sign, a link of ours."""

    pieces: Sequence[str]

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def split(self, most: int) -> "tuple[str, Words]":
        """The first part, of `most` letters at most and cut at a space if there is one near its end, and the rest."""
        if len(self) <= most:
            return "".join(self.pieces), Words(())
        length, whole = 0, 0
        while length + len(self.pieces[whole]) <= most:
            length += len(self.pieces[whole])
            whole += 1
        near = range(whole, max(whole - 80, 0), -1)
        cut = next((at for at in near if self.pieces[at].isspace()), whole)
        return "".join(self.pieces[:cut]).rstrip(), Words(self.pieces[cut:])

    def fit(self, most: int, mark: str = SHORTENED) -> str:
        """As much as there is room for; a cut is marked."""
        if len(self) <= most:
            return "".join(self.pieces)
        return self.split(most - len(mark))[0] + mark if most > len(mark) else ""


def discord_message(alert: Alert, *, is_resend: bool = False) -> Json:
    """The body of a request to a webhook."""
    mark, colour = MARKS[alert.severity]
    link = link_of(alert, LONGEST_LINK)
    title = words_of(one_line(alert.title, 1000), link).fit(MOST_OF_TITLE) or mark
    body = words_of(lines(alert.message, MOST_READ), link)
    room = MOST_OF_ALL - len(title) - len(mark)
    fields = _fields(alert, max(FOR_FIELDS, room - len(body)))
    room -= sum(len(name) + len(value) for name, value in fields)

    first, rest = body.split(min(MOST_OF_DESCRIPTION, room))
    if rest.pieces and room <= MOST_OF_DESCRIPTION:
        first, rest = body.fit(room), Words(())
    embed: Json = {"title": title, "color": int(colour.removeprefix("#"), 16)}
    embeds = [embed]
    if first:
        embed["description"] = first
    if link is not None:
        embed["url"] = link
    if rest.pieces:
        more = Words([piece for piece in rest.pieces[:1] if not piece.isspace()] + list(rest.pieces[1:]))
        embeds.append({"description": more.fit(room - len(first)), "color": embed["color"]})
    last = embeds[-1]
    if fields:
        last["fields"] = [
            {"name": name, "value": value, "inline": len(value) <= _INLINE} for name, value in fields
        ]
    last |= {"footer": {"text": mark}, "timestamp": alert.created_at.isoformat()}
    message: Json = {"embeds": embeds, "allowed_mentions": {"parse": []}}
    return message | ({"content": RESENT} if is_resend else {})


def _fields(alert: Alert, room: int) -> list[tuple[str, str]]:
    """What the metadata says in one word each, as far as there is room; what is left out is counted."""
    told = list(_facts(alert))
    fields: list[tuple[str, str]] = []
    for number, (name, value) in enumerate(told):
        left = len(told) - number
        note = ("…", f"and {left} more")
        is_last_place = len(fields) == MOST_FIELDS - 1 and left > 1
        if is_last_place or len(name) + len(value) + (len("".join(note)) if left > 1 else 0) > room:
            return [*fields, note] if room >= len("".join(note)) else fields
        fields.append((name, value))
        room -= len(name) + len(value)
    return fields


def _facts(alert: Alert) -> Iterator[tuple[str, str]]:
    for name, said in facts_of(alert):
        label = words_of(one_line(name, 100)).fit(MOST_OF_NAME, "…")
        text = words_of(lines(said, MOST_OF_VALUE)).fit(MOST_OF_VALUE)
        if label and text:
            yield label, text


def words_of(text: str, link: str | None = None) -> Words:
    """Escaped; no words at all if nothing of it can be seen."""
    if _BLANK.fullmatch(text):
        return Words(())
    return Words(list(_escaped(without_links(text, [link] if link else []), link)))


def _escaped(text: str, link: str | None) -> Iterator[str]:
    """Piece by piece. What looks like our link is ours: all others were broken before."""
    for number, part in enumerate(text.split(link) if link else [text]):
        if number and link:
            yield link
        at = 0
        for sign in _SIGNS.finditer(part):
            yield from part[at : sign.start()]
            yield "\\" + sign[0]
            at = sign.end()
        yield from part[at:]
