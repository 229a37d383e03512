"""What must hold after every storm: each invariant is one function that finds what breaks it, and names the job."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from chaos.evidence import Change, Evidence
from chaos.ledger import Word

_ENDS = {"completed", "cancelled", "failed"}
_SLACK = 0.005  # seconds between two readings of one clock
# The diagram of sql/README.md: before, after, and by which outcomes.
_DIAGRAM: dict[tuple[str | None, str | None], frozenset[str | None] | None] = {
    (None, "pending"): None,
    ("pending", "running"): None,
    ("pending", "cancelled"): None,
    ("running", "completed"): frozenset({"completed"}),
    ("running", "cancelled"): frozenset({"cancel", "snooze", "retry", "vanished"}),
    ("running", "failed"): frozenset({"dead", "retry", "vanished"}),
    ("running", "pending"): frozenset({"snooze", "retry", "vanished"}),
    ("failed", "pending"): None,
}


class Breach(NamedTuple):
    """What was found. `job_id` is None when it is about no job."""

    job_id: int | None
    text: str


Check = Callable[[Evidence], Iterator[Breach]]


def nothing_is_lost(evidence: Evidence) -> Iterator[Breach]:
    """Every job that a producer was told it has is there, and ended as its kind must."""
    for key, job_id in evidence.ids.items():
        if job_id not in evidence.jobs:
            yield Breach(job_id, f"{key} was acknowledged as job {job_id}, which does not exist")
    for job in evidence.jobs.values():
        expected = evidence.kind(job).ends
        if job.id in evidence.cancelled:
            expected |= {"cancelled"}
        if job.status not in expected:
            text = f"{job.queue}/{job.type} is {job.status} and must be {' or '.join(sorted(expected))}"
            yield Breach(job.id, text)


def work_is_done(evidence: Evidence) -> Iterator[Breach]:
    """A job is completed only by an attempt whose handler had returned: the ledger knows."""
    for job_id, change in _changes(evidence):
        if change.after != "completed":
            continue
        done = [
            entry.at
            for entry in evidence.entries.get(job_id, ())
            if entry.word is Word.DID and entry.attempt == change.attempt
        ]
        if not done:
            yield Breach(job_id, f"completed as attempt {change.attempt}, whose handler never returned")
        elif min(done) > change.at + _SLACK:
            yield Breach(job_id, f"completed before the handler of attempt {change.attempt} returned")


def outcomes_are_fenced(evidence: Evidence) -> Iterator[Breach]:
    """No outcome came from a stale attempt: what ended an attempt had begun as that attempt."""
    for job_id, change in _changes(evidence):
        if change.before != "running" or change.outcome not in {"completed", "retry", "dead", "cancel"}:
            continue
        begun = [
            entry.at
            for entry in evidence.entries.get(job_id, ())
            if entry.word is Word.BEGAN and entry.attempt == change.attempt
        ]
        never_run = not begun and change.outcome in {
            "dead",
            "cancel",
        }  # a wrong payload; stopped before it began
        if not never_run and (not begun or min(begun) > change.at + _SLACK):
            text = f"attempt {change.attempt} ended as {change.outcome}, and its handler had not begun"
            yield Breach(job_id, text)


def one_attempt_lives(evidence: Evidence) -> Iterator[Breach]:
    """At most one attempt of a job is live at any time, and only its own worker runs it, once."""
    for job_id, changes in evidence.changes.items():
        live: str | None = None
        claimed: dict[int | None, str] = {}
        for change in changes:
            if change.after == "running":
                if live is not None:
                    text = f"{change.worker_id} claimed attempt {change.attempt} while {live} held the job"
                    yield Breach(job_id, text)
                live = claimed[change.attempt] = str(change.worker_id)
            else:
                live = None
        began: set[int] = set()
        for entry in evidence.entries.get(job_id, ()):
            if entry.word is not Word.BEGAN:
                continue
            if entry.attempt in began:
                yield Breach(job_id, f"attempt {entry.attempt} was run twice")
            began.add(entry.attempt)
            if f"-{entry.pid}-" not in claimed.get(entry.attempt, ""):
                text = f"process {entry.pid} ran attempt {entry.attempt}, which it had not claimed"
                yield Breach(job_id, text)


def attempts_have_no_gaps(evidence: Evidence) -> Iterator[Breach]:
    """Attempts are numbered from 1, one by one: each claim counts one, and nothing else does."""
    for job_id, changes in evidence.changes.items():
        last = 0
        for change in changes:
            if change.after is None or change.attempt is None:
                continue
            expected = last + (change.before == "pending" and change.after == "running")
            if change.attempt != expected:
                yield Breach(job_id, f"attempt {change.attempt} follows {last} when it became {change.after}")
            last = change.attempt


def states_follow_the_diagram(evidence: Evidence) -> Iterator[Breach]:
    """A job's state only moves along the diagram."""
    for job_id, change in _changes(evidence):
        step = (change.before, change.after)
        if step not in _DIAGRAM:
            yield Breach(job_id, f"moved from {change.before} to {change.after}")
        elif (allowed := _DIAGRAM[step]) is not None and change.outcome not in allowed:
            yield Breach(job_id, f"moved from {change.before} to {change.after} by {change.outcome}")


def doubled_effects_lost_their_lease(evidence: Evidence) -> Iterator[Breach]:
    """Work was done twice only after a lease was really lost, and each time is accounted for."""
    for job_id, entries in evidence.entries.items():
        done = sorted({entry.attempt for entry in entries if entry.word is Word.DID})
        lost = {
            change.attempt_before
            for change in evidence.changes.get(job_id, ())
            if change.before == "running" and change.outcome == "vanished"
        }
        for attempt in done[:-1]:
            if attempt not in lost:
                yield Breach(
                    job_id, f"attempt {attempt} did the work and kept its lease; {done[-1]} did it again"
                )


def leases_are_respected(evidence: Evidence) -> Iterator[Breach]:
    """An attempt was ended in the name of a vanished worker only when its lease had run out."""
    for job_id, change in _changes(evidence):
        if change.outcome == "vanished" and change.before == "running" and not change.lease_over:
            yield Breach(job_id, f"attempt {change.attempt_before} was taken away while its lease held")


def stale_outcomes_are_stale(evidence: Evidence) -> Iterator[Breach]:
    """An outcome was refused as stale only when its attempt had ended before, and otherwise than by this outcome.

    One that was recorded, whose answer was lost and whose job has run again since is refused too, when it is told
    once more: by then nobody can tell.
    """
    for one in evidence.stale:
        changes = evidence.changes.get(one.job_id, ())
        since = [
            change
            for change in changes
            if change.before == "running" and change.attempt_before == one.attempt
        ]
        since += [change for change in changes if (change.attempt or 0) > one.attempt]
        before = [change for change in since if change.at <= one.at]
        if not before:
            yield Breach(one.job_id, f"the outcome of attempt {one.attempt} was refused while it was live")
        elif before[0].outcome == one.kind and len(before) == 1:
            yield Breach(
                one.job_id, f"the outcome of attempt {one.attempt} was refused, and had been recorded"
            )


def retries_stay_within_allowance(evidence: Evidence) -> Iterator[Breach]:
    """No attempt begins when a job's attempts are used up, none is given up before, and only a snooze is forgiven."""
    for job_id, change in _changes(evidence):
        if change.attempt is None or change.uncounted is None or change.max_attempts is None:
            continue
        forgiven = change.uncounted - (change.uncounted_before or 0)
        is_replay = change.before == "failed" and change.uncounted == change.attempt
        if forgiven != (change.before == "running" and change.outcome == "snooze") and not is_replay:
            yield Breach(job_id, f"{forgiven} attempts were forgiven when it became {change.after}")
        counted = change.attempt - change.uncounted
        if change.after == "running" and counted > change.max_attempts:
            yield Breach(
                job_id, f"attempt {change.attempt} is the {counted}th of {change.max_attempts} that count"
            )
        if change.after == "failed" and change.outcome != "dead" and counted < change.max_attempts:
            yield Breach(job_id, f"given up after {counted} of {change.max_attempts} attempts")


def dead_letters_are_complete(evidence: Evidence) -> Iterator[Breach]:
    """There is one dead letter for each time that a job was given up, and no other."""
    failed = {
        (job_id, change.attempt): change for job_id, change in _changes(evidence) if change.after == "failed"
    }
    written = [(letter.job_id, letter.attempt) for letters in evidence.letters.values() for letter in letters]
    for job_id, attempt in failed.keys() - set(written):
        yield Breach(job_id, f"was given up after attempt {attempt}, without a dead letter")
    for job_id, attempt in written:
        if (job_id, attempt) not in failed:
            yield Breach(job_id, f"has a dead letter of attempt {attempt}, which did not fail")
    for job in evidence.jobs.values():
        letters = evidence.letters.get(job.id, ())
        if job.status == "failed" and letters and letters[-1].replayed:
            yield Breach(job.id, "is failed, and its last dead letter says that it was replayed")


def all_is_at_rest(evidence: Evidence) -> Iterator[Breach]:
    """At the end nothing runs, nothing waits and nothing is leased."""
    for job in evidence.jobs.values():
        if job.leased or job.status not in _ENDS:
            yield Breach(job.id, f"{job.queue}/{job.type} is still {job.status}")


def keys_are_once(evidence: Evidence) -> Iterator[Breach]:
    """One job per idempotency key, and every answer names the same one."""
    seen: dict[tuple[str, str], int] = {}
    for job in evidence.jobs.values():
        if job.key is None:
            continue
        if (other := seen.setdefault((job.queue, job.key), job.id)) != job.id:
            yield Breach(job.id, f"has the same key as job {other}")
        if evidence.ids.get(job.key, job.id) != job.id:
            yield Breach(job.id, f"{job.key} was answered with another id, {evidence.ids[job.key]}")
    for key in evidence.disagreed:
        yield Breach(evidence.ids.get(key), f"{key} was answered with two ids")


def waits_are_bounded(evidence: Evidence) -> Iterator[Breach]:
    """No due job waited longer than the storm explains."""
    for job_id, seconds in waits(evidence):
        if seconds > evidence.longest_wait_allowed:
            yield Breach(
                job_id, f"was due for {seconds:.1f} s; allowed are {evidence.longest_wait_allowed:.0f} s"
            )


def no_worker_fell(evidence: Evidence) -> Iterator[Breach]:
    """No worker process ended of itself: each was killed, or told to drain."""
    for one in evidence.exits:
        told_to_drain = bool(one.told & {"SIGTERM", "SIGINT"})
        # By the signal itself: it had not begun to work yet.
        if one.code != -9 and not (told_to_drain and one.code in {0, 1, -2, -15}):
            yield Breach(
                None, f"worker {one.seat} (process {one.pid}, {one.log}) ended with exit code {one.code}"
            )


INVARIANTS: tuple[Check, ...] = (
    nothing_is_lost,
    work_is_done,
    outcomes_are_fenced,
    one_attempt_lives,
    attempts_have_no_gaps,
    states_follow_the_diagram,
    doubled_effects_lost_their_lease,
    leases_are_respected,
    stale_outcomes_are_stale,
    retries_stay_within_allowance,
    dead_letters_are_complete,
    all_is_at_rest,
    keys_are_once,
    waits_are_bounded,
    no_worker_fell,
)


def waits(evidence: Evidence) -> Iterator[tuple[int, float]]:
    """How long each claim let a due job wait."""
    for job_id, changes in evidence.changes.items():
        due = 0.0
        for change in changes:
            if change.after == "pending":
                due = max(change.at, change.run_at or 0.0)
            elif change.before == "pending" and change.after == "running":
                yield job_id, max(0.0, change.at - due)


def lost(evidence: Evidence) -> set[int]:
    """The jobs that are gone, or not where they must be."""
    return {breach.job_id for breach in nothing_is_lost(evidence) if breach.job_id is not None}


def doubled(evidence: Evidence) -> int:
    """How many effects happened once more than they should."""
    return sum(
        len({entry.attempt for entry in entries if entry.word is Word.DID}) - 1
        for entries in evidence.entries.values()
        if any(entry.word is Word.DID for entry in entries)
    )


def _changes(evidence: Evidence) -> Iterator[tuple[int, Change]]:
    for job_id, changes in evidence.changes.items():
        for change in changes:
            yield job_id, change
