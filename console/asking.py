"""The database as the operator at the keyboard asks it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from listener.config import SUPABASE_SERVICE_ROLE_KEY, WORKER_KEY, Config, process_environment, read_config
from listener.store import Store, connected


def operator_config() -> Config:
    """With the service key where there is one: what operators do is not for the key of a worker."""
    environment = process_environment()
    if environment.get(SUPABASE_SERVICE_ROLE_KEY.name):
        environment.pop(WORKER_KEY.name, None)
    return read_config(environment)


@asynccontextmanager
async def operator(name: str) -> AsyncIterator[Store]:
    """A Store for one command; `name` is what the server's logs call it."""
    config = operator_config()
    async with connected(config.supabase_url, config.key, name, apikey=config.apikey) as store:
        yield store
