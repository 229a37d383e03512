"""Several callers at one door: each has its own token, limit and keys; tokens are replaced while it is open."""

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from devstack.gateway import Gateway
from listener.config import read_config
from listener.errors import ConfigError
from listener.keyring import KeyEvent, KeyUnusable
from listener.tokens import Limit, Token, Tokens, read_tokens
from tests.listener.answering import JOB, Door, count, door_of
from tests.listener.working import Connection, MoveClock, row
from tests.security.raw import ask, request

CI, SHOP = "the-token-of-ci", "the-token-of-the-shop"
LIMITED = Token("shop", SHOP, Limit(10, timedelta(seconds=60)))


def bearer(token: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }


async def test_a_limit_is_exact_over_all_processes_and_another_caller_does_not_feel_it(
    gateway: Gateway, owner: Connection, move_clock: MoveClock
) -> None:
    tokens = [LIMITED, Token("ci", CI)]

    async def burst(doors: list[Door]) -> Counter[int]:
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(doors[n % 3].post(JOB, bearer(SHOP)))
                for n in range(60)
            ]  # fmt: skip
        return Counter(task.result()[0] for task in asked)

    async with AsyncExitStack() as stack:
        doors = [await stack.enter_async_context(door_of(gateway.url, token=tokens)) for _ in range(3)]
        await move_clock(timedelta())  # the window does not end while this machine is slow
        await owner.execute(
            "create or replace function public.call_moment() returns timestamptz language sql volatile"
            " as $$ select public.clock_now() $$"
        )
        frozen = "select timestamptz '2030-01-01 00:00:00Z' + interval '{} seconds'"
        clock = "create or replace function public.clock_now() returns timestamptz language sql stable as $$ {} $$"
        await owner.execute(clock.format(frozen.format(0)))
        assert await burst(doors) == {201: 10, 429: 50}
        again = request(body=json.dumps(JOB).encode(), headers=f"Authorization: Bearer {SHOP}\r\n".encode())
        said = await ask(doors[0].url, again)
        assert said is not None
        assert (said.status, said.headers["retry-after"]) == (429, "60")
        assert "10 calls in 60 s" in said.sentence
        assert (await doors[1].post(JOB, bearer(CI)))[0] == 201
        await owner.execute(clock.format(frozen.format(59)))
        assert await burst(doors) == {429: 60}
        await owner.execute(clock.format(frozen.format(60)))
        assert await burst(doors) == {201: 10, 429: 50}
        assert not [event for door in doors for event in door.told]
    assert await count(owner) == 21


async def test_a_key_in_the_header_inserts_once_and_is_the_callers_own(
    gateway: Gateway, owner: Connection
) -> None:
    async with door_of(gateway.url, token=[Token("shop", SHOP), Token("ci", CI)]) as door:
        status, first = await door.post(JOB, bearer(SHOP, Idempotency_Key="order-7"))
        assert (status, first["created"]) == (201, True)
        for again in ("order-7", '"order-7"'):
            assert await door.post(JOB, bearer(SHOP, Idempotency_Key=again)) == (
                200,
                {"id": first["id"], "created": False},
            )
        for other in (
            {**JOB, "data": {"completed_days": 1}},
            {**JOB, "user_id": "6f9619ff-8b86-4011-b42d-00cf4fc964ff"},
            {**JOB, "type": "another", "queue": "maintenance"},
        ):
            status, said = await door.post(other, bearer(SHOP, Idempotency_Key="order-7"))
            assert status == 422
            assert str(said["error"]).startswith("This Idempotency-Key came with another job before")
        status, others = await door.post(JOB, bearer(CI, Idempotency_Key="order-7"))
        assert (status, others["created"]) == (201, True)
        assert (await row(owner, int(str(first["id"]))))["idempotency_key"] == "door/shop/order-7"
        status, said = await door.post({**JOB, "idempotency_key": "x"}, bearer(SHOP, Idempotency_Key="y"))
        assert status == 400
        assert "once" in str(said["error"])
        for wrong in ("", "two words", "x" * 129, "é"):
            assert (await door.post(JOB, bearer(SHOP, Idempotency_Key=wrong)))[0] == 400, wrong
    assert await count(owner) == 2


KINDS = [
    ("application/json", 201),
    ("application/json; charset=utf-8", 201),
    ("application/vnd.our+json", 201),
    ("application/x-www-form-urlencoded", 201),  # what curl says when nobody tells it otherwise
    ("application/json; charset=latin-1", 415),
    ("multipart/form-data; boundary=x", 415),
    ("application/xml", 415),
    ("image/png", 415),
]


async def test_a_body_that_is_surely_no_json_is_refused_by_its_kind(gateway: Gateway) -> None:
    async with door_of(gateway.url) as door:
        for kind, status in KINDS:
            assert (await door.post(JOB, {"Content-Type": kind}))[0] == status, kind


async def test_a_token_is_replaced_while_the_door_is_open(gateway: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    environment = {"PULSE_DOOR_TOKENS_FILE": str(file)}
    file.write_text(f"shop:{SHOP}\nci:{CI}\n")
    told: list[KeyEvent] = []
    tokens = Tokens(read_tokens(environment).tokens, partial(read_tokens, environment), told.append)
    async with door_of(gateway.url, tokens=tokens) as door:
        assert (await door.post(JOB, bearer(SHOP)))[0] == 201
        file.write_text(f"shop:{SHOP} shop:the-next-token-of-the-shop\n")
        await tokens.look()
        for token, status in ((SHOP, 201), ("the-next-token-of-the-shop", 201), (CI, 401)):
            assert (await door.post(JOB, bearer(token)))[0] == status, token
        file.write_text(f"shop:the-next-token-of-the-shop,shop:short,{SHOP}")
        await tokens.look()
        await tokens.look()
        (unusable,) = told
        assert isinstance(unusable, KeyUnusable)
        assert SHOP not in unusable.problem
        assert (await door.post(JOB, bearer(SHOP)))[0] == 201, "what was there stays"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("a-long-token-without-a-name", "must be name:token"),
        ("Ci Cd:a-long-enough-token", "must be name:token"),
        ("ci:short", "(ci) is shorter than 12 letters"),
        ("ci:a-long-enough-token:fast", "(ci) must end in calls/seconds"),
        ("ci:a-long-enough-token:", "ends in a colon"),
        ("ci:a-long-enough-token:0/60", "1 to 10000 calls"),
        ("ci:a-long-enough-token:10/0", "in 1 to 86400 s"),
        ("ci:a-long-enough-token:10/60,ci:the-next-one-of-ci", "ci has tokens with different limits"),
        ("ci:a-long-enough-token,cd:a-long-enough-token", "a token is there twice"),
    ],
)
def test_what_is_wrong_with_tokens_is_told_at_start_without_quoting_one(words: str, told: str) -> None:
    good = {"SUPABASE_URL": "https://project.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_12345678"}
    with pytest.raises(ConfigError, match="PULSE_DOOR_TOKENS") as refused:
        read_config({**good, "PULSE_DOOR_TOKENS": words})
    assert told in str(refused.value)
    assert "a-long" not in str(refused.value)


def test_all_tokens_are_secrets() -> None:
    good = {"SUPABASE_URL": "https://project.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_12345678"}
    door = {"PULSE_DOOR_TOKENS": f"ci:{CI}, shop:{SHOP}:10/60", "PULSE_DOOR_TOKEN": "one-alone-1234"}
    config = read_config({**good, **door})
    assert {one.name for one in config.door_tokens} == {"door", "ci", "shop"}
    assert {CI, SHOP, "one-alone-1234"} <= set(config.secrets)
    assert LIMITED in config.door_tokens
    assert SHOP not in repr(config)
