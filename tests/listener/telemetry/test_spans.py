"""A real worker with `[otel]` sends a span per attempt, in the trace that its row names; a collector's end is told."""

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.projects import StartWorker
from tests.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
BY_PRODUCER = f"00-{TRACE_ID}-b7ad6b7169203331-01"
UNSAMPLED = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
SECRET = "4242424242424242"
FAMILY = '''
"""Makes a job of its own within each attempt, and fails when it is told to."""

import httpx
from datetime import timedelta
from opentelemetry import trace

from listener import Job, Payload, Queue, RetryAfter, handler, traceparent


class Family(Payload):
    card: str = ""
    child: bool = False
    fails: bool = False


@handler(Queue.MAINTENANCE)
async def family(payload: Family, *, job: Job, db: Database) -> dict[str, str]:
    if payload.child:
        row = {"type": "family", "data": {"card": payload.card}, "traceparent": traceparent()}
        await db.table("maintenance_jobs").insert(row).execute()
    if payload.fails and job.attempt == 1:
        raise RetryAfter(timedelta(), f"declined {payload.card}")
    current = trace.get_current_span().get_span_context()
    return {"span": f"{current.span_id:016x}", "card": payload.card}
'''.replace("import httpx\n", "from handlers.clients.database import Database\n")


class Collector:
    """Takes spans as OpenTelemetry's protocol has them, or answers as it is told to."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.raw = b""
        self.status = 200
        self.asked = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        assert request.path == "/v1/traces"
        assert request.headers["api-key"] == "key-of-the-collector"
        body = await request.read()
        body = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
        if self.status == 200:
            self.raw += body
            for one in ExportTraceServiceRequest.FromString(body).resource_spans:
                said = {item.key: item.value.string_value for item in one.resource.attributes}
                self.services.add(said["service.name"])
                self.spans += [span for scope in one.scope_spans for span in scope.spans]
        return web.Response(status=self.status)

    def of(self, job_id: int) -> list[Span]:
        return [span for span in self.spans if words(span)["messaging.message.id"] == str(job_id)]


def words(span: Span) -> dict[str, object]:
    return {item.key: item.value.string_value or item.value.int_value for item in span.attributes}


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
async def collecting(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Workers that are started now know of the collector."""
    app = web.Application()
    app.router.add_post("/{path:.*}", collector.answer)
    async with TestServer(app) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", str(server.make_url("")).rstrip("/"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=key-of-the-collector")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield


@pytest.fixture(autouse=True)
def family(project: Path) -> None:
    (project / "handlers" / "maintenance" / "family.py").write_text(FAMILY)


async def insert(owner: Connection, trace: str | None, **data: object) -> int:
    statement = (
        "insert into maintenance_jobs (type, data, traceparent) values ('family', $1, $2) returning id"
    )
    return int(await owner.fetchval(statement, json.dumps(data), trace))


@pytest.mark.usefixtures("collecting")
async def test_jobs_that_come_of_one_another_and_their_retries_are_one_trace(
    start_worker: StartWorker, owner: Connection, collector: Collector
) -> None:
    async with start_worker():
        first = await insert(owner, BY_PRODUCER, child=True, fails=True, card=SECRET)
        alone = await insert(owner, None)
        unsampled = await insert(owner, UNSAMPLED)
        await until("all spans are here", lambda: len(collector.spans) >= 5)
    failed, again = sorted(collector.of(first), key=lambda span: span.start_time_unix_nano)
    assert {span.trace_id.hex() for span in (failed, again)} == {TRACE_ID}
    assert {span.parent_span_id.hex() for span in (failed, again)} == {"b7ad6b7169203331"}
    assert [span.status.code for span in (failed, again)] == [
        Status.STATUS_CODE_ERROR,
        Status.STATUS_CODE_UNSET,
    ]
    assert words(failed) == {
        "messaging.system": "pulse",
        "messaging.operation.type": "process",
        "messaging.destination.name": "maintenance",
        "messaging.message.id": str(first),
        "pulse.job.type": "family",
        "pulse.job.attempt": 1,
        "pulse.job.outcome": "retry",
        "error.type": "RetryAfter",
    }
    assert (failed.name, failed.kind) == ("maintenance family", Span.SPAN_KIND_CONSUMER)
    assert words(again)["pulse.job.attempt"] == 2
    assert (
        await owner.fetchval("select result ->> 'span' from jobs where id = $1", first) == again.span_id.hex()
    )
    children = await owner.fetch(
        "select id, traceparent from jobs where type = 'family' and id > $1", unsampled
    )
    assert len(children) == 2, "one of each attempt"
    parents = {failed.span_id.hex(), again.span_id.hex()}
    assert {row["traceparent"] for row in children} == {f"00-{TRACE_ID}-{parent}-01" for parent in parents}
    of_children = [span for row in children for span in collector.of(row["id"])]
    assert {span.parent_span_id.hex() for span in of_children} == parents
    (lone,) = collector.of(alone)
    assert lone.parent_span_id == b""
    assert lone.trace_id.hex() != TRACE_ID
    assert collector.of(unsampled) == [], "who began the trace has decided that it is not recorded"
    assert collector.services == {"pulse-worker"}
    assert SECRET.encode() not in collector.raw


@pytest.mark.usefixtures("collecting")
async def test_a_collector_that_is_away_is_told_and_no_job_waits_for_it(
    start_worker: StartWorker, owner: Connection, collector: Collector
) -> None:
    collector.status = 400
    async with start_worker(OTEL_SERVICE_NAME="trading") as worker:
        await insert(owner, None)
        await until(
            "it is told", lambda: worker.said("metrics to OpenTelemetry: the collector does not take")
        )
        await until("the job is done", lambda: worker.said("family: completed"))
        collector.status = 200
        await insert(owner, None)
        await until(
            "it is delivered again", lambda: worker.said("metrics to OpenTelemetry are delivered again")
        )
        await insert(owner, None)
        await until("all jobs are done", lambda: len(worker.outcomes) == 3)
    assert worker.code == 0
    assert collector.services == {"trading"}
    assert len(collector.spans) == 2, "the last one is sent before the process ends"
    assert not any("key-of-the-collector" in str(line) for line in worker.told)
    assert worker.unexpected == []


async def test_without_opentelemetry_the_trace_is_carried_on_all_the_same(
    project: Path, start_worker: StartWorker, owner: Connection
) -> None:
    async with start_worker() as worker:
        first = await insert(owner, BY_PRODUCER, child=True)
        await until("both are done", lambda: len(worker.outcomes) == 2)
    assert await owner.fetchval("select traceparent from jobs where id > $1", first) == BY_PRODUCER
