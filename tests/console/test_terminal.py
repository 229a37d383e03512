"""The program in a real pseudo terminal: as wide as the window, coloured, and gone without a trace."""

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios

import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from tests.console.capturing import play
from tests.house.tree import ROOT
from tests.sql.calls import Calls, Connection

_COLOUR = re.compile(r"\x1b\[\d+m")
_PAGE, _BACK = "\x1b[?1049h", "\x1b[?1049l"


async def at_a_terminal(columns: int, *words: str, **environment: str) -> str:
    """What the terminal gets."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "console", *words),
        cwd=ROOT,
        env={**kept, "TERM": "xterm", **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    try:
        async with asyncio.timeout(40):
            while part := await asyncio.to_thread(_read, ours):
                said += part
            assert await process.wait() == 0, said.decode()
    finally:
        os.close(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


@pytest.fixture
async def there(gateway: Gateway, owner: Connection) -> dict[str, str]:
    await play(Calls(owner), owner)
    return {"SUPABASE_URL": gateway.url, "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret, "PULSE_WORKER_KEY": ""}


async def test_a_wider_terminal_shows_more_and_no_line_is_wider(there: dict[str, str]) -> None:
    narrow, wide = [await at_a_terminal(columns, "jobs", **there) for columns in (80, 120)]
    for columns, said in ((80, narrow), (120, wide)):
        assert _COLOUR.search(said)
        lines = _COLOUR.sub("", said).splitlines()
        assert max(map(len, lines)) <= columns
    assert "made" not in narrow
    assert "made" in wide
    assert "MailRefused: 550 mailbox" in narrow
    assert "MailRefused: 550 mailbox unavailable" in wide


async def test_top_draws_on_a_page_of_its_own_and_leaves_the_one_before_as_it_was(
    there: dict[str, str],
) -> None:
    said = await at_a_terminal(120, "top", "--count", "1", **there)
    assert said.startswith(_PAGE)
    assert said.endswith(_BACK)
    picture = _COLOUR.sub("", said)
    for text in ("payment", "worker-1-4711-9f3b2a", "sync_positions", "Ctrl-C ends it"):
        assert text in picture
