"""What strangers send to a door: each refusal is a sentence in JSON of a known status, and the door goes on."""

import json
from collections.abc import AsyncIterator

import pytest

from devstack.gateway import Gateway
from listener.doorkeeper import LARGEST_BODY
from tests.listener.answering import JOB, TOKEN, Door, count, door_of
from tests.listener.working import Connection
from tests.security.raw import Said, ask, request, wire

GOOD = json.dumps(JOB).encode()


@pytest.fixture
async def door(gateway: Gateway) -> AsyncIterator[Door]:
    async with door_of(gateway.url) as one:
        yield one


def is_refusal(said: Said | None, *statuses: int) -> bool:
    """Whether it is a sentence with one of these statuses, and shows nothing of what is behind the door."""
    if said is None or said.status not in statuses:
        return False
    assert said.headers["content-type"].startswith("application/json")
    assert 15 < len(said.sentence) < 600
    for inside in ("Traceback", "aiohttp", ".py", "Error", "line 1 in"):
        assert inside not in said.sentence, said
    return True


async def goes_on(door: Door, owner: Connection, jobs: int) -> None:
    """The door takes good requests as before, has told of no accident, and inserted so many so far."""
    assert await count(owner) == jobs
    assert (await door.ask("GET", "/health"))[0] == 200
    assert not door.told


NO_HTTP = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS to a port without it
    b"hello\r\n\r\n",
    b"POST\r\n\r\n",
    b"POST / HTTP/9.9\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 2\r\n\r\n{}",
    b"POST / HTTP/1.1\r\nHost 127.0.0.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: b\x00c\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1e3\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
    # Two readers would find two different requests in these.
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n Continued: header\r\n\r\n",
]


async def test_what_is_no_http_is_refused_in_json(door: Door, owner: Connection) -> None:
    for data in NO_HTTP:
        async with wire(door.url) as one:
            await one.send(data)
            said = await one.answer()
            assert is_refusal(said, 400), (data, said)
            assert await one.has_ended()
    await goes_on(door, owner, 0)


async def test_lines_and_headers_that_are_too_long(door: Door, owner: Connection) -> None:
    for data in (
        request(target="/" + "a" * 20_000),
        request(target="/?" + "a" * 20_000),
        request(headers=b"X: " + b"a" * 20_000 + b"\r\n"),
        request(headers=b"a" * 20_000 + b": x\r\n"),
        request(target="/webhooks/mail", headers=b"X-Signature: " + b"a" * 20_000 + b"\r\n"),
        b"GET /" + b"a" * 200_000,
    ):
        assert is_refusal(await ask(door.url, data), 431), data[:60]
    assert is_refusal(
        await ask(door.url, request(headers=b"".join(b"X-%d: x\r\n" % n for n in range(1000)))), 400
    )
    await goes_on(door, owner, 0)


ELSEWHERE = [
    "//", "/.", "/..", "/../", "/../../etc/passwd", "/%2e%2e/", "/%2e%2e%2fetc", "/%00", "/\\", "/health/",
    "/HEALTH", "/health/..", "/./health", "//health", "/%68ealth", "/health%00", "/health;x", "/health%3f",
    "/webhooks", "/webhooks/", "/webhooks/mail/", "/webhooks/../health", "/%ff", "/é", "/" + "a/" * 2000,
    "*", "health", "http://127.0.0.1/health", "http://evil.example/", "127.0.0.1:80", "/http://x/",
]  # fmt: skip


async def test_there_is_one_way_to_write_each_path(door: Door, owner: Connection) -> None:
    for target in ELSEWHERE:
        for method in ("GET", "POST", "OPTIONS"):
            said = await ask(door.url, request(method, target, GOOD if method == "POST" else b""))
            assert is_refusal(said, 400, 404), (method, target, said)
    await goes_on(door, owner, 0)
    said = await ask(door.url, request("GET", "/health?really=yes"))
    assert said is not None
    assert said.status == 200


async def test_a_method_that_a_path_does_not_take_is_told_which_it_takes(
    door: Door, owner: Connection
) -> None:
    for path, takes in (
        ("/", "POST"),
        ("/webhooks/mail", "POST"),
        ("/health", "GET, HEAD"),
        ("/ready", "GET, HEAD"),
    ):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"):
            if method in takes:
                continue
            said = await ask(door.url, request(method, path, GOOD if method == "PUT" else b""))
            assert is_refusal(said, 405) or (method == "CONNECT" and is_refusal(said, 400)), (
                method,
                path,
                said,
            )
            assert said is not None
            assert method == "CONNECT" or said.headers["allow"] == takes
        assert is_refusal(await ask(door.url, request("post", path)), 400, 405)
    async with wire(door.url) as one:
        await one.send(request("HEAD", "/health") + request("HEAD", "/ready") + request("GET", "/health"))
        heads = [await one.answer(to_head=True), await one.answer(to_head=True)]
        assert [said and said.status for said in heads] == [200, 200]
        said = await one.answer()
        assert said is not None
        assert said.words["ready"] is True
    await goes_on(door, owner, 0)


MALFORMED = [
    b"",
    b"{",
    b'{"type": "prune"} x',
    b'{"type": "prune"}{"type": "prune"}',
    b"\xef\xbb\xbf" + GOOD,
    GOOD.decode().encode("utf-16"),
    GOOD.decode().encode("utf-32-be"),
    b'{"type": "prune", "data": {"x": "\xff"}}',
    b'{"type": "prune", "data": {"x": "\xed\xa0\x80"}}',
    b'{"type": "prune", "data": {"x": "a\x00b"}}',
    b'{"type": "prune", "data": {"x": Infinity}}',
    b'{"type": "prune", "data": {"x": 1e99999}}',
    b'{"type": "prune", "data": {"x": 1e9999999999999999999999}}',
    b'{"type": "prune", "data": {"x": ' + b"9" * 100_000 + b"}}",
    b'{"type": "prune", "type": "prune"}',
    b'{"type": "prune", "data": {"x": 1, "x": 2}}',
    b'{"type": "prune", "data": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    b"[" * 1_000_000,
    b'"' + b"a" * 1_000_000,
    b"[1," * 600_000,
]
NOT_FIT = [
    b'{"type": "prune", "data": {"x": "\\ud800"}}',
    b'{"type": "prune", "data": {"\\udc00": 1}}',
    b'{"type": "prune", "data": {"x": "\\u0000"}}',
    b'{"type": "prune\\u0000"}',
    b'{"type": "prune\\r\\nX-Injected: yes", "queue": "maintenance"}',
    b'{"type": "' + b"p" * 100_000 + b'", "queue": "maintenance"}',
    b'{"type": "prune", "queue": "' + b"q" * 100_000 + b'"}',
    b'{"type": "prune", "idempotency_key": "' + b"k" * 100_000 + b'"}',
    b'{"type": "prune", "data": {"x": "' + b"x" * 1_500_000 + b'"}}',
    b'{"type": "prune", "priority": 99999999999999999999}',
    b'{"type": "prune", "max_attempts": -1}',
    b'{"type": "prune", "run_at": "999999-01-01"}',
]


async def test_malformed_json_is_answered_with_a_sentence(door: Door, owner: Connection) -> None:
    for body in MALFORMED:
        assert is_refusal(await ask(door.url, request(body=body)), 400), body[:60]
    for body in NOT_FIT:
        assert is_refusal(await ask(door.url, request(body=body)), 422), body[:60]
    await goes_on(door, owner, 0)


async def test_data_as_deep_as_can_be_read_is_inserted_or_refused(door: Door, owner: Connection) -> None:
    """Where reading, writing and the database each give up is their own affair; it is never an accident."""
    inserted = 0
    for depth in (90, 500, 900, *range(920, 1000), 2000, 5000, 9000, 20_000):
        body = b'{"type": "prune", "data": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
        said = await ask(door.url, request(body=body))
        assert said is not None
        assert said.status == 201 or is_refusal(said, 400, 422), (depth, said)
        inserted += said.status == 201
    assert inserted
    await goes_on(door, owner, inserted)


async def test_bodies_that_are_too_large_or_packed(door: Door, owner: Connection) -> None:
    large = b"x" * (LARGEST_BODY + 1)
    chunks = b"".join(b"%x\r\n%s\r\n" % (65536, large[:65536]) for _ in range(LARGEST_BODY // 65536 + 2))
    cases = [
        (request(body=large), 413),
        (request(headers=b"Content-Length: 9999999999\r\n", method="PUT", target="/x"), 404),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, 413),
        (request(body=GOOD, headers=b"Content-Encoding: gzip\r\n"), 415),
        (request(body=GOOD, headers=b"Expect: a-miracle\r\n"), 417),
    ]
    for data, status in cases:
        said = await ask(door.url, data)
        assert is_refusal(said, status), (data[:80], said)
    await goes_on(door, owner, 0)


async def test_a_client_that_asks_before_it_sends_is_told_to_go_on_only_if_it_may(gateway: Gateway) -> None:
    head = request(body=GOOD, headers=b"Expect: 100-continue\r\n").removesuffix(GOOD)
    async with door_of(gateway.url) as door, wire(door.url) as one:
        await one.send(head)
        assert await one.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await one.send(GOOD)
        said = await one.answer()
        assert said is not None
        assert said.status == 201
    async with door_of(gateway.url, token=TOKEN) as door, wire(door.url) as one:
        await one.send(head)
        assert (await one.reader.readline()).startswith(b"HTTP/1.1 401 ")


async def test_old_and_impatient_clients_are_served(door: Door, owner: Connection) -> None:
    async with wire(door.url) as one:
        await one.send(request(body=GOOD, version="1.0"))
        assert [said.status for said in await one.answers()] == [201]
    async with wire(door.url) as one:
        await one.send(request(body=GOOD) * 20 + request("GET", "/health"))
        answers = [await one.answer() for _ in range(21)]
        assert [said and said.status for said in answers] == [201] * 20 + [200]
    upgrade = request("GET", "/health", headers=b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    said = await ask(door.url, upgrade)
    assert said is not None
    assert said.status == 200
    await goes_on(door, owner, 21)


async def test_no_answer_can_be_split_by_what_was_sent(door: Door) -> None:
    """Neither a header nor a second answer can be made of what a client sends."""
    for body in (
        b'{"type": "prune", "x\\r\\nX-Injected: yes\\r\\n\\r\\nHTTP/1.1 200 OK": 1}',
        b'{"type": "a\\r\\nX-Injected: yes", "queue": "b\\r\\nX-Injected: yes"}',
    ):
        async with wire(door.url) as one:
            await one.send(request(body=body, headers=b"Connection: close\r\n"))
            (said,) = await one.answers()
            assert is_refusal(said, 400, 422)
            assert not [name for name in said.headers if "injected" in name]


SIGNATURES: list[tuple[bytes, int]] = [
    (b"X-Signature: signed\r\n", 200),
    (b"", 400),
    (b"X-Signature:\r\n", 400),
    (b"X-Signature: \xff\xfe\r\n", 400),
    (b"X-Signature: signed\r\nX-Signature: signed\r\n", 400),
    (b"X-Signature: wrong\r\nX-Signature: signed\r\n", 400),
    (b"X-Signature: signed\r\nx-signature: wrong\r\n", 400),
    (b"X-Signature: " + b"signed," * 1000 + b"\r\n", 400),
    (b"X-Signature: signed\r\nX-Forwarded-For: 203.0.113.9\r\n", 200),
]


async def test_a_webhook_takes_one_signature(door: Door, owner: Connection) -> None:
    for number, (headers, status) in enumerate(SIGNATURES):
        said = await ask(
            door.url, request(target="/webhooks/mail", body=b"mail %d" % number, headers=headers)
        )
        assert said is not None
        assert said.status == status or is_refusal(said, status), (headers[:60], said)
    await goes_on(door, owner, 2)
