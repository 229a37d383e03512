"""What Discord answers, and what it means: each answer of its documentation, by a double that speaks HTTP."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from devstack.alerts.discord import DROPPED, DROPPED_AFTERWARDS, HANGS, DiscordDouble
from handlers import resources
from handlers.clients.alerts import discord as discord_file
from handlers.clients.alerts.discord import LONGEST_HOLD, SHUT_OUT, Discord, understood
from handlers.clients.alerts.told import Hold, Later, NotSent, Refused, Sent, Unknown
from listener import ConfigError
from listener.resources import opened, resources_in

MESSAGE = {"content": "10 AAPL", "allowed_mentions": {"parse": list[str]()}}


@pytest.fixture
async def discord_double() -> AsyncIterator[DiscordDouble]:
    async with DiscordDouble() as running:
        yield running


@pytest.fixture
async def client(discord_double: DiscordDouble) -> AsyncIterator[Discord]:
    """As the worker's resource gives it."""
    settings = {"DISCORD_API_BASE": discord_double.url}
    async with opened([resources_in(resources)[Discord]], settings) as found:
        got = found[Discord]
        assert isinstance(got, Discord)
        yield got


async def test_a_message_is_confirmed_by_its_id(client: Discord, discord_double: DiscordDouble) -> None:
    webhook = discord_double.webhook()
    told = await client.post(webhook.id, webhook.token, MESSAGE)
    assert isinstance(told, Sent)
    assert told.provider_id is not None
    assert told.hold is None
    assert webhook.messages == [MESSAGE]


async def test_the_last_call_of_a_bucket_holds_the_webhook_until_the_reset(
    client: Discord, discord_double: DiscordDouble
) -> None:
    webhook, other = discord_double.webhook(), discord_double.webhook()
    holds = [(await client.post(webhook.id, webhook.token, MESSAGE)).hold for _ in range(5)]
    assert holds[:4] == [None] * 4
    assert holds[4] is not None
    assert timedelta(0) < holds[4].after <= timedelta(seconds=2)
    assert not holds[4].whole_channel
    assert (await client.post(other.id, other.token, MESSAGE)).hold is None


async def test_one_too_many_is_later_and_holds_the_webhook_alone(
    client: Discord, discord_double: DiscordDouble
) -> None:
    webhook = discord_double.webhook()
    told = [await client.post(webhook.id, webhook.token, MESSAGE) for _ in range(6)][-1]
    assert isinstance(told, Later)
    assert told.hold == Hold(told.after)
    assert discord_double.answers == {200: 5, 429: 1}


async def test_too_many_over_all_webhooks_hold_the_channel() -> None:
    async with (
        DiscordDouble(calls_per_second=2) as double,
        Discord.open({"DISCORD_API_BASE": double.url}) as client,
    ):
        webhooks = [double.webhook() for _ in range(3)]
        told = [await client.post(one.id, one.token, MESSAGE) for one in webhooks][-1]
    assert isinstance(told, Later)
    assert told.hold == Hold(told.after, whole_channel=True)


@pytest.mark.parametrize("what", ["deleted", "another token", "unknown"])
async def test_a_webhook_that_is_gone_is_disabled(
    client: Discord, discord_double: DiscordDouble, what: str
) -> None:
    webhook = discord_double.webhook()
    webhook.is_deleted = what == "deleted"
    id_ = "123456789012345678" if what == "unknown" else webhook.id
    token = webhook.token[::-1] if what == "another token" else webhook.token
    told = await client.post(id_, token, MESSAGE)
    assert isinstance(told, Refused)
    assert (told.reason, told.target) == ("webhook_gone", "disable")
    assert webhook.token not in repr(told)


async def test_a_webhook_of_a_forum_takes_no_alerts(client: Discord, discord_double: DiscordDouble) -> None:
    webhook = discord_double.webhook(is_forum=True)
    told = await client.post(webhook.id, webhook.token, MESSAGE)
    assert isinstance(told, Refused)
    assert (told.reason, told.target) == ("forum", "disable")


async def test_a_message_that_discord_refuses_names_the_fields_and_quotes_nothing(
    client: Discord, discord_double: DiscordDouble
) -> None:
    webhook = discord_double.webhook()
    fields = [{"name": "a", "value": ""}]
    bad = {
        "embeds": [{"title": "secret words" * 40, "fields": fields}],
        "allowed_mentions": {"parse": ["everyone"]},
    }
    told = await client.post(webhook.id, webhook.token, bad)
    assert isinstance(told, Refused)
    assert (told.reason, told.target) == ("bad_request", "keep")
    assert "embeds.0.title: BASE_TYPE_MAX_LENGTH" in told.words
    assert "embeds.0.fields.0.value: BASE_TYPE_REQUIRED" in told.words
    assert "secret" not in told.words


async def test_nothing_but_a_webhook_of_discords_is_ever_called(
    client: Discord, discord_double: DiscordDouble
) -> None:
    good = discord_double.webhook()
    for id_, token in [
        (None, good.token),
        (good.id, None),
        ("../users", good.token),
        (good.id, f"../../{good.token}"),
        (good.id, good.token + "?wait=false"),
        (good.id, good.token + "\n"),
        ("1@evil.example", good.token),
    ]:
        told = await client.post(id_, token, MESSAGE)
        assert isinstance(told, Refused)
        assert told.reason == "no_webhook"
    assert not discord_double.answers


async def test_a_redirect_is_not_followed(client: Discord, discord_double: DiscordDouble) -> None:
    webhook = discord_double.webhook()
    async with DiscordDouble() as elsewhere:
        stolen = elsewhere.webhook()
        place = f"{elsewhere.url}/api/v10/webhooks/{stolen.id}/{stolen.token}?wait=true"
        discord_double.fail_next(307, headers={"Location": place}, body="")
        told = await client.post(webhook.id, webhook.token, MESSAGE)
        assert isinstance(told, NotSent)
        assert not elsewhere.answers


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (500, "", {}, Unknown),
        (502, "<html>", {}, Unknown),
        (408, "", {}, Unknown),
        (200, "<html>", {}, Unknown),
        (204, "", {}, Unknown),
        (404, "<html>", {}, NotSent),
        (405, "", {}, NotSent),
        (404, {"message": "404: Not Found", "code": 0}, {}, NotSent),
        (401, {"message": "401: Unauthorized", "code": 0}, {}, NotSent),
        (403, {"message": "internal network error", "code": 40333}, {}, Later),
    ],
)
async def test_an_odd_answer_is_no_answer(
    client: Discord,
    discord_double: DiscordDouble,
    status: int,
    body: Any,
    headers: dict[str, str],
    expected: type,
) -> None:
    webhook = discord_double.webhook()
    discord_double.fail_next(status, body=body, headers=headers)
    assert isinstance(await client.post(webhook.id, webhook.token, MESSAGE), expected)


@pytest.mark.parametrize(
    ("status", "headers", "after"),
    [
        (403, {}, SHUT_OUT),
        (429, {"Retry-After": "120"}, timedelta(minutes=2)),
        (429, {}, timedelta(minutes=1)),
        (429, {"Retry-After": "99999999"}, LONGEST_HOLD),
    ],
)
async def test_the_guard_before_discord_shuts_all_of_us_out(
    client: Discord, discord_double: DiscordDouble, status: int, headers: dict[str, str], after: timedelta
) -> None:
    webhook = discord_double.webhook()
    discord_double.fail_next(status, body="<html>error code: 1015</html>", headers=headers)
    assert await client.post(webhook.id, webhook.token, MESSAGE) == Later(
        after, "shut_out", Hold(after, whole_channel=True), counts=True
    )


@pytest.mark.parametrize(("code", "is_guard"), [(0, True), (40333, True), (50013, False)])
async def test_what_discord_refuses_to_one_webhook_holds_up_no_other(
    client: Discord, discord_double: DiscordDouble, code: int, is_guard: bool
) -> None:
    webhook = discord_double.webhook()
    discord_double.fail_next(403, body={"message": "Not here.", "code": code})
    told = await client.post(webhook.id, webhook.token, MESSAGE)
    assert told == Later(SHUT_OUT, "shut_out", Hold(SHUT_OUT, whole_channel=is_guard), counts=True)


def test_discord_counts_what_lacks_its_token_whatever_else_it_says() -> None:
    for status, counts in ((401, True), (404, False)):
        told = understood(status, {}, b'{"message": "No.", "code": 0}')
        assert isinstance(told, NotSent)
        assert told.counts == counts


@pytest.mark.parametrize(
    ("headers", "body", "after"),
    [
        ({"Retry-After": "2"}, b'{"retry_after": 1.25, "global": false}', 2),
        ({}, b'{"retry_after": 64.57, "global": false}', 64.57),
        ({"X-RateLimit-Reset-After": "7.5"}, b'{"retry_after": 1, "global": false}', 7.5),
        ({"Retry-After": "nan"}, b'{"retry_after": "soon", "global": false}', 60),
    ],
)
def test_of_several_waits_the_longest_counts(headers: dict[str, str], body: bytes, after: float) -> None:
    told = understood(429, headers, body)
    assert isinstance(told, Later)
    assert told.after == timedelta(seconds=after)


async def test_a_connection_that_breaks_leaves_open_whether_it_arrived(
    client: Discord, discord_double: DiscordDouble
) -> None:
    webhook = discord_double.webhook()
    for ordered, arrived in ((DROPPED, 0), (DROPPED_AFTERWARDS, 1)):
        discord_double.fail_next(ordered)
        assert isinstance(await client.post(webhook.id, webhook.token, MESSAGE), Unknown)
        assert len(webhook.messages) == arrived


async def test_who_hangs_is_not_waited_for(
    discord_double: DiscordDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discord_file, "TIMEOUT", aiohttp.ClientTimeout(total=0.2, sock_connect=10))
    webhook = discord_double.webhook()
    discord_double.fail_next(HANGS)
    async with Discord.open({"DISCORD_API_BASE": discord_double.url}) as client:
        told = await client.post(webhook.id, webhook.token, MESSAGE)
    assert isinstance(told, Unknown)
    assert told.reason == "timed_out"


async def test_where_nobody_listens_nothing_was_sent() -> None:
    async with DiscordDouble() as double:
        webhook, url = double.webhook(), double.url
    async with Discord.open({"DISCORD_API_BASE": url}) as client:
        assert isinstance(await client.post(webhook.id, webhook.token, MESSAGE), NotSent)


@pytest.mark.parametrize("base", ["discord.com", "ftp://discord.com", "https://discord.com/api", "https://"])
async def test_a_base_that_is_no_host_is_refused_at_the_start(base: str) -> None:
    with pytest.raises(ConfigError, match="DISCORD_API_BASE"):
        async with Discord.open({"DISCORD_API_BASE": base}):
            pass
