"""The functions of schedules over one connection, and a clock of the database that stands still until it is set."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from tests.sql.calls import Calls, Connection, Json

HOUR = timedelta(hours=1)
ROW = {"name": "one", "queue": "maintenance", "type": "prune", "every_seconds": 3600}


class Schedules(Calls):
    """The functions of schedules, as a scheduler and an operator call them."""

    async def add(self, **columns: object) -> None:
        given = {**ROW, **columns}
        given = {name: value for name, value in given.items() if value is not None}
        places = ", ".join(f"${n}" for n in range(1, len(given) + 1))
        await self.connection.execute(
            f"insert into schedules ({', '.join(given)}) values ({places})", *given.values()
        )

    async def declare(self, *words: Json) -> list[Json]:
        """Those that are refused."""
        refused: list[Json] = (await self._declared(words))["refused"]
        return refused

    async def put_off(self, *words: Json) -> list[str]:
        """The names of those that wait for the slots of the rule before."""
        said = await self._declared(words)
        assert said["refused"] == []
        names: list[str] = said["put_off"]
        return names

    async def _declared(self, words: Sequence[Json]) -> Json:
        base: Json = {
            "data": {},
            "slot_as": None,
            "cron": None,
            "every_seconds": None,
            "timezone": "UTC",
            "missed": "once",
        }
        said: Json = await self._answer(
            "declare_schedules($1)", json.dumps([{**base, **one} for one in words])
        )
        return said

    async def due(self) -> list[Json]:
        due: list[Json] = (await self._answer("due_schedules()"))["due"]
        return due

    async def run(self, one: Json, *slots: datetime, next_in: timedelta = HOUR, **words: object) -> Json:
        """Settles these slots of a schedule that was found due."""
        settles_to = slots[-1] if slots else datetime.fromisoformat(one["settled_to"])
        said = {
            **{name: one[name] for name in ("name", "edition", "settled_to")},
            "slots": [slot.isoformat() for slot in slots],
            "settles_to": settles_to.isoformat(),
            "next_slot": (settles_to + next_in).isoformat(),
            "left_out": 0,
        }
        (answer,) = await self._answer("run_slots($1)", json.dumps([{**said, **words}]))
        assert answer["name"] == one["name"]
        turn: Json = answer
        return turn

    async def state(self) -> Json:
        (state,) = await self._answer("schedule_states()")
        found: Json = state
        return found

    async def jobs(self) -> list[tuple[str, str, Any]]:
        rows = await self.connection.fetch("select type, idempotency_key, data from jobs order by id")
        return [(row["type"], row["idempotency_key"], json.loads(row["data"])) for row in rows]


async def set_clock(owner: Connection, moment: datetime) -> None:
    await owner.execute(
        "create or replace function public.clock_now() returns timestamptz language sql stable parallel safe"
        f" return '{moment.isoformat()}'::timestamptz"
    )
