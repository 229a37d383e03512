"""What a command prints: no wider than the terminal, no colours where nobody sees them, and nothing that steers it."""

import io
import json
import sys
from collections.abc import Mapping
from decimal import Decimal

import pytest

from console.document import document
from console.screen import Cell, Colour, Column, Row, Screen

COLUMNS = (Column("id", right=True), Column("type", bends=True), Column("why", bends=True))
ROWS: list[Row] = [("1", Cell("prune", Colour.RED), "x" * 200), ("22", "sync_positions", "日本語" * 60)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen_of(
    out: io.StringIO,
    err: io.StringIO | None = None,
    words: Mapping[str, str] | None = None,
    *,
    as_json: bool = False,
) -> Screen:
    return Screen(out, err or io.StringIO(), words or {}, as_json=as_json)


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_a_table_fits_the_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = Terminal()
    screen_of(out, words={"NO_COLOR": "1"}).table(COLUMNS, ROWS)
    heading, first, second = out.getvalue().splitlines()
    assert heading.split() == ["id", "type", "why"]
    assert len(first) == int(columns)
    assert first.endswith("…")
    assert second.endswith("…")
    assert sum(2 if ord(one) > 0x2E80 else 1 for one in second) <= int(columns)
    assert "sync_positions" in second


def test_beside_a_terminal_nothing_is_cut_and_nothing_is_coloured() -> None:
    out = io.StringIO()
    screen_of(out).table(COLUMNS, ROWS)
    assert "x" * 200 in out.getvalue()
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(
    ("words", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_terminals_that_want_them(words: dict[str, str], coloured: bool) -> None:
    out, err = Terminal(), Terminal()
    screen = screen_of(out, err, words)
    screen.say("hello", Colour.RED)
    screen.done("done")
    screen.problem("wrong")
    assert ("\x1b[" in out.getvalue()) is coloured
    assert ("\x1b[" in err.getvalue()) is coloured


def test_what_comes_from_the_database_cannot_steer_the_terminal() -> None:
    out, err = Terminal(), Terminal()
    screen = screen_of(out, err, {"NO_COLOR": "1"})
    evil = "a\x1b[2J\x07\x9b31m\r\nb\u202ec"
    screen.say(evil)
    screen.done(evil)
    screen.problem(evil)
    screen.table([Column("t")], [(evil,)])
    screen.facts([("name", evil)])
    screen.block(evil)
    for told in (out.getvalue(), err.getvalue()):
        assert not set("\x1b\x07\x9b\r\u202e") & set(told)
        assert "b�c" in told


def test_json_is_one_document_and_nothing_else() -> None:
    out, err = io.StringIO(), io.StringIO()
    screen = screen_of(out, err, as_json=True)
    screen.say("hello")
    screen.done("done")
    screen.table(COLUMNS, ROWS)
    screen.facts([("a", "b")])
    screen.block("text")
    screen.answer({"jobs": [1]})
    screen.problem("told on the other stream")
    assert json.loads(out.getvalue()) == {"jobs": [1]}
    assert err.getvalue() == "✗ told on the other stream\n"


def test_progress_is_drawn_over_and_only_on_a_terminal() -> None:
    out, err = io.StringIO(), Terminal()
    screen = screen_of(out, err)
    screen.progress("half")
    screen.say("whole")
    assert err.getvalue() == "\r\x1b[Khalf\r\x1b[K"
    assert out.getvalue() == "whole\n"
    silent = io.StringIO()
    screen_of(out, silent).progress("half")
    assert silent.getvalue() == ""


def test_a_document_keeps_all_digits_and_the_order_of_its_keys() -> None:
    value: dict[object, object] = {
        "b": Decimal("0.10000000000000000000001"),
        "a": [1, {}, [], None, True, "ü\n"],
        7: {"c": 1.5},
    }
    text = document(value)
    assert json.loads(text, parse_float=Decimal) == {
        "b": Decimal("0.10000000000000000000001"),
        "a": [1, {}, [], None, True, "ü\n"],
        "7": {"c": Decimal("1.5")},
    }
    assert text.index('"b"') < text.index('"a"')
    assert "ü" in text


def test_a_process_without_a_standard_input_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `pulse jobs <&-` is."""
    monkeypatch.setattr(sys, "stdin", None)
    assert not Screen(Terminal(), Terminal(), {}, as_json=False).can_ask
