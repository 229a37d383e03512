"""What a handler says of its progress is in the row soon, the last of it before the outcome, and costs it nothing."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from devstack.gateway import Gateway
from listener import Progress
from listener.events import Unavailable
from listener.jobs import AttemptRef
from listener.progress import Report
from listener.redaction import Redactor
from tests.listener.working import QUICK, Anything, Connection, row, runs, working
from tests.waiting import until

SLOW = replace(QUICK, progress=timedelta(hours=1))
"""The first word is sent at once, and the next an hour later."""
LOG = """
    create table said (n bigint generated always as identity, status text, progress jsonb);
    create function note() returns trigger language plpgsql security definer as $$ begin
    insert into public.said (status, progress) values (new.status, new.progress); return null; end $$;
    create trigger note after update on jobs_maintenance for each row execute function note()
"""
REF = AttemptRef("maintenance", 1, 1)


async def counts(_payload: Anything, *, progress: Progress) -> dict[str, object]:
    for n in range(1000):
        await progress(n, of=999, note=f"step {n}")
        await asyncio.sleep(0)
    return {"steps": 1000}


async def said(owner: Connection) -> list[tuple[str, int | None]]:
    rows = await owner.fetch("select status, (progress ->> 'done')::int as done from said order by n")
    return [tuple(one) for one in rows]


async def test_the_last_word_is_in_the_row_before_the_outcome_and_most_others_never_leave(
    gateway: Gateway, owner: Connection
) -> None:
    await owner.execute(LOG)
    async with working(gateway, runs(counts), tempo=SLOW) as shop:
        id_ = await shop.job("counts")
        await shop.finishes(1)
    states = await said(owner)
    assert states[0] == ("running", None)
    assert states[-2:] == [("running", 999), ("completed", 999)]
    assert len(states) <= 4  # one word may have been sent at the beginning
    (found,) = await owner.fetch("select progress::text from jobs where id = $1", id_)
    assert found["progress"] == '{"of": 999, "done": 999, "note": "step 999", "attempt": 1}'


async def test_it_is_seen_while_the_handler_runs(gateway: Gateway, owner: Connection) -> None:
    seen = asyncio.Event()

    async def waits(_payload: Anything, *, progress: Progress) -> None:
        await progress(1, of=3)
        await seen.wait()

    async with working(gateway, runs(waits), tempo=SLOW) as shop:
        id_ = await shop.job("waits")

        async def is_there() -> bool:
            return (await row(owner, id_))["progress"] is not None

        await until("the progress is in the row", is_there)
        assert (await row(owner, id_))["status"] == "running"
        seen.set()
        await shop.finishes(1)


async def test_without_the_function_jobs_end_as_ever_and_it_is_told_once(
    gateway: Gateway, owner: Connection
) -> None:
    await owner.execute("drop function report_progress(jsonb); notify pgrst, 'reload schema'")
    async with working(gateway, runs(counts)) as shop:
        ids = await shop.enqueue("counts", count=3)
        await shop.finishes(3)
        assert len([event for event in shop.told.of(Unavailable) if event.call == "progress"]) == 1
    assert {(await row(owner, id_))["status"] for id_ in ids} == {"completed"}


async def test_a_row_that_somebody_has_locked_hears_the_last_word_late_or_never_and_the_job_ends(
    gateway: Gateway, owner: Connection
) -> None:
    """The outcome waits for the lock as it always did; progress does not."""
    free = asyncio.Event()

    async def waits(_payload: Anything, *, progress: Progress) -> None:
        await free.wait()
        await progress(1)

    async with working(gateway, runs(waits), tempo=SLOW) as shop:
        id_ = await shop.job("waits")
        await shop.runs_jobs(1)
        async with owner.transaction():
            await owner.execute("select from jobs where id = $1 for update", id_)
            free.set()
            await shop.runs_jobs(0)
        await shop.finishes(1)
    assert (await row(owner, id_))["status"] == "completed"


SAID: list[tuple[tuple[Any, ...], dict[str, object]]] = [
    ((1, 2, "half"), {"done": 1, "of": 2, "note": "half"}),
    ((Decimal("1.5"), None, None), {"done": 1.5}),
    ((float("nan"), float("inf"), "x"), {"note": "x"}),
    ((True, 10**400, "x\0y"), {"note": "x␀y"}),
    ((object(), [], b"x"), {}),
    ((1, 2, "é" * 5000), {"done": 1, "of": 2, "note": "é" * 500}),
    ((1, 2, "key sb_secret_abcdefgh"), {"done": 1, "of": 2, "note": "key ‹redacted›"}),
]


@pytest.mark.parametrize(("words", "kept"), SAID)
async def test_whatever_a_handler_says_is_fit_for_the_row_and_without_keys(
    words: Any, kept: dict[str, object]
) -> None:
    told: list[Report] = []
    await Progress(REF, told.append, lambda note: Redactor().text(note, {}))(*words)
    assert told == [Report(REF, kept)]
