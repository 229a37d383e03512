"""Callbacks at the door: what an account's secret signed becomes one job, and nothing else ever becomes a row."""

import hmac
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devstack.gateway import Gateway
from handlers.broker.handle_callback import receive
from handlers.clients.broker.callback_signature import DEEPEST, HEADER, callback_path, callback_secret, sign
from listener import Delivery, DeliveryRefused
from listener.registry import load
from tests.listener.answering import Door, count, door_of
from tests.listener.working import Connection

ACCOUNT = UUID("8b2f0c6e-6d0c-4f0e-9a50-0123456789ab")
MASTER, OLD_MASTER = "m" * 32, "o" * 32
SETTINGS = {"BROKER_CALLBACK_SECRET": f"{MASTER}, {OLD_MASTER}"}
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PARAMETERS = {"connection_id": str(ACCOUNT), "version": "1"}
BODY = json.dumps({"event": "order_filled", "event_id": "e1", "payload": {"order_id": "o1"}}).encode()


def signed(
    body: bytes = BODY, at: datetime = NOW, *, master: str = MASTER, account: UUID = ACCOUNT, version: int = 1
) -> str:
    return sign(callback_secret(master, account, version), body, at)


def delivery(
    body: bytes = BODY, signature: str | None = None, parameters: dict[str, str] | None = None
) -> Delivery:
    header = {HEADER.lower(): signed(body) if signature is None else signature}
    return Delivery(body, header, NOW, PARAMETERS | (parameters or {}))


def refusal(one: Delivery, settings: dict[str, str] | None = None) -> tuple[int, str]:
    with pytest.raises(DeliveryRefused) as refused:
        receive(one, SETTINGS if settings is None else settings)
    return refused.value.status, str(refused.value)


def test_a_signed_callback_is_a_job_of_its_event() -> None:
    job = receive(delivery(), SETTINGS)
    assert (job.queue, job.type, job.idempotency_key) == (
        "broker",
        "handle_callback",
        f"callback:{ACCOUNT}:1:e1",
    )
    assert job.data == {
        "connection_id": str(ACCOUNT),
        "version": 1,
        "event_id": "e1",
        "event": "order_filled",
        "payload": {"order_id": "o1"},
        "received_at": NOW.isoformat(),
    }


def test_who_has_a_retired_secret_cannot_take_the_place_of_an_event() -> None:
    """The door cannot see that version 1 does not count any more; the job that it makes must keep nobody out."""
    keys = set[str | None]()
    for version in (1, 2):
        place = {"connection_id": str(ACCOUNT), "version": str(version)}
        signature = sign(callback_secret(MASTER, ACCOUNT, version), BODY, NOW)
        keys.add(receive(delivery(BODY, signature, place), SETTINGS).idempotency_key)
    assert len(keys) == 2


def test_the_signature_is_what_the_page_says() -> None:
    secret = hmac.new(MASTER.encode(), f"{ACCOUNT}:1".encode(), "sha256").hexdigest()
    moment = int(NOW.timestamp())
    made = hmac.new(secret.encode(), b"%d.%b" % (moment, BODY), "sha256").hexdigest()
    receive(delivery(signature=f"t={moment},v1={made}"), SETTINGS)


def test_both_masters_count_while_one_is_rolled_and_no_other() -> None:
    receive(delivery(signature=signed(master=OLD_MASTER)), SETTINGS)
    assert refusal(delivery(signature=signed(master="x" * 32)))[0] == 401
    assert (
        refusal(delivery(signature=signed(master=OLD_MASTER)), {"BROKER_CALLBACK_SECRET": MASTER})[0] == 401
    )


@pytest.mark.parametrize("seconds", [-301, -300, 0, 300, 301])
def test_a_signature_may_be_five_minutes_off_either_way(seconds: int) -> None:
    one = delivery(signature=signed(at=NOW + timedelta(seconds=seconds)))
    if abs(seconds) <= 300:
        receive(one, SETTINGS)
    else:
        assert refusal(one)[0] == 401


NOT_TRUSTED = {
    "nothing": "",
    "the secret of another account": signed(account=UUID(int=7)),
    "the secret of another version": signed(version=2),
    "another body": signed(BODY + b" "),
    "another time": signed().replace("t=1", "t=2"),
    "another scheme": signed().replace("v1=", "v0="),
    "no time": signed().partition(",")[2],
    "a time in words": "t=noon,v1=00",
    "a time beyond time": signed().replace("t=", "t=99999999"),
    "two times": f"t=1,{signed()}",
    "strange letters": "t=1,v1=é\udcff",
    "two headers": f"{signed()}, {signed()}",
}


@pytest.mark.parametrize("signature", NOT_TRUSTED.values(), ids=list(NOT_TRUSTED))
def test_what_is_not_signed_for_this_account_is_not_trusted(signature: str) -> None:
    assert refusal(delivery(signature=signature))[0] == 401


NOWHERE = {
    "connection_id": ["1", "nobody", str(ACCOUNT).upper(), ACCOUNT.hex, f"{ACCOUNT}0"],
    "version": ["0", "01", "-1", "x", "1_0", "9999999999"],
}


@pytest.mark.parametrize(("name", "value"), [(name, one) for name, all_ in NOWHERE.items() for one in all_])
def test_a_place_that_cannot_be_is_not_found(name: str, value: str) -> None:
    assert refusal(delivery(parameters={name: value}))[0] == 404


@pytest.mark.parametrize("masters", ["", " , ", "short", f"{MASTER},short"])
def test_without_a_master_that_is_safe_there_are_no_callbacks(masters: str) -> None:
    status, said = refusal(delivery(), {"BROKER_CALLBACK_SECRET": masters})
    assert status == 404
    assert "openssl rand -hex 32" in said


def deep(levels: int) -> bytes:
    return b'{"event": "order_filled", "payload": ' + b'{"a":' * levels + b"1" + b"}" * (levels + 1)


UNREADABLE = {
    "no JSON": b"{",
    "no UTF-8": b'{"event": "\xff"}',
    "no object": b"[]",
    "no event": b"{}",
    "an event of many words": b'{"event": "order was filled"}',
    "an event that is a number": b'{"event": 1}',
    "an event id with spaces": b'{"event": "order_filled", "event_id": "a b"}',
    "an event id that is too long": b'{"event": "order_filled", "event_id": "%s"}' % (b"e" * 201),
    "an event id that is a number": b'{"event": "order_filled", "event_id": 1}',
    "a payload that is a list": b'{"event": "order_filled", "payload": []}',
    "half a letter": b'{"event": "order_filled", "payload": {"a": "\\ud800"}}',
    "half a letter as a key": b'{"event": "order_filled", "payload": {"\\ud800": 1}}',
    "a null character": b'{"event": "order_filled", "payload": {"a": ["\\u0000"]}}',
    "no number": b'{"event": "order_filled", "payload": {"a": NaN}}',
    "a number beyond numbers": b'{"event": "order_filled", "payload": {"a": 1e99999}}',
    "too deep": deep(DEEPEST),
    "much too deep": deep(100_000),
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=list(UNREADABLE))
def test_a_signed_body_that_is_no_callback_is_refused_with_a_sentence(body: bytes) -> None:
    assert refusal(delivery(body))[0] == 400


def test_what_is_as_deep_as_may_be_is_taken() -> None:
    receive(delivery(deep(DEEPEST - 1)), SETTINGS)


def test_without_an_id_the_same_delivery_is_the_same_event_and_a_later_one_is_another() -> None:
    body = b'{"event": "position_updated"}'
    keys = [
        receive(delivery(body, signed(body, NOW + timedelta(seconds=seconds))), SETTINGS).idempotency_key
        for seconds in (0, 0, 1)
    ]
    assert keys[0] == keys[1] != keys[2]


@settings(derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=st.binary(max_size=60),
    signature=st.text(max_size=40) | st.just(""),
    account=st.text(max_size=40) | st.just(str(ACCOUNT)),
    version=st.text(max_size=5) | st.just("1"),
    is_signed=st.booleans(),
)
def test_whatever_a_stranger_sends_is_refused_and_nothing_breaks(
    body: bytes, signature: str, account: str, version: str, is_signed: bool
) -> None:
    place = {"connection_id": account, "version": version}
    one = delivery(body, signed(body) if is_signed else signature, place)
    assert refusal(one)[0] in {400, 401, 404}


@pytest.fixture
async def door(gateway: Gateway) -> AsyncIterator[Door]:
    async with door_of(gateway.url, registry=load("handlers", ["broker"]), settings=SETTINGS) as one:
        yield one


async def test_a_doubled_delivery_is_one_job_and_a_strangers_is_none(door: Door, owner: Connection) -> None:
    path, header = callback_path(ACCOUNT, 1), {HEADER: signed(at=datetime.now(UTC))}
    status, first = await door.post(BODY, header, path)
    assert (status, first["created"]) == (200, True)
    assert await door.post(BODY, header, path) == (200, {**first, "created": False})
    assert (await door.post(BODY, header, callback_path(ACCOUNT, 2)))[0] == 401
    assert (await door.post(BODY, header, path.upper()))[0] == 404
    assert (await door.post(BODY + b" ", header, path))[0] == 401
    assert (await door.post(BODY, None, path))[0] == 401
    assert await count(owner) == 1
    assert not door.told


def command(*words: str, masters: str = MASTER) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "handlers.broker_callback_secret", *words],
        env={"BROKER_CALLBACK_SECRET": masters},
        capture_output=True,
        text=True,
    )


def test_a_command_prints_where_to_call_back_and_with_which_secret() -> None:
    done = command(str(ACCOUNT), "3", masters=f"{MASTER},{OLD_MASTER}")
    assert done.returncode == 0, done.stderr
    url, secret = (line.split()[1] for line in done.stdout.splitlines())
    assert url.endswith(f"/webhooks/broker/{ACCOUNT}/3")
    one = delivery(signature=sign(secret, BODY, NOW), parameters={"version": "3"})
    assert receive(one, SETTINGS).data["version"] == 3


def test_the_command_says_what_is_missing() -> None:
    done = command(str(ACCOUNT), masters="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "BROKER_CALLBACK_SECRET is not set" in done.stderr
