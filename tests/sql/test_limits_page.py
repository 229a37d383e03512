"""docs/limits.md: all of its SQL runs, in its order, as the server would run it."""

import re
from pathlib import Path

from tests.sql.calls import Calls


async def test_every_statement_of_the_page_runs_and_leaves_nothing_held_back(
    server: Calls, checkout: Path
) -> None:
    blocks = re.findall(r"```sql\n(.*?)```", (checkout / "docs" / "limits.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    for statement in "".join(blocks).split(";\n"):
        if statement:
            await server.connection.fetch(statement)
    assert await server.value("select count(*) from paused") == 0
    assert await server.value("select count(*) from job_limits where starts = 100 and queue is null") == 1
    assert await server.value("select count(*) from job_limits where at_once is not null") == 2
