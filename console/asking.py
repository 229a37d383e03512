"""The database as the operator at the keyboard asks it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from listener.config import Config, process_environment, read_config
from listener.errors import PulseError, StoreUnavailable
from listener.keyring import FILE, SERVICE_NAME, WORKER_NAME, Keyring
from listener.store import Store, connected


def operator_config() -> Config:
    """With the service key where there is one: what operators do is not for the key of a worker."""
    return read_config(_environment())


@asynccontextmanager
async def operator(name: str) -> AsyncIterator[Store]:
    """A Store for one command; `name` is what the server's logs call it. Of several keys any that is good will do."""
    config = operator_config()
    async with connected(config.supabase_url, Keyring.of(_environment()), name) as store:
        try:
            yield store
        except StoreUnavailable as error:
            where = f"{config.supabase_url} did not answer. Is SUPABASE_URL right, and is the project up?"
            raise PulseError(f"{error}: {where}") from error


def _environment() -> Mapping[str, str]:
    environment = process_environment()
    if any(environment.get(name) for name in (SERVICE_NAME, SERVICE_NAME + FILE)):
        for name in (WORKER_NAME, WORKER_NAME + FILE):
            environment.pop(name, None)
    return environment
