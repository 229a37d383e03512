"""What our mails look like: one frame for all of them, once as plain text and once as HTML.

The HTML is tables with styles in each tag, which is what mail clients show alike, and a sheet for those that know dark
colours and small screens. Nothing is loaded from anywhere: no picture, no font, no pixel that tells who read it.

A mail is made of blocks. Each makes itself harmless: what is said in it is text from somewhere, so it is cleaned,
freed of whatever a client would make a link of, and escaped. Links are `Link`s, and only those are.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, Protocol
from urllib.parse import urlsplit

from handlers.clients.alerts.plain_words import lines, one_line, without_links

LONGEST_TITLE: Final = 200
LONGEST_TEXT: Final = 4000
FONT: Final = "font-family:-apple-system,BlinkMacSystemFont,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;"
_SHEET: Final = """
body{margin:0;padding:0;width:100%;-webkit-text-size-adjust:100%}
.t td,.t th{font-size:13px;line-height:20px;text-align:left;vertical-align:top;color:#111827}
.t td,.t th{padding:6px 12px 6px 0}.t .c,.t .c td{padding:2px 8px 2px 0}.t .c .b{font-size:1px;padding:0}
.t .c .k{padding:0 0 0 8px}
.r td,.r th{border-bottom:1px solid #e5e7eb}.t .n{text-align:right}.t .s{color:#6b7280}.t .w{width:100%}
@media (prefers-color-scheme:dark){.t td,.t th{color:#f3f4f6}.t .s{color:#9ca3af}.r td,.r th{border-color:#374151}
.page{background:#111827!important}.card{background:#1f2937!important;border-left-color:#374151!important;
border-right-color:#374151!important;border-bottom-color:#374151!important}.mark{filter:brightness(1.6)}
.ink{color:#f3f4f6!important}.soft{color:#9ca3af!important}.line{border-color:#374151!important}
.track{background:#374151!important}.go{background:#e5e7eb!important;color:#111827!important}}
@media (max-width:480px){.pad{padding-left:20px!important;padding-right:20px!important}}
"""


class Block(Protocol):
    """A part of a mail."""

    def text(self) -> str:
        """As plain text; empty when it says nothing there."""
        ...

    def html(self) -> str:
        """As HTML, complete and escaped."""
        ...


@dataclass(frozen=True, slots=True)
class Link:
    """One that we made."""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Somebody's words, with their line breaks."""

    said: str
    ours: Collection[str] = ()
    """Addresses in it that may stay links."""

    def text(self) -> str:
        return without_links(lines(self.said, LONGEST_TEXT), self.ours)

    def html(self) -> str:
        shown = escape(self.text()).replace("\n", "<br>")
        return f'<p class="ink" dir="auto" style="margin:0 0 16px;{FONT}{BODY}">{shown}</p>'


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    rows: Sequence[tuple[str, str]]

    def text(self) -> str:
        return "\n".join(f"{word(name)}: {word(value)}" for name, value in self.rows)

    def html(self) -> str:
        if not self.rows:
            return ""
        rows = "".join(
            f'<tr><td class="s">{shown(name)}</td><td class="w" dir="auto">{shown(value)}</td></tr>'
            for name, value in self.rows
        )
        return f'{TABLE}style="{FONT}margin:0 0 16px;">{rows}</table>'


@dataclass(frozen=True, slots=True)
class Letter:
    """All that a mail shows."""

    title: str
    blocks: Sequence[Block]
    why: str
    """Why its reader has it; our own words."""
    mark: str = ""
    """A word above the title, with its colour."""
    colour: str = "#2563eb"
    button: Link | None = None
    unsubscribe: Link | None = None

    def text(self) -> str:
        """The plain part."""
        mark = f"[{self.mark}] " if self.mark else ""
        foot = [self.why]
        if self.unsubscribe is not None:
            foot.append(f"{self.unsubscribe.label}: {self.unsubscribe.url}")
        parts = [
            mark + word(self.title),
            *(block.text() for block in self.blocks),
            "" if self.button is None else f"{self.button.label}: {self.button.url}",
            "-- \n" + "\n".join(foot),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def html(self) -> str:
        """The HTML part."""
        title = shown(self.title)
        first = next((text for block in self.blocks if (text := block.text())), "")
        inside = [
            _head(self.mark, self.colour, title),
            *(block.html() for block in self.blocks),
            "" if self.button is None else _button(self.button),
        ]
        return _PAGE.format(
            title=title,
            sheet=_SHEET,
            before=escape(without_links(one_line(first, 120))),
            colour=self.colour,
            inside="".join(inside),
            foot=_foot(self.why, self.unsubscribe),
            soft=f"{FONT}{SMALL}color:#6b7280;",
        )


BODY: Final = "font-size:16px;line-height:25px;color:#111827;word-break:break-word;"
SMALL: Final = "font-size:13px;line-height:20px;"
TABLE: Final = '<table class="t" role="presentation" cellspacing="0" cellpadding="0" '
"""What tables in a mail begin with: how their cells look is in the sheet, or a digest would be mostly that."""
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark"><meta name="supported-color-schemes" content="light dark">
<meta name="format-detection" content="telephone=no,date=no,address=no,email=no,url=no">
<title>{title}</title><style>{sheet}</style></head>
<body class="page" style="margin:0;padding:0;background:#f3f4f6;">
<div style="display:none;max-height:0;overflow:hidden;">{before}</div>
<table role="presentation" class="page" width="100%" cellspacing="0" cellpadding="0" style="background:#f3f4f6;">
<tr><td align="center" style="padding:32px 12px;">
<table role="presentation" class="card" width="600" cellspacing="0" cellpadding="0"
 style="width:100%;max-width:600px;background:#ffffff;border:1px solid #e5e7eb;border-top:4px solid {colour};">
<tr><td class="pad" style="padding:28px 36px 20px;text-align:left;">{inside}</td></tr></table>
<table role="presentation" width="600" cellspacing="0" cellpadding="0" style="width:100%;max-width:600px;">
<tr><td class="pad soft" style="padding:16px 36px;text-align:left;{soft}">{foot}</td></tr></table>
</td></tr></table></body></html>
"""


def word(said: str) -> str:
    """Somebody's words on one line, as plain text."""
    return without_links(one_line(said, LONGEST_TITLE))


def shown(said: str) -> str:
    """The same for HTML."""
    return escape(word(said))


def is_link(url: str) -> bool:
    """Whether a page of the web, and nothing else, is at this address."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    local = parts.hostname in ("localhost", "127.0.0.1")
    return (
        (parts.scheme == "https" or (parts.scheme == "http" and local))
        and bool(parts.hostname)
        and "@" not in parts.netloc
        and url.isascii()
        and url.isprintable()
        and not set(url) & set(" \"'<>\\`")
    )


def _head(mark: str, colour: str, title: str) -> str:
    small = f"{FONT}margin:0 0 8px;font-size:12px;line-height:16px;font-weight:700;letter-spacing:.06em;"
    large = f"{FONT}margin:0 0 16px;font-size:22px;line-height:30px;font-weight:700;word-break:break-word;"
    return (
        f'<p style="{small}text-transform:uppercase;color:{colour};">{escape(mark)}</p>' if mark else ""
    ) + f'<h1 class="ink" dir="auto" style="{large}color:#111827;">{title}</h1>'


def _button(link: Link) -> str:
    style = f"{FONT}display:inline-block;padding:12px 22px;font-size:15px;line-height:20px;font-weight:600;"
    return (
        f'<p style="margin:8px 0 16px;"><a class="go" href="{escape(link.url)}" rel="noopener noreferrer" '
        f'style="{style}color:#ffffff;background:#111827;text-decoration:none;border-radius:6px;">'
        f"{escape(link.label)}</a></p>"
    )


def _foot(why: str, unsubscribe: Link | None) -> str:
    if unsubscribe is None:
        return escape(why)
    href = escape(unsubscribe.url)
    return (
        f'{escape(why)}<br><a class="soft" href="{href}" rel="noopener noreferrer" '
        f'style="color:#6b7280;text-decoration:underline;">{escape(unsubscribe.label)}</a>'
    )
