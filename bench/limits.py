"""`python -m bench.limits`: limits under several worker processes; never one more than allowed, and none left idle.

Real processes work off a backlog over the REST API, of several users and accounts, under limits of each kind. What
the handlers noted is held against what the database noted (exactness.py), and it exits with 1 if a limit was passed.
How much of the room was used depends on the machine too: where it is out of breath, places wait for their next job.
"""

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from bench.exactness import Connection, Finding, Limit, disagreements, findings, keep_record, read_record
from bench.noting import FOLDER, runs_in
from bench.stack import ROOT, Stack, running_stack, running_worker

PROJECT: Final = ROOT / "bench" / "limited"
LIMITS: Final = (
    Limit("alone", at_once=1),
    Limit("together", at_once=8),
    Limit("of_user", per="user", at_once=2),
    Limit("of_account", per="data.account_id", at_once=1),
    Limit("paced", per="user", starts=40, per_seconds=1.0),
    Limit("paced_account", per="data.account_id", at_once=1),
    Limit("paced_account", per="user", starts=20, per_seconds=1.0),
)
SHARES: Final = {
    "alone": 4,
    "together": 26,
    "of_user": 20,
    "of_account": 20,
    "paced": 20,
    "paced_account": 10,
}
"""Of a hundred jobs."""
SECONDS: Final = {"alone": 0.03, "together": 0.06, "of_user": 0.1, "of_account": 0.08, "paced_account": 0.05}
"""How long a job of the type works; of the others: not at all."""
USERS: Final = [UUID(int=n) for n in range(1, 6)]
ACCOUNTS: Final = 10
PLACES: Final = 40
"""Of each process: more than the limits let run, so that limits are what holds jobs back."""

_PATIENCE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found out about one storm."""

    findings: Sequence[Finding]
    disagreements: Sequence[str]
    seconds: float
    """From the moment at which all were due until the last outcome."""
    by_process: Sequence[int]
    """How many jobs each process ran."""

    @property
    def sole(self) -> Sequence[Finding]:
        """Those of types with one limit: of two now the one, now the other is what holds jobs back."""
        limited = Counter(one.limit.type for one in self.findings)
        return [one for one in self.findings if limited[one.limit.type] == 1]

    @property
    def is_exact(self) -> bool:
        """Whether no limit was passed and each that stands alone was reached, and the records agree."""
        kept = all(one.is_exact for one in self.findings) and all(one.is_reached for one in self.sole)
        return kept and not self.disagreements


async def set_limits(owner: Connection, limits: Sequence[Limit]) -> Mapping[int, Limit]:
    """By their ids. The platform's own limit of a user does not govern these jobs."""
    await owner.execute("select limit_jobs('maintenance', per => 'user')")
    return {await limit.set(owner): limit for limit in limits}


async def insert(
    owner: Connection,
    jobs: Sequence[tuple[str, UUID, str, float]],
    *,
    due_in: float = 0.0,
    waits: bool = False,
) -> int:
    """All in one INSERT; the moment at which they are due, in microseconds."""
    await owner.execute(
        "insert into maintenance_jobs (type, user_id, run_at, data)"
        " select type, user_id, clock_now() + make_interval(secs => $5::float8),"
        " jsonb_build_object('account_id', account, 'seconds', seconds, 'waits', $6::boolean)"
        " from unnest($1::text[], $2::uuid[], $3::text[], $4::float8[]) as j (type, user_id, account, seconds)",
        *map(list, zip(*jobs, strict=True)),
        due_in,
        waits,
    )
    latest = "select (extract(epoch from max(run_at)) * 1000000)::bigint from maintenance_jobs"
    moment: int = await owner.fetchval(latest)
    return moment


def jobs_of(count: int, seed: int) -> list[tuple[str, UUID, str, float]]:
    """So many jobs as (type, user, account, seconds), well mixed. Each account is one user's."""
    found: list[tuple[str, UUID, str, float]] = []
    for type_, share in SHARES.items():
        keys = itertools.islice(itertools.cycle(range(ACCOUNTS)), count * share // 100)
        found += [(type_, USERS[key % len(USERS)], f"a{key}", SECONDS.get(type_, 0.0)) for key in keys]
    random.Random(seed).shuffle(found)
    return found


async def _measure(count: int, processes: int, seed: int) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        async with running_stack() as stack:
            owner = await asyncpg.connect(stack.dsn)
            try:
                limits = await set_limits(owner, LIMITS)
                await keep_record(owner)
                await owner.execute("select announce_by_broadcast()")  # one announcement, and not 10,000
                since = await _storm(stack, owner, Path(folder), jobs_of(count, seed), processes)
                record = await read_record(owner)
            finally:
                await owner.close()
        runs = runs_in(Path(folder))
    return Outcome(
        findings(limits, runs, record, since),
        disagreements(limits, runs, record),
        (record.changes[-1].at - since) / 1e6,
        sorted(Counter(run.pid for run in runs).values()),
    )


async def _storm(
    stack: Stack,
    owner: Connection,
    folder: Path,
    jobs: Sequence[tuple[str, UUID, str, float]],
    processes: int,
) -> int:
    """The moment at which all were due, when all are done."""
    async with AsyncExitStack() as workers:
        for _ in range(processes):
            settings = {FOLDER: str(folder), "PULSE_LISTEN": "broadcast"}
            worker = running_worker(stack, PLACES, project=PROJECT, **settings)
            await workers.enter_async_context(worker)
        _say(f"{len(jobs)} jobs for {processes} processes …")
        since = await insert(owner, jobs, due_in=1 + len(jobs) / 2000)  # the INSERT itself takes seconds
        await _until_done(owner)
        return since


async def _until_done(owner: Connection) -> None:
    """Raises when for a minute no job has ended: who was to look does not."""
    waiting, quiet_since = 0, time.monotonic()
    open_jobs = "select count(*) from maintenance_jobs where status in ('pending', 'running')"
    while left := await owner.fetchval(open_jobs):
        if left != waiting:
            waiting, quiet_since = left, time.monotonic()
        if time.monotonic() - quiet_since > _PATIENCE_SECONDS:
            raise RuntimeError(f"{left} jobs are left, and for {_PATIENCE_SECONDS} s none has ended")
        await asyncio.sleep(0.2)


def _table(outcome: Outcome) -> str:
    lines = [f"{'limit':<46}{'jobs':>7}{'keys':>6}{'N':>5}{'claims':>8}{'handlers':>10}{'used':>7}{'ran':>7}"]
    for one in outcome.findings:
        limit = one.limit
        what = "at once" if limit.at_once else f"starts in {limit.per_seconds:g} s"
        is_sole = one in outcome.sole
        lines.append(
            f"{f'{limit.type}, per {limit.per}, {what}':<46}{one.jobs:>7}{one.keys:>6}{limit.allowed:>5}"
            f"{one.by_claims:>8}{one.by_handlers:>10}"
            f"{f'{one.used:.3f}' if is_sole else '':>7}{f'{one.ran:.2f}' if is_sole and one.ran else '':>7}"
        )
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measures and prints; exits with 1 if a limit was passed or not reached, or the records contradict each other."""
    parser = argparse.ArgumentParser(prog="python -m bench.limits", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="backlog (default: 10000)")
    parser.add_argument("--processes", type=int, default=4, help="workers (default: 4)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the jobs (default: 1)")
    arguments = parser.parse_args()
    outcome = asyncio.run(_measure(arguments.jobs, arguments.processes, arguments.seed))
    print(_table(outcome))
    print(f"all done after {outcome.seconds:.1f} s; by process {outcome.by_process}")
    for sentence in outcome.disagreements[:20]:
        print(sentence)
    print("exact" if outcome.is_exact else "NOT EXACT")
    sys.exit(0 if outcome.is_exact else 1)


if __name__ == "__main__":
    main()
