"""`pulse purge` keeps what the project keeps, unless it is told otherwise."""

import pytest

from devstack.gateway import Gateway
from tests.console.commanding import Terminal


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
