"""What keeps a request's words from becoming SQL: every name and value goes through one of these.

Values go to PostgreSQL as parameters where it is certain what type they are of, so that a statement stays the
same for all of them; elsewhere as string constants of no type, whose type PostgreSQL infers from the operator.
"""

from __future__ import annotations

from dataclasses import dataclass, field


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + _until_nul(name).replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string of no type; holds whatever `standard_conforming_strings` is."""
    escaped = _until_nul(text).replace("'", "''")
    if "\\" in escaped:
        doubled = escaped.replace("\\", "\\\\")
        return f"E'{doubled}'"
    return f"'{escaped}'"


def _until_nul(text: str) -> str:
    """PostgreSQL has no NUL in texts; as with PostgREST, a text ends where one is."""
    return text.partition("\0")[0]


@dataclass(slots=True)
class Statement:
    """SQL under construction: hands out parameter numbers and keeps the values."""

    values: list[str | None] = field(default_factory=list[str | None])

    def value(self, value: str | None, type_: str = "text") -> str:
        """A reference to a new parameter, sent as text and cast."""
        self.values.append(None if value is None else _until_nul(value))
        reference = f"${len(self.values)}::text"
        return reference if type_ == "text" else f"{reference}::{type_}"
