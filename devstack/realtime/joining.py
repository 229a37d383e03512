"""What a join asks for: the configuration in its payload, read as leniently as Realtime reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from devstack.realtime.frames import Push

PREFIX: Final = "realtime:"


@dataclass(frozen=True, slots=True)
class Config:
    """The wishes of a join. `changes` are the parameters of its postgres_changes bindings, in their order."""

    changes: tuple[dict[str, object], ...]
    acknowledge: bool
    private: bool
    presence: bool
    database_broadcasts: bool


def read(push: Push) -> Config:
    """The configuration in a join's payload; what is malformed counts as not said."""
    config = mapping(push.payload.get("config"))
    broadcast = mapping(config.get("broadcast"))
    return Config(
        changes=_changes(config) if "config" in push.payload else _legacy(push.topic),
        acknowledge=_flag(broadcast.get("ack")),
        private=_flag(config.get("private")),
        presence=_flag(mapping(config.get("presence")).get("enabled")),
        database_broadcasts=_flag(broadcast.get("replication_ready")) or broadcast.get("replay") is not None,
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
    return value is True or value == "true"
