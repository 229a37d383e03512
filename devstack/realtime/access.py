"""What one token may do in one private room, as the policies on realtime.messages decide it.

Reading is tried with rows that are written, looked at in the token's role and taken back; writing is tried by
writing. The answers are kept until the token changes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, cast
from uuid import UUID, uuid4

import asyncpg

from devstack.realtime.database import Database
from devstack.realtime.refusals import Refused
from devstack.realtime.tokens import Token

if TYPE_CHECKING:
    from devstack.realtime.database import Connection

LOG: Final = logging.getLogger("devstack.realtime.server")
Extension = Literal["broadcast", "presence"]
AWAY: Final = "Realtime was unable to connect to the project database"
IMPERSONATE: Final = """
    select set_config('role', $1, true), set_config('realtime.topic', $2, true),
      set_config('request.jwt.claims', $3, true), set_config('request.jwt.claim.sub', $4, true),
      set_config('request.jwt.claim.role', $1, true), set_config('request.headers', $5, true)
"""


@dataclass(eq=False, slots=True)
class Access:
    """`topic` is without its prefix; `headers` are those of the request, as JSON text for the policies to see.

    `reads_presence` is None until somebody asks: a channel without presence does not.
    """

    database: Database
    topic: str
    token: Token
    headers: str
    reads_broadcasts: bool = False
    reads_presence: bool | None = None
    _writes: dict[Extension, bool] = field(default_factory=dict[Extension, bool])

    async def look(self, *, presence: bool) -> None:
        """Finds out what may be read; raises Refused when that is nothing."""
        wanted: list[Extension] = ["broadcast", "presence"] if presence else ["broadcast"]
        seen = await self._seen(wanted)
        self.reads_broadcasts = "broadcast" in seen
        self.reads_presence = "presence" in seen if presence else None
        if not seen:
            raise self.unreadable()

    async def look_at_presence(self) -> None:
        """Finds out whether presence may be read, if that is not known yet; raises Refused."""
        if self.reads_presence is None:
            self.reads_presence = "presence" in await self._seen(["presence"])

    async def may_write(self, extension: Extension) -> bool:
        """Whether the token may send; raises Refused when the database cannot tell."""
        if extension not in self._writes:
            self._writes[extension] = await self._written(extension)
        return self._writes[extension]

    def unreadable(self) -> Refused:
        """The refusal of a room in which nothing may be read."""
        message = f"You do not have permissions to read from this Channel topic: {self.topic}"
        return Refused("Unauthorized", message)

    async def _seen(self, extensions: list[Extension]) -> set[Extension]:
        rows: dict[UUID, Extension] = {uuid4(): extension for extension in extensions}
        async with self._tried() as connection:
            await connection.executemany(
                "insert into realtime.messages (id, topic, extension) values ($1, $2, $3)",
                [(identity, self.topic, extension) for identity, extension in rows.items()],
            )
            await self._impersonate(connection)
            found = await connection.fetch("select id from realtime.messages where id = any($1)", list(rows))
            return {rows[UUID(str(row["id"]))] for row in found}

    async def _written(self, extension: Extension) -> bool:
        async with self._tried() as connection:
            await self._impersonate(connection)
            try:
                async with connection.transaction():
                    await connection.execute(
                        "insert into realtime.messages (topic, extension) values ($1, $2)",
                        self.topic,
                        extension,
                    )
            except asyncpg.InsufficientPrivilegeError:
                return False
            return True

    async def _impersonate(self, connection: Connection) -> None:
        subject = cast("dict[str, object]", json.loads(self.token.claims)).get("sub")
        await connection.execute(
            IMPERSONATE,
            self.token.role,
            self.topic,
            self.token.claims,
            "" if subject is None else str(subject),
            self.headers,
        )

    @asynccontextmanager
    async def _tried(self) -> AsyncIterator[Connection]:
        """A connection on which nothing stays; what goes wrong on it becomes a refusal."""
        try:
            async with self.database.connection() as connection:
                transaction = connection.transaction()
                await transaction.start()
                try:
                    yield connection
                finally:
                    await transaction.rollback()
        except asyncpg.CheckViolationError as error:
            message = "Realtime was unable to find the expected messages partition"
            raise Refused("MissingPartition", message, late=AWAY) from error
        except asyncpg.QueryCanceledError as error:
            raise Refused(
                "QueryCanceled", str(error), late="Query was cancelled, please try again"
            ) from error
        except (asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError) as error:
            raise Refused("UnableToConnectToProject", AWAY) from error
        except (asyncpg.InterfaceError, OSError) as error:
            raise Refused("UnableToConnectToProject", AWAY) from error
        except asyncpg.PostgresError as error:  # a policy that fails, a role that does not exist
            LOG.warning("the policies of realtime.messages fail for %s: %s", self.token.role, error)
            raise self.unreadable() from error
