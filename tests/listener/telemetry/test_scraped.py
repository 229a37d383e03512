"""A real Prometheus reads a real worker: the page is to its taste, and each alert and panel can be computed from it."""

import asyncio
import json
import re
import subprocess
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, cast

import aiohttp
import asyncpg
from prometheus_client.parser import text_string_to_metric_families

from listener.telemetry.catalogue import METRICS
from tests.house.test_metrics_docs import DOCS, alert_expressions, board_expressions
from tests.projects import StartWorker, Worker
from tests.skips import PROMETHEUS
from tests.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Ask: TypeAlias = Callable[[str], Coroutine[Any, Any, list[dict[str, Any]]]]
TOKEN = "any-long-random-text"
ENDS = '''
"""Ends as it is told to."""

from listener import Payload, Queue, Reject, RetryAfter, Snooze, handler
from datetime import timedelta


class Ends(Payload):
    how: str


@handler(Queue.MAINTENANCE)
async def ends(payload: Ends) -> Snooze | None:
    if payload.how == "reject":
        raise Reject("as it was told to")
    if payload.how == "fail":
        raise RetryAfter(timedelta(hours=1), "as it was told to")
    return Snooze(timedelta(hours=1), "as it was told to") if payload.how == "snooze" else None
'''


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[Ask]:
    """A Prometheus with the alerts of docs/ that scrapes the target; ask it queries."""
    program = PROMETHEUS.path()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 200ms, evaluation_interval: 1s}\n"
        f"rule_files: ['{DOCS / 'alerts.rules.yml'}']\n"
        "scrape_configs:\n"
        "  - job_name: pulse\n"
        f"    authorization: {{credentials: {TOKEN}}}\n"
        f"    static_configs: [{{targets: ['{target}']}}]\n"
    )
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
    )
    try:
        async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as http:
            address = await _address(process)
            reading = group.create_task(_read_on(process))

            async def is_ready() -> bool:
                async with http.get(f"http://{address}/-/ready") as answer:
                    return answer.status == 200

            await until("Prometheus is ready", is_ready)

            async def ask(query: str) -> list[dict[str, Any]]:
                async with http.get(f"http://{address}/api/v1/query", params={"query": query}) as answer:
                    said = await answer.json()
                assert said["status"] == "success", (query, said)
                return cast("list[dict[str, Any]]", said["data"]["result"])

            yield ask
            reading.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        if found := re.search(rb'msg="Listening on" address=([\d.:]+)', line):
            return found[1].decode()
    raise AssertionError("Prometheus ended before it listened")


async def _read_on(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    while await process.stderr.read(65536):
        pass


def door(worker: Worker) -> str:
    """Where it is."""
    (line,) = worker.lines("door open")
    return str(line.facts["url"])


async def test_a_real_prometheus_reads_a_real_worker(
    project: Path, start_worker: StartWorker, owner: Connection, tmp_path: Path
) -> None:
    (project / "handlers" / "maintenance" / "ends.py").write_text(ENDS)
    hows = ["do"] * 5 + ["reject", "fail", "snooze"]
    words = ("--no-scheduler", "--port", "0", "--concurrency", "7")
    async with start_worker(*words, door=True, PULSE_DOOR_TOKEN=TOKEN) as worker:
        for how in hows:
            await owner.execute(
                "insert into maintenance_jobs (type, data) values ('ends', $1)", json.dumps({"how": how})
            )
        await owner.execute("insert into payment_jobs (type) values ('nobody_does_it'), ('nobody_does_it')")
        target = door(worker).removeprefix("http://")
        async with prometheus(tmp_path, target) as ask:

            async def number(query: str) -> float | None:
                found = await ask(query)
                return float(found[0]["value"][1]) if found else None

            async def all_are_processed() -> bool:
                return await number('sum(pulse_jobs_processed_total{queue="maintenance"})') == len(hows)

            await until("Prometheus has read that all are processed", all_are_processed)
            by_status = {
                one["metric"]["status"]: float(one["value"][1])
                for one in await ask('pulse_jobs_processed_total{type="ends"} > 0')
            }
            assert by_status == {"success": 5, "failure": 1, "retry": 1, "snooze": 1}
            expected = {
                'pulse_dead_letters{queue="maintenance"}': 1,
                'pulse_queue_due{queue="payment"}': 2,
                'pulse_places{queue="maintenance"}': 7,
                "pulse_job_duration_seconds_count": len(hows),
                "pulse_job_lag_seconds_count": len(hows),
                "pulse_ready": 1,
            }
            for query, value in expected.items():
                assert await number(query) == value, query
            assert (await number('pulse_call_duration_seconds_count{call="claim"}') or 0) >= 1
            for expression in alert_expressions():
                await ask(expression)
            for expression in board_expressions():
                await ask(_filled_in(expression))


def _filled_in(expression: str) -> str:
    return expression.replace("$__rate_interval", "1m").replace("$queue", ".*").replace("$job", ".*")


async def test_the_page_is_to_prometheus_taste(start_worker: StartWorker, traces: Connection) -> None:
    async with (
        start_worker("--no-scheduler", "--port", "0", door=True) as worker,
        aiohttp.ClientSession(door(worker)) as http,
    ):
        await traces.execute("insert into maintenance_jobs (type) values ('trace')")
        await until("it is done", lambda: bool(worker.outcomes))
        async with http.get("/metrics") as answer:
            assert answer.status == 200
            assert answer.content_type == "text/plain"
            page = await answer.text()
        async with http.get("/metrics", headers={"Accept": "application/openmetrics-text"}) as answer:
            assert answer.content_type == "application/openmetrics-text"
            assert (await answer.text()).endswith("# EOF\n")
        async with http.head("/metrics") as answer:
            assert answer.status == 200
        async with http.post("/metrics") as answer:
            assert answer.status == 405
        async with http.get("/metrics", headers={"Origin": "https://elsewhere.example"}) as answer:
            assert answer.status == 403
            assert "pulse_" not in await answer.text()
    families = {family.name: family for family in text_string_to_metric_families(page)}
    ours = {name for name in families if name.startswith("pulse_")}
    assert ours <= {metric.name.removesuffix("_total") for metric in METRICS.values()}
    assert len(ours) > 20
    assert "process_cpu_seconds" in families
    words = [str(PROMETHEUS.path().with_name("promtool")), "check", "metrics"]
    done = await asyncio.to_thread(
        subprocess.run, words, input=page, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pulse_" not in done.stdout + done.stderr, "what it says of ours is a reproach"
