"""`pulse cancel` by filter: shown first, done with --yes, and only what still waits or runs."""

import pytest

from devstack.gateway import Gateway
from tests.console.capturing import play
from tests.console.commanding import Terminal
from tests.sql.calls import Calls, Connection

USER = "5b0c5f0e-6a0b-4a51-9d5c-0f1a2b3c4d5e"


@pytest.fixture
async def terminal(
    gateway: Gateway, owner: Connection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    await play(Calls(owner), owner)
    return Terminal(gateway, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["--queue", "maintenance"], [6]),
        (["--type", "sync_positions"], [2]),
        (["--user", USER], [2]),
        (["--since", "1h"], [6]),
        (["--since", "3h"], [2, 6, 5]),
        (["--since", "3h", "--limit", "2"], [2, 6]),
        (["--status", "pending"], [6, 5]),
        (["--status", "running"], [2]),
        (["--queue", "alerts"], []),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
async def test_what_is_open_and_matches_would_be_cancelled(
    terminal: Terminal, owner: Connection, words: list[str], chosen: list[int]
) -> None:
    said = await terminal.types("cancel", *words, "--json")
    assert (said.code, [one["id"] for one in said.document["would_cancel"]]) == (0, chosen)
    assert (
        await owner.fetchval("select count(*) from jobs where status = 'cancelled' or cancel_requested") == 0
    )


async def test_with_yes_it_is_shown_and_done(terminal: Terminal, owner: Connection) -> None:
    said = await terminal.types("cancel", "--since", "3h")
    assert said.code == 0
    assert "3 jobs would be cancelled. Nothing was changed: add --yes to do it." in said.out
    said = await terminal.types("cancel", "--since", "3h", "--yes")
    assert said.code == 0
    assert "sync_positions" in said.out
    assert said.out.endswith(
        "✓ 2 jobs are cancelled\n"
        "✓ 1 job runs, and was asked to stop: its worker hears of it with its next heartbeat\n"
    )
    rows = await owner.fetch("select id, status from jobs where cancel_requested order by id")
    assert [tuple(row) for row in rows] == [(2, "running"), (5, "cancelled"), (6, "cancelled")]
    again = await terminal.types("cancel", "--status", "pending", "--yes")
    assert (again.code, again.err) == (1, "✗ No job that waits or runs matches.\n")


async def test_ids_and_filters_are_not_mixed_and_one_of_them_is_needed(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([], ["--yes"], ["5", "--queue", "payment"]):
        with pytest.raises(SystemExit) as left:
            await terminal.types("cancel", *words)
        assert left.value.code == 2
        assert "name jobs by their ids, or choose them by filter: one of both" in capsys.readouterr().err
