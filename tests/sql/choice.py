"""What the order of claims promises, said without lanes: whether a claim was right to take these jobs and no others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sql.queue_model import Job, Model

LONG = 60.0
"""Who has waited longer behind higher priorities may be taken first, one with each sweep."""


def doubts(model: Model, taken: Sequence[Job], places: int, *, sweep: bool) -> list[str]:
    """Why the queue may not take these jobs and leave the others; nothing when it may."""
    found = [*_forbidden(model, taken, places)]
    left = [job for job in _due(model) if job not in taken and model.passes(job, taken)]
    if left and len(taken) < places:
        found.append(f"{left} could have been taken, too")
    exceptions = [job for job in taken if sweep and model.now - max(job.run_at, job.made_at) > LONG]
    in_order = [
        [*_out_of_order(model, [job for job in taken if job is not aged], left)] for aged in exceptions
    ]
    return found + min([[*_out_of_order(model, taken, left)], *in_order], key=len)


def _due(model: Model) -> list[Job]:
    if model.paused:
        return []
    return [job for job in model.jobs.values() if job.status == "pending" and job.run_at <= model.now]


def _forbidden(model: Model, taken: Sequence[Job], places: int) -> Iterator[str]:
    if len(taken) > places:
        yield f"{len(taken)} were taken for {places} places"
    for n, job in enumerate(taken):
        if job not in _due(model):
            yield f"{job} is not due"
        elif not model.passes(job, taken[:n]):
            yield f"a limit has no room for {job}"


def _out_of_order(model: Model, taken: Sequence[Job], left: Sequence[Job]) -> Iterator[str]:
    turns = Counter(job.turn for job in taken if job.user)
    for job, other in product(taken, left):
        if other.priority > job.priority:
            yield f"{other} has a higher priority than {job}"
        if other.priority != job.priority or any(per != "user" for _, per in model.ever_limited):
            continue
        if other.user == job.user:
            if (other.run_at, other.id) < (job.run_at, job.id):
                yield f"{other} was before {job}"
        elif _sure(model, job) > (model.now if turns[other.turn] else _latest(model, other)):
            yield f"{other} waits longer for its turn than {job}"
        elif not model.ever_limited and turns[job.turn] > turns[other.turn] + 1:
            yield f"the user of {job} had two turns before {other} had one"


def _sure(model: Model, job: Job) -> float:
    """Since when a job waits at least: beside limits the queue may have forgotten when its user had a turn."""
    return job.run_at if model.ever_limited else _latest(model, job)


def _latest(model: Model, job: Job) -> float:
    return max(job.run_at, model.served.get(job.turn, job.run_at))
