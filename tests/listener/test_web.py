"""The door: who may insert, what is said to whom, and that nothing strange gets through."""

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import aiohttp
import pytest

from devstack.gateway import Gateway
from listener.errors import ConfigError
from listener.events import Swallowed
from tests.listener.answering import JOB, TOKEN, Door, count, door_of
from tests.listener.working import Connection, row


@pytest.fixture
async def door(gateway: Gateway) -> AsyncIterator[Door]:
    async with door_of(gateway.url) as one:
        yield one


async def test_health_always_and_ready_only_when_it_works(door: Door) -> None:
    assert await door.ask("GET", "/health") == (
        200,
        {"ready": True, "problems": [], "worker_id": "test-worker"},
    )
    assert await door.ask("GET", "/ready") == (200, {"ready": True, "problems": []})
    door.problems.append("the scheduler thread died (OSError)")
    assert (await door.ask("GET", "/health"))[0] == 200
    assert await door.ask("GET", "/ready") == (503, {"ready": False, "problems": door.problems})


async def test_a_job_is_inserted_once(door: Door, owner: Connection) -> None:
    status, first = await door.post({**JOB, "idempotency_key": "once", "priority": 3})
    assert (status, first["created"]) == (201, True)
    status, again = await door.post({**JOB, "idempotency_key": "once"})
    assert (status, again) == (200, {"id": first["id"], "created": False})
    job = await row(owner, int(str(first["id"])))
    assert (job["queue"], job["type"], job["data"], job["priority"]) == (
        "maintenance",
        "prune",
        '{"completed_days": 3}',
        3,
    )


async def test_a_type_of_somebody_else_needs_its_queue(door: Door) -> None:
    status, said = await door.post({"type": "reindex"})
    assert status == 422
    assert "sync_positions" in str(said["error"])
    assert (await door.post({"type": "reindex", "queue": "maintenance"}))[0] == 201
    status, said = await door.post({"type": "reindex", "queue": "nowhere"})
    assert status == 422
    assert "create_queue" in str(said["error"])


# Tables of cases and not parameters: one database serves them all.
NO_JOBS = [
    b"",
    b"not json",
    b"[]",
    b'"text"',
    b"null",
    b"\xff\xfe",
    b'{"type": "prune", "data": {"x": NaN}}',
    b'{"type": "prune", "data": {"x": -Infinity}}',
    b"[" * 100_000,
    b'{"type": "prune", "dta": {}}',
    b'{"type": "prune", "status": "completed"}',
    b'{"type": "prune", "a\\nb": 1}',
    b'{"type": "prune", "\\ud800": 1}',
    b'{"type": "prune", "data": {"x": ' + b"9" * 5000 + b"}}",
    b'{"type": "prune", "data": {"price": 0.1234567890123456789012}}',
    b'{"type": "prune", "data": {"price": 1e400}}',
]


async def test_what_is_no_job_is_answered_with_a_sentence(door: Door, owner: Connection) -> None:
    for body in NO_JOBS:
        status, said = await door.post(body)
        assert (status, str(said["error"])[-1]) == (400, "."), body[:50]
    assert not door.told
    assert await count(owner) == 0


REFUSED_JOBS: list[object] = [
    {"type": "prune", "data": []},
    {"type": "prune", "data": "text"},
    {"type": "prune", "data": {"text": "\0"}},
    {"type": "prune", "data": {"text": "\ud800"}},
    {"type": "prune", "priority": "high"},
    {"type": "prune", "priority": -1},
    {"type": "prune", "run_at": "tomorrow, perhaps"},
    {"type": "prune", "user_id": "Alice"},
    {"type": "prune", "max_attempts": 0},
    {"type": "prune", "queue": 7},
    {"type": "prune", "queue": ["alerts"]},
    {"type": 7},
    {"data": {}},
    {"type": "Not A Word", "queue": "alerts"},
]


async def test_what_does_not_fit_is_answered_with_the_databases_sentence(
    door: Door, owner: Connection
) -> None:
    for job in REFUSED_JOBS:
        status, said = await door.post(job)
        assert status == 422, (job, said)
        assert len(str(said["error"])) > 10
    assert await count(owner) == 0


async def test_other_paths_and_methods_are_answered_in_json(door: Door) -> None:
    assert (await door.post(JOB, path="/nothing"))[0] == 404
    assert (await door.post(JOB, path="/webhooks/other"))[0] == 404
    assert (await door.ask("GET", "/"))[0] == 405
    assert (await door.ask("DELETE", "/health"))[0] == 405


async def test_a_body_that_is_too_large(door: Door) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.post(door.url, data=io.BytesIO(b"x" * (3 * 1024 * 1024))) as answer,
    ):
        assert answer.status == 413


FROM_HERE: list[tuple[dict[str, str], int]] = [
    ({}, 201),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://127.0.0.1"}, 403),
    ({"Host": "evil.example"}, 403),
    ({"Host": "127.0.0.1.evil.example:80"}, 403),
    ({"Host": "localhost:8000"}, 201),
    ({"Host": "[::1]:8000"}, 201),
]


async def test_without_a_token_only_programs_on_this_machine(door: Door, owner: Connection) -> None:
    for headers, status in FROM_HERE:
        before = await count(owner)
        assert (await door.post(JOB, headers))[0] == status, headers
        assert await count(owner) == before + (status == 201)


WITH_A_TOKEN: list[tuple[dict[str, str], int]] = [
    ({"Authorization": f"Bearer {TOKEN}"}, 201),
    ({"Authorization": f"Bearer {TOKEN}", "Origin": "https://our.example", "Host": "our.example"}, 201),
    ({"Authorization": f"Bearer {TOKEN}x"}, 401),
    ({"Authorization": "Bearer "}, 401),
    ({"Authorization": "Bearer é"}, 401),
    ({}, 401),
]


async def test_with_a_token_whoever_sends_it(gateway: Gateway, owner: Connection) -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        async with door_of(gateway.url, token=TOKEN, host=host) as door:
            for headers, status in WITH_A_TOKEN:
                before = await count(owner)
                assert (await door.post(JOB, headers))[0] == status, headers
                assert await count(owner) == before + (status == 201)
            assert (await door.ask("GET", "/health"))[0] == 200


async def test_open_to_the_network_without_a_token_nobody_inserts(gateway: Gateway) -> None:
    async with door_of(gateway.url, host="0.0.0.0") as door:
        status, said = await door.post(JOB)
        assert status == 403
        assert "PULSE_DOOR_TOKEN" in str(said["error"])
        assert (await door.post(b"mail", {"X-Signature": "signed"}, "/webhooks/mail"))[0] == 200


async def raw(door: Door, request: bytes) -> bytes:
    """The first line of the answer to these very bytes."""
    port = int(door.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_bytes_that_no_client_would_send(gateway: Gateway, owner: Connection) -> None:
    for headers in (
        b"Host: localhost\r\nAuthorization: Bearer \xff\xfe",
        b"Host: [::x",
        b"Host: a:b",
        b"Host: ",
    ):
        token = TOKEN if b"Authorization" in headers else None
        body = json.dumps(JOB).encode()
        request = b"POST / HTTP/1.1\r\n%s\r\nContent-Length: %d\r\n\r\n%s" % (headers, len(body), body)
        async with door_of(gateway.url, token=token) as door:
            assert int((await raw(door, request)).split()[1]) in {400, 401, 403}, headers
    assert await count(owner) == 0


async def test_a_webhook_inserts_what_its_function_makes_of_it(door: Door, owner: Connection) -> None:
    """Neither origin nor host matter: the signature proves it."""
    signed = {"X-Signature": "signed", "Origin": "https://provider.example", "Host": "our.example"}
    before = datetime.now(UTC)
    status, first = await door.post(b"mail 1", signed, "/webhooks/mail")
    assert (status, first["created"]) == (200, True)
    assert (await door.post(b"mail 1", signed, "/webhooks/mail")) == (200, {**first, "created": False})
    job = await row(owner, int(str(first["id"])))
    assert (job["queue"], job["type"], job["data"]) == ("alerts", "email", '{"size": 6}')
    assert job["created_at"] >= before


async def test_no_delivery_is_lost_to_its_payload(door: Door, owner: Connection) -> None:
    """A provider may send it once only; the same job by hand is answered with what is wrong."""
    schema = {"type": "object", "properties": {"size": {"type": "string"}}}
    schemas = [{"queue": "alerts", "type": "email", "schema": schema}]
    await owner.fetchval("select publish_schemas($1)", json.dumps(schemas))
    status, _ = await door.post({"type": "email", "queue": "alerts", "data": {"size": 6}})
    assert (status, await count(owner)) == (422, 0)
    signed = {"X-Signature": "signed"}
    answers = await asyncio.gather(
        *(door.post(b"mail %d" % n, signed, "/webhooks/mail") for n in (1, 2, 3, 1))
    )
    assert [status for status, _ in answers] == [200] * 4
    assert await count(owner) == 3


async def test_a_webhook_refuses_in_its_own_words(door: Door, owner: Connection) -> None:
    assert await door.post(b"mail", None, "/webhooks/mail") == (400, {"error": "The signature does not fit."})
    assert await count(owner) == 0


async def test_a_webhook_that_breaks_is_told_and_quotes_nothing(door: Door) -> None:
    status, said = await door.post(b"break", {"X-Signature": "signed"}, "/webhooks/mail")
    assert status == 500
    assert "a secret of the delivery" not in str(said)
    assert [event.where for event in door.told.of(Swallowed)] == ["door"]


async def test_the_provider_sends_again_what_was_not_inserted_for_certain(
    gateway: Gateway, door: Door, owner: Connection
) -> None:
    gateway.faults.rest.plan("lose_answer", "enqueue")
    signed = {"X-Signature": "signed"}
    status, said = await door.post(b"mail", signed, "/webhooks/mail")
    assert status == 503
    assert "again" in str(said["error"])
    assert (await door.post(b"mail", signed, "/webhooks/mail"))[1]["created"] is False
    assert await count(owner) == 1


async def test_an_answer_that_is_lost_does_not_double_the_job(
    door: Door, gateway: Gateway, owner: Connection
) -> None:
    gateway.faults.rest.plan("lose_answer", "enqueue", times=2)
    assert (await door.post(JOB))[0] == 200  # it was there already when we asked for the third time
    assert await count(owner) == 1


async def test_whoever_sends_it_again_with_the_key_of_the_answer_inserts_it_once(
    door: Door, gateway: Gateway, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listener.producer._PAUSES", ())
    gateway.faults.rest.plan("lose_answer", "enqueue")
    status, said = await door.post(JOB)
    assert status == 503
    assert str(said["idempotency_key"]) in str(said["error"])
    status, again = await door.post({**JOB, "idempotency_key": said["idempotency_key"]})
    assert (status, again["created"]) == (200, False)
    assert await count(owner) == 1


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
async def test_without_a_token_a_proxy_lets_nobody_in(door: Door, owner: Connection, header: str) -> None:
    assert (await door.post(JOB, {header: "203.0.113.9"}))[0] == 403
    assert await count(owner) == 0


async def test_a_process_that_the_database_refuses_says_so(door: Door, owner: Connection) -> None:
    await owner.execute("revoke execute on function enqueue(jsonb) from service_role")
    status, said = await door.post(JOB)
    assert status == 503
    assert "pulse check" in str(said["error"])


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port: int = other.getsockname()[1]
        yield port


async def test_a_taken_port_is_an_error_when_it_must_be_that_one(gateway: Gateway, taken: int) -> None:
    with pytest.raises(ConfigError, match=f"127.0.0.1:{taken}"):
        async with door_of(gateway.url, port=taken):
            raise AssertionError("not reached")


async def test_a_taken_port_is_replaced_by_a_free_one_otherwise(gateway: Gateway, taken: int) -> None:
    async with door_of(gateway.url, port=taken, exact=False) as door:
        assert door.url != f"http://127.0.0.1:{taken}"
        assert (await door.ask("GET", "/health"))[0] == 200


async def test_a_host_that_is_not_ours_is_an_error(gateway: Gateway) -> None:
    with pytest.raises(ConfigError, match=r"192.0.2.1"):
        async with door_of(gateway.url, host="192.0.2.1", exact=False):
            raise AssertionError("not reached")
