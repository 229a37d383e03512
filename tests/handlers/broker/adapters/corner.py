"""An adapter as anybody would write it, from the interface alone: for the house at the corner, which speaks HTTP."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx

from handlers.clients.broker.broker import (
    BadCredentials,
    BrokerOrder,
    BrokerPosition,
    BrokerStatus,
    Dedupe,
    DuplicateClientId,
    Fill,
    Hours,
    NotSent,
    OrderRequest,
    OutcomeUnknown,
    Refused,
    TooFast,
    Traits,
)
from handlers.clients.broker.brokers import Account

ENDED = {one.value: one for one in BrokerStatus if one not in {"accepted", "partially_filled"}}


async def open_corner(account: Account) -> "Corner":
    keys = (await account.credentials("key_id", "secret_key")).values
    return Corner(account.settings["CORNER_URL"], keys["key_id"], keys["secret_key"])


class Corner:
    traits = Traits(Dedupe.ACCOUNT, timedelta(seconds=5), misses=1, shows_closed=True, longest_client_id=128)

    def __init__(self, url: str, key_id: str, secret: str) -> None:
        headers = {"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=10)

    def objection(self, order: OrderRequest) -> Refused | None:
        return None

    async def _ask(self, method: str, path: str, **words: Any) -> httpx.Response:
        try:
            answer = await self._http.request(method, path, **words)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise NotSent("nobody is at the corner") from None
        if answer.status_code == 429:
            raise TooFast(timedelta(seconds=int(answer.headers["Retry-After"])))
        if answer.status_code == 401:
            raise BadCredentials("the corner does not know us")
        if answer.status_code >= 500:
            raise OutcomeUnknown(f"the corner answered {answer.status_code}")
        return answer

    async def submit(self, order: OrderRequest) -> BrokerOrder:
        prices = {"limit_price": order.limit_price, "stop_price": order.stop_price}
        words = {
            **{name: getattr(order, name) for name in ("symbol", "side", "time_in_force", "client_order_id")},
            **{name: str(price) for name, price in prices.items() if price is not None},
            "type": order.order_type,
            "qty": str(order.quantity),
        }
        answer = await self._ask("POST", "/v2/orders", json=words)
        if answer.status_code >= 400:
            said = answer.json()["message"]
            raise DuplicateClientId(said) if "must be unique" in said else Refused("refused", said)
        return order_of(answer.json())

    async def find(self, client_order_id: str, symbol: str) -> BrokerOrder | None:
        return await self._one("/v2/orders:by_client_order_id", client_order_id=client_order_id)

    async def get(self, broker_order_id: str, symbol: str) -> BrokerOrder | None:
        return await self._one(f"/v2/orders/{broker_order_id}")

    async def _one(self, path: str, **params: str) -> BrokerOrder | None:
        answer = await self._ask("GET", path, params=params)
        return None if answer.status_code == 404 else order_of(answer.json())

    async def cancel(self, broker_order_id: str, symbol: str) -> None:
        await self._ask("DELETE", f"/v2/orders/{broker_order_id}")

    async def _list(self, path: str, **params: Any) -> list[Any]:
        found: list[Any] = []
        while page := (await self._ask("GET", path, params=params)).json():
            found += page
            params["page_token"] = page[-1]["id"]
            if "status" in params:
                params["after"] = page[-1]["submitted_at"]
            if len(page) < 100:
                break
        return found

    async def open_orders(self) -> Sequence[BrokerOrder]:
        found = await self._list("/v2/orders", status="open", direction="asc", limit=500)
        return [order_of(one) for one in found]

    async def fills(self, since: datetime) -> Sequence[Fill]:
        path, after = "/v2/account/activities/FILL", since.isoformat().replace("+00:00", "Z")
        found = await self._list(path, after=after, direction="asc", page_size=100)
        return [
            Fill(one["id"], one["order_id"], Decimal(one["qty"]), Decimal(one["price"]), time_of(one))
            for one in found
        ]

    async def positions(self) -> Sequence[BrokerPosition]:
        found = (await self._ask("GET", "/v2/positions")).json()
        return [BrokerPosition(pair_of(one), Decimal(one["qty"]), None, None) for one in found]

    async def hours(self, symbol: str) -> Hours:
        clock = (await self._ask("GET", "/v2/clock")).json()
        turns = clock["next_close" if clock["is_open"] else "next_open"]
        return Hours(clock["is_open"], datetime.fromisoformat(turns))

    async def close(self) -> None:
        await self._http.aclose()


def pair_of(words: Any) -> str:
    name = str(words["symbol"])  # a coin is held as BTCUSD, and traded as BTC/USD
    return f"{name.removesuffix('USD')}/USD" if words["asset_class"] == "crypto" else name


def time_of(words: Any) -> datetime:
    return datetime.fromisoformat(words.get("transaction_time") or words["updated_at"]).astimezone(UTC)


def order_of(words: Any) -> BrokerOrder:
    filled = Decimal(words["filled_qty"])
    alive = BrokerStatus.PARTIALLY_FILLED if filled else BrokerStatus.ACCEPTED
    return BrokerOrder(
        broker_order_id=words["id"],
        client_order_id=words["client_order_id"],
        symbol=words["symbol"],
        side=words["side"],
        order_type=words["type"],
        time_in_force=words["time_in_force"],
        quantity=Decimal(words["qty"]),
        status=ENDED.get(words["status"], alive),
        filled_quantity=filled,
        filled_avg_price=number(words["filled_avg_price"]),
        updated_at=time_of(words),
        limit_price=number(words["limit_price"]),
        stop_price=number(words["stop_price"]),
    )


def number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
