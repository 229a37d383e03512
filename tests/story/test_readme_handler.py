"""README's promise to whoever writes a handler: one new file of about fifteen lines, and its jobs run."""

import json
import re
from pathlib import Path

import asyncpg
import pytest

from tests.projects import StartWorker
from tests.waiting import until

_CODE = re.compile(r"`handlers/(maintenance/greet\.py)`:\n\n```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def with_readmes_handler(project: Path, checkout: Path) -> int:
    """Adds the file as the README shows it; answers how many lines it has."""
    found = _CODE.search((checkout / "README.md").read_text())
    assert found, "the README shows handlers/maintenance/greet.py"
    (project / "handlers" / found[1]).write_text(found[2])
    return len(found[2].splitlines())


async def test_one_new_file_of_about_fifteen_lines_serves_a_new_job_type(
    with_readmes_handler: int, owner: "asyncpg.Connection[asyncpg.Record]", start_worker: StartWorker
) -> None:
    assert with_readmes_handler <= 18
    async with start_worker():
        await owner.execute(
            """insert into maintenance_jobs (type, data) values
            ('greet', '{"name": "Ada"}'), ('greet', '{"name": " "}'), ('greet', '{"nom": "Ada"}')"""
        )

        async def ended() -> bool:
            return not await owner.fetchval("select count(*) from jobs where finished_at is null")

        await until("all three have ended", ended)

    rows = await owner.fetch("select status, result, last_error from jobs order by id")
    assert [row["status"] for row in rows] == ["completed", "failed", "failed"]
    assert json.loads(rows[0]["result"]) == {"greeting": "Hello, Ada!"}
    assert rows[1]["last_error"] == "Reject: There is nobody to greet."
    assert rows[2]["last_error"] == (
        "InvalidPayload: The payload does not fit Greet: name: missing; nom: extra forbidden."
    )
