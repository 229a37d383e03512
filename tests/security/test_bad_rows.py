"""Rows that nobody should send: each is refused at the insert in a sentence, or runs; the rest never notices."""

import json
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from tests.projects import Worker
from tests.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
StartWorker: TypeAlias = Callable[..., AbstractAsyncContextManager[Worker]]

ECHO = '''
"""Gives back what it was given."""

from typing import Any

from listener import Payload, Queue, handler


class Echo(Payload):
    value: Any = None


@handler(Queue.MAINTENANCE)
async def echo(payload: Echo) -> dict[str, object]:
    return {"value": payload.value}
'''
DEEP = '{"a":' * 97 + "[[]]" + "}" * 97
TOO_DEEP = "must be nested less than 100 levels deep"
TOO_LARGE = "data must be at most 1 MB as JSON text"
NOT_A_TYPE = "type must be a lower-case word"
NOT_A_TIME = "run_at must be a time in the years 1 to 9999"


@dataclass(frozen=True, slots=True)
class Bad:
    """A job as raw JSON, and what becomes of it."""

    name: str
    text: str
    refused: str | None = None
    """A part of the sentence; None when the job runs and is completed."""


def data(name: str, value: str, refused: str | None = None) -> Bad:
    """A job with this value, raw, in its data."""
    return Bad(name, f'{{"type": "echo", "data": {{"value": {value}}}}}', refused)


def column(name: str, value: str, refused: str | None = None) -> Bad:
    """A job with this value, raw, in a column beside its type."""
    return Bad(f"{name}: {value[:30]}", f'{{"type": "echo", "{name}": {value}}}', refused)


def types(value: object) -> Bad:
    return Bad(f"type: {value!r}"[:40], json.dumps({"type": value}), NOT_A_TYPE)


TEXTS = [
    data("a NUL", r'"a\u0000b"', "unsupported Unicode escape sequence"),
    data("a NUL in a key", r'{"\u0000": 1}', "unsupported Unicode escape sequence"),
    data("a high surrogate alone", r'"\ud800"', "invalid input syntax for type json"),
    data("a low surrogate alone", r'"\udc00"', "invalid input syntax for type json"),
    data("surrogates the wrong way round", r'"\udc00\ud800"', "invalid input syntax for type json"),
    data("a pair of surrogates", r'"\ud83d\ude00"'),
    data("no character", r'"￿﷐"'),
    data("a terminal's commands and an embrace", r'"\u001b[2J\u202e\ufeff\u0007"'),
    data("odd keys", r'{"": 1, " ": 2, "__proto__": {"x": 1}, "constructor": null}'),
    data("a string of half a megabyte", f'"{"x" * 500_000}"'),
    data("ten thousand keys", json.dumps({f"k{n}": n for n in range(10_000)})),
]
SIZES = [
    data("20 MB", f'"{"x" * 20_000_000}"', TOO_LARGE),
    data("a megabyte and a bit", f'"{"x" * 1_000_000}"', TOO_LARGE),
    data("just a megabyte", f'"{"x" * 999_980}"'),
    data(
        "a few bytes that print as many",
        "[1e131071, 1e131071, 1e131071, 1e131071, 1e131071, 1e131071, 1e131071, 1e131071]",
        TOO_LARGE,
    ),
    data("10,000 deep", "[" * 10_000 + "]" * 10_000, "levels deep|stack depth limit exceeded|invalid json"),
    data("100 deep", f"[{DEEP}]", TOO_DEEP),
    data("99 deep", DEEP),
]
NUMBERS = [
    data("beyond float", "1e400"),
    data("as small", "1e-400"),
    data("400 digits", "9" * 400),
    data("5,000 digits, more than Python reads", "9" * 5000),
    data("10,000 digits after the point", "0." + "1" * 10_000),
    data("minus zero", "[-0, -0.0, -0e10]"),
    data("the largest that there is", "1e131071"),
    data("larger than that", "1e131072", "overflow|out of range"),
    data("much larger", "1e999999999", "overflow|out of range|invalid input syntax"),
    data("a bare NaN", "NaN", "json|JSON"),
    data("a bare infinity", "-Infinity", "json|JSON"),
    data("words for numbers", '["NaN", "Infinity", "1e400"]'),
]
COLUMNS = [
    column("run_at", '"infinity"', NOT_A_TIME),
    column("run_at", '"-infinity"', NOT_A_TIME),
    column("run_at", '"294276-12-31T23:59:59Z"', NOT_A_TIME),
    column("run_at", '"294277-01-01T00:00:00Z"', "out of range"),
    column("run_at", '"10000-01-01T00:00:00Z"', NOT_A_TIME),
    column("run_at", '"0044-03-15 BC"', NOT_A_TIME),
    column("run_at", '"0000-01-01T00:00:00Z"', "out of range"),
    column("run_at", '"2026-02-30T00:00:00Z"', "out of range"),
    column("run_at", '"soon"', "invalid input syntax"),
    column("run_at", '"0001-01-01T00:00:00Z"'),
    column("run_at", '"1970-01-01T00:00:00+15:59"'),
    column("priority", "101", "priority must be from 0 to 100"),
    column("priority", "-1", "priority must be from 0 to 100"),
    column("priority", "2147483648", "out of range"),
    column("priority", "1e400", "out of range|invalid input syntax"),
    column("priority", "100"),
    column("max_attempts", "0", "max_attempts must be 1 or more"),
    column("max_attempts", "2147483647"),
    column("user_id", '"me"', "invalid input syntax for type uuid"),
    column("user_id", '"00000000-0000-0000-0000-000000000000"'),
    column("idempotency_key", '""', "idempotency_key must be 1 to 500 characters"),
    column("idempotency_key", f'"{"k" * 501}"', "idempotency_key must be 1 to 500 characters"),
    column("idempotency_key", r'"\u0000"', "(?i)null|unsupported Unicode|0x00"),
    column("idempotency_key", r'"\u001b[31m\r\n\u2028 %s {} $1 ; --"'),
    column("data", "[]", "data must be a JSON object"),
    column("data", "null", "null value"),
    *map(
        types,
        ["", "Echo", "echo\n", "\x1b[31mecho", "échо", "echo\u202e", "1st", "a b", "e" * 101, "e" * 100_000],
    ),
]
BAD = [*TEXTS, *SIZES, *NUMBERS, *COLUMNS]
BYTES = [
    b'{"type": "echo", "data": {"value": "\xff\xfe"}}',
    b'{"type": "echo"',
    b"\x00",
    b'{"type": "echo"}{}',
    b"",
    b"[[]]",
]


NOT_BAD_IN_A_BATCH = {'run_at: "-infinity"', 'run_at: "0044-03-15 BC"', "data: null"}
"""`enqueue` takes the past for now, and null for what was left out."""
PENDING = int(os.environ.get("PULSE_TEST_PENDING", "40000"))


@pytest.fixture
def project(project: Path) -> Path:
    (project / "handlers" / "maintenance" / "echo.py").write_text(ECHO)
    return project


class Door:
    """The REST door with the service key."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def insert(self, path: str, body: bytes) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", "Prefer": "return=representation"}
        async with self._session.post(f"/rest/v1/{path}", data=BytesIO(body), headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)


@pytest.fixture
async def door(gateway: Gateway) -> AsyncIterator[Door]:
    headers = {"apikey": LOCAL.secret}
    async with aiohttp.ClientSession(gateway.url, headers=headers) as session:
        yield Door(session)


async def normal(owner: Connection) -> int:
    made = await owner.fetchval("insert into maintenance_jobs (type) values ('echo') returning id")
    assert isinstance(made, int)
    return made


async def all_ended(owner: Connection) -> bool:
    return not await owner.fetchval("select exists (select from jobs where finished_at is null)")


async def test_each_is_refused_in_a_sentence_or_runs_and_the_queue_goes_on(
    door: Door, traces: Connection, start_worker: StartWorker
) -> None:
    wrong: list[str] = []
    ran: dict[int, str] = {}
    async with start_worker() as worker:
        usual = [await normal(traces)]
        for bad in BAD:
            status, said = await door.insert("maintenance_jobs?select=id", bad.text.encode())
            if bad.refused is None and status == 201:
                ran[said[0]["id"]] = bad.name
            elif bad.refused is None or not 400 <= status < 500:
                wrong.append(f"{bad.name}: {status} {said}"[:300])
            elif not re.search(bad.refused, said["message"]):
                wrong.append(f"{bad.name}: {said['message']}"[:300])
        for body in BYTES:
            status, said = await door.insert("maintenance_jobs?select=id", body)
            if not 400 <= status < 500 or not said["message"]:
                wrong.append(f"{body!r}: {status} {said}"[:300])
        usual.append(await normal(traces))
        await until("every job has ended", lambda: all_ended(traces), patience=30)
        ends = await traces.fetch("select id, status, attempt, last_error from jobs")
        assert worker.said("started")
    assert wrong == []
    assert len(ran) == sum(bad.refused is None for bad in BAD)
    assert [
        (ran.get(row["id"]), *row) for row in ends if (row["status"], row["attempt"]) != ("completed", 1)
    ] == []
    assert {row["id"] for row in ends} == {*ran, *usual}


async def test_a_batch_with_one_of_them_is_refused_whole_and_never_as_trouble_of_the_database(
    door: Door, owner: Connection
) -> None:
    """What looks like trouble (HTTP 500) would be sent again, for ever."""
    wrong: list[str] = []
    for bad in BAD:
        if bad.refused is not None and bad.name not in NOT_BAD_IN_A_BATCH:
            job = '{"queue": "maintenance", ' + bad.text[1:]
            body = f'{{"jobs": [{{"queue": "maintenance", "type": "echo"}}, {job}]}}'
            status, said = await door.insert("rpc/enqueue", body.encode())
            if not 400 <= status < 500 or "message" not in said:
                wrong.append(f"{bad.name}: {status} {said}"[:300])
    assert wrong == []
    assert await owner.fetchval("select count(*) from jobs") == 0


async def test_the_owner_is_refused_too(owner: Connection) -> None:
    """Constraints bind who writes SQL, whatever may pass a door."""
    for value, refused in (
        ("repeat('x', 20000000)::jsonb", asyncpg.InvalidTextRepresentationError),
        ("jsonb_build_object('v', repeat('x', 20000000))", asyncpg.CheckViolationError),
        ("jsonb_build_object('v', (repeat('[', 10000) || repeat(']', 10000))::jsonb)", asyncpg.PostgresError),
        (
            "jsonb_build_object('v', (repeat('[', 3000) || repeat(']', 3000))::jsonb)",
            asyncpg.CheckViolationError,
        ),
    ):
        with pytest.raises(refused):
            await owner.execute(f"insert into maintenance_jobs (type, data) values ('echo', {value})")
    for run_at in ("infinity", "-infinity", "294276-12-31", "4713-01-01 BC"):
        with pytest.raises(asyncpg.CheckViolationError, match=NOT_A_TIME):
            await owner.execute(f"insert into maintenance_jobs (type, run_at) values ('echo', '{run_at}')")


async def touched(owner: Connection, call: str) -> int:
    """How many pages a call looks at."""
    plan = json.loads(await owner.fetchval(f"explain (analyze, buffers, format json) select {call}"))[0][
        "Plan"
    ]
    pages: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return pages


async def crowd(owner: Connection, queue: str, type_: str, rows: int, *, run_at: str = "now()") -> None:
    await owner.execute(
        f"insert into {queue}_jobs (type, run_at) select '{type_}', {run_at} from generate_series(1, {rows})"
    )


async def test_claims_cost_the_same_before_a_thousand_rows_and_before_a_crowd(owner: Connection) -> None:
    """By hand, a million: PULSE_TEST_PENDING=1000000 ./dev test tests/security/test_bad_rows.py --timeout 300"""

    async def cost() -> int:
        claim = "claim('broker', '{a}', 50, 60, 'w', 'sweep', null, %s)"
        return sum([await touched(owner, claim % sweep) for sweep in ("true", "false") for _ in range(3)])

    await crowd(owner, "broker", "a", 1000)
    await cost()  # plans are made
    few = await cost()
    await crowd(owner, "broker", "a", PENDING)
    await crowd(owner, "broker", "a", PENDING // 10, run_at="now() + interval '1 day'")
    many = await cost()
    assert many < 1.5 * few, f"{few} pages with a thousand pending rows, {many} with {PENDING}"


async def test_a_crowd_that_nobody_serves_stands_in_nobodys_way(
    traces: Connection, start_worker: StartWorker
) -> None:
    await crowd(traces, "maintenance", "nobodys", PENDING)
    await crowd(traces, "payment", "echo", 1000)
    async with start_worker() as worker:
        usual = [await normal(traces) for _ in range(3)]

        async def done() -> bool:
            found = await traces.fetch("select status, attempt from jobs where id = any($1)", usual)
            return {tuple(row) for row in found} == {("completed", 1)}

        await until("the jobs behind the crowd are completed", done)
        assert worker.said("nobodys")
    assert await traces.fetchval("select count(*) from jobs where status = 'pending'") == PENDING + 1000
