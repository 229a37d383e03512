"""Thousands of orders over brokers and networks with every fault: each is placed at most once, and ends as told.

The handlers and the SQL functions are the real ones. The broker is a simulated one, in virtual time, and the way to the
functions is a direct connection instead of HTTP. `PULSE_SIMULATION=20000` makes it larger, `-s` shows the table.
"""

import os
from typing import Final

import pytest

from handlers.clients.broker.broker import Dedupe
from tests.handlers.broker.simulation.lab import simulate
from tests.handlers.broker.simulation.run import Table

RUNS: Final = int(os.environ.get("PULSE_SIMULATION", "4000"))
PARTS: Final = 8
"""Of each class, since a test ends within a minute, however slow the machine."""
TABLES: Final = {dedupe: Table() for dedupe in Dedupe}
"""Of the parts that ran in this process."""


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("dedupe", list(Dedupe))
async def test_every_order_is_placed_at_most_once_and_ends_as_its_broker_says(
    database: str, dedupe: Dedupe, part: int
) -> None:
    table = TABLES[dedupe]
    await simulate(database, dedupe, range(part * RUNS // PARTS, (part + 1) * RUNS // PARTS), table)
    print(f"\n{dedupe}: {table}")
    assert not table.wrong, table.seeds
