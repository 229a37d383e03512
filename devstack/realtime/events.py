"""The events that a batch of changes means to its subscribers: filtered, rendered and hidden as each may see them.

Work is shared: the rows of one table are rendered once for all subscribers of one role and one list of columns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from devstack.realtime import records
from devstack.realtime.bindings import Binding, Filter
from devstack.realtime.faults import RealtimeFaults
from devstack.realtime.pgoutput import Change, Relation, Row
from devstack.realtime.records import Record, Seen
from devstack.realtime.slot import Slot

LOG: Final = logging.getLogger("devstack.realtime.server")
Columns = tuple[str, ...] | None
"""What a binding shows of a row; None for all of it."""


@dataclass(eq=False, slots=True)
class Subscription:
    """A channel's wishes, served. `send` takes the JSON text of an event's payload; `again` hears that the
    published tables have changed and that the channel has to subscribe anew. Neither may block."""

    bindings: tuple[Binding, ...]
    role: str
    claims: str
    since: int
    send: Callable[[str], None]
    again: Callable[[], None]


@dataclass(slots=True)
class _Group:
    """The changes of one table for one role and one list of columns, in commit order, by their place in the batch."""

    changes: dict[int, Change] = field(default_factory=dict[int, Change])
    subscriptions: dict[int, list[Subscription]] = field(default_factory=dict[int, list[Subscription]])


class Events:
    """Asks over the connection of `slot`; whoever calls holds that connection's lock."""

    def __init__(self, slot: Slot, faults: RealtimeFaults) -> None:
        self._slot = slot
        self._faults = faults
        self._seen: dict[tuple[Relation, str], Seen] = {}

    def forget(self) -> None:
        """Tables or rights may have changed."""
        self._seen.clear()

    async def of(
        self, changes: Sequence[Change], subscriptions: Iterable[Subscription]
    ) -> list[tuple[Subscription, str]]:
        """What to send to whom, in commit order."""
        events: list[tuple[int, Subscription, str]] = []
        for (relation, role, columns), group in _groups(changes, subscriptions).items():
            events += await self._of_group(relation, role, columns, group)
        return [(each, payload) for _, each, payload in sorted(events, key=lambda found: found[0])]

    async def _of_group(
        self, relation: Relation, role: str, columns: Columns, group: _Group
    ) -> list[tuple[int, Subscription, str]]:
        seen = await self._look(relation, role)
        if seen is None:
            LOG.warning("%s.%s is gone, its changes are not delivered", relation.schema, relation.table)
            return []
        seen = seen.narrowed(columns)
        if seen.error is not None:
            return [
                (at, each, _payload(_ids(each, change, columns), records.error_event(change, seen.error)))
                for at, change in group.changes.items()
                for each in group.subscriptions[at]
            ]
        filters = _filters(group)
        new, old = await self._render(seen, group, filters)
        events: list[tuple[int, Subscription, str]] = []
        hidden = await self._hidden(seen, group)
        shown = records.columns(seen)
        for at, change in group.changes.items():
            data = records.event(change, shown, new.get(at), old.get(at))
            tested = new.get(at) or old[at]
            holding = {each for each, holds in zip(filters, tested.matched, strict=True) if holds}
            for each in group.subscriptions[at]:
                ids = _ids(each, change, columns, holding)
                if ids and (at, each.claims) not in hidden:
                    events.append((at, each, _payload(ids, data)))
        return events

    async def _look(self, relation: Relation, role: str) -> Seen | None:
        """How the role sees the table; asked once until the database says that something has changed."""
        seen = self._seen.get((relation, role))
        if seen is None:
            seen = await records.look(await self._slot.open(), relation, role)
            if seen is not None:
                self._seen[relation, role] = seen
        return seen

    async def _render(
        self, seen: Seen, group: _Group, filters: Sequence[Filter]
    ) -> tuple[dict[int, Record], dict[int, Record]]:
        """The records of the rows after and before each change, by its place."""
        connection = await self._slot.open()
        new = {at: change.new for at, change in group.changes.items() if change.new is not None}
        old: dict[int, Row] = {}
        for at, change in group.changes.items():
            before = change.old if change.old is not None else change.new
            if change.kind != "INSERT" and before is not None:
                old[at] = before
        rows = [
            (row, records.shown_columns(seen, group.changes[at], row, old=False)) for at, row in new.items()
        ]
        rows += [
            (row, records.shown_columns(seen, group.changes[at], row, old=True)) for at, row in old.items()
        ]
        largest = self._faults.largest_record_bytes
        rendered = await records.render(connection, seen, rows, filters, largest)
        return dict(zip(new, rendered, strict=False)), dict(zip(old, rendered[len(new) :], strict=True))

    async def _hidden(self, seen: Seen, group: _Group) -> set[tuple[int, str]]:
        """Which changes row level security hides from whom, as (place, claims)."""
        if not seen.row_security or seen.sees_all:
            return set()
        connection = await self._slot.open()
        asked: dict[tuple[str, str], dict[int, Row]] = {}
        for at, change in group.changes.items():
            for each in group.subscriptions[at]:
                if change.new is not None:
                    asked.setdefault((each.role, each.claims), {})[at] = change.new
        hidden: set[tuple[int, str]] = set()
        for (role, claims), rows in asked.items():
            found = await records.visible(connection, seen, list(rows.values()), role, claims)
            hidden |= {(at, claims) for at, is_found in zip(rows, found, strict=True) if not is_found}
        return hidden


def _groups(
    changes: Sequence[Change], subscriptions: Iterable[Subscription]
) -> dict[tuple[Relation, str, Columns], _Group]:
    groups: dict[tuple[Relation, str, Columns], _Group] = {}
    for at, change in enumerate(changes):
        for subscription in subscriptions:
            if change.commit_lsn < subscription.since:
                continue
            for columns in _wanted(subscription, change):
                group = groups.setdefault((change.relation, subscription.role, columns), _Group())
                group.changes[at] = change
                group.subscriptions.setdefault(at, []).append(subscription)
    return groups


def _wanted(subscription: Subscription, change: Change) -> set[Columns]:
    """The column lists of the bindings that the change answers; empty when it answers none."""
    return {
        binding.columns for binding in subscription.bindings if binding.wants(change.kind, change.relation)
    }


def _filters(group: _Group) -> list[Filter]:
    wanted = {
        tested: None
        for subscriptions in group.subscriptions.values()
        for each in subscriptions
        for binding in each.bindings
        for tested in binding.filters
    }
    return list(wanted)


def _ids(
    subscription: Subscription, change: Change, columns: Columns, holding: set[Filter] | None = None
) -> list[int]:
    """The ids of the bindings with these columns that the change answers.

    Without `holding`, the filters that hold, filters are not looked at.
    """
    return sorted(
        {
            binding.id
            for binding in subscription.bindings
            if binding.columns == columns
            and binding.wants(change.kind, change.relation)
            and (holding is None or all(tested in holding for tested in binding.filters))
        }
    )


def _payload(ids: Sequence[int], data: str) -> str:
    return f'{{"data":{data},"ids":[{",".join(map(str, ids))}]}}'
