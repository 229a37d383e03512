"""The faults that fool the official Python client (realtime 2.34) fool it here too: D2 to D13 of docs/faults.md.

What deafens it, and what that does to our own listening, is tried once more in tests/faults/deafness.py.
"""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from realtime import AsyncRealtimeClient, RealtimePostgresChangesListenEvent, RealtimeSubscribeStates
from websockets.exceptions import InvalidStatus

from devstack.keys import LOCAL
from devstack.postgres import Postgres
from tests.contract.realtime_bench import Bench, serving
from tests.waiting import until

# The client reads an attribute that its own websockets library no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")

SUBSCRIBED, CLOSED = RealtimeSubscribeStates.SUBSCRIBED, RealtimeSubscribeStates.CLOSED
ERROR, TIMED_OUT = RealtimeSubscribeStates.CHANNEL_ERROR, RealtimeSubscribeStates.TIMED_OUT
INSERT = "insert into payment_jobs (job_type) values ('x')"


class Listener:
    """One client with one channel on INSERTs of a table; what it was told, in order."""

    def __init__(self, bench: Bench, table: str, **options: Any) -> None:
        self.states: list[RealtimeSubscribeStates] = []
        self.events: list[dict[str, Any]] = []
        self.told: list[str] = []
        options = {"auto_reconnect": False, "max_retries": 1, "initial_backoff": 0.01, **options}
        self.client = AsyncRealtimeClient(f"{bench.gateway.url}/realtime/v1", LOCAL.service_role, **options)
        self.channel = self.client.channel("jobs")
        self.channel.on_postgres_changes(
            RealtimePostgresChangesListenEvent.Insert,
            lambda event: self.events.append(dict(event)),
            table=table,
        )
        self.channel.on_system(lambda message: self.told.append(str(message)))

    async def subscribe(self) -> None:
        await self.channel.subscribe(lambda state, _: self.states.append(state))

    async def ready(self) -> None:
        await self.subscribe()
        await until("it is subscribed", lambda: "Subscribed to PostgreSQL" in str(self.told))

    async def knows(self, *states: RealtimeSubscribeStates) -> None:
        await until(f"it is told {states}", lambda: tuple(self.states) == states)


@pytest.fixture
async def bench(cluster: Postgres) -> AsyncIterator[Bench]:
    async with serving(cluster) as bench:
        await bench.delivered()
        yield bench


@pytest.fixture
async def jobs(bench: Bench) -> AsyncIterator[Listener]:
    listener = Listener(bench, "payment_jobs")
    yield listener
    await listener.client.close()


async def test_it_gives_up_for_good_when_an_outage_outlasts_its_tries(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="realtime")
    unretrieved: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unretrieved.append(context))
    listener = Listener(bench, "payment_jobs", auto_reconnect=True, max_retries=2)
    await listener.ready()
    await bench.kill_gateway()
    await until("it gives up", lambda: "Connection failed permanently" in caplog.text)
    await bench.start_gateway()
    assert not listener.client.is_connected
    assert set(listener.states) == {SUBSCRIBED, ERROR}
    await listener.client.close()


async def test_expired_token_closes_its_channel(bench: Bench, jobs: Listener) -> None:
    await jobs.ready()
    bench.gateway.realtime.acts.expire_tokens()
    await jobs.knows(SUBSCRIBED, ERROR, CLOSED)
    assert jobs.client.is_connected
    assert not jobs.client.channels


async def test_transient_error_makes_it_join_twice_and_close(bench: Bench, jobs: Listener) -> None:
    await jobs.ready()
    bench.gateway.realtime.acts.system_error()
    await jobs.knows(SUBSCRIBED, ERROR, SUBSCRIBED, CLOSED)
    assert bench.gateway.realtime.joined == 2  # the witness's and one that nobody listens to


async def test_slow_join_times_out(bench: Bench) -> None:
    bench.gateway.faults.realtime.slow_join_seconds = 0.3
    listener = Listener(bench, "payment_jobs", timeout=0.1)
    subscribing = asyncio.ensure_future(listener.subscribe())
    await until("it is told so", lambda: listener.states[:1] == [TIMED_OUT])
    await subscribing
    await listener.client.close()


async def test_error_events_are_dropped(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="realtime")
    listener = Listener(bench, "nopk")
    await listener.ready()
    await bench.sql("insert into nopk values ('x', 1)")
    await until("it has complained", lambda: "commit_timestamp" in caplog.text)
    assert not listener.events
    await listener.client.close()


async def test_operators_message_is_dropped(
    bench: Bench, jobs: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="realtime")
    await jobs.ready()
    await bench.gateway.realtime.acts.disconnect()
    await until("it has complained", lambda: "channel" in caplog.text)
    await jobs.knows(SUBSCRIBED, ERROR)


async def test_frame_above_a_megabyte_ends_its_socket_and_is_lost(bench: Bench) -> None:
    listener = Listener(bench, "big_rows")
    await listener.ready()
    await bench.sql("insert into big_rows values (1, 'n', repeat('x', 1048500))")
    await listener.knows(SUBSCRIBED, ERROR)
    assert not listener.events
    await listener.client.close()


async def test_dead_feed_and_half_open_socket_are_never_told(bench: Bench, jobs: Listener) -> None:
    await jobs.ready()
    bench.gateway.faults.realtime.deaf = True
    await bench.sql(INSERT)
    bench.gateway.realtime.acts.mute_sockets()
    bench.gateway.faults.realtime.deaf = False
    await bench.sql(INSERT)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await until("it hears", lambda: bool(jobs.events))
    assert jobs.client.is_connected
    assert jobs.states == [SUBSCRIBED]
    bench.gateway.realtime.acts.drop_sockets()  # or its farewell would wait for an answer


@pytest.mark.parametrize("status", [401, 403, 429, 500])
async def test_refused_handshake_is_raised(bench: Bench, status: int) -> None:
    bench.gateway.realtime.timing.refuse_handshake_seconds = 0
    bench.gateway.faults.realtime.refuse_handshakes = [status]  # type: ignore[list-item] # one of those that it takes
    listener = Listener(bench, "payment_jobs")
    with pytest.raises(InvalidStatus) as refused:
        await listener.client.connect()
    assert refused.value.response.status_code == status
    await listener.client.close()


async def test_async_callback_is_never_awaited(bench: Bench) -> None:
    async def hear(_event: object) -> None:
        raise AssertionError("it is never run")

    listener = Listener(bench, "payment_jobs")
    insert = RealtimePostgresChangesListenEvent.Insert
    listener.channel.on_postgres_changes(insert, hear, table="payment_jobs")  # type: ignore[arg-type] # that is the mistake
    await listener.ready()
    with pytest.warns(RuntimeWarning, match="was never awaited"):
        await heard_and_collected(bench, listener)
    await listener.client.close()


async def heard_and_collected(bench: Bench, listener: Listener) -> None:
    await bench.sql(INSERT)
    await until("it hears", lambda: bool(listener.events))
    gc.collect()


async def test_large_row_arrives_without_its_large_values(bench: Bench) -> None:
    bench.gateway.faults.realtime.largest_record_bytes = 100
    listener = Listener(bench, "big_rows")
    await listener.ready()
    await bench.sql("insert into big_rows values (1, 'n', repeat('x', 200))")
    await until("it hears", lambda: bool(listener.events))
    assert listener.events[0]["data"]["record"] == {"id": 1, "note": "n"}
    await listener.client.close()


async def test_numbers_arrive_as_floats(bench: Bench) -> None:
    listener = Listener(bench, "all_types")
    await listener.ready()
    await bench.sql("insert into all_types (c_numeric) values (12345678901.12345678)")
    await until("it hears", lambda: bool(listener.events))
    assert listener.events[0]["data"]["record"]["c_numeric"] == 12345678901.123457
    await listener.client.close()
