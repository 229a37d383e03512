"""The functions of the exposed schema: what they take and give, and which one a call means."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from devstack.rest.catalogue import Column
from devstack.rest.errors import RestError
from devstack.rest.hints import nearest

if TYPE_CHECKING:
    import asyncpg

# The media type of a body, and what a single unnamed argument must be to be given the body itself.
WHOLE_BODY: Final = {
    "application/json": ("json", "jsonb"),
    "text/plain": ("text",),
    "text/xml": ("xml",),
    "application/octet-stream": ("bytea",),
}
HOISTED: Final = ("statement_timeout", "default_transaction_isolation")
UNNAMED: Final = frozenset({"bytea", "json", "jsonb", "text", "xml"})
FUNCTIONS: Final = """
    select n.nspname as schema, p.proname as name, p.proargnames as arg_names, p.proargmodes::text[] as arg_modes,
           array(
             select format_type(t, -1)
             from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality as u (t, n)
             order by n
           ) as arg_types,
           p.pronargdefaults as defaults, p.proretset as is_set, p.provolatile <> 'v' as is_read_only,
           p.proconfig as settings,
           format_type(p.prorettype, -1) as type, t.typname as row_name,
           c.names as column_names, c.types as column_types
    from pg_proc as p
    join pg_type as t on t.oid = p.prorettype
    left join pg_type as b on t.typtype = 'd' and b.oid = t.typbasetype
    left join lateral (
      select array_agg(a.attname::text order by a.attnum) as names,
             array_agg(format_type(a.atttypid, -1) order by a.attnum) as types
      from pg_attribute as a
      where a.attrelid = nullif(coalesce(b.typrelid, t.typrelid), 0) and a.attnum > 0 and not a.attisdropped
    ) as c on true
    join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = any ($1::text[]) and p.prokind = 'f'
      and t.typname not in ('trigger', 'event_trigger')
    order by p.oid
"""


@dataclass(frozen=True, slots=True)
class Argument:
    """An input argument; an unnamed one has the name ''."""

    name: str
    type: str
    optional: bool
    is_variadic: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """One function, equal to itself only. `columns` is None for a scalar, else those of the returned row."""

    name: str
    arguments: tuple[Argument, ...]
    type: str
    is_set: bool
    columns: Mapping[str, Column] | None
    is_read_only: bool
    row_name: str
    """What its rows are called in PostgreSQL's messages."""
    settings: Mapping[str, str]
    """Its own settings that hold for the whole request, not only inside it."""

    def takes_whole(self, media: str) -> bool:
        """Whether its one unnamed argument is given a body of this media type as it is."""
        if len(self.arguments) != 1 or self.arguments[0].name:
            return False
        return self.arguments[0].type in WHOLE_BODY.get(media, ())

    def fits(self, names: Collection[str], media: str | None) -> bool:
        """Whether it can be called with exactly these named arguments; `media` is None for a GET."""
        if not self.arguments:
            return not names and media in (None, "application/json", "application/x-www-form-urlencoded")
        known = {argument.name for argument in self.arguments}
        needed = {argument.name for argument in self.arguments if not argument.optional}
        return needed <= set(names) <= known


@dataclass(frozen=True, slots=True)
class Functions:
    """All of one schema, by name."""

    schema: str
    by_name: Mapping[str, tuple[Function, ...]] = field(default_factory=dict[str, tuple[Function, ...]])

    def called(self, name: str, names: Collection[str], media: str | None) -> Function:
        """The one that these arguments mean, or PGRST202, or PGRST203 when they mean several.

        Named arguments go before a single unnamed one that would take the whole body.
        """
        overloads = self.by_name.get(name, ())
        fitting = [each for each in overloads if each.fits(names, media)]
        if not fitting and media is not None:
            fitting = [each for each in overloads if each.takes_whole(media)]
        if len(fitting) > 1:
            raise _ambiguous(self.schema, fitting)
        if not fitting:
            raise _no_function(self, name, names, overloads, media)
        return fitting[0]


async def read_functions(
    connection: asyncpg.Connection[asyncpg.Record], schemas: Sequence[str]
) -> dict[str, Functions]:
    """Reads those of the exposed schemas from the catalog; one query."""
    functions: dict[str, dict[str, tuple[Function, ...]]] = {schema: {} for schema in schemas}
    for row in await connection.fetch(FUNCTIONS, schemas):
        function = _function(row)
        if function is not None:
            known = functions[row["schema"]]
            known[function.name] = (*known.get(function.name, ()), function)
    return {schema: Functions(schema, known) for schema, known in functions.items()}


def _function(row: asyncpg.Record) -> Function | None:
    """The function, or None for one with unnamed arguments that no request could give it."""
    types: list[str] = row["arg_types"]
    names: list[str] = row["arg_names"] or [""] * len(types)
    modes: list[str] = row["arg_modes"] or ["i"] * len(types)
    inputs = [each for each in zip(names, types, modes, strict=True) if each[2] in "ibv"]
    unnamed = sum(1 for name, _, _ in inputs if not name)
    if unnamed > 1 or (unnamed and inputs[0][1] not in UNNAMED):
        return None
    outputs = [
        (name, type_) for name, type_, mode in zip(names, types, modes, strict=True) if mode in "obt"
    ] or list(zip(row["column_names"] or (), row["column_types"] or (), strict=True))
    columns = {name: Column(name, type_) for name, type_ in outputs}
    required = len(inputs) - int(row["defaults"])
    arguments = tuple(
        Argument(name, type_, n >= required, mode == "v") for n, (name, type_, mode) in enumerate(inputs)
    )
    settings = (each.partition("=") for each in row["settings"] or ())
    hoisted = {name: value for name, _, value in settings if name in HOISTED}
    return Function(
        row["name"],
        arguments,
        row["type"],
        row["is_set"],
        columns or None,
        row["is_read_only"],
        row["row_name"] if columns else row["name"],
        hoisted,
    )


def _ambiguous(schema: str, fitting: Collection[Function]) -> RestError:
    shown = [
        f"{schema}.{each.name}({', '.join(f'{a.name} => {a.type}' for a in each.arguments)})"
        for each in fitting
    ]
    return RestError(
        300,
        "PGRST203",
        f"Could not choose the best candidate function between: {', '.join(shown)}",
        hint="Try renaming the parameters or the function itself in the database so function overloading "
        "can be resolved",
    )


def _no_function(
    functions: Functions,
    name: str,
    names: Collection[str],
    overloads: Collection[Function],
    media: str | None,
) -> RestError:
    schema = functions.schema
    called = ", ".join(sorted(names))
    shown = f"({called})" if names else " without parameters"
    given = f"with parameter{'s' if len(names) > 1 else ''} {called}" if names else "without parameters"
    if media == "application/json":
        given += " or with a single unnamed json/jsonb parameter"
    meant: str | None = None
    if media in WHOLE_BODY and media != "application/json":
        shown, given = "", f"with a single unnamed {WHOLE_BODY[media][0]} parameter"
    elif overloads:
        known = [f"({', '.join(sorted(argument.name for argument in each.arguments))})" for each in overloads]
        near = nearest(f"({called})", known, 0.33)
        meant = None if near is None else f"{name}{near}"
    else:
        meant = nearest(name, functions.by_name, 0.75)
    return RestError(
        404,
        "PGRST202",
        f"Could not find the function {schema}.{name}{shown} in the schema cache",
        f"Searched for the function {schema}.{name} {given}, but no matches were found in the schema cache.",
        f"Perhaps you meant to call the function {schema}.{meant}" if meant else None,
    )
