"""A blocked event loop is told, with the place that blocks it, and costs no false alarm."""

import asyncio
import threading
import time

import pytest

from listener import stillness
from listener.events import LoopAnswered, StoodStill
from tests.listener.working import Told
from tests.waiting import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stillness, "_LIMIT_SECONDS", 0.2)
    monkeypatch.setattr(stillness, "_ROUND_SECONDS", 0.02)


def block_until(is_told: threading.Event) -> None:
    assert is_told.wait(30)


async def test_what_blocks_the_loop_is_told_while_it_blocks() -> None:
    is_told = threading.Event()
    told = Told()

    def emit(event: StoodStill) -> None:
        told(event)
        if len(told) == 2:  # once more, later
            is_told.set()

    with stillness.watched(emit):  # type: ignore[arg-type]
        block_until(is_told)
    first, second = told.of(StoodStill)
    assert f"{__file__}:" in first.where or "threading.py" in first.where
    assert second.how_long >= 2 * first.how_long


def test_the_handler_that_called_what_blocks_is_named(tmp_path: object) -> None:
    space: dict[str, object] = {"where": lambda: stillness._place(__import__("sys")._getframe(1))}
    source = "def library():\n    return where()\n"
    exec(compile(source, "/usr/lib/library.py", "exec"), space)
    exec(compile("def handle():\n    return library()\n", "/app/handlers/broker/slow.py", "exec"), space)
    handle = space["handle"]
    assert callable(handle)
    named = "/usr/lib/library.py:2 in library, called at /app/handlers/broker/slow.py:2 in handle"
    assert handle() == named


async def test_a_loop_that_turns_is_left_alone_and_the_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stillness, "_LIMIT_SECONDS", 10.0)  # nor does a machine that is merely slow count
    told = Told()
    with stillness.watched(told):
        began = time.monotonic()

        def a_while_has_passed() -> bool:
            return time.monotonic() - began > 0.3

        await until("a while has passed", a_while_has_passed)
        assert "stillness" in [thread.name for thread in threading.enumerate()]
    assert "stillness" not in [thread.name for thread in threading.enumerate()]
    assert told.of(StoodStill) == []
    assert told.of(LoopAnswered), "it was asked, and answered"
    assert asyncio.get_running_loop().is_running()
