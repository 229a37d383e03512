"""The paper broker's HTTP face: the shapes, codes and pages that clients of Alpaca's API know."""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
from yarl import URL

from tests.paper.conftest import Face, Notes

Json = dict[str, Any]


class Client:
    """Asks the face, with the account's keys."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        async with self._session.request(method, path, json=body, headers=headers) as answer:
            return answer.status, await answer.json() if await answer.read() else None

    async def place(self, client_order_id: str, **words: Any) -> tuple[int, Any]:
        market = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}
        return await self.ask("POST", "/v2/orders", market | {"client_order_id": client_order_id} | words)


@pytest.fixture
async def client(served: Face, quote: Notes) -> AsyncIterator[Client]:
    await quote("AAPL", "99.5", "100")
    async with aiohttp.ClientSession(served.url, headers=served.headers) as session:
        yield Client(session)


LIMIT = {"type": "limit", "time_in_force": "gtc", "limit_price": "90.50"}


async def test_an_order_is_told_in_the_documented_shape(client: Client) -> None:
    status, filled = await client.place("one", qty=2)
    assert status == 200
    assert str(UUID(filled["id"])) == filled["id"]
    assert {
        "client_order_id": "one",
        "symbol": "AAPL",
        "asset_class": "us_equity",
        "qty": "2",
        "filled_qty": "2",
        "filled_avg_price": "100",
        "type": "market",
        "order_type": "market",
        "side": "buy",
        "time_in_force": "day",
        "limit_price": None,
        "status": "filled",
        "canceled_at": None,
    }.items() <= filled.items()
    assert filled["filled_at"] == filled["updated_at"]
    _, resting = await client.place("two", **LIMIT)
    assert (resting["status"], resting["limit_price"], resting["filled_avg_price"]) == ("new", "90.5", None)
    for path in ("/v2/orders:by_client_order_id?client_order_id=two", f"/v2/orders/{resting['id']}"):
        assert await client.ask("GET", path) == (200, resting)


async def test_orders_are_canceled_once(client: Client) -> None:
    orders = [(await client.place(name, **LIMIT))[1]["id"] for name in ("one", "two", "three")]
    assert await client.ask("DELETE", f"/v2/orders/{orders[0]}") == (204, None)
    status, told = await client.ask("DELETE", f"/v2/orders/{orders[0]}")
    assert (status, told["code"]) == (422, 42210000)
    status, told = await client.ask("DELETE", "/v2/orders")
    assert (status, [one["id"] for one in told]) == (207, orders[1:])
    _, canceled = await client.ask("GET", f"/v2/orders/{orders[0]}")
    assert canceled["status"] == "canceled"
    assert canceled["canceled_at"]


REFUSED: list[tuple[Json, int, int, str]] = [
    ({"client_order_id": "taken"}, 422, 40010001, "client_order_id must be unique"),
    ({"qty": "1000"}, 403, 40310000, "insufficient buying power"),
    ({"side": "sell", "qty": "5"}, 403, 40310000, "insufficient qty available"),
    ({"symbol": "NOPE"}, 422, 42210000, "not found"),
    ({"qty": None}, 422, 40010001, "qty is required"),
    ({"qty": "a lot"}, 422, 40010001, "qty must be a number"),
    ({"qty": "0"}, 422, 42210000, "qty must be > 0"),
    ({"type": "trailing_stop"}, 422, 42210000, "invalid type"),
    ({"time_in_force": "opg"}, 422, 42210000, "invalid time_in_force"),
    ({"type": "limit"}, 422, 42210000, "limit price"),
    ({"type": "limit", "limit_price": "NaN"}, 422, 42210000, "invalid limit price"),
    ({"symbol": "A\0"}, 422, 42210000, "printable"),
    ({"client_order_id": "a\0"}, 422, 42210000, "printable"),
    ({"notional": "10"}, 422, 42210000, "notional"),
    ({"order_class": "bracket"}, 422, 42210000, "simple orders"),
]


async def test_what_is_refused_is_told_with_the_documented_code(client: Client) -> None:
    await client.place("taken")
    for words, status, code, message in REFUSED:
        found, told = await client.place(**{"client_order_id": str(uuid4()), **words})
        assert (found, told["code"]) == (status, code), words
        assert message in told["message"]
    for path, code in (
        (f"/v2/orders/{uuid4()}", 40410000),
        ("/v2/orders:by_client_order_id?client_order_id=nope", 40410000),
        ("/v2/positions/NOPE", 40410000),
        ("/v2/assets/NOPE", 40410000),
    ):
        status, told = await client.ask("GET", path)
        assert (status, told["code"]) == (404, code)


async def test_a_body_that_is_no_order_is_refused(client: Client) -> None:
    assert (await client.ask("POST", "/v2/orders", [1]))[0] == 400
    assert (await client.ask("GET", "/v2/orders?limit=0"))[0] == 422
    assert (await client.ask("GET", "/v2/orders?after=yesterday"))[0] == 422
    for token in ("x", "20261128::no-uuid-1", f"20261128::{uuid4()}-x"):
        assert (await client.ask("GET", f"/v2/account/activities?page_token={token}"))[0] == 422


STRANGE = [
    ("GET", "/v2/orders?limit=" + "9" * 5000, None), ("GET", "/v2/orders?symbols=%00", None),
    ("GET", "/v2/orders:by_client_order_id?client_order_id=%00", None), ("GET", "/v2/assets/%00", None),
    ("GET", f"/v2/account/activities?page_token=x::{uuid4()}-99999999999999", None),
    ("POST", "/v2/orders", '{"a":' * 100_000),
    *[
        ("POST", "/paper/faults", f'{{"kind": {rest}}}')
        for rest in ('["x"]', '"hang", "seconds": "abc"', '"hang", "seconds": -1', '"too_fast", "seconds": 1e300',
                     '"hang", "remaining": "x"', '"hang", "remaining": -1', '"hang", "probability": 7',
                     '"hang", "seconds": "NaN"', '"hang", "operation": "nope"', '"hang", "seed": "\\ud800"')
    ],
]  # fmt: skip


async def test_whatever_makes_no_sense_is_the_callers_fault(served: Face) -> None:
    async with aiohttp.ClientSession(headers=served.headers) as session:
        for method, path, body in STRANGE:
            url = URL(served.url + path, encoded=True)
            async with session.request(method, url, data=body) as answer:
                assert answer.status in {400, 422}, (path[:60], (body or "")[:60])
                assert set(await answer.json()) == {"code", "message"}


@pytest.mark.parametrize("secret", ["another", ""])
async def test_nobody_comes_in_without_the_secret(client: Client, secret: str) -> None:
    status, told = await client.ask("GET", "/v2/account", headers={"APCA-API-SECRET-KEY": secret})
    assert (status, told["code"]) == (401, 40110000)


async def test_orders_come_in_pages_by_status_and_time(client: Client) -> None:
    placed = [(await client.place(f"{n}", **(LIMIT if n % 2 else {})))[1] for n in range(5)]

    async def names(query: str) -> list[str]:
        _, told = await client.ask("GET", f"/v2/orders?{query}")
        return [order["client_order_id"] for order in told]

    assert await names("") == ["3", "1"]
    assert await names("status=closed") == ["4", "2", "0"]
    assert await names("status=all&limit=2") == ["4", "3"]
    assert await names("status=all&direction=asc&limit=2") == ["0", "1"]
    second_page = f"status=all&direction=asc&limit=2&after={placed[1]['submitted_at']}"
    assert await names(second_page) == ["2", "3"]
    assert await names(f"status=all&until={placed[1]['submitted_at']}") == ["0"]
    assert await names("status=all&symbols=MSFT") == []
    assert await names("status=all&symbols=MSFT,AAPL&side=buy&limit=1") == ["4"]


async def test_fills_are_activities_and_come_in_pages(client: Client, quote: Notes) -> None:
    await quote("AAPL", "99", "100", ask_size="2")
    _, first = await client.place("0", qty="3", **(LIMIT | {"limit_price": "101"}))
    await quote("AAPL", "99", "101", ask_size="9")
    for name in ("1", "2"):
        await client.place(name)
    _, fills = await client.ask("GET", "/v2/account/activities?direction=asc")
    assert [
        (fill["type"], fill["qty"], fill["price"], fill["cum_qty"], fill["leaves_qty"]) for fill in fills
    ] == [
        ("partial_fill", "2", "100", "2", "1"),
        ("fill", "1", "101", "3", "0"),
        ("fill", "1", "101", "1", "0"),
        ("fill", "1", "101", "1", "0"),
    ]
    assert fills[0]["order_id"] == first["id"]
    pages: list[Json] = []
    query = "/v2/account/activities/FILL?page_size=3"
    while (page := (await client.ask("GET", query))[1]) != []:
        pages += page
        query = f"/v2/account/activities/FILL?page_size=3&page_token={page[-1]['id']}"
    assert pages == fills[::-1]
    assert await client.ask("GET", "/v2/account/activities/DIV") == (200, [])


async def test_account_positions_clock_and_assets_are_told(client: Client, quote: Notes) -> None:
    await quote("BTC/USD", "50000", "50001")
    await client.place("one", qty="2")
    _, account = await client.ask("GET", "/v2/account")
    assert (account["cash"], account["equity"], account["status"]) == ("9800", "9999.5", "ACTIVE")
    _, [position] = await client.ask("GET", "/v2/positions")
    assert (position["qty"], position["side"], position["unrealized_pl"]) == ("2", "long", "-0.5")
    assert await client.ask("GET", "/v2/positions/AAPL") == (200, position)
    assert await client.ask("GET", f"/v2/positions/{position['asset_id']}") == (200, position)
    _, clock = await client.ask("GET", "/v2/clock")
    assert clock["is_open"] is True
    _, asset = await client.ask("GET", "/v2/assets/BTC/USD")
    assert (asset["class"], asset["tradable"]) == ("crypto", True)
    assert await client.ask("GET", "/v2/assets?asset_class=crypto") == (200, [asset])


async def test_faults_are_asked_for_over_http_and_befall_as_they_would_at_a_broker(
    client: Client, served: Face
) -> None:
    assert (await client.ask("POST", "/paper/faults", {"kind": "rain"}))[0] == 422
    for kind, status in (
        ("unavailable", 503),
        ("gateway_timeout", 504),
        ("too_fast", 429),
        ("unauthorized", 401),
    ):
        await client.ask("POST", "/paper/faults", {"kind": kind, "remaining": 1})
        assert (await client.place(kind))[0] == status
    await client.ask("POST", "/paper/faults", {"kind": "lost_answer", "remaining": 1})
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.place("lost")
    _, orders = await client.ask("GET", "/v2/orders?status=all&direction=asc")
    assert [order["client_order_id"] for order in orders] == ["gateway_timeout", "lost"]
    await client.ask("POST", "/paper/faults", {"kind": "too_fast", "operation": "list", "seconds": 7})
    async with (
        aiohttp.ClientSession(served.url, headers=served.headers) as session,
        session.get("/v2/positions") as answer,
    ):
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert (await client.ask("DELETE", "/paper/faults"))[0] == 204
    assert (await client.ask("GET", "/v2/positions"))[0] == 200
