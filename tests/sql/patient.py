"""A project that the doctor examines."""

import json

from tests.sql.calls import Connection
from tests.sql.test_workers import word

CLOCK = "create or replace function public.clock_now() returns timestamptz language sql stable parallel safe"


class Patient:
    """A project that is examined: what is found, by its word, and what mends it."""

    def __init__(self, owner: Connection) -> None:
        self.owner = owner

    async def findings(self) -> list[dict[str, str]]:
        facts = json.loads(await self.owner.fetchval("select doctor_facts()"))
        found: list[dict[str, str]] = facts["findings"]
        assert all(set(one) == {"finding", "what", "why", "mend"} and all(one.values()) for one in found), (
            found
        )
        return found

    async def words(self) -> list[str]:
        return sorted({one["finding"] for one in await self.findings()})

    async def at(self, moment: str) -> None:
        """Moves the clock, which is a finding of its own."""
        await self.owner.execute(f"{CLOCK} as $$ select now() + interval '{moment}' $$")

    async def says(self, worker_id: object = "w", **changes: object) -> None:
        await self.owner.execute("select tell_worker($1)", word(worker_id, **changes))
