"""A real worker delivers to an agent and to Datadog: all of it arrives, the last words too, and no job waits for it."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from listener.config import read_config
from listener.destinations import Datadog, Destinations, destinations_in
from listener.errors import ConfigError
from listener.events import Event, Exported, NotExported
from listener.telemetry.catalogue import METRICS
from listener.telemetry.counts import Counts, Numbers
from listener.telemetry.exports import Exports
from tests.listener.telemetry.test_datadog import KEY, Intake
from tests.listener.telemetry.test_statsd import Agent, job_line
from tests.listener.working import Told
from tests.projects import StartWorker
from tests.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
SOON = timedelta(milliseconds=5)


@pytest.fixture
async def intake() -> AsyncIterator[tuple[Intake, str]]:
    intake, app = Intake(), web.Application()
    app.router.add_route("*", "/{path:.*}", intake.answer)
    async with TestServer(app) as server:
        yield intake, str(server.make_url("")).rstrip("/")


async def insert(owner: Connection, count: int) -> None:
    await owner.execute(
        "insert into maintenance_jobs (type) select 'trace' from generate_series(1, $1::integer)", count
    )


async def test_all_jobs_of_a_process_are_told_to_both_by_its_end(
    start_worker: StartWorker, traces: Connection, intake: tuple[Intake, str]
) -> None:
    """Also those that ended after the last delivery in time: here there is none before the end."""
    datadog, base = intake
    agent = Agent()
    async with start_worker(
        PULSE_STATSD=f"127.0.0.1:{agent.port}", DATADOG_API_KEY=KEY, DATADOG_API_BASE=base
    ) as worker:
        await insert(traces, 30)
        await until("all are done", lambda: len(worker.outcomes) == 30)
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0
    lines = agent.lines()
    agent.close()
    assert sum(float(line["values"]) for line in filter(job_line, lines)) == 30
    names = {line["name"] for line in lines}
    assert names <= {metric.dotted for metric in METRICS.values()}
    assert {"worker.job.duration", "worker.job.lag", "worker.places", "worker.call.duration"} <= names
    assert sum(one["points"][0]["value"] for one in datadog.of("worker.job.processed")) == 30
    assert {one["tags"][0] for one in datadog.of("worker.job.processed")} == {"type:maintenance"}


async def test_while_it_works_it_delivers_again_and_again(
    start_worker: StartWorker, traces: Connection, intake: tuple[Intake, str]
) -> None:
    datadog, base = intake
    async with start_worker(tempo={"export": 0.05}, DATADOG_API_KEY=KEY, DATADOG_API_BASE=base) as worker:
        for count in (3, 4):
            await insert(traces, count)
        await until("all are done", lambda: len(worker.outcomes) == 7)
        await until(
            "all are told",
            lambda: sum(one["points"][0]["value"] for one in datadog.of("worker.job.processed")) == 7,
        )
        await until("the queues are told", lambda: bool(datadog.of("worker.queue.due")))


async def test_an_outage_is_told_without_the_key_and_no_job_waits(
    start_worker: StartWorker, traces: Connection, intake: tuple[Intake, str]
) -> None:
    datadog, base = intake
    datadog.status = 503
    async with start_worker(tempo={"export": 0.05}, DATADOG_API_KEY=KEY, DATADOG_API_BASE=base) as worker:
        await until("it is told", lambda: worker.said("metrics to Datadog: HTTP 503; no job is affected"))
        await insert(traces, 5)
        await until("all are done", lambda: len(worker.outcomes) == 5)
        datadog.status = 202
        await until("it is over", lambda: worker.said("metrics to Datadog are delivered again"))
        await until(
            "nothing was lost",
            lambda: sum(one["points"][0]["value"] for one in datadog.of("worker.job.processed")) == 5,
        )
    assert not any(KEY in str(line) for line in worker.told)
    assert len(worker.lines("metrics to Datadog: HTTP 503")) < 12, "told ever more rarely"
    assert worker.unexpected == []


class Stubborn:
    """An exporter that does what no exporter should."""

    name = "Stubborn"

    def __init__(self, *how: str) -> None:
        self.how = list(how)
        self.sent = 0
        self.was_cancelled = 0

    async def send(self, numbers: Numbers) -> None:
        assert numbers.values
        how = self.how.pop(0) if self.how else "well"
        if how == "breaks":
            raise KeyError("a secret of what was sent")
        if how == "hangs":
            try:
                await asyncio.Event().wait()
            finally:
                self.was_cancelled += 1
        self.sent += 1

    def close(self) -> None: ...


async def _numbers() -> Numbers:
    return Counts({}).read()


async def test_one_that_breaks_or_hangs_is_told_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("listener.telemetry.exports._PATIENCE_SECONDS", 0.02)
    told = Told()
    bad, good = Stubborn("breaks", "hangs"), Stubborn()
    exports = Exports([bad, good], _numbers, SOON, told)
    async with asyncio.TaskGroup() as group:
        group.create_task(exports.run())
        await until("both have delivered", lambda: bad.sent > 1 and good.sent > 1)
        exports.end()
    assert [event.reason for event in told.of(NotExported)] == ["KeyError", "not within 0.02 s"]
    assert len(told.of(Exported)) == 1
    assert bad.was_cancelled == 1


async def test_the_last_words_take_no_longer_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("listener.telemetry.exports._LAST_WORDS", timedelta(seconds=0.02))
    told = Told()
    hanging = Stubborn("hangs")
    exports = Exports([hanging], _numbers, timedelta(days=1), told)
    exports.end()
    await exports.run()
    assert [event.reason for event in told.of(NotExported)] == ["not within 0.02 s"]


async def test_without_a_destination_there_is_nothing_to_run() -> None:
    heard: list[Event] = []
    async with asyncio.timeout(30):
        await Exports([], _numbers, SOON, heard.append).run()
    assert heard == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Destinations()),
        ({"PULSE_STATSD": "127.0.0.1:8125"}, Destinations(statsd=("127.0.0.1", 8125))),
        ({"PULSE_STATSD": "[::1]:8125"}, Destinations(statsd=("::1", 8125))),
        ({"DATADOG_API_KEY": KEY}, Destinations(datadog=Datadog("https://api.datadoghq.com", KEY))),
        (
            {"DATADOG_API_KEY": KEY, "DATADOG_SITE": "us5.datadoghq.com"},
            Destinations(datadog=Datadog("https://api.us5.datadoghq.com", KEY)),
        ),
        ({"DATADOG_SITE": "datadoghq.eu"}, Destinations()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, Destinations(traces=True)),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"},
            Destinations(),
        ),
    ],
)
def test_the_environment_names_where_to_send(environment: dict[str, str], expected: Destinations) -> None:
    assert destinations_in(environment) == (expected, [])


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"PULSE_STATSD": "8125"}, "PULSE_STATSD must be host:port"),
        ({"PULSE_STATSD": "host:99999"}, "PULSE_STATSD must be host:port"),
        ({"DATADOG_API_KEY": "k\u00e9y"}, "DATADOG_API_KEY is no key"),
        ({"DATADOG_API_KEY": KEY, "DATADOG_SITE": "x/../y"}, "DATADOG_SITE must be"),
        ({"DATADOG_API_KEY": KEY, "DATADOG_API_BASE": "nowhere"}, "DATADOG_API_BASE must look"),
    ],
)
def test_what_names_no_place_is_a_problem_at_start(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as told:
        read_config({"SUPABASE_URL": "http://127.0.0.1:1", "SUPABASE_SERVICE_ROLE_KEY": "x", **environment})
    assert KEY not in str(told.value)


def test_without_the_extra_a_collector_that_is_named_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_name: str) -> None: ...

    monkeypatch.setattr("listener.destinations.find_spec", nowhere)
    _, problems = destinations_in({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    assert "pip install 'pulseengine-workers[otel]'" in problems[0]


async def test_keys_of_exporters_are_secrets_of_the_process() -> None:
    environment = {
        "SUPABASE_URL": "http://127.0.0.1:1",
        "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_0123456789abcdef",
        "DATADOG_API_KEY": KEY,
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=key-of-the-collector",
    }
    config = read_config(environment)
    assert {KEY, "api-key=key-of-the-collector"} <= set(config.secrets)
    assert KEY not in repr(config)


def test_a_process_without_exporters_loads_none_of_their_libraries(checkout: Path) -> None:
    """What nobody asked for costs no memory and no start-up time."""
    found = "[one for one in sys.modules if one.startswith(('opentelemetry', 'prometheus_client'))]"
    words = [sys.executable, "-c", f"import sys, listener.service; print({found})"]
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "[]\n"
