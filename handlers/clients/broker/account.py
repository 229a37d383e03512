"""What opens an account at a broker: the connection as the database shows it, and its credentials.

Credentials are names with secrets, each adapter says which. They come from one of two places, as the connection says:

    credentials_secret_id    Vault keeps them: a JSON object, {"key_id": "…", "secret_key": "…"}
    credentials_env          the environment of the worker does, under that name, say BROKER_ALPACA: either the same
                             JSON object in BROKER_ALPACA, or one variable each: BROKER_ALPACA_KEY_ID and so on

The name has to begin with BROKER_, so that no row can make a worker read what else its environment holds.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, cast
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from handlers.clients.broker.broker import BrokerAdapter, Credentials, NotSent
from handlers.clients.database import CallFailed, Database, call
from listener import Settings, strike_out

_VARIABLE: Final = re.compile(r"BROKER_(?!CALLBACK)[A-Z0-9_]+")
"""BROKER_CALLBACK_SECRET signs what brokers call back with, and opens nothing."""
_SECRETS: Final = TypeAdapter(dict[str, str])


@dataclass(frozen=True, slots=True)
class Connection:
    """An account at a broker, as the SQL functions tell of it."""

    id: UUID
    user_id: UUID
    broker: str
    """`paper`, `alpaca`, `ccxt:kraken`: what stands before the colon chooses the adapter."""
    environment: Literal["paper", "live"]
    credentials_version: int
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    credentials_env: str | None = None

    @classmethod
    def read(cls, told: object) -> Connection:
        """From the JSON that the SQL functions answer; more keys than these do no harm."""
        return _CONNECTION.validate_python(told)

    def __str__(self) -> str:
        """What errors call it."""
        return f"the {self.broker} connection {self.id}"


_CONNECTION: Final = TypeAdapter(Connection)


class NotOpened(NotSent):
    """The account cannot be opened as things are set up: the sentence says what to mend. Nothing was sent."""


@dataclass(frozen=True, slots=True)
class Account:
    """All that it may take to open one."""

    connection: Connection
    settings: Settings = field(repr=False)
    """The environment of this process."""
    db: Database = field(repr=False)
    secrets: set[str] = field(default_factory=set[str], repr=False)
    """What was read as credentials so far: struck out of whatever is logged or stored of an attempt that asks here."""

    async def credentials(self, *names: str) -> Credentials:
        """The credentials of these names, all of them. Raises NotOpened with what is missing."""
        connection = self.connection
        if connection.credentials_env is not None:
            where = f"the environment variable {connection.credentials_env}"
            values = self._from_environment(connection.credentials_env, names)
        else:
            where = "Vault"
            values = await self._from_vault()
        missing = [name for name in names if not values.get(name)]
        if missing:
            raise NotOpened(f"The credentials of {connection} in {where} lack {', '.join(missing)}.")
        return Credentials({name: values[name] for name in names})

    async def _from_vault(self) -> Mapping[str, str]:
        connection = self.connection
        try:
            told = await call(
                self.db,
                "broker_credentials",
                connection_id=connection.id,
                version=connection.credentials_version,
            )
        except CallFailed as failed:
            raise NotOpened(f"The credentials of {connection} cannot be read: {failed}") from None
        if told["version"] != connection.credentials_version:
            raise NotOpened(f"The credentials of {connection} have just changed; try again.")
        if told["secret"] is None:
            raise NotOpened(
                f"There are no credentials for {connection}. Give it a credentials_secret_id (a secret in Vault), or a "
                "credentials_env (the name of a variable of the worker that begins with BROKER_)."
            )
        return self._read(cast("str", told["secret"]), f"The secret of {connection} in Vault")

    def _from_environment(self, variable: str, names: tuple[str, ...]) -> Mapping[str, str]:
        connection = self.connection
        if not _VARIABLE.fullmatch(variable):
            raise NotOpened(
                f"The credentials_env of {connection} has to begin with BROKER_ (and not with BROKER_CALLBACK): "
                "no other variable is read for it."
            )
        if whole := self.settings.get(variable):
            return self._read(whole, f"The environment variable {variable}")
        single = {name: f"{variable}_{name.upper()}" for name in names}
        found = {name: self.settings[one] for name, one in single.items() if self.settings.get(one)}
        if not found:
            raise NotOpened(
                f"This worker has no credentials for {connection}: set {' and '.join(single.values())}, or {variable} "
                f"to a JSON object with {' and '.join(names)}."
            )
        self._learn(*found.values())
        return found

    def _read(self, text: str, what: str) -> Mapping[str, str]:
        self._learn(text)
        try:
            values = _SECRETS.validate_json(text)
        except ValidationError:
            raise NotOpened(f"{what} has to be a JSON object of strings.") from None
        self._learn(*values.values())
        return values

    def _learn(self, *secrets: str) -> None:
        self.secrets.update(secrets)
        strike_out(*secrets)


Open: TypeAlias = Callable[[Account], Awaitable[BrokerAdapter]]
"""Opens an account. Whatever it raises, nothing was sent."""
