"""Storms, as a user plays them: over the lab's own jobs, over a user's, and with a protection taken out."""

import asyncio
import json
import shutil
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import cast

import pytest

from chaos.weather import NAMES

HANDLER = '''
"""Takes a while."""

import asyncio

from listener import Payload, handler


class Render(Payload):
    seconds: float


@handler("reports")
async def render(payload: Render) -> None:
    await asyncio.sleep(payload.seconds)
'''
JOBS = '''
"""What the storm is made of."""

from chaos.jobs import Kind

KINDS = [Kind("reports", "render", lambda chance: {"seconds": chance.uniform(1.5, 4)})]
'''
WITHOUT_FENCE = (
    "j.attempt = w.attempt and j.lease_expires_at is not null as live",
    "j.lease_expires_at is not null as live",
)
WITHOUT_SWEEP = """
    create or replace function public.end_lost_attempts(queue text) returns jsonb language sql
    as $$ select '{"retried": 0, "dead": 0}'::jsonb $$;
"""


async def chaos(*words: str, code: int, by: tuple[str, ...] = ("-m", "chaos")) -> dict[str, object]:
    """Plays a storm in a process of its own, which must end with that exit code; answers its report."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *by, *words, "--json", stdout=PIPE, stderr=PIPE
    )
    said, told = await process.communicate()
    assert process.returncode == code, said.decode() + told.decode()
    report = cast("dict[str, object]", json.loads(said))
    assert (report["kept_in"] is None) == (code == 0)
    if report["kept_in"] is not None:
        kept = Path(str(report["kept_in"]))
        assert list((kept / "logs").iterdir()), "somebody will want to read them"
        shutil.rmtree(kept)
    return report


def broken(report: dict[str, object]) -> dict[str, list[int]]:
    """The invariants that do not hold, with the jobs that they name."""
    verdicts = cast("list[dict[str, object]]", report["invariants"])
    return {
        str(one["name"]): [
            cast("int", each["job_id"]) for each in cast("list[dict[str, object]]", one["breaches"])
        ]
        for one in verdicts
        if not one["holds"]
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project with one handler, in a queue that the platform does not know."""
    family = tmp_path / "handlers" / "reports"
    family.mkdir(parents=True)
    for folder in (family, family.parent):
        (folder / "__init__.py").touch()
    (family.parent / "resources.py").touch()
    (family / "render.py").write_text(HANDLER)
    (tmp_path / "chaos_jobs.py").write_text(JOBS)
    return tmp_path


@pytest.mark.timeout(180)
async def test_nothing_is_lost_in_a_storm_of_every_kind_of_fault() -> None:
    report = await chaos(
        "--minutes", "0.4", "--jobs", "1500", "--lease", "4", "--sweep", "1", "--seed", "7", code=0
    )
    counts = cast("dict[str, float]", report["counts"])
    assert counts["enqueued"] >= 1500
    assert counts["completed"] + counts["dead"] + counts["cancelled"] == counts["enqueued"]
    assert counts["lost"] == counts["doubled_effects_unaccounted"] == 0
    assert counts["faults"] > len(NAMES) * 0.8, "some find that another fault has what they were to hit"
    assert counts["leases_lost"] > 0
    assert counts["times_deaf"] > 0


QUICK = ("--minutes", "0.13", "--workers", "2", "--lease", "2", "--sweep", "0.5", "--patience", "10")


@pytest.mark.timeout(120)
async def test_users_play_it_over_their_own_handlers(project: Path) -> None:
    words = ("--jobs", "60", "--jobs-from", str(project), *QUICK)
    report = await chaos(*words, code=0, by=("-m", "listener", "chaos"))
    assert cast("dict[str, float]", report["counts"])["completed"] == 60


@pytest.mark.timeout(120)
async def test_a_protection_that_is_taken_out_is_missed(
    project: Path, checkout: Path, tmp_path: Path
) -> None:
    finish = (checkout / "sql" / "060_finish.sql").read_text()
    function = finish[
        finish.index("create function public.record_outcomes") : finish.index("-- Says where an outcome")
    ]
    assert WITHOUT_FENCE[0] in function
    fence, sweep = tmp_path / "fence.sql", tmp_path / "sweep.sql"
    fence.write_text(
        function.replace("create function", "create or replace function").replace(*WITHOUT_FENCE)
    )
    sweep.write_text(WITHOUT_SWEEP)
    words = ("--jobs", "200", "--jobs-from", str(project), *QUICK)

    async with asyncio.TaskGroup() as group:
        unfenced = group.create_task(chaos(*words, "--faults", "freeze", "--sabotage", str(fence), code=1))
        unswept = group.create_task(chaos(*words, "--faults", "kill", "--sabotage", str(sweep), code=1))

    assert broken(unfenced.result())["work_is_done"], (
        "the outcome of a frozen worker's attempt ended its successor"
    )
    assert unfenced.result()["lives"]
    assert broken(unswept.result())["all_is_at_rest"] == broken(unswept.result())["nothing_is_lost"] != []
