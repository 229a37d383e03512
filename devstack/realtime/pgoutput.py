"""Decodes the messages of PostgreSQL's own output plugin, pgoutput (protocol version 1), into row changes.

A slot hands out one message per call row: begin, the relation before its first change, the changes, commit.
Values stay the texts that PostgreSQL wrote; giving them a JSON form is another file's job.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, Literal

Kind = Literal["INSERT", "UPDATE", "DELETE"]
EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
LENGTH: Final = struct.Struct("!i")
TEXT, NULL, UNCHANGED = b"tnu"


class Toasted(Enum):
    """Stands for a large value that an UPDATE did not touch, and that is therefore not in the log."""

    UNCHANGED = "unchanged"


Value = str | Toasted | None
Row = tuple[Value, ...]


class PgoutputError(Exception):
    """A message that this decoder does not know: the publication streams something new."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column as it was when the row was written; `key` marks the replica identity."""

    name: str
    type_oid: int
    key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as it was when the row was written."""

    oid: int
    schema: str
    table: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One row change of a committed transaction.

    `new` is None for a DELETE. `old` is what the log holds of the row before: nothing for an INSERT and for
    an UPDATE that left the replica identity alone; else the identity's columns, the others being None,
    unless `old_is_whole`. `commit_lsn` orders transactions: a later commit has a larger one.
    """

    kind: Kind
    relation: Relation
    new: Row | None
    old: Row | None
    old_is_whole: bool
    commit_lsn: int
    committed_at: datetime


class Decoder:
    """Remembers relations and the open transaction between messages; one per slot.

    A change that nobody `wants` is passed over unread: of a busy queue's writes most are updates that nobody
    listens to, and their values would be most of the work.
    """

    def __init__(self, wants: Callable[[Kind, Relation], bool] = lambda _kind, _relation: True) -> None:
        self._wants = wants
        self._relations: dict[int, Relation] = {}
        self._commit_lsn = 0
        self._committed_at = EPOCH

    def feed(self, message: bytes) -> Change | None:
        """The wanted row change in `message`, or None for any other message."""
        reader = _Reader(message)
        kind = reader.letter()
        match kind:
            case "I":
                return self._insert(reader)
            case "U":
                return self._update(reader)
            case "D":
                return self._delete(reader)
            case "R":
                relation = _relation(reader)
                self._relations[relation.oid] = relation
            case "B":
                self._commit_lsn = reader.number("!Q")
                self._committed_at = EPOCH + timedelta(microseconds=reader.number("!q"))
            case "C" | "T" | "O" | "Y" | "M":  # commit, truncate, origin, type, logical message
                pass
            case _:
                raise PgoutputError(
                    f"pgoutput sent a message of kind {kind!r}; protocol version 1 has none such"
                )
        return None

    def _insert(self, reader: _Reader) -> Change | None:
        relation = self._of(reader)
        if not self._wants("INSERT", relation):
            return None
        reader.letter()  # N
        return self._change("INSERT", relation, new=reader.row())

    def _update(self, reader: _Reader) -> Change | None:
        relation = self._of(reader)
        if not self._wants("UPDATE", relation):
            return None
        marker = reader.letter()
        if marker == "N":
            return self._change("UPDATE", relation, new=reader.row())
        old = reader.row()
        reader.letter()  # N
        return self._change("UPDATE", relation, new=reader.row(), old=old, whole=marker == "O")

    def _delete(self, reader: _Reader) -> Change | None:
        relation = self._of(reader)
        if not self._wants("DELETE", relation):
            return None
        marker = reader.letter()
        return self._change("DELETE", relation, old=reader.row(), whole=marker == "O")

    def _of(self, reader: _Reader) -> Relation:
        return self._relations[reader.number("!I")]

    def _change(
        self,
        kind: Kind,
        relation: Relation,
        *,
        new: Row | None = None,
        old: Row | None = None,
        whole: bool = False,
    ) -> Change:
        return Change(kind, relation, new, old, whole, self._commit_lsn, self._committed_at)


class _Reader:
    """Walks one message from its first byte to its last."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._at = 0

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._message):
            raise self._cut(end)
        taken = self._message[self._at : end]
        self._at = end
        return taken

    def _cut(self, end: int) -> PgoutputError:
        return PgoutputError(f"pgoutput message ends after {len(self._message)} bytes, {end} were announced")

    def letter(self) -> str:
        return self.take(1).decode("latin-1")

    def number(self, form: Literal["!b", "!h", "!i", "!I", "!q", "!Q"]) -> int:
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def text(self) -> str:
        end = self._message.index(b"\0", self._at)
        taken = self._message[self._at : end].decode()
        self._at = end + 1
        return taken

    def row(self) -> Row:
        """Written out, since nearly all of a decoder's time is spent here."""
        values: list[Value] = []
        message = self._message
        count, at = self.number("!h"), self._at
        for _ in range(count):
            kind = message[at] if at < len(message) else -1
            at += 1
            if kind == TEXT:
                if at + LENGTH.size > len(message):
                    raise self._cut(at + LENGTH.size)
                (length,) = LENGTH.unpack_from(message, at)
                at += LENGTH.size
                if at + length > len(message):
                    raise self._cut(at + length)
                values.append(message[at : at + length].decode())
                at += length
            elif kind == NULL:
                values.append(None)
            elif kind == UNCHANGED:
                values.append(Toasted.UNCHANGED)
            elif kind < 0:
                raise self._cut(at)
            else:
                raise PgoutputError(
                    f"pgoutput sent a column of kind {chr(kind)!r}; only texts were asked for"
                )
        self._at = at
        return tuple(values)


def _relation(reader: _Reader) -> Relation:
    oid, schema, table = reader.number("!I"), reader.text(), reader.text()
    reader.letter()  # replica identity setting; the columns' key flags say all that is needed
    columns: list[Column] = []
    for _ in range(reader.number("!h")):
        key = bool(reader.number("!b"))
        name, type_oid = reader.text(), reader.number("!I")
        reader.number("!i")  # the type's modifier
        columns.append(Column(name, type_oid, key))
    return Relation(oid, schema or "pg_catalog", table, tuple(columns))
