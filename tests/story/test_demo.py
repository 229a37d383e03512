"""`./dev demo --once` plays the main job on real parts and is content only if every outcome was the promised one."""

import asyncio
import sys
from pathlib import Path

from tests.waiting import until


async def test_the_demo_keeps_all_its_promises(checkout: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "demo", "--once", cwd=checkout, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    told = output.decode()
    assert process.returncode == 0, told
    assert "user_subscriptions where user_id = …  →  active" in told
    assert "dead letter 1: UnknownUser, 4 attempts" in told
    assert "attempt 5  completed" in told
    assert "key prune@" in told
    assert "select status from orders where id = …  →  unknown" in told
    assert "filled, 5 at 200.1, sent 1 time" in told
    assert "✓ the broker has one order, by our id" in told
    assert "✓ three targets were told, each once" in told
    assert "✓ one mail, one message, one notification arrived" in told
    assert "the mail to ann@example.com, Subject: Filled: 5 AAPL" in told
    assert ("✓ the payment is confirmed" in told) != ("payment in crypto is skipped" in told)


async def test_without_once_it_leaves_the_stack_running_until_ctrl_c(checkout: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "demo", cwd=checkout, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    told: list[str] = []

    async def invites() -> bool:
        assert process.stdout is not None
        told.append((await process.stdout.readline()).decode())
        return "Everything stays up until Ctrl-C" in told[-1]

    await until("it says what to do next", invites, patience=50)
    assert process.returncode is None
    process.terminate()
    await process.stdout.read()
    assert await process.wait() == 0, "".join(told)
