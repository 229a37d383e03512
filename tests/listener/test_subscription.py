"""A subscription hears INSERTs, rings the right bells, tells what happens, and leaves nothing behind."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest
from realtime.message import SuccessSystemPayload

from listener import epoch
from listener.errors import ConfigError, StoreUnavailable
from listener.events import Deaf, Hearing, Swallowed
from listener.jobs import WokenBy
from listener.wakeups import Bell
from tests.doubles.phoenix import Phoenix
from tests.listener.hearing import client_tasks, listening, quick
from tests.waiting import until


async def never(_token: str) -> None:
    """A canary that cannot be sent."""
    raise StoreUnavailable("not now")


@pytest.fixture
async def phoenix() -> AsyncIterator[Phoenix]:
    async with Phoenix() as server:
        yield server


async def test_ready_rings_every_bell(phoenix: Phoenix) -> None:
    async with listening(phoenix) as ears:
        assert await ears.all_woken() == {WokenBy.JOINED}
        assert ears.subscription.ready
        assert ears.subscription.deaf_for == timedelta()
        assert ears.subscription.epochs == 1
        [hearing] = ears.events
        assert isinstance(hearing, Hearing)
        assert hearing.deaf_for > timedelta()
        await phoenix.until(lambda: phoenix.member.heartbeats == 1)


async def test_an_insert_rings_the_bell_of_its_queue_alone(phoenix: Phoenix) -> None:
    async with listening(phoenix) as ears:
        await ears.all_woken()
        await phoenix.insert("jobs_payment")
        assert await ears.woken("payment") is WokenBy.REALTIME
        # Frames are heard in their order: had the first one rung the other bell, it would have rung by now.
        await phoenix.insert("jobs_payment")
        assert await ears.woken("payment") is WokenBy.REALTIME
        assert await ears.bells["broker"].wait(0) is None


async def test_no_payload_is_asked_for(phoenix: Phoenix) -> None:
    async with listening(phoenix) as ears:
        await ears.hearing()
        jobs = [binding for binding in phoenix.member.bindings if binding.table != "realtime_canary"]
        assert {(binding.table, *(binding.select or ())) for binding in jobs} == {
            ("jobs_payment", "id"),
            ("jobs_broker", "id"),
        }


async def test_not_ready_before_the_server_says_that_it_streams(phoenix: Phoenix) -> None:
    phoenix.cold = True
    async with listening(phoenix) as ears:
        await phoenix.until(lambda: phoenix.joins == 1)
        assert not ears.subscription.ready
        assert ears.subscription.deaf_for > timedelta()
        await phoenix.member.subscribed()
        assert await ears.all_woken() == {WokenBy.JOINED}
        assert ears.subscription.epochs == 1


async def test_a_word_about_something_else_is_not_ready(phoenix: Phoenix) -> None:
    phoenix.cold = True
    async with listening(phoenix, timings=quick(ready=0.1)) as ears:
        await phoenix.until(lambda: phoenix.joins == 1)
        await phoenix.member.say("ok", "Replication is fine", extension="system")
        assert (await ears.deaf()).reason == "not ready within 0.1 s"
        assert not ears.told(Hearing)


async def test_what_comes_after_the_ending_does_not_count() -> None:
    heard: list[str] = []
    ended = epoch.Epoch(
        url="ws://127.0.0.1:1",
        key="key",
        inserted={},
        subscribed=lambda: heard.append("subscribed"),
        proven=lambda: heard.append("proven"),
        token="one",
        deadline=10,
    )
    assert ended._client.timeout > 10  # Or the client would join a second time while we still wait.
    ended.end(epoch.Ending("first"))
    ended.end(epoch.Ending("second"))
    word = {"channel": "pulse", "extension": "postgres_changes", "message": "Subscribed", "status": "ok"}
    ended._system_said(SuccessSystemPayload.model_validate(word))
    assert await ended.over(0) == epoch.Ending("first")
    assert not heard
    ended._heard(lambda: heard.append("insert"))
    assert heard == ["insert"]
    assert ended.heard_at is None
    await ended.close(1)


async def test_what_comes_in_while_it_is_closed_does_not_count() -> None:
    proofs: list[str] = []
    closing = epoch.Epoch(
        url="ws://127.0.0.1:1",
        key="key",
        inserted={},
        subscribed=lambda: proofs.append("subscribed"),
        proven=lambda: proofs.append("proven"),
        token="one",
        deadline=10,
    )
    await closing.close(1)
    closing._heard(lambda: None)
    assert (proofs, closing.heard_at) == ([], None)


async def test_a_second_ready_means_a_gap_and_rings_every_bell_again(phoenix: Phoenix) -> None:
    async with listening(phoenix) as ears:
        await ears.all_woken()
        await phoenix.member.subscribed()
        assert await ears.all_woken() == {WokenBy.JOINED}
        assert [type(event) for event in ears.events] == [Hearing, Hearing]
        assert ears.subscription.gaps == 1
        assert ears.subscription.epochs == 1


async def test_deaf_is_what_lies_between_the_last_proof_and_the_next_ready(phoenix: Phoenix) -> None:
    async with listening(phoenix, canary=never, timings=quick(again=0.05)) as ears:
        await ears.all_woken()
        await phoenix.insert("jobs_payment")
        await ears.woken("payment")
        proven = time.monotonic()
        await until("a while has passed", lambda: time.monotonic() - proven > 0.1)
        phoenix.reset()
        await ears.deaf()
        assert ears.subscription.deaf_for.total_seconds() > 0.1  # and not only since the ending
        await ears.hearing(2)
        first, gap = ears.told(Hearing)
        assert 0.1 < gap.deaf_for.total_seconds() <= time.monotonic() - proven + 0.05
        assert ears.subscription.gaps == 1
        assert ears.subscription.deaf_in_all == first.deaf_for + gap.deaf_for


async def test_a_promise_that_proves_false_does_not_end_the_deafness(phoenix: Phoenix) -> None:
    async with listening(phoenix, timings=quick(canary=0.02, canary_back=0.05)) as ears:
        await ears.hearing()
        phoenix.deaf = True
        began = time.monotonic()
        await ears.deaf(3)
        assert not ears.subscription.ready
        assert ears.subscription.deaf_for.total_seconds() > 0.15  # three canaries were waited for in vain
        phoenix.deaf = False
        ended = time.monotonic()
        await ears.hearing(2)
        _, gap = ears.told(Hearing)
        assert (
            gap.deaf_for.total_seconds() >= ended - began - 0.05
        )  # the last proof was before that, or under way
        assert ears.subscription.gaps == 1


async def test_what_proves_the_hearing_may_be_a_job(phoenix: Phoenix) -> None:
    async def later(_token: str) -> None:
        await asyncio.Event().wait()

    async with listening(phoenix, canary=later) as ears:
        await phoenix.until(lambda: phoenix.joins == 1 and phoenix.member.streaming)
        assert not ears.subscription.ready
        await phoenix.insert("jobs_payment")
        assert await ears.all_woken() == {WokenBy.JOINED}
        assert ears.subscription.ready


async def test_two_processes_hear_the_same_inserts_and_each_its_own_canary(phoenix: Phoenix) -> None:
    async with listening(phoenix, worker_id="host,a.1") as one:
        await one.all_woken()
        async with listening(phoenix, worker_id="two") as two:
            await two.all_woken()
            assert await phoenix.insert("jobs_broker") == 2
            assert await one.woken("broker") is await two.woken("broker") is WokenBy.REALTIME
            assert await phoenix.insert("realtime_canary", {"token": "two"}) == 1
            assert await phoenix.insert("realtime_canary", {"token": "host-a-1"}) == 1


async def test_canaries_that_come_back_change_nothing(phoenix: Phoenix) -> None:
    sent: list[str] = []
    fifth = asyncio.Event()

    async def canary(token: str) -> None:
        sent.append(token)
        await phoenix.insert("realtime_canary", {"token": token})
        if len(sent) == 5:
            fifth.set()

    async with listening(phoenix, canary=canary, timings=quick(canary=0.01)) as ears:
        async with asyncio.timeout(10):
            await fifth.wait()
        assert set(sent) == {"worker-1"}
        assert ears.subscription.epochs == 1
        assert len(ears.events) == 1


@pytest.mark.parametrize("error", [StoreUnavailable, TimeoutError, ValueError])
async def test_a_canary_that_cannot_be_sent_proves_nothing(phoenix: Phoenix, error: type[Exception]) -> None:
    tries = 0
    third = asyncio.Event()

    async def canary(_token: str) -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            third.set()
        raise error("not now")

    async with listening(phoenix, canary=canary, timings=quick(canary=0.01, canary_back=0)) as ears:
        async with asyncio.timeout(10):
            await third.wait()
        assert ears.subscription.ready
        assert not ears.told(Deaf)
        assert all(isinstance(event, Hearing | Swallowed) for event in ears.events)
        assert any(isinstance(event, Swallowed) for event in ears.events) == (error is ValueError)


async def test_a_canary_call_that_hangs_is_given_up_and_tried_again(phoenix: Phoenix) -> None:
    tries = 0
    third = asyncio.Event()

    async def canary(_token: str) -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            third.set()
        await asyncio.Event().wait()

    async with listening(phoenix, canary=canary, timings=quick(canary=0.01, canary_back=0.01)) as ears:
        async with asyncio.timeout(10):
            await third.wait()
        assert ears.subscription.ready


async def test_an_old_epoch_is_replaced_without_a_wait(phoenix: Phoenix) -> None:
    async with listening(phoenix, timings=quick(recycle=0.05)) as ears:
        ending = await ears.deaf()
        assert ending == Deaf("recycled, as planned", timedelta())
        await ears.hearing(2)
        assert await ears.all_woken() == {WokenBy.JOINED}


@pytest.mark.parametrize("state", ["connecting", "joining", "cold", "hearing", "frozen", "waiting"])
async def test_cancelling_leaves_nothing_whatever_the_state(phoenix: Phoenix, state: str) -> None:
    before = len(asyncio.all_tasks())
    taken, gone = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.set()
        with suppress(ConnectionError):
            await reader.read()
        gone.set()
        writer.close()

    phoenix.mute_joins, phoenix.cold = state == "joining", state == "cold"
    phoenix.refuse = 401 if state == "waiting" else None
    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    mute = Phoenix(url=f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}")
    async with silent:
        server = mute if state == "connecting" else phoenix
        async with listening(server, timings=quick(patience=600)) as ears:
            match state:
                case "connecting":
                    await taken.wait()
                case "joining" | "cold":
                    await phoenix.until(lambda: phoenix.joins == 1)
                case "waiting":
                    await ears.deaf()
                case _:
                    await ears.hearing()
                    if state == "frozen":
                        phoenix.freeze()
        if state == "connecting":
            await gone.wait()
    phoenix.reset()
    await phoenix.until(lambda: not phoenix.members)
    assert not client_tasks()
    assert len(asyncio.all_tasks()) <= before + 3  # The server's own, one for each connection it has seen.


async def test_a_bell_that_breaks_ends_the_epoch_and_not_the_process(phoenix: Phoenix) -> None:
    class Broken(Bell):
        def ring(self, woken_by: WokenBy) -> None:
            if woken_by is WokenBy.REALTIME:
                raise RuntimeError("broken")
            super().ring(woken_by)

    async with listening(phoenix, bells={"payment": Broken(), "broker": Bell()}) as ears:
        await ears.hearing()
        await phoenix.insert("jobs_payment")
        assert (await ears.deaf()).reason == "a callback failed with RuntimeError"
        await ears.hearing(2)


def test_another_client_version_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    epoch.require_supported_client()
    monkeypatch.setattr(epoch, "installed", "2.33.0")
    with pytest.raises(ConfigError, match=r"realtime 2\.33\.0 is installed; needed is realtime>=2\.34,<3"):
        epoch.require_supported_client()


def test_a_client_without_the_inner_names_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch, "_TASKS_OF_CLIENT", ("_listen_task", "_gone_task"))
    with pytest.raises(ConfigError, match=r"lacks _gone_task; needed is realtime>=2\.34,<3"):
        epoch.require_supported_client()
