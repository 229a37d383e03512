"""Each invariant is broken on purpose, and is seen to name the job."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chaos.evidence import Change, Evidence, Exit, JobRow, Letter, Stale
from chaos.invariants import INVARIANTS, Breach
from chaos.jobs import Kind
from chaos.ledger import Entry, Word
from chaos.report import life

DONE, TWICE, DEAD = 1, 2, 3
"""Completed at once; completed by its second attempt after its first had done the work and lost its lease; given up."""
KINDS = {
    ("payment", "quick"): Kind("payment", "quick"),
    ("payment", "bad"): Kind("payment", "bad", ends=frozenset({"failed"})),
}


def change(
    job: int,
    at: float,
    before: str | None,
    after: str | None,
    attempt: int,
    *,
    outcome: str | None = None,
    pid: int = 1,
) -> Change:
    claimed = before == "pending" and after == "running"
    return Change(
        job,
        at,
        before,
        after,
        attempt - claimed,
        attempt,
        0,
        0,
        4,
        0.0,
        f"host-{pid}-ab" if claimed else None,
        outcome,
    )


def entry(job: int, at: float, word: Word, attempt: int, *, pid: int = 1) -> Entry:
    return Entry(word, job, attempt, at, pid, f"key-{job}")


@pytest.fixture
def evidence() -> Evidence:
    """A storm in which everything went as it must."""
    return Evidence(
        kinds=KINDS,
        jobs={
            DONE: JobRow(DONE, "payment", "quick", "completed", 1, 0, 4, leased=False, key="a"),
            TWICE: JobRow(TWICE, "payment", "quick", "completed", 2, 0, 4, leased=False, key="b"),
            DEAD: JobRow(DEAD, "payment", "bad", "failed", 1, 0, 4, leased=False, key="c"),
        },
        changes={
            DONE: [
                change(DONE, 1.0, None, "pending", 0),
                change(DONE, 2.0, "pending", "running", 1),
                change(DONE, 3.0, "running", "completed", 1, outcome="completed"),
            ],
            TWICE: [
                change(TWICE, 1.0, None, "pending", 0),
                change(TWICE, 2.0, "pending", "running", 1),
                change(TWICE, 5.0, "running", "pending", 1, outcome="vanished")._replace(lease_over=True),
                change(TWICE, 6.0, "pending", "running", 2, pid=2),
                change(TWICE, 8.0, "running", "completed", 2, outcome="completed"),
            ],
            DEAD: [
                change(DEAD, 1.0, None, "pending", 0),
                change(DEAD, 2.0, "pending", "running", 1),
                change(DEAD, 3.0, "running", "failed", 1, outcome="dead"),
            ],
        },
        entries={
            DONE: [entry(DONE, 2.1, Word.BEGAN, 1), entry(DONE, 2.2, Word.DID, 1)],
            TWICE: [
                entry(TWICE, 2.1, Word.BEGAN, 1),
                entry(TWICE, 6.1, Word.BEGAN, 2, pid=2),
                entry(TWICE, 6.5, Word.DID, 1),
                entry(TWICE, 7.0, Word.DID, 2, pid=2),
            ],
            DEAD: [entry(DEAD, 2.1, Word.BEGAN, 1), entry(DEAD, 2.2, Word.LEFT, 1)],
        },
        letters={DEAD: [Letter(DEAD, 1, "Reject", replayed=False)]},
        stale=[Stale(TWICE, 1, "completed", 6.6)],
        ids={"a": DONE, "b": TWICE, "c": DEAD},
        exits=[
            Exit(0, 1, -9, frozenset(), "worker-0-1.log"),
            Exit(1, 2, 0, frozenset({"SIGTERM"}), "worker-1-1.log"),
        ],
    )


def found(evidence: Evidence) -> dict[str, list[Breach]]:
    return {check.__name__: breaches for check in INVARIANTS if (breaches := list(check(evidence)))}


def with_job(evidence: Evidence, job: int, **words: Any) -> Evidence:
    return replace(evidence, jobs={**evidence.jobs, job: evidence.jobs[job]._replace(**words)})


def with_change(evidence: Evidence, job: int, number: int, **words: Any) -> Evidence:
    changes = list(evidence.changes[job])
    changes[number] = changes[number]._replace(**words)
    return replace(evidence, changes={**evidence.changes, job: changes})


def without_changes(evidence: Evidence, job: int, *numbers: int) -> Evidence:
    kept = [one for number, one in enumerate(evidence.changes[job]) if number not in numbers]
    return replace(evidence, changes={**evidence.changes, job: kept})


def with_entries(evidence: Evidence, job: int, entries: list[Entry]) -> Evidence:
    return replace(evidence, entries={**evidence.entries, job: entries})


Break = Callable[[Evidence], Evidence]
BROKEN: list[tuple[str, str, int | None, Break]] = [
    (
        "nothing_is_lost",
        "a row is gone",
        DONE,
        lambda e: replace(e, jobs={k: v for k, v in e.jobs.items() if k != DONE}),
    ),
    ("nothing_is_lost", "a job was given up wrongly", DONE, lambda e: with_job(e, DONE, status="failed")),
    ("nothing_is_lost", "a job ended that must not", DEAD, lambda e: with_job(e, DEAD, status="completed")),
    ("work_is_done", "nobody did the work", DONE, lambda e: with_entries(e, DONE, list(e.entries[DONE])[:1])),
    (
        "work_is_done",
        "it was recorded before it was done",
        DONE,
        lambda e: with_entries(e, DONE, [e.entries[DONE][0], entry(DONE, 3.5, Word.DID, 1)]),
    ),
    (
        "work_is_done",
        "the first attempt's outcome ended the second",
        TWICE,
        lambda e: with_change(e, TWICE, 4, at=6.55),
    ),
    (
        "outcomes_are_fenced",
        "an outcome of an attempt that had not begun",
        TWICE,
        lambda e: with_change(e, TWICE, 4, at=6.05),
    ),
    (
        "one_attempt_lives",
        "claimed while it ran",
        TWICE,
        lambda e: without_changes(e, TWICE, 2),
    ),
    (
        "one_attempt_lives",
        "the same attempt ran twice",
        DONE,
        lambda e: with_entries(e, DONE, [*e.entries[DONE], entry(DONE, 2.3, Word.BEGAN, 1)]),
    ),
    (
        "one_attempt_lives",
        "somebody ran what another had claimed",
        DONE,
        lambda e: with_entries(e, DONE, [entry(DONE, 2.1, Word.BEGAN, 1, pid=3), e.entries[DONE][1]]),
    ),
    ("attempts_have_no_gaps", "a number was left out", TWICE, lambda e: with_change(e, TWICE, 3, attempt=3)),
    ("attempts_have_no_gaps", "an end counted", DONE, lambda e: with_change(e, DONE, 2, attempt=2)),
    (
        "states_follow_the_diagram",
        "completed without having run",
        DONE,
        lambda e: without_changes(with_change(e, DONE, 2, before="pending"), DONE, 1),
    ),
    (
        "states_follow_the_diagram",
        "completed by a retry",
        DONE,
        lambda e: with_change(e, DONE, 2, outcome="retry"),
    ),
    (
        "doubled_effects_lost_their_lease",
        "done twice without a lost lease",
        TWICE,
        lambda e: with_change(e, TWICE, 2, outcome="retry"),
    ),
    (
        "leases_are_respected",
        "taken away too early",
        TWICE,
        lambda e: with_change(e, TWICE, 2, lease_over=False),
    ),
    (
        "stale_outcomes_are_stale",
        "refused while it was live",
        TWICE,
        lambda e: replace(e, stale=[Stale(TWICE, 1, "completed", 4.0)]),
    ),
    (
        "stale_outcomes_are_stale",
        "refused and never ended",
        DONE,
        lambda e: without_changes(replace(e, stale=[Stale(DONE, 1, "completed", 4.0)]), DONE, 2),
    ),
    (
        "stale_outcomes_are_stale",
        "refused although it was the one that was recorded",
        DONE,
        lambda e: replace(e, stale=[Stale(DONE, 1, "completed", 4.0)]),
    ),
    (
        "retries_stay_within_allowance",
        "one attempt too many",
        TWICE,
        lambda e: with_change(e, TWICE, 3, max_attempts=1),
    ),
    (
        "retries_stay_within_allowance",
        "given up too early",
        DEAD,
        lambda e: with_change(e, DEAD, 2, outcome="retry"),
    ),
    ("retries_stay_within_allowance", "forgiven", TWICE, lambda e: with_change(e, TWICE, 2, uncounted=1)),
    ("dead_letters_are_complete", "a dead letter is missing", DEAD, lambda e: replace(e, letters={})),
    (
        "dead_letters_are_complete",
        "a dead letter too many",
        DONE,
        lambda e: replace(e, letters={**e.letters, DONE: [Letter(DONE, 1, "Reject", replayed=False)]}),
    ),
    (
        "dead_letters_are_complete",
        "a replay that came to nothing",
        DEAD,
        lambda e: replace(e, letters={DEAD: [Letter(DEAD, 1, "Reject", replayed=True)]}),
    ),
    ("all_is_at_rest", "it still runs", DONE, lambda e: with_job(e, DONE, status="running", leased=True)),
    ("all_is_at_rest", "it still waits", DONE, lambda e: with_job(e, DONE, status="pending")),
    ("keys_are_once", "two jobs with a key", TWICE, lambda e: with_job(e, TWICE, key="a")),
    ("keys_are_once", "answered with another id", DONE, lambda e: replace(e, ids={**e.ids, "a": TWICE})),
    ("keys_are_once", "two answers", DONE, lambda e: replace(e, disagreed=["a"])),
    ("waits_are_bounded", "nobody looked", DONE, lambda e: replace(e, longest_wait_allowed=0.5)),
    (
        "no_worker_fell",
        "a crash",
        None,
        lambda e: replace(e, exits=[Exit(0, 1, 1, frozenset({"SIGCONT"}), "worker-0-1.log")]),
    ),
]


def test_a_storm_in_which_all_went_well_breaks_nothing(evidence: Evidence) -> None:
    assert found(evidence) == {}


@pytest.mark.parametrize(
    ("name", "what", "job", "broken"), BROKEN, ids=[f"{name}: {what}" for name, what, *_ in BROKEN]
)
def test_is_found_and_the_job_is_named(
    evidence: Evidence, name: str, what: str, job: int | None, broken: Break
) -> None:
    assert job in {breach.job_id for breach in found(broken(evidence))[name]}


def test_every_invariant_is_broken_by_some_story() -> None:
    assert {name for name, *_ in BROKEN} == {check.__name__ for check in INVARIANTS}


def test_a_life_tells_rows_ledger_and_refusals_in_the_order_of_time(evidence: Evidence) -> None:
    told = list(life(evidence, TWICE))
    assert told[0] == "payment/quick, completed, key b"
    assert "refused as stale" in told[-3]
    assert [line.split(" s  ")[1].split(":")[0] for line in told[1:]] == [
        "row", "row", "ledger", "row", "row", "ledger", "ledger", "refused as stale", "ledger", "row",
    ]  # fmt: skip
