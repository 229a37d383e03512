"""`python -m paper`: an account, its quotes from a file, and the broker over HTTP, as one starts it by hand."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from paper import feeds
from paper.__main__ import main

CSV = """symbol,time,bid,ask,bid_size,ask_size
AAPL,2024-03-01T15:00:01,100,101,,
AAPL,2024-03-01T15:00:00Z,99,100,5,
MSFT,2024-03-01T16:00:00+01:00,,400,,7
"""


@pytest.fixture
def environment(gateway: Gateway) -> dict[str, str]:
    return {**os.environ, "SUPABASE_URL": gateway.url, "SUPABASE_SERVICE_ROLE_KEY": LOCAL.service_role}


async def run(environment: dict[str, str], checkout: Path, *words: str) -> tuple[int, str]:
    """A command; its exit code and all that it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "paper",
        *words,
        cwd=checkout,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


@pytest.fixture
async def broker_url(environment: dict[str, str], checkout: Path) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "paper",
        "serve",
        "--port",
        "0",
        cwd=checkout,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+", (await process.stdout.readline()).decode())
        assert found is not None
        yield found[0]
    finally:
        process.terminate()
        await process.communicate()


async def test_from_nothing_to_a_filled_order(
    environment: dict[str, str], checkout: Path, broker_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "quotes.csv"
    file.write_text(CSV)
    assert await run(environment, checkout, "quotes", str(file)) == (0, "3 quotes\n")
    assert await run(environment, checkout, "price", "TSLA", "200", "201") == (0, "")
    code, said = await run(environment, checkout, "open", "--market", "always", "--cash", "1000")
    opened = dict(line.split(maxsplit=1) for line in said.replace("key id", "key").splitlines())
    assert code == 0
    headers = {"APCA-API-KEY-ID": opened["key"], "APCA-API-SECRET-KEY": opened["secret"]}
    async with aiohttp.ClientSession(broker_url, headers=headers) as session:
        for symbol, price in (("AAPL", "101"), ("TSLA", "201")):
            words = {"symbol": symbol, "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}
            async with session.post("/v2/orders", json=words) as answer:
                assert (await answer.json())["filled_avg_price"] == price


async def test_what_is_missing_is_said(
    environment: dict[str, str], checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "quotes.csv"
    file.write_text("symbol,bid\n")
    code, said = await run(environment, checkout, "quotes", str(file))
    assert (code, said.startswith("paper: the first line must name the columns")) == (1, True)
    monkeypatch.delenv("SUPABASE_URL", raising=False)
    monkeypatch.delenv("SUPABASE_SERVICE_ROLE_KEY", raising=False)
    assert main(["price", "AAPL", "1", "2"]) == 2


def test_a_file_is_read_in_the_order_of_time_and_can_be_moved_to_now() -> None:
    first, second, third = feeds.read(CSV.splitlines())
    assert (first.symbol, first.ask, first.bid_size, first.ask_size) == (
        "AAPL",
        Decimal(100),
        Decimal(5),
        None,
    )
    assert (second.symbol, second.bid, second.ask_size) == ("MSFT", None, Decimal(7))
    assert third.at == datetime(2024, 3, 1, 15, 0, 1, tzinfo=UTC)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert [quote.at.isoformat() for quote in feeds.read(CSV.splitlines(), now)] == [
        "2026-01-01T00:00:00+00:00",
        "2026-01-01T00:00:00+00:00",
        "2026-01-01T00:00:01+00:00",
    ]


@pytest.mark.parametrize(
    "row", ["AAPL,yesterday,1,2", "AAPL,2024-01-01,-1,2", "AAPL,2024-01-01,x,2", ",2024-01-01,1,2"]
)
def test_a_line_that_is_no_quote_is_named(row: str) -> None:
    with pytest.raises(feeds.BadQuotes, match="line 2"):
        feeds.read(["symbol,time,bid,ask", row])
