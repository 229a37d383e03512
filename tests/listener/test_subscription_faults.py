"""Whatever happens to Realtime, the subscription notices within its bounds, comes back by itself, and does not grow."""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta

import pytest
from realtime import AsyncRealtimeClient
from realtime.types import RealtimePostgresChangesListenEvent, RealtimeSubscribeStates

from listener.epoch import Epoch, Pace, ending_of_handshake, ending_of_state
from listener.events import Deaf, Hearing
from listener.jobs import WokenBy
from tests.doubles.phoenix import Phoenix, change
from tests.listener.hearing import client_tasks, listening, quick

# The client logs with a deprecated attribute of a closed connection; as an error, that would kill its listening task.
pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")

Fault = Callable[[Phoenix], Awaitable[object]]


@pytest.fixture
async def phoenix() -> AsyncIterator[Phoenix]:
    async with Phoenix() as server:
        yield server


async def transient_error(phoenix: Phoenix) -> None:
    await phoenix.member.say("error", '{:error, "Too many database timeouts"}')


async def not_published(phoenix: Phoenix) -> None:
    await phoenix.member.say(
        "error",
        "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given "
        "connect parameters: [event: INSERT, schema: public, table: jobs_broker, filters: [], select: nil]",
    )


async def bad_filter(phoenix: Phoenix) -> None:
    await phoenix.member.say(
        "error",
        "Unable to subscribe to changes with given parameters. An exception happened so please check your connect "
        "parameters: [event: INSERT, schema: public, table: realtime_canary, filters: [], select: nil]. "
        "Exception: ERROR P0001 (raise_exception) invalid column for filter token",
    )


async def channel_closes(phoenix: Phoenix) -> None:
    await phoenix.member.leave("phx_close")


async def channel_crashes(phoenix: Phoenix) -> None:
    await phoenix.member.leave("phx_error")


async def token_expires(phoenix: Phoenix) -> None:
    await phoenix.member.say("error", "Token has expired 0 seconds ago", extension="system")
    await phoenix.member.leave("phx_close")


async def closes_cleanly(phoenix: Phoenix) -> None:
    await phoenix.member.socket.close(code=1000)


async def restarts(phoenix: Phoenix) -> None:
    text = {"extension": "system", "status": "ok", "message": "Server requested disconnect"}
    await phoenix.member.send("system", text)
    await phoenix.member.socket.close(code=1012)


async def resets(phoenix: Phoenix) -> None:
    phoenix.reset()


async def loses_the_client_task(_phoenix: Phoenix) -> None:
    """What an unforeseen exception inside the client comes to."""
    [listening_task] = [task for task in asyncio.all_tasks() if "_listen" in str(task.get_coro())]
    listening_task.cancel()


async def sends_too_large_a_frame(phoenix: Phoenix) -> None:
    await phoenix.member.send("broadcast", {"event": "x", "payload": {"text": "x" * 2**20}})


FAULTS: Mapping[str, tuple[Fault, str]] = {
    "system error": (transient_error, 'the server said: {:error, "Too many database timeouts"}'),
    "not in the publication": (
        not_published,
        "jobs_broker cannot be listened to: alter publication supabase_realtime add table public.jobs_broker",
    ),
    "bad filter": (
        bad_filter,
        "realtime_canary cannot be listened to: ERROR P0001 (raise_exception) invalid",
    ),
    "phx_close": (channel_closes, "the server closed the channel"),
    "phx_error": (channel_crashes, "the channel crashed on the server"),
    "expired token": (token_expires, "the server said: Token has expired 0 seconds ago"),
    "close 1000": (closes_cleanly, "the connection broke: received 1000 (OK); then sent 1000 (OK)"),
    "close 1012": (restarts, "the connection broke: received 1012 (service restart)"),
    "reset": (resets, "the connection broke: no close frame received or sent"),
    "dead task": (loses_the_client_task, "the client's listen task died (cancelled)"),
    "frame over 1 MiB": (sends_too_large_a_frame, "the connection broke: sent 1009"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_it_comes_back_after(phoenix: Phoenix, name: str) -> None:
    fault, reason = FAULTS[name]
    async with listening(phoenix) as ears:
        assert await ears.all_woken() == {WokenBy.JOINED}
        tasks = client_tasks()
        for times in (1, 2):
            await fault(phoenix)
            assert (await ears.deaf(times)).reason.startswith(reason)
            await ears.hearing(times + 1)
            assert await ears.all_woken() == {WokenBy.JOINED}
            await phoenix.insert("jobs_payment")
            assert await ears.woken("payment") is WokenBy.REALTIME
        assert client_tasks() == tasks
        assert ears.subscription.epochs == phoenix.joins == 3
        await phoenix.until(lambda: len(phoenix.members) == 1)


async def test_it_comes_back_after_an_outage_of_any_length(phoenix: Phoenix) -> None:
    before = epochs_in_memory()
    began = time.monotonic()
    async with listening(phoenix, timings=quick(again_cap=0.02)) as ears:
        await ears.all_woken()
        await phoenix.go_away()
        ending = await ears.deaf(8)  # More often than the client alone would have tried.
        assert ending.reason.startswith("cannot connect: ")
        assert ears.subscription.deaf_for > timedelta()
        await phoenix.listen()
        await ears.hearing(2)
        assert await ears.all_woken() == {WokenBy.JOINED}
        deaf_for = ears.told(Hearing)[1].deaf_for
        assert timedelta(seconds=0.02) < deaf_for <= timedelta(seconds=time.monotonic() - began)
        # Neither do the spent clients pile up, kept alive by a timer or a callback.
        assert epochs_in_memory() == before + 1


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (401, "Token has expired", "the key is refused (HTTP 401: Token has expired)"),
        (403, "", "the key is refused (HTTP 403)"),
        (404, "Tenant not found", "the server refused the connection (HTTP 404: Tenant not found)"),
        (429, "Too many joins per second", "the server refused the connection (HTTP 429: Too many joins"),
        (500, "Error connecting to Realtime", "the server refused the connection (HTTP 500: Error conn"),
    ],
)
async def test_it_keeps_trying_when_refused(phoenix: Phoenix, status: int, text: str, reason: str) -> None:
    phoenix.refuse, phoenix.refusal = status, text
    async with listening(phoenix) as ears:
        ending = await ears.deaf()
        assert ending.reason.startswith(reason)
        assert (ending.retry_in >= timedelta(seconds=0.1)) == (status in (401, 403, 429))
        await ears.deaf(2)
        phoenix.refuse = None
        await ears.hearing()
        assert await ears.all_woken() == {WokenBy.JOINED}


@pytest.mark.parametrize("part", ["mute_joins", "cold"])
async def test_a_join_that_does_not_get_ready_in_time_is_begun_anew(phoenix: Phoenix, part: str) -> None:
    setattr(phoenix, part, True)
    async with listening(phoenix, timings=quick(ready=0.05)) as ears:
        assert (await ears.deaf()).reason == "not ready within 0.05 s"
        # A server that starts up gets more time from the second try on.
        assert (await ears.deaf(2)).reason == "not ready within 0.1 s"
        setattr(phoenix, part, False)
        await ears.hearing()


@pytest.mark.parametrize(
    ("said", "reason", "patient"),
    [
        ("JwtSignatureError: Failed to validate JWT signature", "the key is refused (JwtSignature", True),
        ("ClientJoinRateLimitReached: Too many joins per second", "the server said: ClientJoinRate", True),
        ("UnableToConnectToProject: Realtime was unable to connect", "the server said: UnableToConn", False),
    ],
)
async def test_a_refused_join_is_tried_again(phoenix: Phoenix, said: str, reason: str, patient: bool) -> None:
    phoenix.join_answer = said
    async with listening(phoenix) as ears:
        ending = await ears.deaf()
        assert ending.reason.startswith(reason)
        assert (ending.retry_in >= timedelta(seconds=0.1)) == patient
        phoenix.join_answer = None
        await ears.hearing()


async def test_waits_grow_while_epochs_die_young(phoenix: Phoenix) -> None:
    async with listening(phoenix, timings=quick(again=0.005)) as ears:
        for times in range(1, 6):
            await ears.hearing(times)
            await transient_error(phoenix)
        await ears.deaf(5)
        waits = [ending.retry_in.total_seconds() for ending in ears.told(Deaf)]
        assert waits[0] <= 0.0075
        assert waits[4] >= 0.04


async def test_silence_is_noticed_by_the_canary(phoenix: Phoenix) -> None:
    sent, second = 0, asyncio.Event()

    async def canary(token: str) -> None:
        nonlocal sent
        await phoenix.canary(token)
        if (sent := sent + 1) == 2:
            second.set()

    async with listening(phoenix, canary=canary, timings=quick(canary=0.05, canary_back=0.2)) as ears:
        assert await ears.all_woken() == {WokenBy.JOINED}
        await second.wait()  # So the first came back.
        phoenix.lose_subscriptions()
        started = time.monotonic()
        ending = await ears.deaf()
        assert ending.reason == "canary not heard: the server streams nothing though all looks well"
        await ears.hearing(2)
        # The bound is 0.06 + 0.2 + 0.015 s; the rest is for a busy machine.
        assert time.monotonic() - started < 5
        assert await ears.all_woken() == {WokenBy.JOINED}
        await phoenix.insert("jobs_payment")
        assert await ears.woken("payment") is WokenBy.REALTIME


async def test_a_server_that_only_says_that_it_streams_is_not_believed(phoenix: Phoenix) -> None:
    phoenix.deaf = True
    async with listening(phoenix, timings=quick(canary_back=0.02)) as ears:
        assert "canary not heard" in (await ears.deaf()).reason
        await ears.deaf(3)
        assert not ears.told(Hearing)
        phoenix.deaf = False
        await ears.hearing()


async def test_the_client_alone_would_stay_deaf_and_not_know_it(phoenix: Phoenix) -> None:
    """The control: why there is a canary at all."""
    heard: list[str] = []
    states: list[RealtimeSubscribeStates] = []
    client = AsyncRealtimeClient(f"{phoenix.url.replace('http', 'ws')}/realtime/v1", phoenix.key)
    channel = client.channel("alone")
    insert = RealtimePostgresChangesListenEvent.Insert
    channel.on_postgres_changes(insert, lambda _: heard.append("insert"), "jobs_payment", "public")
    channel.on_broadcast("later", lambda _: heard.append("later"))
    channel.on_system(lambda _: heard.append("ready"))
    await channel.subscribe(lambda state, _: states.append(state))
    await phoenix.until(lambda: phoenix.member.streaming)

    phoenix.lose_subscriptions()
    assert await phoenix.insert("jobs_payment") == 0
    await phoenix.member.send("broadcast", {"event": "later", "payload": {}})
    await channel.push("broadcast", {"type": "broadcast", "event": "echo", "payload": {}})
    await phoenix.until(lambda: len(phoenix.complaints) == 1)
    phoenix.complaints.clear()
    assert heard == ["ready", "later"]
    assert states == [RealtimeSubscribeStates.SUBSCRIBED]
    assert client.is_connected
    assert channel.is_joined
    await client.close()


async def test_a_half_open_connection_is_noticed_and_dropped(phoenix: Phoenix) -> None:
    async with listening(phoenix, timings=quick(canary=0.05, canary_back=0.1)) as ears:
        await ears.all_woken()
        tasks = client_tasks()
        phoenix.freeze()
        assert "canary not heard" in (await ears.deaf()).reason
        await ears.hearing(2)
        assert await ears.all_woken() == {WokenBy.JOINED}
        assert client_tasks() == tasks


async def test_odd_frames_are_survived(phoenix: Phoenix) -> None:
    async with listening(phoenix) as ears:
        await ears.all_woken()
        member = phoenix.member
        ids = [binding.id for binding in member.bindings]
        frames: list[object] = [[], {}, None, 7, "text", [[[]]], {"topic": member.topic}]
        frames += [{"topic": member.topic, "event": "presence_state", "payload": {"a": 1}, "ref": None}]
        frames += [{"topic": "realtime:other", "event": "phx_close", "payload": {}, "ref": "1"}]
        frames += [{"topic": member.topic, "event": "phx_reply", "payload": _ok(), "ref": "999"}]
        for frame in frames:
            await member.raw(json.dumps(frame))
        await member.raw("not JSON")
        await member.socket.send_bytes(b"\x04\xff\x00")
        for error in ("Error 401: Unauthorized", "Error 400: Bad Request, no primary key"):
            await member.send("postgres_changes", change("jobs_payment", {}, ids[:1], error=error))
        await member.send("postgres_changes", change("jobs_of_nobody", {}, [1, 2, 3]))
        # A frame without a channel's name, as a server sends it before it disconnects everybody.
        text = {"extension": "system", "status": "ok", "message": "Server requested disconnect"}
        await member.send("system", text)
        await phoenix.insert("jobs_broker")
        assert await ears.woken("broker") is WokenBy.REALTIME
        assert ears.subscription.epochs == 1


async def test_a_row_too_large_to_be_told_still_rings(phoenix: Phoenix) -> None:
    async with listening(phoenix) as ears:
        await ears.all_woken()
        [payment] = [one for one in phoenix.member.bindings if one.table == "jobs_payment"]
        told = change("jobs_payment", {"id": 1}, [payment.id])
        data = told["data"]
        assert isinstance(data, dict)
        data["errors"] = ["Error 413: Payload Too Large"]
        await phoenix.member.send("postgres_changes", told)
        assert await ears.woken("payment") is WokenBy.REALTIME


async def test_reasons_carry_no_secret_and_no_length(phoenix: Phoenix) -> None:
    async with listening(phoenix) as ears:
        await ears.hearing()
        await phoenix.member.say("error", f"bad\ntoken {phoenix.key} of ann@example.com " + "x" * 1000)
        reason = (await ears.deaf()).reason
        assert reason.startswith("the server said: bad token ‹secret› of ‹redacted› xxx")
        assert len(reason) <= 240


def test_any_state_but_subscribed_and_any_error_has_an_ending() -> None:
    timed_out = RealtimeSubscribeStates.TIMED_OUT
    assert ending_of_state(timed_out, None).reason == "the server did not answer the join"
    errored = RealtimeSubscribeStates.CHANNEL_ERROR
    for text in ("", "[]", "null", '{"message": 7}', '{"reason": null}', "not JSON"):
        assert ending_of_state(errored, Exception(text)).reason == f"the connection broke: {text}"
    assert ending_of_state(errored, None).pace is Pace.SOON
    assert ending_of_handshake(ValueError()).reason == "cannot connect: ValueError"


def epochs_in_memory() -> int:
    gc.collect()
    return sum(isinstance(one, Epoch) for one in gc.get_objects())


def _ok() -> Mapping[str, object]:
    return {"status": "ok", "response": {}}
