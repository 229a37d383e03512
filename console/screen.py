"""What a command prints on: plain lines, tables and sentences for a person, or one JSON document for a program.

A text that comes out of the database cannot steer the terminal: its control characters are struck out. Colours are for
terminals, and not with NO_COLOR or TERM=dumb.
"""

import asyncio
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from textwrap import wrap
from typing import TextIO

from console.document import document

_NARROWEST = 40
_ROOMY = 100
_UNLIMITED = 10_000
_PAGE, _PAGE_BEFORE = "\x1b[?1049h\x1b[?25l\x1b[2J", "\x1b[?25h\x1b[?1049l"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_BREAKS = re.compile(r"[\t\n\r\v\f]+")


class Colour(StrEnum):
    """Few, and none of them is the only bearer of its meaning."""

    PLAIN = ""
    BOLD = "1"
    DIM = "2"
    RED = "31"
    GREEN = "32"
    YELLOW = "33"
    CYAN = "36"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    right: bool = False
    """Numbers stand at the right."""
    bends: bool = False
    """When the table is too wide, this column is cut; of several the last."""
    spare: bool = False
    """When the table is too wide for a narrow terminal, this column is left out."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A text with a colour."""

    text: str
    colour: Colour = Colour.PLAIN


Row = Sequence[Cell | str]


class Screen:
    """stdout and stderr of one command."""

    def __init__(self, out: TextIO, err: TextIO, environment: Mapping[str, str], *, as_json: bool) -> None:
        self.as_json = as_json
        self.can_ask = bool(sys.stdin) and sys.stdin.isatty() and out.isatty() and not as_json
        """Whether somebody is there who can answer."""
        self.is_live = out.isatty() and environment.get("TERM") != "dumb" and not as_json
        """Whether what was printed can be drawn over."""
        self._out = out
        self._err = err
        plain = bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
        self._colours = {stream: stream.isatty() and not plain for stream in (out, err)}
        self._has_progress = False

    @property
    def width(self) -> int:
        """How many columns a line has; beside a terminal it has no end."""
        return max(shutil.get_terminal_size().columns, _NARROWEST) if self._out.isatty() else _UNLIMITED

    async def agrees(self, question: str) -> bool:
        """Asks somebody at a terminal, who may also leave with Ctrl-C."""
        self._raw(question)
        loop = asyncio.get_running_loop()
        answered = asyncio.Event()
        loop.add_reader(sys.stdin, answered.set)
        try:
            await answered.wait()
        finally:
            loop.remove_reader(sys.stdin)
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    def answer(self, value: object) -> None:
        """The JSON document, with --json; without, nothing."""
        if self.as_json:
            self._out.write(document(value) + "\n")

    def say(self, text: str = "", colour: Colour = Colour.PLAIN) -> None:
        """One line for a person; with --json, nothing."""
        if not self.as_json:
            self.end_progress()
            for line in self._wrapped(text):
                self._out.write(self.painted(line, colour) + "\n")

    def done(self, text: str) -> None:
        """A line with a tick."""
        if not self.as_json:
            self.end_progress()
            first, *others = self._wrapped(text, indent=2)
            self._out.write(
                f"{self.painted('✓', Colour.GREEN)} {first}\n" + "".join(f"  {one}\n" for one in others)
            )

    def problem(self, text: str) -> None:
        """A line with a cross, on stderr, with --json too."""
        self.end_progress()
        cross = self._paint("✗", Colour.RED, self._err)
        first, *others = self._wrapped(text, indent=2)
        self._err.write(f"{cross} {first}\n" + "".join(f"  {one}\n" for one in others))

    def hint(self, text: str) -> None:
        """A line about what one may do next; for a person at a terminal only."""
        if self.is_live:
            self.say(text, Colour.DIM)

    def table(self, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        """A heading and lines below it, no wider than the terminal."""
        if not self.as_json:
            self.end_progress()
            for line in self.lines_of(columns, rows):
                self._out.write(line + "\n")

    def lines_of(self, columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
        """The same, to be drawn by somebody else."""
        cells = [[one if isinstance(one, Cell) else Cell(one) for one in row] for row in rows]
        cells = [[Cell(plain(one.text), one.colour) for one in row] for row in cells]
        whole = [[Cell(one.title, Colour.DIM) for one in columns], *cells]
        if self.width < min(_ROOMY, sum(_natural(whole)) + 2 * (len(columns) - 1)):
            kept = [place for place, one in enumerate(columns) if not one.spare]
            columns = [columns[place] for place in kept]
            whole = [[row[place] for place in kept] for row in whole]
        widths = _widths(columns, whole, self.width)
        return [self._line(columns, row, widths) for row in whole]

    def facts(self, pairs: Sequence[tuple[str, Cell | str]]) -> None:
        """Names and values, one pair a line, the values below each other."""
        if not self.as_json:
            self.end_progress()
            width = max((_width(name) for name, _ in pairs), default=0)
            for name, value in pairs:
                cell = value if isinstance(value, Cell) else Cell(value)
                told = self.painted(name + " " * (width - _width(name)), Colour.DIM)
                for line in self._wrapped(cell.text, indent=width + 4):
                    self._out.write(f"  {told}  {self.painted(line, cell.colour)}".rstrip() + "\n")
                    told = " " * width

    def block(self, text: str) -> None:
        """Several lines, each indented and harmless."""
        if not self.as_json:
            self._out.write(_indented(text))

    def problem_block(self, text: str) -> None:
        """The same, below a problem."""
        self._err.write(_indented(text))

    def progress(self, text: str) -> None:
        """How far long work has come: one line on stderr, drawn over, and only on a terminal."""
        if self._err.isatty() and not self._is_dumb():
            self._err.write(f"\r\x1b[K{plain(text)}")
            self._err.flush()
            self._has_progress = True

    def draw(self, lines: Sequence[str]) -> None:
        """A whole picture in the place of the last one, on a terminal."""
        height = shutil.get_terminal_size().lines
        picture = "".join(f"{line}\x1b[K\r\n" for line in lines[: height - 1])
        self._raw(f"\x1b[H{picture}\x1b[J")

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Around pictures: a page of its own on a terminal, that leaves what stood there before as it was."""
        if not self.is_live:
            yield
            return
        self._raw(_PAGE)
        try:
            yield
        finally:
            self._raw(_PAGE_BEFORE)

    def heading(self, name: str, text: str) -> None:
        """A line of a list: a name that stands out, and what it is; what does not fit goes on below itself."""
        indent = _width(name) + 4
        first, *others = self._wrapped(text, indent)
        self._out.write(f"  {self.painted(name, Colour.CYAN)}  {first}\n")
        self._out.writelines(f"{' ' * indent}{one}\n" for one in others)

    def answer_line(self, value: object) -> None:
        """The JSON document in one line, with --json: one of many."""
        if self.as_json:
            self._raw(" ".join(line.strip() for line in document(value).split("\n")) + "\n")

    def _raw(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def painted(self, text: str, colour: Colour) -> str:
        """The text as it looks on stdout."""
        return self._paint(text, colour, self._out)

    def close(self) -> None:
        """Nothing half written stays behind."""
        self.end_progress()
        self._out.flush()

    def _wrapped(self, text: str, indent: int = 0) -> list[str]:
        """Between words, and at least one line."""
        if _width(line := plain(text)) <= self.width - indent:
            return [line]
        return wrap(line, self.width - indent, break_long_words=False, break_on_hyphens=False) or [""]

    def _is_dumb(self) -> bool:
        return os.environ.get("TERM") == "dumb"

    def _paint(self, text: str, colour: Colour, stream: TextIO) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if colour and text and self._colours[stream] else text

    def end_progress(self) -> None:
        """Wipes the line of `progress` away."""
        if self._has_progress:
            self._err.write("\r\x1b[K")
            self._err.flush()
            self._has_progress = False

    def _line(self, columns: Sequence[Column], row: Sequence[Cell], widths: Sequence[int]) -> str:
        parts: list[str] = []
        for column, cell, width in zip(columns, row, widths, strict=True):
            text = _cut(cell.text, width)
            blanks = " " * (width - _width(text))
            painted = self.painted(text, cell.colour)
            parts.append(blanks + painted if column.right else painted + blanks)
        return "  ".join(parts).rstrip()


def screen(*, as_json: bool = False) -> Screen:
    """The one of this process."""
    return Screen(sys.stdout, sys.stderr, os.environ, as_json=as_json)


def plain(text: str) -> str:
    """One line that does nothing but stand there."""
    return _CONTROL.sub("�", _BREAKS.sub(" ", text))


def _indented(text: str) -> str:
    return "".join(f"    {_CONTROL.sub('�', line)}".rstrip() + "\n" for line in text.splitlines())


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    kept = ""
    for one in text:
        if _width(kept + one) > width - 1:
            break
        kept += one
    return kept + "…"


def _natural(rows: Sequence[Sequence[Cell]]) -> list[int]:
    return [max(_width(row[place].text) for row in rows) for place in range(len(rows[0]))]


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], most: int) -> list[int]:
    widths = _natural(rows)
    over = sum(widths) + 2 * (len(columns) - 1) - most
    for place in reversed(range(len(columns))):
        if over > 0 and columns[place].bends:
            less = min(over, max(widths[place] - 8, 0))
            widths[place] -= less
            over -= less
    return widths
