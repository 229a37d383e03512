"""What Alpaca's answers, and what is no answer of Alpaca's, are taken for."""

import asyncio
import time
from datetime import UTC, datetime

import pytest
from aiohttp import ClientTimeout, web

from handlers.clients.alpaca import http
from handlers.clients.alpaca.client import Alpaca
from handlers.clients.broker.broker import (
    BadCredentials,
    BrokerError,
    DuplicateClientId,
    NotSent,
    OutcomeUnknown,
    Refused,
    TooFast,
)
from tests.doubles.proxy import answering
from tests.handlers.broker.adapters.alpaca_desk import (
    OURS,
    Desk,
    as_alpaca_shows,
    asked_at,
)

WORDS = {"code": 42210000, "message": "qty must be > 0"}
DEEP = "[" * 100_000
SUBMITTED: list[tuple[str, int, object, type[BrokerError] | None]] = [
    ("an order", 200, as_alpaca_shows(), None),
    ("a status of no name that we know", 200, as_alpaca_shows(status="pondering"), None),
    ("an order with another id of ours", 200, as_alpaca_shows(client_order_id="pe" + "0" * 32), OutcomeUnknown),
    ("an order without a quantity", 200, as_alpaca_shows(qty=None), OutcomeUnknown),
    ("half an order", 200, {"id": "1"}, OutcomeUnknown),
    ("a quantity that is no number", 200, as_alpaca_shows(qty="NaN"), OutcomeUnknown),
    ("nothing", 200, "", OutcomeUnknown),
    ("a page", 200, "<html>ok</html>", OutcomeUnknown),
    ("JSON without an end", 200, DEEP, OutcomeUnknown),
    ("its words: wrong", 422, WORDS, Refused),
    ("its words: bad request", 400, {"message": "invalid side"}, Refused),
    ("its words: no money", 403, {"code": 40310000, "message": "insufficient buying power"}, Refused),
    ("its words: not for these keys", 403, {"message": "forbidden."}, BadCredentials),
    ("its words: taken", 422, {"code": 40010001, "message": "client_order_id must be unique"}, DuplicateClientId),
    ("its words: who?", 401, {"message": "unauthorized."}, BadCredentials),
    ("its words: slowly", 429, {"code": 42910000, "message": "rate limit exceeded"}, TooFast),
    ("a proxy: who?", 401, "<html>", BadCredentials),
    ("a proxy: slowly", 429, "<html>", TooFast),
    ("a proxy: wrong", 400, "<html>", OutcomeUnknown),
    ("a proxy: forbidden", 403, "<html>", OutcomeUnknown),
    ("a proxy: 422", 422, "nope", OutcomeUnknown),
    ("a proxy: 404", 404, "<html>", OutcomeUnknown),
    ("404 in its words", 404, {"message": "endpoint not found."}, OutcomeUnknown),
    ("time-out", 408, {"message": "timeout"}, OutcomeUnknown),
    ("conflict", 409, {"message": "conflict"}, OutcomeUnknown),
    ("its words: broken", 500, {"code": 50010000, "message": "internal server error"}, OutcomeUnknown),
    ("bad gateway", 502, "<html>", OutcomeUnknown),
    ("away", 503, WORDS, OutcomeUnknown),
    ("gateway time-out", 504, WORDS, OutcomeUnknown),
    ("continued elsewhere", 307, "", OutcomeUnknown),
    ("moved", 302, "", OutcomeUnknown),
]  # fmt: skip


async def test_each_answer_to_a_submission_is_told_as_the_table_says(desk: Desk, adapter: Alpaca) -> None:
    for name, status, body, error in SUBMITTED:
        desk.says(body, status, Location="http://127.0.0.1:9/elsewhere")
        told: type[BaseException] | None = None
        try:
            await adapter.submit(OURS)
        except BrokerError as raised:
            told = type(raised)
        assert told is error, name
    assert [request.method for request in desk.requests] == ["POST"] * len(SUBMITTED)


async def test_a_refusal_says_why_in_the_broker_s_own_words(desk: Desk, adapter: Alpaca) -> None:
    desk.says({"code": 40310000, "message": "insufficient buying power"}, 403)
    with pytest.raises(Refused, match="insufficient buying power") as refused:
        await adapter.submit(OURS)
    assert refused.value.code == "insufficient_funds"


LOOKED: list[tuple[str, int, object, type[BrokerError] | None]] = [
    ("no such order", 404, {"code": 40410000, "message": "order not found"}, None),
    ("no such account", 404, {"code": 40410000, "message": "account not found for 1"}, OutcomeUnknown),
    ("no such address", 404, {"message": "endpoint not found."}, OutcomeUnknown),
    ("a proxy: no such page", 404, "<html>", OutcomeUnknown),
    ("a proxy: a code of its own", 404, {"code": 404, "message": "not found"}, OutcomeUnknown),
    ("gone", 410, {"code": 40410000, "message": "gone"}, OutcomeUnknown),
    ("wrong", 422, WORDS, OutcomeUnknown),
    ("not for these keys", 403, {"code": 40310000, "message": "forbidden."}, BadCredentials),
    ("broken", 500, WORDS, OutcomeUnknown),
    ("nothing", 200, "", OutcomeUnknown),
    ("an empty list", 200, [], OutcomeUnknown),
    ("another order", 200, as_alpaca_shows(client_order_id="x", id="y"), OutcomeUnknown),
]


async def test_only_alpaca_s_own_word_means_that_there_is_no_such_order(desk: Desk, adapter: Alpaca) -> None:
    for name, status, body, error in LOOKED:
        desk.says(body, status)
        for question in (adapter.find(OURS.client_order_id, "AAPL"), adapter.get("61e6", "AAPL")):
            told: type[BaseException] | None = None
            try:
                assert await question is None, name
            except BrokerError as raised:
                told = type(raised)
            assert told is error, name


async def test_a_list_that_is_none_is_no_answer(desk: Desk, adapter: Alpaca) -> None:
    for status, body in (
        (200, {}),
        (200, None),
        (200, [1]),
        (200, "<html>"),
        (404, WORDS),
        (500, []),
        (204, ""),
    ):
        desk.says(body, status)
        for question in (adapter.open_orders(), adapter.positions(), adapter.fills(datetime.now(UTC))):
            with pytest.raises(OutcomeUnknown):
                await question


async def test_nobody_there_is_not_sent_and_a_cut_connection_is_unknown(desk: Desk, adapter: Alpaca) -> None:
    for address in ("http://127.0.0.1:9", "https://127.0.0.1:9"):
        async with asked_at(address) as other:
            with pytest.raises(NotSent):
                await other.submit(OURS)

    async def cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def half(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(request)
        await answer.write(b'{"id": "1",')
        return await cut(request)

    for desk.answer in (cut, half):
        with pytest.raises(OutcomeUnknown):
            await adapter.submit(OURS)
    assert len(desk.requests) == 2  # and it was sent once each


async def test_an_answer_that_does_not_come_is_waited_for_only_so_long(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_last = asyncio.Event()

    async def never(_: web.Request) -> web.Response:
        await at_last.wait()
        return web.Response()

    desk.answer = never
    monkeypatch.setattr(http, "TIMEOUT", ClientTimeout(total=0.2))
    async with answering(desk.handle) as url, asked_at(url) as adapter:
        with pytest.raises(OutcomeUnknown):
            await adapter.submit(OURS)
        at_last.set()


async def test_an_answer_without_an_end_is_given_up(
    desk: Desk, adapter: Alpaca, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "LARGEST_ANSWER", 1000)
    desk.says("[" + " " * 5000)
    with pytest.raises(OutcomeUnknown, match="too long"):
        await adapter.positions()


async def test_too_fast_says_when_to_come_again(desk: Desk, adapter: Alpaca) -> None:
    reset = str(int(time.time()) + 250)
    for headers, least, most in (
        ({"Retry-After": "7"}, 7, 7),
        ({"X-RateLimit-Reset": reset}, 100, 250),
        ({"Retry-After": "0"}, 1, 1),
        ({"Retry-After": "86400"}, 300, 300),
        ({"Retry-After": "soon"}, 60, 60),
        ({}, 60, 60),
    ):
        desk.says("", 429, **headers)
        with pytest.raises(TooFast) as told:
            await adapter.positions()
        assert least <= told.value.after.total_seconds() <= most
