"""The demo's reader: registers where to be told, and one alert arrives there, by mail, on Discord and on a device."""

from typing import cast

from supabase import AsyncClient, acreate_client

from demo.counterparts import Counterparts
from demo.stage import Stage
from devstack.alerts.discord import Webhook
from devstack.alerts.firebase import Device
from devstack.keys import LOCAL

_EMAIL, _PASSWORD = "ann@example.com", "correct horse battery staple"
_CHANNELS = ["discord", "email", "push"]


async def tell(stage: Stage, counterparts: Counterparts) -> None:
    """From one insert to three messages."""
    stage.say("\n7. Ann is told of something: by mail, on Discord and on her phone. One row is inserted.")
    webhook, device = counterparts.discord.webhook(), counterparts.firebase.device()
    user = await _register(stage, webhook, device)
    job = await stage.insert(
        "alerts",
        "notify",
        {
            "userId": user,
            "alertType": "order_filled",
            "title": "Filled: 5 AAPL",
            "message": "Bought at 200.10. Your note: **sell** at 210, @everyone! https://evil.example",
            "metadata": {"symbol": "AAPL", "value": "1000.50 USD"},
        },
        "notify, as an app tells it; its text has a mention and a link that somebody wrote",
    )
    await stage.until("the alert is routed", lambda: stage.is_done(job))
    deliveries = await _deliveries(stage, user)
    await stage.until("each channel has told it", lambda: all(map(stage.is_done, deliveries)))
    await _show(stage, user, counterparts, webhook, device)


async def _register(stage: Stage, webhook: Webhook, device: Device) -> str:
    """As her app does, with her own key. Her address is confirmed; it needs no registration."""
    made = await stage.database.auth.admin.create_user(
        {"email": _EMAIL, "password": _PASSWORD, "email_confirm": True}
    )
    app: AsyncClient = await acreate_client(stage.url, LOCAL.publishable)
    await app.auth.sign_in_with_password({"email": _EMAIL, "password": _PASSWORD})
    await app.rpc("register_discord_webhook", {"url": webhook.url, "label": "trading room"}).execute()
    await app.rpc("register_device", {"token": device.token, "label": "phone"}).execute()
    await app.auth.sign_out()
    stage.say("   rpc register_discord_webhook, register_device  →  a webhook and a device are hers")
    return made.user.id


async def _deliveries(stage: Stage, user: str) -> list[int]:
    """The jobs that the alert became, one for each target."""
    rows = await stage.owner.fetch(
        "select id from jobs where queue = 'alerts' and user_id = $1 and type = any ($2) order by id",
        user,
        _CHANNELS,
    )
    return [row["id"] for row in rows]


async def _show(
    stage: Stage, user: str, counterparts: Counterparts, webhook: Webhook, device: Device
) -> None:
    """What arrived, as it arrived."""
    rows = await stage.owner.fetch(
        "select channel, status, sends from alert_deliveries where user_id = $1 order by channel", user
    )
    stage.say(
        "   select channel, status, sends from alert_deliveries  →  "
        + "; ".join(f"{row['channel']} {row['status']}, begun {row['sends']} time" for row in rows)
    )
    stage.promise(
        "three targets were told, each once",
        [tuple(row) for row in rows] == [(channel, "sent", 1) for channel in _CHANNELS],
    )
    mails, posts, notes = counterparts.mailbox.came, webhook.messages, list(device.shown.values())
    stage.promise(
        "one mail, one message, one notification arrived", [len(mails), len(posts), len(notes)] == [1] * 3
    )
    for mail in mails:
        text = mail.get_body(("plain",))
        _quote(
            stage, f"the mail to {mail['To']}, Subject: {mail['Subject']}", text.get_content() if text else ""
        )
        stage.promise("a mail program ends such mails by one request", "List-Unsubscribe-Post" in mail)
    for post in posts:
        embed = post["embeds"][0]
        fields = "\n".join(f"{field['name']}: {field['value']}" for field in embed["fields"])
        _quote(stage, f"the message on Discord: {embed['title']}", f"{embed['description']}\n{fields}")
        stage.promise("nobody is mentioned by it", post["allowed_mentions"] == {"parse": []})
    for note in notes:
        words = cast("dict[str, str]", note["notification"])
        _quote(stage, f"the notification: {words['title']}", words["body"])


def _quote(stage: Stage, what: str, text: str) -> None:
    stage.say(f"   {what}")
    for line in text.strip().splitlines():
        stage.say(f"      │ {line}")
