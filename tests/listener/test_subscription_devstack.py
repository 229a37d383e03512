"""A subscription against the development stack: real rows, the real publication, the store's own canary."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

import asyncpg
import pytest

from devstack.gateway import Gateway
from listener.config import Timings
from listener.events import Deaf, Unannounced
from listener.jobs import NewJob, WokenBy
from listener.store import Store, connected
from tests.listener.hearing import PATIENCE, Ears, listening, quick

pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(eq=False)
class Stack:
    """The gateway with one key, as a worker knows it."""

    url: str
    key: str
    store: Store
    by_broadcast: bool = False
    canaries: int = 0
    third: asyncio.Event = field(default_factory=asyncio.Event)

    async def canary(self, token: str) -> str | None:
        said = await self.store.canary(token)
        self.canaries += 1
        if self.canaries == 3:
            self.third.set()
        return said


@pytest.fixture(params=["secret", "service_role", "broadcast"])
async def stack(gateway: Gateway, owner: Owner, request: pytest.FixtureRequest) -> AsyncIterator[Stack]:
    by_broadcast = request.param == "broadcast"
    if by_broadcast:
        await owner.execute("select announce_by_broadcast()")
    key = gateway.keys.secret if by_broadcast else str(getattr(gateway.keys, request.param))
    async with connected(gateway.url, key, "test") as store:
        yield Stack(gateway.url, key, store, by_broadcast)


def hears(stack: Stack, timings: Timings | None = None) -> AbstractAsyncContextManager[Ears]:
    return listening(stack, timings=timings, by_broadcast=stack.by_broadcast)


async def test_it_hears_the_rows_of_its_queues_and_its_canaries(stack: Stack, owner: Owner) -> None:
    async with hears(stack, quick(canary=0.05)) as ears:
        assert await ears.all_woken() == {WokenBy.JOINED}
        await stack.store.enqueue([NewJob("payment", "anything", {"secret": "x"})])
        assert await ears.woken("payment") is WokenBy.REALTIME
        await owner.execute("insert into jobs (queue, type) values ('alerts', 'one'), ('broker', 'other')")
        # The server looks at once only after what was written through it; these rows were not.
        await stack.store.enqueue([NewJob("alerts", "anything")])
        assert await ears.woken("broker") is WokenBy.REALTIME
        async with asyncio.timeout(PATIENCE):
            await stack.third.wait()
        assert ears.subscription.epochs == 1
        assert not ears.told(Deaf)


async def test_silent_deafness_is_noticed_and_healed(stack: Stack, gateway: Gateway) -> None:
    async with hears(stack, quick(canary=0.05, canary_back=1)) as ears:
        await ears.all_woken()
        gateway.faults.realtime.deaf = True
        await stack.store.enqueue([NewJob("payment", "unheard")])
        assert "canary not heard" in (await ears.deaf()).reason
        gateway.faults.realtime.deaf = False
        await ears.hearing(2)
        assert await ears.all_woken() == {WokenBy.JOINED}


async def test_realtime_switched_off_and_on(stack: Stack, gateway: Gateway) -> None:
    async with hears(stack, quick(again_cap=0.05)) as ears:
        await ears.all_woken()
        gateway.faults.realtime.off = True
        await ears.deaf(4)
        assert ears.subscription.deaf_for > timedelta()
        gateway.faults.realtime.off = False
        await ears.hearing(2)
        assert await ears.all_woken() == {WokenBy.JOINED}


async def test_a_table_outside_the_publication_is_named_with_its_mend(stack: Stack, owner: Owner) -> None:
    if stack.by_broadcast:
        return  # needs no publication of ours
    await owner.execute("alter publication supabase_realtime drop table jobs_broker")
    async with listening(stack) as ears:
        mend = "alter publication supabase_realtime add table public.jobs_broker"
        assert (await ears.deaf()).reason == f"jobs_broker cannot be listened to: {mend}"
        await owner.execute(mend)
        await ears.hearing()
        await stack.store.enqueue([NewJob("broker", "anything")])
        await ears.all_woken()


async def test_a_project_that_announces_nothing_is_told_what_to_do_at_once(
    gateway: Gateway, owner: Owner
) -> None:
    async with connected(gateway.url, gateway.keys.secret, "test") as store:
        mute = Stack(gateway.url, gateway.keys.secret, store, by_broadcast=True)
        async with hears(mute, quick(canary=0.05, canary_back=0.3)) as ears:
            await ears.until(lambda: bool(ears.events))
            assert isinstance(told := ears.events[0], Unannounced)
            tables = "jobs, jobs_alerts, jobs_broker, jobs_maintenance, jobs_payment, realtime_canary"
            mend = "select announce_by_broadcast();"
            assert told.problem == f"inserts into {tables} are not announced. Run: {mend}"
            assert mend in (await ears.deaf(2)).reason
            assert len([one for one in ears.events if isinstance(one, Unannounced)]) == 1
            await owner.execute(mend)
            await ears.hearing()


async def test_a_key_without_rights_is_told_so(gateway: Gateway) -> None:
    async with connected(gateway.url, gateway.keys.secret, "test") as store:
        anon = Stack(gateway.url, gateway.keys.anon, store, by_broadcast=True)
        async with hears(anon) as ears:
            assert (await ears.deaf()).reason.endswith(
                "only a service key may hear broadcasts (PULSE_LISTEN)"
            )


async def test_another_key_is_refused(gateway: Gateway) -> None:
    async with connected(gateway.url, gateway.keys.service_role, "test") as store:
        stranger = Stack(gateway.url, "a.wrong.key", store)
        async with listening(stranger) as ears:
            assert (await ears.deaf()).reason.startswith("the key is refused (HTTP 40")
