"""Which column of a view is which column of a table: read from the stored tree of the view's rule.

PostgreSQL notes for every output column of a query from which table and column it comes (`resorigtbl`,
`resorigcol`), through views of views one step at a time. Nothing else of the tree is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

# A column as the catalog counts: the table's oid and the column's number.
Numbered: TypeAlias = tuple[int, int]
TOKEN: Final = re.compile(r"\\.|[{})]|:targetList\b|:(?:resno|resorigtbl|resorigcol) (\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class View:
    """A view: its oid, its rule as text, and its columns by number."""

    oid: int
    rule: str
    columns: Mapping[int, str]


def origins(views: Mapping[int, View]) -> dict[int, dict[Numbered, list[str]]]:
    """For each view, by its oid: the tables' columns it shows, and under which names."""
    direct = {oid: outputs(view.rule) for oid, view in views.items()}
    found: dict[int, dict[Numbered, list[str]]] = {}
    for oid, view in views.items():
        shown: dict[Numbered, list[str]] = {}
        for number, origin in direct[oid].items():
            for source in _followed(origin, direct, frozenset({oid})):
                shown.setdefault(source, []).append(view.columns[number])
        found[oid] = shown
    return found


def _followed(
    origin: Numbered, direct: Mapping[int, Mapping[int, Numbered]], seen: frozenset[int]
) -> list[Numbered]:
    """The column, and what it in turn comes from when it is a view's."""
    table, number = origin
    further = direct.get(table, {}).get(number)
    if further is None or table in seen:
        return [origin]
    return [origin, *_followed(further, direct, seen | {table})]


def outputs(rule: str) -> dict[int, Numbered]:
    """The numbers of the rule's outermost columns, with where each comes from."""
    found: dict[int, Numbered] = {}
    depth, in_list = 0, False
    entry: dict[str, int] = {}
    for token in TOKEN.finditer(rule):
        text = token[0]
        if text == "{":
            depth += 1
        elif text == "}":
            if in_list and depth == 2 and entry.get("resorigtbl"):
                found[entry["resno"]] = (entry["resorigtbl"], entry["resorigcol"])
            if depth == 2:
                entry = {}
            depth -= 1
        elif text == ")":
            in_list = in_list and depth > 1
        elif text == ":targetList":
            in_list = in_list or (depth == 1 and not found)
        elif token[1] is not None and in_list and depth == 2:
            entry[text[1:].split(" ")[0]] = int(token[1])
    return found
