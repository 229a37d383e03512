"""Who is present in one room: keys, what each of its owners tracks, and the differences that others are told.

An owner, a joined channel, tracks at most one thing under one key; several owners may share a key.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

Meta = dict[str, object]
Metas = dict[str, dict[str, list[Meta]]]
"""By key, as the protocol writes it: `{"key": {"metas": [{"phx_ref": …, …}]}}`."""


@dataclass(frozen=True, slots=True)
class Diff:
    """What changed: who came, who went. An update is both at once."""

    joins: Metas
    leaves: Metas

    def shown(self) -> dict[str, object]:
        """The payload of a `presence_diff`."""
        return {"joins": self.joins, "leaves": self.leaves}


@dataclass(frozen=True, slots=True)
class _Tracked:
    key: str
    payload: str  # as text: True and 1 are equal, and not the same
    meta: Meta

    def shown(self) -> Metas:
        return {self.key: {"metas": [self.meta]}}


@dataclass(eq=False, slots=True)
class Presences:
    """Owners are compared by identity; `forget` one when its channel ends."""

    _tracked: dict[object, _Tracked] = field(default_factory=dict[object, _Tracked])

    def state(self) -> Metas:
        """Everybody, as a `presence_state` tells it."""
        found: Metas = {}
        for each in self._tracked.values():
            found.setdefault(each.key, {"metas": []})["metas"].append(each.meta)
        return found

    def track(self, owner: object, key: str, payload: Mapping[str, object]) -> Diff | None:
        """Begins or updates what `owner` tracks; None when it tracks exactly that already."""
        before, text = self._tracked.get(owner), json.dumps(payload, sort_keys=True)
        if before is None:
            now = self._tracked[owner] = _Tracked(key, text, _meta(payload))
            return Diff(now.shown(), {})
        if before.payload == text:
            return None
        now = self._tracked[owner] = _Tracked(before.key, text, _meta(payload, before.meta["phx_ref"]))
        return Diff(now.shown(), before.shown())

    def forget(self, owner: object) -> Diff | None:
        """Ends what `owner` tracks; None when that is nothing."""
        before = self._tracked.pop(owner, None)
        return None if before is None else Diff({}, before.shown())


def _meta(payload: Mapping[str, object], before: object = None) -> Meta:
    refs: Meta = {"phx_ref": secrets.token_urlsafe(15)}
    if before is not None:
        refs["phx_ref_prev"] = before
    return {**payload, **refs}
