"""Push through the real Firebase library, against a double of Google's tokens and of Firebase's API."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from blockbuster import blockbuster_ctx
from firebase_admin._retry import HttpxRetry

from devstack.alerts.firebase import DROPPED, DROPPED_AFTERWARDS, Device, FirebaseDouble, State, another_key
from handlers import resources
from handlers.clients.alerts import push as push_file
from handlers.clients.alerts.delivery import Alert
from handlers.clients.alerts.outage import MISSES
from handlers.clients.alerts.push import BELIEVED, DOUBTED, Push
from handlers.clients.alerts.push_key import service_account
from handlers.clients.alerts.push_message import SHORTENED, push_message
from handlers.clients.alerts.told import Hold, Later, NotSent, Refused, Sent, Told, Unknown
from listener import ConfigError
from listener.resources import opened, resources_in
from tests.waiting import until


def an_alert(title: str = "Filled", message: str = "10 AAPL", **metadata: object) -> Alert:
    return Alert(
        id=uuid4(),
        user_id=uuid4(),
        alert_type="order_filled",
        severity="warning",
        title=title,
        message=message,
        metadata=metadata,
        created_at=datetime.now(UTC),
    )


@asynccontextmanager
async def pushing(double: FirebaseDouble, **settings: str) -> AsyncIterator[Push]:
    """As the worker's resource gives it."""
    given = {"FIREBASE_KEY": json.dumps(double.key), "FIREBASE_API_BASE": double.url, **settings}
    async with opened([resources_in(resources)[Push]], given) as found:
        got = found[Push]
        assert isinstance(got, Push)
        yield got


async def to(client: Push, device: Device, alert: Alert | None = None, delivery: UUID | None = None) -> Told:
    return await client.send(
        push_message(alert or an_alert(), delivery or uuid4(), device.token, device.kind)
    )


@pytest.fixture
async def firebase() -> AsyncIterator[FirebaseDouble]:
    async with FirebaseDouble() as running:
        yield running


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time-out passes because a machine is busy; and a call is ten messages."""
    monkeypatch.setattr(push_file, "TIMEOUT_SECONDS", 40)
    monkeypatch.setattr(push_file, "MOST", 10)


@pytest.fixture
async def client(firebase: FirebaseDouble, patient: None) -> AsyncIterator[Push]:
    async with pushing(firebase) as got:
        yield got


async def test_a_device_gets_what_the_alert_says_and_the_app_finds_the_alert(
    client: Push, firebase: FirebaseDouble
) -> None:
    device, alert, delivery = firebase.device(), an_alert(url="https://app.example/orders/7"), uuid4()
    told = await to(client, device, alert, delivery)
    assert isinstance(told, Sent)
    assert told.provider_id is not None
    [message] = device.came
    assert message["notification"] == {"title": "Filled", "body": "10 AAPL"}
    assert message["data"] == {
        "alert_id": str(alert.id),
        "delivery_id": str(delivery),
        "alert_type": "order_filled",
        "severity": "warning",
        "url": "https://app.example/orders/7",
    }
    assert message["apns"]["headers"]["apns-collapse-id"] == delivery.hex
    assert message["android"]["notification"]["tag"] == delivery.hex
    assert message["webpush"]["headers"]["Topic"] == delivery.hex


async def test_a_copy_takes_the_place_of_the_first_one(client: Push, firebase: FirebaseDouble) -> None:
    device, alert, delivery = firebase.device(), an_alert(), uuid4()
    await to(client, device, alert, delivery)
    await to(client, device, alert, delivery)
    await to(client, device, an_alert("Another"))
    assert (len(device.came), len(device.shown)) == (3, 2)


async def test_both_kinds_of_ids_reach_their_device(client: Push, firebase: FirebaseDouble) -> None:
    for kind in ("token", "fid"):
        device = firebase.device(kind)
        assert isinstance(await to(client, device), Sent)
        assert kind in device.came[0]


async def test_what_comes_in_one_moment_is_one_call_and_each_hears_its_own(
    client: Push, firebase: FirebaseDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    carry = push_file._Firebase.send

    async def counted(self: Any, messages: Any) -> Any:
        calls.append(len(messages))
        return await carry(self, messages)

    monkeypatch.setattr(push_file._Firebase, "send", counted)
    states: list[State] = ["fine", "unregistered", "other_sender", "invalid", "over_quota", "apns_key"]
    devices = [firebase.device(state=states[number % len(states)]) for number in range(10)]
    told = await asyncio.gather(*(to(client, device) for device in devices))
    assert calls == [10]
    seen = {device.state: one for device, one in zip(devices, told, strict=True)}
    assert isinstance(seen["fine"], Sent)
    assert [(one.reason, one.target) for one in seen.values() if isinstance(one, Refused)] == [
        ("unregistered", "remove"),
        ("other_project", "disable"),
        ("invalid_token", "disable"),
    ]
    assert seen["over_quota"] == Later(timedelta(minutes=1), hold=Hold(timedelta(minutes=1)))
    assert isinstance(seen["apns_key"], NotSent)
    assert sum(len(device.came) for device in devices) == 2


@pytest.mark.parametrize("state", ["other_sender", "unregistered", "invalid"])
async def test_a_key_that_reaches_nobody_is_to_blame_and_no_device(
    client: Push, firebase: FirebaseDouble, state: State
) -> None:
    devices = [firebase.device(state=state) for _ in range(5)]
    told = await asyncio.gather(*(to(client, device) for device in devices))
    assert told == [DOUBTED] * 5
    assert isinstance(await to(client, firebase.device()), Sent)
    assert isinstance(await to(client, devices[0]), Refused)


async def test_after_many_devices_in_a_row_that_are_gone_the_key_is_doubted(
    client: Push, firebase: FirebaseDouble
) -> None:
    devices = [firebase.device(state="unregistered") for _ in range(BELIEVED + 3)]
    assert isinstance(await to(client, firebase.device()), Sent)
    told = [await to(client, device) for device in devices]
    assert [type(one) for one in told] == [Refused] * BELIEVED + [NotSent] * 3
    assert isinstance(await to(client, firebase.device()), Sent)
    assert isinstance(await to(client, devices[-1]), Refused)


async def test_more_than_the_library_takes_go_in_several_calls(
    client: Push, firebase: FirebaseDouble
) -> None:
    devices = [firebase.device() for _ in range(23)]
    told = await asyncio.gather(*(to(client, device) for device in devices))
    assert [one for one in told if not isinstance(one, Sent)] == []
    assert [len(device.came) for device in devices] == [1] * 23


async def test_a_message_that_firebase_refuses_costs_no_device(
    client: Push, firebase: FirebaseDouble
) -> None:
    words = {
        "error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "Invalid value at 'message.android'"}
    }
    firebase.fail_next("/v1", 400, words=words)
    told = await to(client, firebase.device())
    assert isinstance(told, Refused)
    assert (told.reason, told.target) == ("bad_request", "keep")


async def test_a_quota_that_is_over_for_all_holds_the_channel(client: Push, firebase: FirebaseDouble) -> None:
    devices = [firebase.device(state="over_quota") for _ in range(3)]
    told = await asyncio.gather(*(to(client, device) for device in devices))
    assert {one.hold for one in told} == {Hold(timedelta(minutes=1), whole_channel=True)}


async def test_a_connection_that_breaks_leaves_open_whether_it_arrived(
    client: Push, firebase: FirebaseDouble
) -> None:
    device = firebase.device()
    for ordered, arrived in ((DROPPED, 0), (DROPPED_AFTERWARDS, 1)):
        firebase.fail_next("/v1", ordered)
        assert isinstance(await to(client, device), Unknown)
        assert len(device.came) == arrived


async def test_what_firebase_cannot_take_now_is_tried_again_by_the_library_and_then_by_us(
    client: Push, firebase: FirebaseDouble, monkeypatch: pytest.MonkeyPatch
) -> None:

    def at_once(_: object) -> float:
        return 0.0

    monkeypatch.setattr(HttpxRetry, "get_backoff_time", at_once)  # seven seconds, else
    device = firebase.device(state="unavailable")
    assert await to(client, device) == Unknown("failed", "Firebase failed.")
    assert firebase.answers == {503: 5}


async def test_one_device_that_firebase_does_not_answer_for_fails_alone(firebase: FirebaseDouble) -> None:
    devices = [firebase.device(), firebase.device(state="hangs")]
    async with pushing(firebase) as client:
        told = await asyncio.gather(*(to(client, device) for device in devices))
    assert [type(one) for one in told] == [Sent, Unknown]


async def test_a_text_of_any_size_fits_with_a_mark(client: Push, firebase: FirebaseDouble) -> None:
    for text in ("word " * 2000, "\N{GRINNING FACE}" * 4000, '"\\\n' * 3000):
        device = firebase.device()
        assert isinstance(await to(client, device, an_alert(text, text)), Sent)
        assert device.came[0]["notification"]["body"].endswith(SHORTENED)
        assert device.came[0]["notification"]["title"].endswith("…")
    device = firebase.device()
    assert isinstance(await to(client, device, an_alert(" \u200b", "")), Sent)
    assert device.came[0]["notification"] == {"title": "Warning"}


# -- tokens --


async def test_a_slow_endpoint_for_tokens_never_blocks_the_loop_that_waits_for_it(patient: None) -> None:
    """The endpoint runs on the same loop: if that stood still, there would never be a token."""
    async with FirebaseDouble() as firebase, pushing(firebase) as client:
        firebase.may_give_tokens.clear()
        with blockbuster_ctx() as blocking:
            blocking.functions["time.sleep"].deactivate()
            sending = asyncio.ensure_future(to(client, firebase.device()))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not sending.done()
            firebase.may_give_tokens.set()
            assert isinstance(await sending, Sent)


async def test_a_token_that_ends_soon_is_replaced_while_it_is_still_in_use(patient: None) -> None:
    async with FirebaseDouble(expires_in=300) as firebase, pushing(firebase) as client:
        assert isinstance(await to(client, firebase.device()), Sent)
        assert firebase.tokens_given == 1
        firebase.may_give_tokens.clear()
        push_key = client._gathering._carry.__self__._key  # type: ignore[union-attr]
        push_key._tried_at -= 3600
        assert isinstance(await to(client, firebase.device()), Sent)  # although no token is given
        firebase.may_give_tokens.set()
        await until("there is another", lambda: firebase.tokens_given == 2)


async def test_a_token_is_fetched_once_for_all_who_wait(patient: None) -> None:
    async with FirebaseDouble() as firebase, pushing(firebase) as client:
        firebase.may_give_tokens.clear()
        devices = [firebase.device() for _ in range(23)]  # two calls, side by side
        sending = asyncio.gather(*(to(client, device) for device in devices))
        for _ in range(100):
            await asyncio.sleep(0)
        firebase.may_give_tokens.set()
        assert {type(one) for one in await sending} == {Sent}
        assert firebase.tokens_given == 1


async def test_a_token_that_was_called_back_is_replaced_and_nothing_is_sent_twice(
    client: Push, firebase: FirebaseDouble
) -> None:
    await to(client, firebase.device())
    firebase.call_back_tokens()
    devices = [firebase.device() for _ in range(5)]
    told = await asyncio.gather(*(to(client, device) for device in devices))
    assert {type(one) for one in told} == {Sent}
    assert [len(device.came) for device in devices] == [1] * 5
    assert firebase.answers[401] == 5  # not three times each, as the library would have it


async def test_a_key_that_google_does_not_take_sends_nothing_and_says_so(firebase: FirebaseDouble) -> None:
    async with FirebaseDouble(private_key=another_key()) as other:
        forged = {**firebase.key, "private_key": other.key["private_key"]}
    async with pushing(firebase, FIREBASE_KEY=json.dumps(forged)) as client:
        # Each time: each job becomes a dead letter that says so, and is sent when it is replayed.
        told = [await to(client, firebase.device()) for _ in range(MISSES + 1)]
    assert {(one.outcome, getattr(one, "reason", "")) for one in told} == {("not_sent", "key_refused")}
    assert firebase.answers == {}


async def test_where_no_token_can_be_had_nothing_is_sent(firebase: FirebaseDouble) -> None:
    lost = {**firebase.key, "token_uri": "http://127.0.0.1:9/token"}
    async with pushing(firebase, FIREBASE_KEY=json.dumps(lost)) as client:
        told = await to(client, firebase.device())
    assert isinstance(told, NotSent)
    assert told.reason == "no_token"


async def test_where_firebase_cannot_be_reached_nothing_was_sent(firebase: FirebaseDouble) -> None:
    async with pushing(firebase, FIREBASE_API_BASE="http://127.0.0.1:9") as client:
        told = await to(client, firebase.device())
    assert isinstance(told, NotSent)
    assert told.reason == "no_connection"


async def test_without_a_key_the_process_runs_and_says_what_is_missing() -> None:
    async with Push.open({}) as client:
        told = await client.send(push_message(an_alert(), uuid4(), "a" * 20, "token"))
    assert isinstance(told, NotSent)
    assert "FIREBASE_KEY" in told.words


async def test_the_key_is_read_as_it_is_and_in_base64(firebase: FirebaseDouble) -> None:
    text = json.dumps(firebase.key, indent=2)
    for given in (text, base64.b64encode(text.encode()).decode(), base64.encodebytes(text.encode()).decode()):
        assert service_account(given) == firebase.key


@pytest.mark.parametrize(
    "text", ["not json", "{}", '{"type": "service_account"}', "{", "[1]", "eA==", "[" * 100_000]
)
async def test_a_key_that_is_none_is_told_at_the_start_and_not_quoted(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        async with Push.open({"FIREBASE_KEY": text}):
            pass
    assert "FIREBASE_KEY" in str(refused.value)
    assert "service_account" not in str(refused.value)


async def test_a_private_key_that_cannot_be_read_is_told_at_the_start(firebase: FirebaseDouble) -> None:
    broken = {
        **firebase.key,
        "private_key": "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n",
    }
    with pytest.raises(ConfigError) as refused:
        async with Push.open({"FIREBASE_KEY": json.dumps(broken)}):
            pass
    assert "secret" not in repr(refused.value)
