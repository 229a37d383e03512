"""What a join asks for: the configuration in its payload, read as leniently as Realtime reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast
from uuid import uuid1

from devstack.realtime.frames import Push

PREFIX: Final = "realtime:"


@dataclass(frozen=True, slots=True)
class Replay:
    """What a join asks to hear again: the newest `limit` messages from `since` (ms since 1970) on, as it said it."""

    since: object
    limit: object


@dataclass(frozen=True, slots=True)
class Config:
    """The wishes of a join. `changes` are the parameters of its postgres_changes bindings, in their order."""

    changes: tuple[dict[str, object], ...]
    acknowledge: bool
    """Broadcasts of this channel are answered."""
    to_self: bool
    """Broadcasts of this channel come back to it."""
    private: bool
    presence: bool
    presence_key: str
    """As given, or made up."""
    replication_ready: bool
    replays: bool
    """Replay was mentioned, which is enough to refuse a public channel; `replay` is None when it was no object."""
    replay: Replay | None


def read(push: Push) -> Config:
    """The configuration in a join's payload; what is malformed counts as not said."""
    config = mapping(push.payload.get("config"))
    broadcast, presence = mapping(config.get("broadcast")), mapping(config.get("presence"))
    replay = broadcast.get("replay")
    asked = mapping(replay)
    return Config(
        changes=_changes(config) if "config" in push.payload else _legacy(push.topic),
        acknowledge=_flag(broadcast.get("ack")),
        to_self=_flag(broadcast.get("self")),
        private=_flag(config.get("private")),
        presence=_flag(presence.get("enabled")),
        presence_key=_key(presence.get("key")),
        replication_ready=_flag(broadcast.get("replication_ready")),
        replays="replay" in broadcast,
        replay=Replay(asked.get("since"), asked.get("limit")) if isinstance(replay, dict) else None,
    )


def mapping(value: object) -> dict[str, object]:
    """The value if it is a JSON object, else an empty one."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _changes(config: Mapping[str, object]) -> tuple[dict[str, object], ...]:
    wanted = config.get("postgres_changes")
    listed = cast("list[object]", wanted) if isinstance(wanted, list) else []
    return tuple(params for each in listed if (params := mapping(each)))


def _legacy(topic: str) -> tuple[dict[str, object], ...]:
    """A join without any configuration names schema, table and filter in its topic, as the oldest clients did."""
    names = topic.removeprefix(PREFIX).split(":", 2)
    return (dict(zip(("schema", "table", "filter"), names, strict=False)),)


def _flag(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _key(value: object) -> str:
    """The key under which a channel is present; numbers are written out, other things are no key."""
    if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
        return str(value)
    return str(uuid1())
