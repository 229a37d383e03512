"""Opens what handlers ask for by type, once per process: the database and the providers' clients."""

from collections.abc import AsyncIterator

from httpx import AsyncClient as HttpClient
from supabase import AsyncClientOptions, create_async_client

from handlers.clients.database import Database
from handlers.clients.stripe import (
    STRIPE_API_BASE,
    STRIPE_SECRET_KEY,
    STRIPE_WEBHOOK_SECRET_IN_JOBS,
    StripeClient,
)
from listener import Setting, Settings, resource

SUPABASE_URL = Setting("SUPABASE_URL", "Supabase dashboard, Project Settings, Data API", secret=False)
SUPABASE_SERVICE_ROLE_KEY = Setting(
    "SUPABASE_SERVICE_ROLE_KEY",
    "Supabase dashboard, Project Settings, API Keys (service_role or sb_secret_…)",
)
DATABASE_TIMEOUT_SECONDS = 10.0


@resource(SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY)
async def database(settings: Settings) -> AsyncIterator[Database]:
    """The Supabase client. Its login session is never used: the key is the identity."""
    async with HttpClient(timeout=DATABASE_TIMEOUT_SECONDS) as http:
        yield await create_async_client(
            settings[SUPABASE_URL.name],
            settings[SUPABASE_SERVICE_ROLE_KEY.name],
            AsyncClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=http),
        )


@resource(STRIPE_SECRET_KEY, STRIPE_API_BASE, STRIPE_WEBHOOK_SECRET_IN_JOBS)
async def stripe(settings: Settings) -> AsyncIterator[StripeClient]:
    """Stripe, with our key."""
    async with StripeClient.open(settings) as client:
        yield client
