"""The client that Alpaca itself publishes trades at our paper broker: so others hold the double, not only we."""

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.handlers.broker.adapters.house import KEYS, House
from tests.skips import ALPACA_PY

PROGRAM = Path(__file__).with_name("official.py")


async def test_alpaca_s_own_client_sees_at_our_paper_broker_what_it_knows(house: House) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, PROGRAM, house.url, KEYS["key_id"], KEYS["secret"]),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ALPACA_PY.path())},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    assert json.loads(said) == {
        "placed": ["official limit", "BTC/USD", "0.5", "15000.25", "new"],
        "found": True,
        "open": ["official limit"],
        "filled": ["filled", "0.25", "20000.5"],
        "position": ["BTCUSD", "0.25", "long"],
        "fills": [True],
        "clock": True,
        "cash": True,
        "taken": [422, 40010001],
        "no money": [403, 40310000],
        "no order": [404, 40410000],
        "no keys": [401, 40110000],
        "canceled": "canceled",
        "too late to cancel": [422, 42210000],
        "after too fast": "official too fast",
        "lost": [422, 40010001],  # it asks again after a 504, although the order was accepted
        "lost and found": "filled",
    }
    assert await house.orders("official lost") == 1
