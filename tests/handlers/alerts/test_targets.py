"""Users register their own devices and webhooks; what opens them goes to Vault, and nobody reads it back."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from handlers.clients.alerts.delivery import Pace
from handlers.clients.alerts.told import Hold, Refused
from handlers.clients.database import Database
from listener.outcomes import Retry
from tests.handlers.alerts.conftest import ALERT, Office, Person, Post
from tests.handlers.conftest import Json, Owner

MoveClock = Callable[[timedelta], Awaitable[None]]
TOKEN = "a" * 60 + "-_" + "b" * 6
WEBHOOK = f"https://discord.com/api/webhooks/123456789/{TOKEN}"
DEVICE = "fcm:" + "d" * 100


class App:
    """The app of a user: the REST door with a key of their own."""

    def __init__(self, session: aiohttp.ClientSession, user: UUID) -> None:
        self._session = session
        self.user = user
        self._headers = {
            "apikey": LOCAL.publishable,
            "Authorization": f"Bearer {LOCAL.mint('authenticated', sub=str(user))}",
            "Prefer": "return=representation",
        }

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        url = f"/rest/v1/{path}"
        async with self._session.request(method, url, json=body, headers=self._headers) as answer:
            return answer.status, await answer.json(content_type=None) if await answer.read() else None

    async def rpc(self, function: str, **arguments: object) -> Json:
        status, said = await self.ask("POST", f"rpc/{function}", arguments)
        assert status == 200, said
        return cast("Json", said)


@pytest.fixture
async def apps(gateway: Gateway) -> AsyncIterator[list[App]]:
    """Of two users."""
    async with aiohttp.ClientSession(gateway.url) as session:
        yield [App(session, uuid4()), App(session, uuid4())]


async def test_a_webhook_is_one_target_and_its_token_is_for_the_channel_alone(
    apps: list[App], office: Office, owner: Owner
) -> None:
    discord = office.channel("discord", Post())
    ann, bob = apps
    first = await ann.rpc("register_discord_webhook", url=WEBHOOK, label="trading")
    newer = WEBHOOK.replace("aaa", "ccc")
    again = newer.replace("discord.com/api", "ptb.discordapp.com/api/v9") + "/"
    assert await ann.rpc("register_discord_webhook", url=again, label="trades") == first
    status, rows = await ann.ask("GET", "alert_targets?select=id,channel,label,status")
    assert (status, rows) == (
        200,
        [{"id": first["target_id"], "channel": "discord", "label": "trades", "status": "active"}],
    )
    for secret in ("address", "secret_id"):
        assert (await ann.ask("GET", f"alert_targets?select={secret}"))[0] == 403
    assert await bob.ask("GET", "alert_targets?select=id") == (200, [])

    await office.tell(userId=str(ann.user), **ALERT)
    await office.rounds()
    [sent] = discord.came
    assert (sent.target.address, sent.target.secret) == ("123456789", newer.rpartition("/")[2])
    assert str(sent.target.secret) not in repr(sent)

    quotes = f"{sent.target.secret} at {sent.target.address} said {sent.alert and sent.alert.message}"
    discord.answers = [ValueError(quotes)]
    await office.tell(userId=str(ann.user), **ALERT)
    failed = (await office.rounds())[-1]
    assert isinstance(failed, Retry)
    assert failed.error.message == "‹secret› at ‹secret› said ‹secret›"
    assert "AAPL" not in str(failed.error.stack)

    assert await bob.rpc("remove_target", target_id=first["target_id"]) == {"removed": False}
    assert await ann.rpc("remove_target", target_id=first["target_id"]) == {"removed": True}
    assert await owner.fetchval("select count(*) from vault.secrets") == 0


async def test_whoever_registers_a_webhook_with_a_wrong_token_turns_off_their_own_alone(
    apps: list[App], office: Office
) -> None:
    discord = office.channel("discord", Post())
    ann, bob = apps
    await ann.rpc("register_discord_webhook", url=WEBHOOK)
    await bob.rpc("register_discord_webhook", url=WEBHOOK.replace("aaa", "ccc"))
    hold = Hold(timedelta(hours=1))
    discord.pace = Pace(one_at_a_time=True)
    discord.answers = [Refused("webhook_gone", "It does not exist any more.", target="disable", hold=hold)]
    await office.tell(userId=str(bob.user), **ALERT)
    await office.rounds()
    for app, status in ((ann, "active"), (bob, "disabled")):
        assert await app.ask("GET", "alert_targets?select=status") == (200, [{"status": status}])
    await office.tell(userId=str(ann.user), **ALERT)
    await office.rounds()  # her lane is not his
    assert len(discord.came) == 2


async def test_nobody_tries_more_than_twenty_webhooks_a_day(apps: list[App], move_clock: MoveClock) -> None:
    ann, bob = apps
    for _ in range(20):
        await ann.rpc("register_discord_webhook", url=WEBHOOK)
    status, said = await ann.ask("POST", "rpc/register_discord_webhook", {"url": WEBHOOK})
    assert (status, said["message"]) == (429, "20 webhooks a day are enough")
    await bob.rpc("register_discord_webhook", url=WEBHOOK)
    await move_clock(timedelta(days=1, seconds=1))
    await ann.rpc("register_discord_webhook", url=WEBHOOK)


async def test_whoever_deletes_a_target_takes_its_secret_with_it(
    apps: list[App], owner: Owner, db: Database
) -> None:
    await apps[0].rpc("register_discord_webhook", url=WEBHOOK)
    assert await owner.fetchval("select count(*) from vault.secrets") == 1
    await db.from_("alert_targets").delete().eq("channel", "discord").execute()
    assert await owner.fetchval("select count(*) from vault.secrets") == 0


@pytest.mark.parametrize(
    "ends", ["delete from auth.users where id = $1", "update auth.users set deleted_at = now() where id = $1"]
)
async def test_who_is_no_user_any_more_leaves_no_target_behind(
    apps: list[App], owner: Owner, database: str, ends: str
) -> None:
    """Auth deletes users as a role that has no rights to what is ours."""
    ann, bob = apps
    for app in apps:
        await owner.execute("insert into auth.users (id, email) values ($1, $2)", app.user, str(app.user))
        await app.rpc("register_discord_webhook", url=WEBHOOK)
        await app.rpc("register_device", token=f"{DEVICE}{app.user}")
        await app.ask("POST", "channel_preferences", {"user_id": str(app.user), "channel": "push"})
        await app.ask("POST", "notification_preferences", {"user_id": str(app.user)})
    auth = await asyncpg.connect(database.replace("//postgres:", "//supabase_auth_admin:", 1))
    try:
        assert await auth.fetchval("select current_user") == "supabase_auth_admin"
        await auth.execute(ends, ann.user)
    finally:
        await auth.close()
    for table, left in (("alert_targets", 2), ("channel_preferences", 1), ("notification_preferences", 1)):
        rows = await owner.fetch(f"select user_id from {table}")
        assert [row["user_id"] for row in rows] == [bob.user] * left, table
    assert await owner.fetchval("select count(*) from vault.secrets") == 1


async def test_only_webhooks_of_discords_are_taken(apps: list[App], owner: Owner) -> None:
    for url in (
        WEBHOOK.replace("https", "http"),
        WEBHOOK.replace("discord.com", "discord.com.example.org"),
        WEBHOOK.replace("discord.com", "example.org"),
        WEBHOOK.replace("discord.com", "discord.com@example.org"),
        WEBHOOK.replace("https://discord.com", "https://example.org/https://discord.com"),
        WEBHOOK + "/messages",
        WEBHOOK + "?wait=false",
        WEBHOOK.replace("webhooks", "webhooks/.."),
        "https://169.254.169.254/api/webhooks/123456789/" + TOKEN,
        "\n" + WEBHOOK,
        WEBHOOK + "\n",
        "",
        None,
    ):
        status, said = await apps[0].ask("POST", "rpc/register_discord_webhook", {"url": url})
        assert (status, said["message"]) == (422, "this is no URL of a Discord webhook"), url
    assert await owner.fetchval("select count(*) from alert_targets") == 0


async def test_a_device_is_with_the_user_who_has_it_now(
    apps: list[App], office: Office, owner: Owner
) -> None:
    push = office.channel("push", Post())
    ann, bob = apps
    first = await ann.rpc("register_device", token=DEVICE)
    await office.tell(userId=str(ann.user), **ALERT)
    await office.round()  # routed to Ann's device, and not sent yet
    assert await bob.rpc("register_device", token=DEVICE, kind="fid", label="phone") == first
    await office.rounds()
    assert push.came == []  # what is Ann's is not shown to Bob
    assert await office.deliveries() == [("push", "suppressed", "target_removed")]
    await office.tell(userId=str(bob.user), **ALERT)
    await office.rounds()
    assert [(one.target.address, one.target.kind) for one in push.came] == [(DEVICE, "fid")]
    assert (await ann.ask("GET", "alert_targets?select=id"))[1] == []
    for words in ({"token": "x"}, {"token": DEVICE, "kind": "pigeon"}, {"token": None}):
        assert (await ann.ask("POST", "rpc/register_device", words))[0] == 422


async def test_nobody_keeps_more_than_twenty_targets_of_a_channel(apps: list[App]) -> None:
    for n in range(20):
        await apps[0].rpc("register_device", token=f"{DEVICE}{n}")
    status, said = await apps[0].ask("POST", "rpc/register_device", {"token": f"{DEVICE}20"})
    assert (status, said["hint"]) == (422, "Take one away with remove_target.")
    await apps[0].rpc("register_device", token=f"{DEVICE}7")


async def test_users_read_their_own_alerts_and_say_only_that_they_have(
    apps: list[App], office: Office, pager: Post, owner: Owner
) -> None:
    ann, bob = apps
    await owner.execute(
        "insert into alert_targets (user_id, channel, address) values ($1, 'pager', 'a')", ann.user
    )
    await office.tell(userId=str(ann.user), **ALERT)
    await office.rounds()
    now = {"read_at": "2026-11-01T00:00:00Z"}
    assert await bob.ask("PATCH", "alerts?title=neq.x&select=id", now) == (200, [])
    status, [alert] = await ann.ask("PATCH", "alerts?title=neq.x&select=title,read_at", now)
    assert (status, alert["title"]) == (200, "Filled")
    assert alert["read_at"] is not None
    assert (await ann.ask("PATCH", "alerts?title=neq.x", {"title": "Lost"}))[0] == 403
    assert await ann.ask("GET", "alert_deliveries?select=channel,status") == (
        200,
        [{"channel": "pager", "status": "sent"}],
    )
    assert (await ann.ask("GET", "alert_deliveries?select=address"))[0] == 403
    assert await bob.ask("GET", "alert_deliveries?select=channel") == (200, [])


async def test_preferences_that_cannot_be_kept_are_refused(apps: list[App]) -> None:
    for words in (
        {"timezone": "Mars/Olympus"},
        {"timezone": "EST5EDT"},
        {"timezone": "Europe/Berlin+3"},
        {"timezone": "../../etc/passwd"},
        {"quiet_from": "22:00"},
        {"quiet_from": "22:00", "quiet_until": "22:00"},
        {"quiet_from": "00:00", "quiet_until": "24:00"},  # from which no moment would be left
        {"quiet_bypass": "never"},
        {"digest_weekday": 8},
        {"locale": "<script>"},
        {"locale": "en" + "_ab" * 99},
        {"muted_types": ["x" * 20_000]},
        {"digest_channels": ["x" * 1_000]},
    ):
        own = {"user_id": str(apps[0].user), **words}
        assert (await apps[0].ask("POST", "notification_preferences", own))[0] == 400, words


async def test_preferences_are_edited_by_their_user_alone(apps: list[App], person: Person) -> None:
    ann, bob = apps
    own = {"user_id": str(ann.user)}
    words = {"timezone": "Europe/Berlin", "quiet_from": "22:00", "quiet_until": "07:00"}
    assert (await ann.ask("POST", "notification_preferences", own | words))[0] == 201
    channel = {"channel": "push", "min_severity": "error"}
    assert (await ann.ask("POST", "channel_preferences", own | channel))[0] == 201
    for table in ("notification_preferences", "channel_preferences"):
        assert (await bob.ask("POST", table, own | {"user_id": str(ann.user)}))[0] in (401, 403)
        assert await bob.ask("GET", table) == (200, [])
        assert len((await ann.ask("GET", table))[1]) == 1
    assert await bob.ask("PATCH", "channel_preferences?channel=eq.push", {"enabled": False}) == (200, [])
    assert await bob.ask("DELETE", "channel_preferences?channel=eq.push") == (200, [])
    assert len((await ann.ask("DELETE", "channel_preferences?channel=eq.push"))[1]) == 1
