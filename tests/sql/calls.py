"""The queue's functions by name, over one connection, with their JSON read."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Json: TypeAlias = dict[str, Any]


class Calls:
    """What a worker or a producer may call. Every answer is the function's JSON, decoded."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def _answer(self, statement: str, *arguments: object) -> Any:
        return json.loads(await self.connection.fetchval(f"select public.{statement}", *arguments))

    async def insert(self, type: str = "a", *, queue: str = "payment", **columns: object) -> int:  # noqa: A002
        """A producer's plain INSERT into a queue's own table; the new job's id."""
        given = {"type": type, **columns}
        names = ", ".join(given)
        places = ", ".join(f"${n}" for n in range(1, len(given) + 1))
        statement = f"insert into public.{queue}_jobs ({names}) values ({places}) returning id"
        found = await self.connection.fetchval(statement, *given.values())
        assert isinstance(found, int)
        return found

    async def enqueue(self, *jobs: Json) -> list[Json]:
        answer: list[Json] = await self._answer("enqueue($1)", json.dumps(jobs))
        return answer

    async def claim(
        self,
        max_jobs: int = 10,
        *,
        queue: str = "payment",
        types: Sequence[str] = ("a",),
        lease_seconds: float = 30.0,
        worker_id: str = "w",
        woken_by: str = "sweep",
        floor: object = None,
        sweep: bool = False,
        holding: Sequence[tuple[int, int]] | None = None,
    ) -> Json:
        answer: Json = await self._answer(
            "claim($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            queue,
            list(types),
            max_jobs,
            lease_seconds,
            worker_id,
            woken_by,
            None if floor is None else json.dumps(floor),
            sweep,
            None if holding is None else json.dumps(holding),
        )
        return answer

    async def take(self, **how: Any) -> Json:
        """The one job that is due."""
        jobs = (await self.claim(**how))["jobs"]
        assert len(jobs) == 1, f"expected one due job, got {len(jobs)}"
        job: Json = jobs[0]
        return job

    async def finish(self, *outcomes: Json, claim: Json | None = None) -> Json:
        answer: Json = await self._answer(
            "finish($1, $2)", json.dumps(outcomes), None if claim is None else json.dumps(claim)
        )
        return answer

    async def end(self, job: Json, kind: str = "completed", **words: object) -> Json:
        """Records one outcome of a claimed job; its answer."""
        answer: Json = (await self.finish(outcome(job, kind, **words)))["outcomes"][0]
        return answer

    async def heartbeat(self, *jobs: Json, lease_seconds: float = 30.0) -> Json:
        attempts = [[job["queue"], job["id"], job["attempt"]] for job in jobs]
        answer: Json = await self._answer("heartbeat($1, $2, $3)", "w", json.dumps(attempts), lease_seconds)
        return answer

    async def cancel(self, *ids: int) -> Json:
        answer: Json = await self._answer("cancel($1)", list(ids))
        return answer

    async def replay(self, ids: Sequence[int] | None = None, **filters: object) -> Json:
        named = "".join(f", {name} => ${n}" for n, name in enumerate(filters, start=2))
        answer: Json = await self._answer(f"replay($1{named})", ids, *filters.values())
        return answer

    async def prune(self, completed_days: float = 7, failed_days: float = 90, max_jobs: int = 5000) -> Json:
        answer: Json = await self._answer("prune($1, $2, $3)", completed_days, failed_days, max_jobs)
        return answer

    async def pause(self, queue: str = "payment", type: str | None = None, reason: str = "") -> Json:  # noqa: A002
        answer: Json = await self._answer("pause_jobs($1, $2, $3)", queue, type, reason)
        return answer

    async def resume(self, queue: str = "payment", type: str | None = None) -> Json:  # noqa: A002
        answer: Json = await self._answer("resume_jobs($1, $2)", queue, type)
        return answer

    async def limit(self, **words: object) -> int:
        """Sets a limit; its id."""
        named = ", ".join(f"{name} => ${n}" for n, name in enumerate(words, start=1))
        answer: Json = await self._answer(f"limit_jobs({named})", *words.values())
        made: int = answer["limit"]
        return made

    async def unlimit(self, queue: str | None = None, type: str | None = None, per: str = "all") -> bool:  # noqa: A002
        answer: Json = await self._answer("unlimit_jobs($1, $2, $3)", queue, type, per)
        removed: bool = answer["removed"]
        return removed

    async def gate_of(self, id: int) -> Json | None:  # noqa: A002
        said = await self.connection.fetchval("select public.gate_of($1)", id)
        return None if said is None else json.loads(said)

    async def row(self, id: int) -> Json:  # noqa: A002
        """A job as it stands."""
        found = await self.connection.fetchrow("select * from public.jobs where id = $1", id)
        assert found is not None, f"job {id} is gone"
        return dict(found)

    async def value(self, statement: str, *arguments: object) -> Any:
        return await self.connection.fetchval(statement, *arguments)


def outcome(job: Json, kind: str, **words: object) -> Json:
    """An outcome as a worker words it."""
    return {"queue": job["queue"], "id": job["id"], "attempt": job["attempt"], "kind": kind, **words}


async def waits_for_a_lock(looker: Connection, of: Connection) -> None:
    """Until that session is really queueing behind somebody."""
    async with asyncio.timeout(20):
        while not await looker.fetchval(  # noqa: ASYNC110  # PostgreSQL tells nobody who waits for a lock
            "select exists (select from pg_locks where pid = $1 and not granted)", of.get_server_pid()
        ):
            await asyncio.sleep(0.01)
