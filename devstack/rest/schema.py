"""What the REST side knows about the database: tables, functions and role settings, read from pg_catalog."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from devstack.rest.errors import RestError

if TYPE_CHECKING:
    import asyncpg

SCHEMA: Final = "public"
JSON_TYPES: Final = ("json", "jsonb")

TABLES: Final = """
    select c.oid, c.relname as name, c.relkind::text as kind, a.attname as column,
           format_type(a.atttypid, -1) as type, pg_get_expr(d.adbin, d.adrelid) as "default",
           coalesce(a.attnum = any (k.conkey), false) as is_key
    from pg_class as c
    join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum and a.attgenerated = ''
    left join pg_constraint as k on k.conrelid = c.oid and k.contype = 'p'
    where c.relnamespace = $1::text::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c')
    order by c.oid, a.attnum
"""
FUNCTIONS: Final = """
    select p.proname as name, p.proargnames as arg_names, p.proargmodes::text[] as arg_modes,
           array(
             select format_type(t, -1)
             from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality as u (t, n)
             order by n
           ) as arg_types,
           p.pronargdefaults as defaults, p.proretset as is_set, p.provariadic <> 0 as is_variadic,
           format_type(p.prorettype, -1) as type, t.typtype::text as kind, t.typrelid as relation
    from pg_proc as p
    join pg_type as t on t.oid = p.prorettype
    where p.pronamespace = $1::text::regnamespace and p.prokind = 'f'
      and t.typname not in ('trigger', 'event_trigger')
    order by p.oid
"""
ROLE_SETTINGS: Final = """
    select r.rolname as role, split_part(c, '=', 1) as name, substr(c, strpos(c, '=') + 1) as value
    from pg_db_role_setting as s
    join pg_roles as r on r.oid = s.setrole
    cross join unnest(s.setconfig) as c
    where s.setdatabase = 0 and r.rolname <> session_user and pg_has_role(session_user, r.oid, 'member')
"""
DEFAULTS: Final = "select name, reset_val from pg_settings where name = any ($1::text[])"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its type as SQL spells it, and its default expression if there is one."""

    name: str
    type: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view of the exposed schema."""

    name: str
    columns: Mapping[str, Column]
    primary_key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Argument:
    """An input argument; unnamed ones have the name ''."""

    name: str
    type: str
    optional: bool


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function of the exposed schema, equal to itself only.

    `columns` is None for a scalar, else those of the returned row.
    """

    name: str
    arguments: tuple[Argument, ...]
    type: str
    is_set: bool
    is_variadic: bool
    columns: Mapping[str, Column] | None

    @property
    def takes_whole_body(self) -> bool:
        """One unnamed JSON argument: the request's body itself."""
        return (
            len(self.arguments) == 1 and not self.arguments[0].name and self.arguments[0].type in JSON_TYPES
        )

    def fits(self, names: Collection[str]) -> bool:
        """Whether it can be called with exactly these named arguments."""
        known = {argument.name for argument in self.arguments}
        needed = {argument.name for argument in self.arguments if not argument.optional}
        return needed <= set(names) <= known


@dataclass(frozen=True, slots=True)
class Schema:
    """One reading of the catalog. Stale after DDL until it is read again."""

    tables: Mapping[str, Table]
    functions: Mapping[str, tuple[Function, ...]]
    role_settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    default_settings: Mapping[str, str] = field(default_factory=dict[str, str])

    def settings_of(self, role: str) -> dict[str, str]:
        """Settings that a request of this role runs under, such as statement_timeout."""
        return {**self.default_settings, **self.role_settings.get(role, {})}

    def table(self, name: str) -> Table:
        """The table, or PGRST205."""
        found = self.tables.get(name)
        if found is not None:
            return found
        near = get_close_matches(name, self.tables, 1, 0.75)
        hint = f"Perhaps you meant the table '{SCHEMA}.{near[0]}'" if near else None
        message = f"Could not find the table '{SCHEMA}.{name}' in the schema cache"
        raise RestError(404, "PGRST205", message, hint=hint)

    def function(self, name: str, names: Collection[str]) -> Function:
        """The one function that takes these arguments, or PGRST202, or PGRST203 when several do."""
        overloads = self.functions.get(name, ())
        fitting = [each for each in overloads if each.fits(names)] or [
            each for each in overloads if each.takes_whole_body
        ]
        if len(fitting) > 1:
            raise _ambiguous(fitting)
        if not fitting:
            raise _no_function(name, names, overloads)
        return fitting[0]


async def read_schema(connection: asyncpg.Connection[asyncpg.Record]) -> Schema:
    """Reads the catalog; three small queries."""
    tables: dict[str, Table] = {}
    by_oid: dict[int, dict[str, Column]] = {}
    keys: dict[str, list[str]] = {}
    for row in await connection.fetch(TABLES, SCHEMA):
        columns = by_oid.setdefault(row["oid"], {})
        columns[row["column"]] = Column(row["column"], row["type"], row["default"])
        key = keys.setdefault(row["name"], [])
        if row["is_key"]:
            key.append(row["column"])
        if row["kind"] != "c":
            tables[row["name"]] = Table(row["name"], columns, ())
    tables = {name: Table(name, each.columns, tuple(keys[name])) for name, each in tables.items()}
    functions: dict[str, tuple[Function, ...]] = {}
    for row in await connection.fetch(FUNCTIONS, SCHEMA):
        functions[row["name"]] = (*functions.get(row["name"], ()), _function(row, by_oid))
    roles: dict[str, dict[str, str]] = {}
    for row in await connection.fetch(ROLE_SETTINGS):
        roles.setdefault(row["role"], {})[row["name"]] = row["value"]
    names = sorted({name for settings in roles.values() for name in settings})
    defaults = {row["name"]: row["reset_val"] for row in await connection.fetch(DEFAULTS, names)}
    return Schema(tables, functions, roles, defaults)


def _function(row: asyncpg.Record, by_oid: Mapping[int, dict[str, Column]]) -> Function:
    types: list[str] = row["arg_types"]
    names: list[str] = row["arg_names"] or [""] * len(types)
    modes: list[str] = row["arg_modes"] or ["i"] * len(types)
    inputs = [(name, type_) for name, type_, mode in zip(names, types, modes, strict=True) if mode in "ibv"]
    outputs = [(name, type_) for name, type_, mode in zip(names, types, modes, strict=True) if mode in "obt"]
    required = len(inputs) - int(row["defaults"])
    columns: Mapping[str, Column] | None = None
    if row["kind"] == "c":
        columns = by_oid.get(row["relation"], {})
    elif row["type"] == "record":
        columns = {name: Column(name, type_) for name, type_ in outputs}
    return Function(
        name=row["name"],
        arguments=tuple(Argument(name, type_, n >= required) for n, (name, type_) in enumerate(inputs)),
        type=row["type"],
        is_set=row["is_set"],
        is_variadic=row["is_variadic"],
        columns=columns,
    )


def _ambiguous(fitting: Collection[Function]) -> RestError:
    shown = [
        f"{SCHEMA}.{each.name}({', '.join(f'{a.name} => {a.type}' for a in each.arguments)})"
        for each in fitting
    ]
    return RestError(
        300,
        "PGRST203",
        f"Could not choose the best candidate function between: {', '.join(shown)}",
        hint="Try renaming the parameters or the function itself in the database so function overloading "
        "can be resolved",
    )


def _no_function(name: str, names: Collection[str], overloads: Collection[Function]) -> RestError:
    called = ", ".join(sorted(names))
    shown = f"({called})" if names else " without parameters"
    given = f"with parameter{'s' if len(names) > 1 else ''} {called}" if names else "without parameters"
    known = [", ".join(argument.name for argument in each.arguments) for each in overloads]
    near = get_close_matches(called, known, 1, 0.3)
    return RestError(
        404,
        "PGRST202",
        f"Could not find the function {SCHEMA}.{name}{shown} in the schema cache",
        f"Searched for the function {SCHEMA}.{name} {given} or with a single unnamed json/jsonb parameter, "
        "but no matches were found in the schema cache.",
        f"Perhaps you meant to call the function {SCHEMA}.{name}({near[0]})" if near else None,
    )
