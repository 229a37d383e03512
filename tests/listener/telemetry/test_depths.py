"""The database is asked how its queues are, seldom, by one at a time, and nobody waits for it when it is silent."""

import asyncio
from datetime import timedelta

import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener.events import Available, Called, Unavailable
from listener.store import connected
from listener.telemetry import depths as room
from listener.telemetry.depths import Depths
from tests.listener.working import Connection, Told
from tests.waiting import until

NEVER = timedelta(days=1)


async def test_many_who_ask_at_once_are_one_call(gateway: Gateway, owner: Connection) -> None:
    told = Told()
    await owner.execute("insert into payment_jobs (type) values ('a'), ('b')")
    async with connected(gateway.url, LOCAL.service_role, "test", emit=told) as store:
        depths = Depths(store, told, NEVER)
        answers = await asyncio.gather(*(depths.known() for _ in range(50)))
    assert {answer["payment"].due for answer in answers} == {2}
    assert [event.call for event in told.of(Called)] == ["queue_ages"]
    assert [event.answer for event in told.of(Called)] == ["ok"]


async def test_it_is_asked_again_after_a_while(gateway: Gateway, owner: Connection) -> None:
    async with connected(gateway.url, LOCAL.service_role, "test") as store:
        depths = Depths(store, Told(), timedelta())
        assert (await depths.known())["payment"].due == 0
        await owner.execute("insert into payment_jobs (type) values ('a')")
        assert (await depths.known())["payment"].due == 1


async def test_the_key_of_a_worker_is_enough(gateway: Gateway) -> None:
    key = LOCAL.mint("pulse_worker")
    async with connected(gateway.url, key, "test", apikey=LOCAL.publishable) as store:
        assert (await Depths(store, Told()).known())["broker"].running == 0


async def test_an_outage_is_told_and_its_end(
    gateway: Gateway, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    async with connected(gateway.url, LOCAL.service_role, "test") as store:
        depths = Depths(store, told, timedelta())
        await owner.execute("alter function queue_ages(integer) rename to queue_ages_elsewhere")
        await owner.execute("notify pgrst, 'reload schema'")

        async def is_known() -> bool:
            return bool(await depths.known())

        async def is_unknown() -> bool:
            return not await depths.known()

        await until("nothing is known", is_unknown)
        (away, *_) = told.of(Unavailable)
        assert "pulse migrate" in away.reason
        await owner.execute("alter function queue_ages_elsewhere(integer) rename to queue_ages")
        await owner.execute("notify pgrst, 'reload schema'")
        await until("it is known again", is_known)
        assert len(told.of(Available)) == 1
        monkeypatch.setattr(room, "_PATIENCE_SECONDS", 0.01)
        await owner.execute("begin; lock table jobs in access exclusive mode")
        assert await depths.known() == {}, "it waits for nobody"
        await owner.execute("rollback")
    assert told.of(Unavailable)[-1].reason == "no answer within 0.01 s"
