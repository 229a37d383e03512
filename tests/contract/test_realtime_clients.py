"""The official clients, unmodified, hear of rows through our server."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from realtime import AsyncRealtimeClient, RealtimePostgresChangesListenEvent, RealtimeSubscribeStates

from devstack.keys import LOCAL, SECRET_KEY
from devstack.postgres import Postgres
from tests.contract.realtime_bench import Bench, serving
from tests.skips import SUPABASE_JS
from tests.waiting import until

LISTEN = Path(__file__).parent / "realtime_js" / "listen.mjs"


@pytest.fixture
async def bench(cluster: Postgres) -> AsyncIterator[Bench]:
    async with serving(cluster) as bench:
        yield bench


@pytest.mark.parametrize("key", [SECRET_KEY, LOCAL.service_role], ids=["secret", "service_role"])
async def test_python_client_joins_hears_and_leaves(bench: Bench, key: str) -> None:
    heard: list[dict[str, Any]] = []
    states: list[RealtimeSubscribeStates] = []
    told: list[str] = []
    client = AsyncRealtimeClient(f"{bench.gateway.url}/realtime/v1", key, auto_reconnect=False)
    channel = client.channel("jobs")
    channel.on_postgres_changes(
        RealtimePostgresChangesListenEvent.Insert,
        lambda event: heard.append(dict(event)),
        table="payment_jobs",
    )
    channel.on_system(lambda message: told.append(str(message)))
    await channel.subscribe(lambda state, _: states.append(state))
    await until(
        "the client was told Subscribed to PostgreSQL", lambda: "Subscribed to PostgreSQL" in str(told)
    )
    await bench.sql("insert into payment_jobs (job_type) select n::text from generate_series(1, 3) as n")
    await until("all three rows were heard", lambda: len(heard) == 3)
    assert [event["data"]["record"]["job_type"] for event in heard] == ["1", "2", "3"]
    await channel.unsubscribe()
    await until("the server let the channel go", lambda: bench.gateway.realtime.joined == 0)
    await client.close()
    assert states[0] is RealtimeSubscribeStates.SUBSCRIBED


async def test_javascript_client_joins_hears_and_leaves(bench: Bench) -> None:
    modules, node = SUPABASE_JS.path(), shutil.which("node")
    assert node is not None, "PULSE_SUPABASE_JS is set, but there is no node on the PATH"
    process = await asyncio.create_subprocess_exec(
        node,
        str(LISTEN),
        bench.gateway.url,
        SECRET_KEY,
        "payment_jobs",
        "2",
        env={"PULSE_SUPABASE_JS": str(modules)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        said: list[dict[str, Any]] = []
        async with asyncio.timeout(30):
            async for line in process.stdout:
                said.append(json.loads(line))
                if said[-1].get("system", {}).get("message") == "Subscribed to PostgreSQL":
                    await bench.sql(
                        """insert into payment_jobs (job_type, payload) values ('js', '{"n": 1.50}'), ('js', '{}')"""
                    )
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert {"status": "SUBSCRIBED", "error": None} in said
    changes = [line["change"] for line in said if "change" in line]
    assert [change["new"]["payload"] for change in changes] == [{"n": 1.5}, {}]
    assert changes[0]["eventType"] == "INSERT"
    assert {"left": "ok"} in said
