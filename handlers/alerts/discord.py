"""Discord: one alert or digest to one webhook, never faster than Discord says, whatever the number of processes."""

from collections.abc import Mapping
from datetime import timedelta

from handlers.clients.alerts.delivery import AlertJob, Sending, deliver, patience
from handlers.clients.alerts.digest import facts_of_digest
from handlers.clients.alerts.discord import PACE, Discord
from handlers.clients.alerts.discord_digest import discord_digest
from handlers.clients.alerts.discord_message import discord_message
from handlers.clients.alerts.told import NotSent, Told
from handlers.clients.database import Database
from listener import Job, Queue, Snooze, handler


@handler(Queue.ALERTS, backoff=patience, timeout=timedelta(minutes=1))
async def discord(
    payload: AlertJob, *, job: Job, db: Database, webhooks: Discord
) -> Mapping[str, object] | Snooze:
    """Sends one delivery; or routes words to the user's webhooks."""

    async def send(sending: Sending) -> Told:
        if sending.alert is not None:
            message = discord_message(sending.alert, is_resend=sending.resend)
        else:
            facts = await facts_of_digest(db, sending)
            if isinstance(facts, NotSent):
                return facts
            message = discord_digest(facts, is_resend=sending.resend)
        return await webhooks.post(sending.target.address, sending.target.secret, message)

    return await deliver(db, job, payload, send, PACE)
