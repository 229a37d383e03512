"""Commands of `pulse` as a person runs them, against the gateway of a test."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from console.program import run
from devstack.gateway import Gateway
from devstack.keys import LOCAL


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it said with --json."""
        return json.loads(self.out)


class Terminal:
    """Where commands are typed: the environment of an operator."""

    def __init__(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._capsys = capsys
        monkeypatch.setenv("SUPABASE_URL", gateway.url)
        monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", LOCAL.secret)
        for name in ("PULSE_WORKER_KEY", "SUPABASE_PUBLISHABLE_KEY", "PULSE_LISTEN"):
            monkeypatch.delenv(name, raising=False)

    async def types(self, *words: str) -> Said:
        """Runs one command to its end."""
        self._capsys.readouterr()
        code = await asyncio.to_thread(run, words)
        out, err = self._capsys.readouterr()
        return Said(code, out, err)
