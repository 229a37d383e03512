"""What Alpaca's answers, and what is no answer of Alpaca's, are taken for; and where accounts are asked."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import uuid4

import pytest
from aiohttp import ClientTimeout, web

from handlers.clients import alpaca, alpaca_http
from handlers.clients.alpaca import Alpaca, open_alpaca
from handlers.clients.alpaca_http import ALPACA_PAPER_API_BASE, base_of
from handlers.clients.broker import (
    BadCredentials,
    BrokerError,
    BrokerStatus,
    DuplicateClientId,
    Hours,
    NotSent,
    OutcomeUnknown,
    Refused,
    TooFast,
)
from handlers.clients.brokers import Account, Connection, NotOpened
from handlers.clients.database import Database
from tests.doubles.proxy import answering
from tests.handlers.broker.adapters.house import an_order

Json = dict[str, Any]
NO_DATABASE = cast("Database", None)  # nobody here asks it
OURS = an_order(symbol="AAPL", time_in_force="day", limit_price=Decimal("15.25"))
NOW = "2026-11-27T15:00:00.123456789Z"


def as_alpaca_shows(**words: Any) -> Json:
    return {
        "id": "61e69015-8549-4bfd-b9c3-01e75843f47d", "client_order_id": OURS.client_order_id, "symbol": "AAPL",
        "created_at": NOW, "updated_at": NOW, "submitted_at": NOW, "qty": "0.5", "filled_qty": "0",
        "filled_avg_price": None, "type": "limit", "side": "buy", "time_in_force": "day", "limit_price": "15.25",
        "stop_price": None, "status": "new",
    } | words  # fmt: skip


@dataclass
class Desk:
    """Stands where Alpaca would, and answers as a test says."""

    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    requests: list[web.Request] = field(default_factory=list[web.Request])
    bodies: list[str] = field(default_factory=list[str])

    def says(self, body: object, status: int = 200, **headers: str) -> None:
        async def answer(_: web.Request) -> web.Response:
            text = body if isinstance(body, str) else json.dumps(body)
            return web.Response(
                status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()}
            )

        self.answer = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.text())
        assert self.answer is not None
        return await self.answer(request)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@asynccontextmanager
async def asked_at(base: str) -> AsyncIterator[Alpaca]:
    adapter = Alpaca(base, {"APCA-API-KEY-ID": "PK1", "APCA-API-SECRET-KEY": "s1"})
    try:
        yield adapter
    finally:
        await adapter.close()


@pytest.fixture
async def adapter(desk: Desk) -> AsyncIterator[Alpaca]:
    async with answering(desk.handle) as url, asked_at(url) as found:
        yield found


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
    monkeypatch.setattr(alpaca_http, "TIMEOUT", ClientTimeout(total=0.2))
    async with answering(desk.handle) as url, asked_at(url) as adapter:
        with pytest.raises(OutcomeUnknown):
            await adapter.submit(OURS)
        at_last.set()


async def test_an_answer_without_an_end_is_given_up(
    desk: Desk, adapter: Alpaca, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alpaca_http, "LARGEST_ANSWER", 1000)
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


async def test_numbers_are_exact_in_both_directions_however_they_are_written(
    desk: Desk, adapter: Alpaca
) -> None:
    long = Decimal("123456789012.123456789")
    shown = json.dumps(as_alpaca_shows(qty="@", filled_qty="@", filled_avg_price="@"))
    desk.says(shown.replace('"@"', f"{long}"))  # as JSON numbers
    order = an_order(client_order_id=OURS.client_order_id, quantity=long, limit_price=Decimal("1E+3"))
    seen = await adapter.submit(order)
    assert (seen.quantity, seen.filled_quantity, seen.filled_avg_price) == (long, long, long)
    sent = json.loads(desk.bodies[-1])
    assert (sent["qty"], sent["limit_price"]) == (str(long), "1000")
    assert seen.updated_at == datetime(2026, 11, 27, 15, 0, 0, 123456, tzinfo=UTC)


STATUSES = {
    "new": BrokerStatus.ACCEPTED, "accepted": BrokerStatus.ACCEPTED, "pending_new": BrokerStatus.ACCEPTED,
    "held": BrokerStatus.ACCEPTED, "pending_cancel": BrokerStatus.ACCEPTED, "stopped": BrokerStatus.ACCEPTED,
    "done_for_day": BrokerStatus.ACCEPTED, "filled": BrokerStatus.FILLED, "canceled": BrokerStatus.CANCELED,
    "expired": BrokerStatus.EXPIRED, "rejected": BrokerStatus.REJECTED, "replaced": BrokerStatus.CANCELED,
}  # fmt: skip


async def test_each_status_is_one_of_ours(desk: Desk, adapter: Alpaca) -> None:
    for word, ours in STATUSES.items():
        desk.says(as_alpaca_shows(status=word))
        seen = await adapter.submit(OURS)
        assert seen.status is ours, word
        assert seen.reason == ("replaced" if word == "replaced" else None)
    for word in ("partially_filled", "pending_cancel", "done_for_day"):
        desk.says(as_alpaca_shows(status=word, filled_qty="0.2"))
        assert (await adapter.submit(OURS)).status is BrokerStatus.PARTIALLY_FILLED


async def test_orders_placed_by_hand_are_listed_in_the_nearest_words(desk: Desk, adapter: Alpaca) -> None:
    desk.says(
        [
            as_alpaca_shows(id="1", type="trailing_stop", limit_price=None, stop_price="14.5"),
            as_alpaca_shows(id="2", type="market", limit_price=None, time_in_force="opg"),
            as_alpaca_shows(id="3", qty=None, notional="500"),
            as_alpaca_shows(id="4", qty=None, notional="500", filled_qty="0.7"),
            as_alpaca_shows(id="5", symbol=None, side=None, order_class="mleg"),
        ]
    )
    seen = {one.broker_order_id: one for one in await adapter.open_orders()}
    assert seen.keys() == {"1", "2", "4"}
    assert (seen["1"].order_type, seen["1"].stop_price) == ("stop", Decimal("14.5"))
    assert (seen["2"].order_type, seen["2"].time_in_force) == ("market", "day")
    assert (seen["4"].quantity, seen["4"].status) == (Decimal("0.7"), BrokerStatus.PARTIALLY_FILLED)


async def test_a_page_that_ends_within_one_moment_loses_nothing(
    desk: Desk, adapter: Alpaca, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the second page were submitted in the moment in which the first one ended."""
    monkeypatch.setattr(alpaca, "ORDERS_A_PAGE", 3)
    moments = ["2026-11-27T15:00:00Z", *["2026-11-27T15:00:01Z"] * 2, "2026-11-27T15:00:02Z"]
    everything = [as_alpaca_shows(id=str(n), submitted_at=at) for n, at in enumerate(moments)]

    async def page(request: web.Request) -> web.Response:
        after = datetime.fromisoformat(request.query.get("after", "2000-01-01T00:00:00Z"))
        later = [one for one in everything if datetime.fromisoformat(one["submitted_at"]) > after]
        return web.json_response(later[: int(request.query["limit"])])

    desk.answer = page
    assert [one.broker_order_id for one in await adapter.open_orders()] == ["0", "1", "2", "3"]
    everything += [as_alpaca_shows(id=f"more {n}", submitted_at=moments[-1]) for n in range(3)]
    with pytest.raises(OutcomeUnknown, match="to its end"):  # four in one moment do not fit on a page
        await adapter.open_orders()


async def test_the_market_clock_is_kept_for_a_while_and_crypto_never_closes(
    desk: Desk, adapter: Alpaca
) -> None:
    clock = {
        "timestamp": "2026-11-27T10:00:00-05:00", "is_open": True,
        "next_open": "2026-11-30T09:30:00-05:00", "next_close": "2026-11-27T13:00:00-05:00",
    }  # fmt: skip
    desk.says(clock)
    for _ in range(2):
        hours = await adapter.hours("AAPL")
        assert hours == Hours(is_open=True, changes_at=datetime(2026, 11, 27, 18, tzinfo=UTC))
    assert len(desk.requests) == 1
    assert await adapter.hours("BTC/USD") == Hours(is_open=True, changes_at=None)
    assert len(desk.requests) == 1


async def test_a_clock_that_is_about_to_change_is_asked_again(desk: Desk, adapter: Alpaca) -> None:
    desk.says({
        "timestamp": "2026-11-27T18:00:00Z", "is_open": True,
        "next_open": "2026-11-30T09:30:00-05:00", "next_close": "2026-11-27T18:00:00Z",
    })  # fmt: skip
    for _ in range(2):
        await adapter.hours("AAPL")
    assert len(desk.requests) == 2


def a_share(**words: Any) -> Any:
    return an_order(**({"symbol": "AAPL", "time_in_force": "day", "limit_price": Decimal("15.25")} | words))


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (a_share(), None),
        (a_share(limit_price=Decimal("15.250")), None),
        (a_share(limit_price=Decimal("15.255")), "precision"),
        (a_share(limit_price=Decimal("0.1234")), None),
        (a_share(limit_price=Decimal("0.12345")), "precision"),
        (a_share(quantity=Decimal("0.1234567891")), "precision"),
        (a_share(quantity=Decimal("0.5"), time_in_force="gtc"), "time_in_force"),
        (a_share(quantity=Decimal(5), time_in_force="gtc"), None),
        (a_share(client_order_id="x" * 129), "invalid_order"),
        (an_order(time_in_force="day"), "time_in_force"),
        (an_order(order_type="stop", limit_price=None, stop_price=Decimal(1)), "order_type"),
        (an_order(limit_price=Decimal("15000.12345")), None),
    ],
)
async def test_what_alpaca_would_refuse_anyway_is_not_asked(
    adapter: Alpaca, order: Any, code: str | None
) -> None:
    found = adapter.objection(order)
    assert (found and found.code) == code


async def test_only_the_connection_says_whether_real_money_is_asked() -> None:
    override = {ALPACA_PAPER_API_BASE.name: "http://127.0.0.1:8430"}
    assert base_of("paper", {}) == "https://paper-api.alpaca.markets"
    assert base_of("paper", override) == "http://127.0.0.1:8430"
    for settings in ({}, override, {"ALPACA_API_BASE": "http://127.0.0.1:1"}):
        assert base_of("live", settings) == "https://api.alpaca.markets"
    for said in (
        "https://api.alpaca.markets",
        "https://API.alpaca.markets./",
        "https://x.alpaca.markets",
        "nonsense",
        "file:///x",
    ):
        with pytest.raises(NotOpened, match="ALPACA_PAPER_API_BASE"):
            base_of("paper", {ALPACA_PAPER_API_BASE.name: said})


async def test_the_environment_of_the_connection_reaches_the_address_and_its_keys_the_headers(
    desk: Desk,
) -> None:
    desk.says([])
    keys = {"BROKER_A_KEY_ID": "PK1", "BROKER_A_SECRET_KEY": "s1"}
    paper = Connection(uuid4(), uuid4(), "alpaca", "paper", 1, {}, "BROKER_A")
    async with answering(desk.handle) as url:
        settings = keys | {ALPACA_PAPER_API_BASE.name: url}
        for connection, base in (
            (paper, url),
            (replace(paper, environment="live"), "https://api.alpaca.markets"),
        ):
            adapter = await open_alpaca(Account(connection, settings, NO_DATABASE))
            assert adapter._line._base == base
            if base == url:
                assert await adapter.positions() == []
            await adapter.close()
    (request,) = desk.requests
    assert (request.headers["APCA-API-KEY-ID"], request.headers["APCA-API-SECRET-KEY"]) == ("PK1", "s1")
    with pytest.raises(NotOpened, match="plain letters"):
        await open_alpaca(Account(paper, keys | {"BROKER_A_KEY_ID": "a\nb"}, NO_DATABASE))


async def test_ids_cannot_reach_another_address(desk: Desk, adapter: Alpaca) -> None:
    desk.says({"code": 40410000, "message": "order not found"}, 404)
    for strange in ("../positions", "a?b=c", "a/b", "a%2Fb", "#"):
        await adapter.get(strange, "AAPL")
        await adapter.find(strange, "AAPL")
    for request in desk.requests[::2]:
        assert request.raw_path.startswith("/v2/orders/")
        assert request.raw_path.count("/") == 3
        assert not request.query_string
    assert [request.query["client_order_id"] for request in desk.requests[1::2]] == [
        "../positions", "a?b=c", "a/b", "a%2Fb", "#",
    ]  # fmt: skip


async def test_fills_are_read_from_the_moment_that_is_asked_for(desk: Desk, adapter: Alpaca) -> None:
    desk.says([])
    since = datetime(2026, 11, 27, 15, tzinfo=UTC) + timedelta(microseconds=5)
    assert await adapter.fills(since) == []
    assert desk.requests[0].query["after"] == "2026-11-27T15:00:00.000005Z"
