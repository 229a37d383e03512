"""What docs/command_line.md shows is what the program says, word for word, at a terminal of 80 columns."""

import asyncio
import os

import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from tests.console.capturing import PAGE, all_said, captures, play, rewritten, run_as_shown
from tests.sql.calls import Calls, Connection


@pytest.fixture
async def at_the_terminal(gateway: Gateway, owner: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project of the page, and the environment of its reader."""
    await play(Calls(owner), owner)
    for name in ("PULSE_WORKER_KEY", "PULSE_DOOR_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUPABASE_URL", gateway.url)
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", LOCAL.secret)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("at_the_terminal")
async def test_the_page_shows_what_the_program_says() -> None:
    text = PAGE.read_text()
    shown = captures(text)
    assert len(shown) > 15
    said = await all_said([one.command for one in shown])
    if os.environ.get("PULSE_WRITE_CAPTURES"):
        await asyncio.to_thread(PAGE.write_text, rewritten(text, said))
        return
    for one, other in zip(shown, said, strict=True):
        assert other == one
        assert max(map(len, other.said.splitlines()), default=0) <= 80 or "--json" in one.command


def test_the_help_on_the_page_is_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command more is none too few: each line that the page shows is there."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    shown = PAGE.read_text().partition("```text\n$ pulse --help\n")[2].partition("```")[0]
    said = run_as_shown("pulse --help").said.splitlines()
    assert len(shown.splitlines()) > 20
    for line in shown.splitlines():
        assert line in said, line
