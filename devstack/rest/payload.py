"""The body of a request that writes: read into JSON text, and which columns it writes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NoReturn, cast
from urllib.parse import parse_qsl

from devstack.rest.errors import RestError

EMPTY: Final = "[]"


@dataclass(frozen=True, slots=True)
class Payload:
    """The JSON text as PostgreSQL gets it, the columns it writes in their order, and whether it is one object."""

    text: str
    columns: tuple[str, ...]

    @property
    def is_object(self) -> bool:
        """Whether it is one row and not a list of rows."""
        return self.text.lstrip(" \t\r\n")[:1] == "{"


def read_payload(text: str, kind: str, columns: frozenset[str] | None) -> Payload:
    """Reads it; PGRST102 when it cannot be read. With `columns` JSON is left to PostgreSQL to check."""
    if kind == "application/json":
        if columns is not None:
            return Payload(text, tuple(sorted(columns)))
        return _checked(text, parsed(text))
    if kind == "text/csv":
        return _checked_csv(text)
    if kind == "application/x-www-form-urlencoded":
        fields = dict(parse_qsl(text, keep_blank_values=True))
        return Payload(json.dumps(fields), tuple(sorted(fields)))
    raise RestError(400, "PGRST102", f"Content-Type not acceptable: {kind}")


def parsed(text: str) -> object:
    """The JSON value; PGRST102 when it is none."""
    try:
        return cast(object, json.loads(text, parse_int=_integer, parse_constant=_no_constant))
    except (ValueError, RecursionError):
        raise RestError(400, "PGRST102", "Empty or invalid json") from None


def _integer(digits: str) -> int | Decimal:
    """Python refuses to read very long integers, which PostgreSQL keeps to the last digit."""
    return int(digits) if len(digits) < 4000 else Decimal(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _checked(text: str, value: object) -> Payload:
    if isinstance(value, dict):
        return Payload(text, tuple(sorted(cast(Mapping[str, object], value))))
    rows = cast(list[object], value) if isinstance(value, list) else []
    if not rows:
        return Payload(EMPTY, ())
    keys = [frozenset(cast(Mapping[str, object], row)) if isinstance(row, dict) else None for row in rows]
    if keys[0] is None or any(each != keys[0] for each in keys):
        raise RestError(400, "PGRST102", "All object keys must match")
    return Payload(text, tuple(sorted(keys[0])))


def _checked_csv(text: str) -> Payload:
    lines = [line for line in csv.reader(io.StringIO(text)) if line]
    if not lines:
        raise RestError(400, "PGRST102", 'parse error (not enough input) at ""')
    names, *rows = lines
    values = [_row(names, cells) for cells in rows]
    if any(value.keys() != values[0].keys() for value in values):
        raise RestError(400, "PGRST102", "All lines must have same number of fields")
    return Payload(json.dumps(values), tuple(sorted(values[0])) if values else ())


def _row(names: Sequence[str], cells: Sequence[str]) -> dict[str, str | None]:
    """One line; what its end lacks, the row does not have."""
    return {name: None if cell == "NULL" else cell for name, cell in zip(names, cells, strict=False)}
