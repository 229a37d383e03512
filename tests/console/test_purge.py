"""`pulse purge` keeps what the project keeps, unless it is told otherwise."""

import pytest

from devstack.gateway import Gateway
from tests.console.commanding import Terminal
from tests.sql.calls import Connection


async def test_a_purge_keeps_what_the_settings_keep(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(gateway, monkeypatch, capsys)
    monkeypatch.setenv("PULSE_KEEP_COMPLETED_DAYS", "30")
    monkeypatch.delenv("PULSE_KEEP_FAILED_DAYS", raising=False)
    for words in (["purge", "--json"], ["purge", "--yes", "--json"]):
        said = await terminal.types(*words)
        assert said.document["policy"] == {"completed_days": 30, "failed_days": 90}
    said = await terminal.types("purge", "--completed-days", "1", "--json")
    assert said.document["policy"] == {"completed_days": 1, "failed_days": 90}
    monkeypatch.setenv("PULSE_KEEP_FAILED_DAYS", "long")
    with pytest.raises(SystemExit) as left:
        await terminal.types("purge", "--yes")
    assert left.value.code == 2
    assert "PULSE_KEEP_FAILED_DAYS" in capsys.readouterr().err


async def test_the_preview_names_everything_that_then_goes(
    gateway: Gateway,
    owner: Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = Terminal(gateway, monkeypatch, capsys)
    await owner.execute(
        "insert into alerts (alert_type, title, dedupe_key, created_at)"
        " select 'a', 'a', n, now() - interval '2 years' from generate_series(1, 2) as n"
    )
    await owner.execute(
        "insert into alert_deliveries (alert_id, channel, status) select id, 'email', 'failed' from alerts"
    )
    await owner.execute("insert into call_limits (key, forget_at) values ('a', now() - interval '1 day')")
    told = "0 jobs, 2 alerts, 2 deliveries of those, 1 count of calls"
    said = await terminal.types("purge")
    assert f"Older than that: {told}. Nothing was changed" in " ".join(said.out.split())
    before = (await terminal.types("purge", "--json")).document
    gone = (await terminal.types("purge", "--yes", "--json")).document
    assert before["would_delete"] == gone["deleted"]
    assert before["at_least"] == []
    assert (await terminal.types("purge", "--yes")).out.split() == "✓ 0 jobs deleted".split()


async def test_of_very_many_it_says_at_least(
    gateway: Gateway,
    owner: Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await owner.execute(
        "insert into call_limits (key, forget_at)"
        " select n, now() - interval '1 day' from generate_series(1, 100001) as n"
    )
    terminal = Terminal(gateway, monkeypatch, capsys)
    assert "0 jobs, at least 100,000 counts of calls." in " ".join(
        (await terminal.types("purge")).out.split()
    )
