"""Makes somebody else's words harmless wherever they are shown: no control letters, no reversed text, no links.

Escaping for HTML is done where HTML is made. This is about what no escaping catches: a line break that would begin
another header, letters that turn the text after them around, and addresses that mail clients make links of although
nobody wrote a link.
"""

import re
import unicodedata
from collections.abc import Collection
from typing import Final

_KEPT: Final = "\u200c\u200d"
"""Joiners that Persian, Hindi and emoji are written with."""
_NOT_SHOWN: Final = {"Cc", "Cf", "Cs"}
_BREAKS: Final = {"Zl", "Zp"}
_CUT: Final = "\u200c"
"""Has no width, breaks no line, and ends what a client would take for a link."""
# What clients make links of: schemes, addresses of mail, and a dot before what could be a top-level domain.
_LINK: Final = re.compile(
    r"(?i)[a-z][a-z0-9+.-]{0,20}:(?=//|\\\\)|\b(?:mailto|tel|sms|data|javascript):|\w@(?=\w)|\w[.。．｡](?=[^\W\d_]{2})"
)


def one_line(text: str, most: int) -> str:
    """The text on one line and without what is not shown, at most so long; a cut is marked."""
    line = " ".join(_shown(text[: most * 8]).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def lines(text: str, most: int) -> str:
    """The text with its line breaks, else like `one_line`."""
    kept = [" ".join(_shown(line).split()) for line in text[: most * 8].splitlines()]
    whole = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
    return whole if len(whole) <= most else whole[: most - 1].rstrip() + "…"


def without_links(text: str, ours: Collection[str] = ()) -> str:
    """The text so that no client makes a link of it, apart from the addresses that are ours."""
    if ours:
        known = "|".join(re.escape(one) for one in sorted(ours, key=len, reverse=True))
        parts = re.split(rf"({known})(?![\w/.?=&#%-]|[@:\\]\S)", text)
        return "".join(part if part in ours else without_links(part) for part in parts)
    return _LINK.sub(lambda found: found[0] + _CUT, text)


def _shown(text: str) -> str:
    return "".join(
        " "
        if letter in "\t\n\r" or (kind := unicodedata.category(letter)) in _BREAKS
        else letter
        if kind not in _NOT_SHOWN or letter in _KEPT
        else ""
        for letter in text
    )
