"""What came of a storm: the counts, each invariant with its verdict, and the life of the jobs that broke one."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from chaos.evidence import Evidence
from chaos.invariants import INVARIANTS, Breach, doubled, doubled_effects_lost_their_lease, lost, waits
from chaos.plan import Plan
from chaos.weather import Deed

_MOST_TOLD = 5  # breaches of one invariant


@dataclass(frozen=True, slots=True)
class Verdict:
    """One invariant."""

    name: str
    sentence: str
    breaches: Sequence[Breach]


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    plan: Plan
    counts: Mapping[str, float]
    """The storm in numbers."""
    verdicts: Sequence[Verdict]
    seconds: float
    """How long the storm lasted."""
    rest_after: float | None
    """Seconds from its end until every job had ended; None: some had not."""
    folder: str | None
    """Where logs and ledgers are, when they were kept."""
    lives: dict[int, list[str]]

    @property
    def holds(self) -> bool:
        """Whether no invariant is broken."""
        return not any(verdict.breaches for verdict in self.verdicts)

    def json(self) -> str:
        """For programs."""
        words: dict[str, object] = {
            "holds": self.holds,
            "plan": asdict(self.plan),
            "counts": self.counts,
            "storm_seconds": round(self.seconds, 1),
            "rest_after_seconds": None if self.rest_after is None else round(self.rest_after, 1),
            "invariants": [
                {
                    "name": one.name,
                    "sentence": one.sentence,
                    "holds": not one.breaches,
                    "breaches": [
                        {"job_id": breach.job_id, "text": breach.text} for breach in one.breaches[:_MOST_TOLD]
                    ],
                    "breached": len(one.breaches),
                }
                for one in self.verdicts
            ],
            "lives": self.lives,
            "kept_in": self.folder,
        }
        return json.dumps(words, indent=2, ensure_ascii=False, default=str)

    def text(self) -> str:
        """For people."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for name, value in self.counts.items():
            yield f"  {name.replace('_', ' '):<28} {value:>9}"
        rest = "never" if self.rest_after is None else f"{self.rest_after:.1f} s after the storm"
        yield f"  {'at rest':<28} {rest:>9}"
        yield ""
        for one in self.verdicts:
            yield f"{'✗' if one.breaches else '✓'} {one.name.replace('_', ' ')}: {one.sentence}"
            for breach in one.breaches[:_MOST_TOLD]:
                about = "" if breach.job_id is None else f"job {breach.job_id} "
                yield f"    {about}{breach.text}"
            if len(one.breaches) > _MOST_TOLD:
                yield f"    … and {len(one.breaches) - _MOST_TOLD} more"
        yield ""
        for job_id, life in self.lives.items():
            yield f"The life of job {job_id}:"
            yield from (f"    {line}" for line in life)
            yield ""
        if self.holds:
            yield f"Every invariant holds. Seed {self.plan.seed}."
        else:
            yield f"BROKEN. The same weather again: --seed {self.plan.seed}. Logs and ledgers: {self.folder}"


def judged(
    plan: Plan,
    evidence: Evidence,
    deeds: Sequence[Deed],
    *,
    seconds: float,
    rest_after: float | None,
    folder: str,
) -> Report:
    """Looks at the evidence."""
    verdicts = [
        Verdict(check.__name__, (check.__doc__ or "").partition("\n")[0], list(check(evidence)))
        for check in INVARIANTS
    ]
    named = [
        breach.job_id
        for verdict in verdicts
        for breach in verdict.breaches[:_MOST_TOLD]
        if breach.job_id is not None
    ]
    lives = {job_id: list(life(evidence, job_id)) for job_id in dict.fromkeys(named[:_MOST_TOLD])}
    broken = any(verdict.breaches for verdict in verdicts)
    counts = _counts(evidence, deeds)
    return Report(plan, counts, verdicts, seconds, rest_after, folder if broken else None, lives)


def _counts(evidence: Evidence, deeds: Sequence[Deed]) -> dict[str, float]:
    ends = Counter(job.status for job in evidence.jobs.values())
    changes = [change for changes in evidence.changes.values() for change in changes]
    said = evidence.said
    return {
        "enqueued": len(evidence.jobs),
        "completed": ends["completed"],
        "dead": ends["failed"],
        "cancelled": ends["cancelled"],
        "lost": len(lost(evidence)),
        "attempts": sum(change.after == "running" for change in changes),
        "leases_lost": sum(change.outcome == "vanished" and change.before == "running" for change in changes),
        "doubled_effects": doubled(evidence),
        "doubled_effects_unaccounted": len(list(doubled_effects_lost_their_lease(evidence))),
        "stale_outcomes_refused": len(evidence.stale),
        "stale_outcomes_seen": said.stale,  # by a worker: one that is killed is told nothing
        "outcomes_recovered": said.recovered,  # out of the journals of processes that had died
        "deaf_seconds": round(said.deaf_seconds, 1),
        "times_deaf": said.deaf,
        "wakeups_lost": said.wakeups_lost,
        "longest_wait_seconds": round(max((wait for _, wait in waits(evidence)), default=0.0), 1),
        "faults": len(deeds),
        "worker_processes": len(evidence.exits),
    }


def life(evidence: Evidence, job_id: int) -> Iterator[str]:
    """Everything that is known of one job, in the order of time."""
    told: list[tuple[float, str]] = []
    for change in evidence.changes.get(job_id, ()):
        facts = [f"attempt {change.attempt}", f"uncounted {change.uncounted}"]
        if change.after == "running":
            facts.append(f"by {change.worker_id}")
        if change.outcome is not None and change.before == "running":
            facts.append(f"outcome {change.outcome}")
        told.append((change.at, f"row: {change.before or '—'} → {change.after or '—'}, {', '.join(facts)}"))
    told += [
        (entry.at, f"ledger: attempt {entry.attempt} {entry.word} in process {entry.pid}")
        for entry in evidence.entries.get(job_id, ())
    ]
    told += [
        (one.at, f"refused as stale: {one.kind} of attempt {one.attempt}")
        for one in evidence.stale
        if one.job_id == job_id
    ]
    told.sort(key=lambda one: one[0])
    began = told[0][0] if told else 0.0
    job = evidence.jobs.get(job_id)
    yield "there is no such job" if job is None else f"{job.queue}/{job.type}, {job.status}, key {job.key}"
    for at, text in told:
        yield f"{at - began:9.3f} s  {text}"
    for letter in evidence.letters.get(job_id, ()):
        yield f"dead letter of attempt {letter.attempt}: {letter.error_class}, replayed: {letter.replayed}"
