"""What the REST side knows about the tables and views of each exposed schema, and how they are related."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from devstack.rest.catalogue import Table, read_catalogue
from devstack.rest.errors import RestError
from devstack.rest.hints import nearest
from devstack.rest.relations import Relation

if TYPE_CHECKING:
    import asyncpg

SIMILAR: Final = 0.75


@dataclass(frozen=True, slots=True)
class Schema:
    """One reading of the catalog for one exposed schema. Stale after DDL until it is read again."""

    name: str
    tables: Mapping[str, Table] = field(default_factory=dict[str, Table])
    relations: Mapping[str, tuple[Relation, ...]] = field(default_factory=dict[str, tuple[Relation, ...]])

    def table(self, name: str) -> Table:
        """The table, or PGRST205."""
        found = self.tables.get(name)
        if found is not None:
            return found
        near = nearest(name, self.tables, SIMILAR)
        hint = f"Perhaps you meant the table '{self.name}.{near}'" if near else None
        message = f"Could not find the table '{self.name}.{name}' in the schema cache"
        raise RestError(404, "PGRST205", message, hint=hint)


async def read_schemas(
    connection: asyncpg.Connection[asyncpg.Record], names: Sequence[str], extra: Sequence[str]
) -> dict[str, Schema]:
    """Reads the catalog for the exposed schemas; `extra` are those whose views may be in between."""
    catalogue = await read_catalogue(connection, names, extra)
    return {name: Schema(name, catalogue.tables[name], catalogue.relations[name]) for name in names}
