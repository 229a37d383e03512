"""The program in a real pseudo terminal: as wide as the window, coloured, and gone without a trace."""

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Awaitable, Callable

import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from tests.console.capturing import play
from tests.house.tree import ROOT
from tests.sql.calls import Calls, Connection

_COLOUR = re.compile(r"\x1b\[\d+m")
_HANDLERS = {"STRIPE_SECRET_KEY": "rk_test_1", "STRIPE_WEBHOOK_SECRET": "whsec_1"}
_PAGE, _BACK = "\x1b[?1049h", "\x1b[?1049l"


async def at_a_terminal(columns: int, *words: str, **environment: str) -> str:
    """What the terminal gets."""
    return await answering(None, columns, *words, **environment)


async def answering(
    asked: Callable[[], Awaitable[str]] | None, columns: int, *words: str, **environment: str
) -> str:
    """The same, and to its question somebody there answers what `asked` gives."""
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
                if asked is not None and said.endswith(b"[y/N] "):
                    os.write(ours, f"{await asked()}\n".encode())
                    asked = None
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


async def test_the_help_breaks_between_words_and_goes_on_below_its_column(there: dict[str, str]) -> None:
    said = _COLOUR.sub("", await at_a_terminal(80, "--help", **there))
    assert max(map(len, said.splitlines())) <= 80
    assert "other\n              processes run them.\n" in said


async def test_a_narrow_terminal_shows_all_that_is_said_of_a_key(there: dict[str, str]) -> None:
    said = _COLOUR.sub("", await at_a_terminal(80, "secrets", "check", "--offline", **there, **_HANDLERS))
    assert max(map(len, said.splitlines())) <= 80
    assert "may read and write everything. A worker needs less: `pulse worker-key --days 90`" in " ".join(
        said.split()
    )


async def test_top_draws_on_a_page_of_its_own_and_leaves_the_one_before_as_it_was(
    there: dict[str, str],
) -> None:
    said = await at_a_terminal(120, "top", "--count", "1", **there)
    assert said.startswith(_PAGE)
    assert said.endswith(_BACK)
    picture = _COLOUR.sub("", said)
    for text in ("payment", "worker-1-4711-9f3b2a", "sync_positions", "Ctrl-C ends it"):
        assert text in picture


async def test_what_was_shown_is_cancelled_on_a_yes_and_nothing_that_came_since(
    there: dict[str, str], owner: Connection
) -> None:
    async def statuses() -> list[str]:
        return [
            row["status"]
            for row in await owner.fetch("select status from jobs where id in (5, 6, 7) order by id")
        ]

    async def no() -> str:
        return "n"

    async def yes() -> str:
        assert await Calls(owner).insert("prune", queue="maintenance") == 7
        return "y"

    said = await answering(no, 80, "cancel", "--status", "pending", **there)
    assert "2 jobs would be cancelled.\n" in said
    assert said.endswith("Nothing was changed.\n")
    assert await statuses() == ["pending", "pending"]
    said = await answering(yes, 80, "cancel", "--status", "pending", **there)
    assert _COLOUR.sub("", said).endswith("✓ 2 jobs are cancelled\n")
    assert await statuses() == ["cancelled", "cancelled", "pending"]


async def test_what_was_shown_runs_again_on_a_yes_and_nothing_that_came_since(
    there: dict[str, str], owner: Connection
) -> None:
    async def yes() -> str:
        calls = Calls(owner)
        await calls.insert("email", queue="alerts", max_attempts=1)
        job = await calls.take(queue="alerts", types=("email",))
        await calls.end(job, "retry", error_class="TimedOut", error_message="late")
        return "yes"

    said = await answering(yes, 80, "retry", "--queue", "alerts", **there)
    assert "2 dead letters would run again.\n" in said
    assert _COLOUR.sub("", said).endswith("✓ 2 jobs run again\n")
    left = await owner.fetch("select id from failed_jobs where replayed_at is null")
    assert [row["id"] for row in left] == [3]
