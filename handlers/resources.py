"""Opens what handlers ask for by type, once per process: the database and the providers' clients."""

from collections.abc import AsyncIterator, Mapping
from typing import Final

from handlers.clients.alerts.discord import DISCORD_API_BASE, Discord
from handlers.clients.alerts.mail import APP_URL, MAIL_SETTINGS, Mailer
from handlers.clients.alerts.push import PUSH_SETTINGS, Push
from handlers.clients.alpaca.client import open_alpaca
from handlers.clients.alpaca.http import ALPACA_PAPER_API_BASE
from handlers.clients.broker.brokers import Brokers, Open
from handlers.clients.broker.callback_signature import BROKER_CALLBACK_SECRET, CallbackMasters
from handlers.clients.broker.paper import open_paper
from handlers.clients.chains.client import CRYPTO_ENDPOINTS, Chains
from handlers.clients.database import Database, database_of
from handlers.clients.exchange.client import CCXT_PAPER_API_BASE, open_exchange
from handlers.clients.retention import KEEP_COMPLETED_DAYS, KEEP_FAILED_DAYS, Retention
from handlers.clients.stripe.client import (
    STRIPE_API_BASE,
    STRIPE_SECRET_KEY,
    STRIPE_WEBHOOK_SECRET_IN_JOBS,
    StripeClient,
)
from listener import Keyring, Setting, Settings, resource

SUPABASE_URL = Setting("SUPABASE_URL", "Supabase dashboard, Project Settings, Data API", secret=False)
SUPABASE_SERVICE_ROLE_KEY = Setting(
    "SUPABASE_SERVICE_ROLE_KEY",
    "Supabase dashboard, Project Settings, API Keys (service_role or sb_secret_…)",
    required=False,  # the process asks for it, unless it has the key of a worker
)
PULSE_WORKER_KEY = Setting("PULSE_WORKER_KEY", "`pulse worker-key` makes it", required=False)
SUPABASE_PUBLISHABLE_KEY = Setting(
    "SUPABASE_PUBLISHABLE_KEY", "Supabase dashboard, Project Settings, API Keys", required=False, secret=False
)
ADAPTERS: Final[Mapping[str, Open]] = {"alpaca": open_alpaca, "ccxt": open_exchange, "paper": open_paper}
"""Who opens an account, by the part of a connection's `broker` before the colon. Your own adapter is one more line."""


@resource(SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY, PULSE_WORKER_KEY, SUPABASE_PUBLISHABLE_KEY)
async def database(settings: Settings, keyring: Keyring) -> AsyncIterator[Database]:
    """The Supabase client, one for all handlers."""
    async with database_of(settings[SUPABASE_URL.name], keyring) as client:
        yield client


@resource(STRIPE_SECRET_KEY, STRIPE_API_BASE, STRIPE_WEBHOOK_SECRET_IN_JOBS)
async def stripe(settings: Settings) -> AsyncIterator[StripeClient]:
    """Stripe, with our key."""
    async with StripeClient.open(settings) as client:
        yield client


@resource(CRYPTO_ENDPOINTS)
async def chains(settings: Settings) -> AsyncIterator[Chains]:
    """The chains that crypto payments are looked for on; none, without endpoints."""
    async with Chains.open(settings) as opened:
        yield opened


@resource(
    SUPABASE_URL,
    SUPABASE_SERVICE_ROLE_KEY,
    PULSE_WORKER_KEY,
    SUPABASE_PUBLISHABLE_KEY,
    ALPACA_PAPER_API_BASE,
    CCXT_PAPER_API_BASE,
)
async def brokers(settings: Settings, keyring: Keyring) -> AsyncIterator[Brokers]:
    """The accounts at brokers. Each is opened when it is first asked for, so no secret of theirs is needed before."""
    url = settings[SUPABASE_URL.name]
    async with database_of(url, keyring) as db, Brokers.open(ADAPTERS, settings, db) as opened:
        yield opened


@resource(*MAIL_SETTINGS)
async def mailer(settings: Settings) -> AsyncIterator[Mailer]:
    """E-mail, by the backend of the settings; without one, mails become dead letters that say so."""
    async with Mailer.open(settings) as opened:
        yield opened


@resource(DISCORD_API_BASE, APP_URL)
async def discord(settings: Settings) -> AsyncIterator[Discord]:
    """Discord's webhooks; they need no key of ours."""
    async with Discord.open(settings) as opened:
        yield opened


@resource(BROKER_CALLBACK_SECRET)
async def callback_masters(settings: Settings) -> AsyncIterator[CallbackMasters]:
    """What callbacks are verified with, where the door has not done it."""
    yield CallbackMasters(settings.get(BROKER_CALLBACK_SECRET.name))


@resource(*PUSH_SETTINGS)
async def push(settings: Settings) -> AsyncIterator[Push]:
    """Devices, through Firebase; without its key, notifications become dead letters that say so."""
    async with Push.open(settings) as opened:
        yield opened


@resource(KEEP_COMPLETED_DAYS, KEEP_FAILED_DAYS)
async def retention(settings: Settings) -> AsyncIterator[Retention]:
    """What this project keeps, and how long."""
    yield Retention.of(settings)
