"""The situations that `why` is asked about: how each is prepared, and the sentence and the mend that are expected."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.sql.calls import Calls, Connection, Json
from tests.sql.test_workers import word

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
SECRET = "a word of the payload"


@dataclass
class Scene:
    """Where a situation is prepared."""

    server: Calls
    owner: Connection

    async def worker(self, worker_id: str = "w", **changes: object) -> None:
        await self.server.value("select tell_worker($1)", word(worker_id, **changes))

    async def job(self, **columns: Any) -> int:
        return await self.server.insert("a", data=json.dumps({"secret": SECRET}), **columns)

    async def at(self, seconds: float) -> None:
        """Stops the clock at so many seconds after the start: a sentence tells ages, and must not depend on ours."""
        await self.owner.execute(
            "create or replace function public.clock_now() returns timestamptz language sql stable parallel safe"
            f" as $$ select timestamptz '{START + timedelta(seconds=seconds)}' $$"
        )

    async def fails(self, id_: int, error_class: str, kind: str = "dead", **words: object) -> Json:
        job = await self.server.take()
        assert job["id"] == id_
        return await self.server.end(job, kind, error_class=error_class, error_message=SECRET, **words)


Prepare = Callable[[Scene], Awaitable[int]]
SITUATIONS: dict[str, tuple[Prepare, str, str]] = {}
"""By name: how it is prepared, and the sentence and the mend that are expected (… stands for any words)."""


def situation(sentence: str, mend: str = "") -> Callable[[Prepare], Prepare]:
    def note(prepare: Prepare) -> Prepare:
        SITUATIONS[prepare.__name__] = (prepare, sentence, mend)
        return prepare

    return note


@situation("No job has had the id 999999 yet.")
async def an_id_of_the_future(scene: Scene) -> int:
    return 999999


@situation("Job … is not there any more: it ended and was pruned, or its INSERT was rolled back.")
async def pruned(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.server.end(await scene.server.take())
    await scene.at(1)
    await scene.server.prune(0, 90)
    return id_


@situation(
    "Job … is not there any more: … It failed at … UTC; its dead letter 1 is still there and holds its data."
)
async def pruned_with_a_dead_letter(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.fails(id_, "Broken")
    await scene.owner.execute("delete from jobs")
    return id_


@situation("Job … completed at … UTC, in attempt 1.")
async def completed(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.server.end(await scene.server.take())
    return id_


@situation("Job … was cancelled at … UTC, before its first attempt.")
async def cancelled_while_it_waited(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.server.cancel(id_)
    return id_


@situation("Job … was cancelled at … UTC, by its own handler.")
async def cancelled_by_its_handler(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.server.end(await scene.server.take(), "cancel", reason=SECRET)
    return id_


@situation("Job … was cancelled at … UTC, after 1 of its attempts had begun.")
async def cancelled_while_it_ran(scene: Scene) -> int:
    id_ = await scene.job()
    job = await scene.server.take()
    await scene.server.cancel(id_)
    await scene.server.end(job, "cancel")
    return id_


@situation(
    "Job … failed for good at … UTC, in attempt 1 of 4 with Broken. Its dead letter is 1: once what it failed of is"
    " mended, let it run again.",
    "pulse retry 1",
)
async def failed(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.fails(id_, "Broken")
    return id_


@situation(
    "Job … failed for good at … with InvalidPayload. Its data does not fit its type, …", "pulse retry 1"
)
async def failed_by_its_payload(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.fails(id_, "InvalidPayload")
    return id_


@situation(
    "Job … failed for good at … Its worker vanished each time: the job may kill its worker. …",
    "pulse retry 1",
)
async def failed_by_killing_its_workers(scene: Scene) -> int:
    id_ = await scene.job(max_attempts=1)
    await scene.server.take()
    await scene.at(31)
    await scene.server.claim(0, sweep=True)
    return id_


@situation("Job … failed for good at … with Broken. Its dead letter has been pruned, so it cannot run again.")
async def failed_long_ago(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.fails(id_, "Broken")
    await scene.owner.execute("delete from failed_jobs")
    return id_


@situation("It runs: attempt 1 of 4 is with worker w, whose lease ends at … UTC unless it is renewed.")
async def running(scene: Scene) -> int:
    await scene.worker()
    id_ = await scene.job()
    await scene.server.take()
    return id_


@situation("It runs: attempt 1 of 4 … unless it is renewed, and that worker has been asked to cancel it.")
async def running_and_asked_to_stop(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.server.take()
    await scene.server.cancel(id_)
    return id_


@situation("It runs: … That worker has said nothing for 50 s; if it is dead, …")
async def running_on_a_worker_that_is_silent(scene: Scene) -> int:
    await scene.worker()
    id_ = await scene.job()
    await scene.server.take(lease_seconds=60)
    await scene.at(50)
    return id_


@situation("It runs: … That worker is leaving: it ends the job soon, or hands it back.")
async def running_on_a_worker_that_leaves(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.server.take()
    await scene.worker(leaves_in_seconds=24)
    return id_


@situation("It runs: … That worker has left; when the lease ends the next sweep lets the job run again.")
async def running_on_a_worker_that_has_left(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.server.take(lease_seconds=60)
    await scene.worker(leaves_in_seconds=24)
    await scene.at(30)
    return id_


@situation("The lease of attempt 1 ended 10 s ago: its worker w vanished, or is cut off. The next sweep, …")
async def its_lease_is_over(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.server.take()
    await scene.at(40)
    await scene.worker("other")
    return id_


@situation(
    "The lease of attempt 1 ended 10 s ago: … No worker serves the queue payment now, so nobody sweeps it.",
    "pulse worker --queues payment",
)
async def its_lease_is_over_and_nobody_sweeps(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.server.take()
    await scene.at(40)
    await scene.worker("other", queues=["broker"], types={"broker": ["a"]})
    return id_


@situation("It is not due before … UTC, in 60 min: so it was inserted.")
async def not_due(scene: Scene) -> int:
    return await scene.job(run_at=START + timedelta(hours=1))


@situation("Attempt 1 of 4 failed with Broken; the next one is due at … UTC, in 5 s.")
async def retries_later(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.fails(id_, "Broken", "retry", delay_seconds=5)
    return id_


@situation("Attempt 1 of 4 failed; the next one is due at … UTC, in 30 s.")
async def retries_after_an_error_whose_name_is_no_name(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.fails(id_, f"Not a name, {SECRET}", "retry", delay_seconds=30)
    return id_


@situation(
    "Its handler has put it off until … UTC, in 60 min; that counts as no attempt. … 'the market is closed'."
)
async def snoozed(scene: Scene) -> int:
    id_ = await scene.job()
    job = await scene.server.take()
    await scene.server.end(job, "snooze", delay_seconds=3600, reason="the market is closed")
    return id_


@situation("Its handler has put it off until … UTC, in 60 min; that counts as no attempt.")
async def snoozed_without_a_word(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.server.end(await scene.server.take(), "snooze", delay_seconds=3600)
    return id_


@situation("The worker of attempt 2 of 4 vanished, as the one before had: the job may kill its worker, …")
async def in_line_after_two_vanished_workers(scene: Scene) -> int:
    id_ = await scene.job()
    for n in (1, 2):
        await scene.server.take()
        await scene.at(31 * n)
        await scene.server.claim(0, sweep=True)
    return id_


@situation(
    "It has been due for less than a second, but no worker is running: none has said anything for 45 s.",
    "pulse worker --queues payment",
)
async def no_worker_ever(scene: Scene) -> int:
    return await scene.job()


@situation(
    "It has been due for 100 s, but no worker is running: … The last that knew it, w, was last heard of at … UTC.",
    "pulse worker --queues payment",
)
async def its_worker_vanished(scene: Scene) -> int:
    await scene.worker()
    id_ = await scene.job()
    await scene.at(100)
    return id_


@situation(
    "… but no worker is running: … The last that knew it, w, left at … UTC.", "pulse worker --queues payment"
)
async def its_worker_left(scene: Scene) -> int:
    await scene.worker(leaves_in_seconds=0)
    return await scene.job()


@situation(
    "… but no worker that runs serves the queue payment.",
    "pulse worker --queues payment",
)
async def no_worker_of_its_queue(scene: Scene) -> int:
    await scene.worker(queues=["broker"], types={"broker": ["a"]})
    return await scene.job()


@situation(
    "… but no worker that runs knows the type a: it has no file handlers/payment/a.py.",
    "pulse worker --queues payment",
)
async def no_worker_of_its_type(scene: Scene) -> int:
    await scene.worker(types={"payment": ["b"]})
    return await scene.job()


@situation(
    "… but all 2 places of the workers that know it are taken, and one due job is before it.",
    "pulse worker --queues payment",
)
async def its_workers_are_full(scene: Scene) -> int:
    await scene.worker(places=2)
    await scene.job()
    await scene.job()
    await scene.server.claim(2)
    await scene.job()
    return await scene.job()


@situation(
    "… and worker w is there for it, but not ready: payment: the REST API has refused our calls …",
    "pulse doctor",
)
async def its_worker_is_not_ready(scene: Scene) -> int:
    await scene.worker(problems=["payment: the REST API has refused our calls for 9 s"])
    return await scene.job()


@situation("… and is about to run: worker w has room for it.")
async def its_worker_has_troubles_with_another_queue(scene: Scene) -> int:
    await scene.worker(
        problems=["broker: the REST API has not answered for 9 s", "payment: handlers that go on after 1"]
    )
    return await scene.job()


@situation("… and waits in line: 3 due jobs are before it in the queue payment.")
async def in_line(scene: Scene) -> int:
    await scene.worker()
    await scene.job()
    await scene.job(priority=5)
    await scene.job()
    id_ = await scene.job()
    await scene.job()
    await scene.job(priority=5, run_at=START + timedelta(hours=1))
    return id_


@situation(
    "…; every worker with room for it is deaf to Realtime, so a sweep has to find it, …", "pulse doctor"
)
async def its_worker_is_deaf(scene: Scene) -> int:
    await scene.worker(deaf_seconds=60)
    return await scene.job()


@situation("… and is about to run: worker w has room for it.")
async def about_to_run(scene: Scene) -> int:
    await scene.worker(deaf_seconds=5)
    return await scene.job()


@situation(
    "… though worker w has room for it: that worker does not get through to the database.", "pulse doctor"
)
async def passed_over(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.at(60)
    await scene.worker()
    return id_


@situation(
    "It has been due for less than a second, but no worker is running: …", "pulse worker --queues payment"
)
async def replayed(scene: Scene) -> int:
    id_ = await scene.job()
    await scene.fails(id_, "Broken")
    await scene.server.replay([1])
    return id_
