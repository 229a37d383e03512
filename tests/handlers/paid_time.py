"""What tests of paid time do and look at: one who pays, one who looks, a chain that gives up what it had confirmed."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tests.handlers.conftest import Owner


async def pay(
    owner: Owner, user: UUID, tier: UUID, at: str, interval: str = "month", method: str = "manual"
) -> dict[str, Any]:
    """What a payment at that moment buys; the periods as days."""
    answer = json.loads(
        await owner.fetchval(
            "select extend_paid_period($1, $2, $3, $4, $5)",
            user,
            tier,
            method,
            interval,
            datetime.fromisoformat(at).replace(tzinfo=UTC),
        )
    )
    return {**answer, "period": f"{answer['period_start'][:10]} {answer['period_end'][:10]}"}


async def state(owner: Owner, user: UUID) -> str:
    found = await owner.fetchval("select status from user_subscriptions where user_id = $1", user)
    assert isinstance(found, str)
    return found


async def look(owner: Owner, user: UUID) -> str:
    """One renewal of the user's subscription; its outcome."""
    answer = await owner.fetchval("select renew_subscription(id) from subscriptions where user_id = $1", user)
    return str(json.loads(answer)["outcome"])


async def notices(owner: Owner) -> list[str]:
    """The kinds of notice that were enqueued, oldest first."""
    rows = await owner.fetch("select data from jobs where type = 'payment_notification' order by id")
    return [json.loads(row["data"])["type"] for row in rows]


async def reverse(owner: Owner, user: UUID, bought: dict[str, Any]) -> None:
    payment = await owner.fetchval(
        "insert into payments (user_id, subscription_id, provider, status, amount, currency, period_start, period_end)"
        " values ($1, $2, 'crypto', 'reversed', 12.5, 'usd', $3, $4) returning id",
        user,
        UUID(bought["subscription_id"]),
        datetime.fromisoformat(bought["period_start"]),
        datetime.fromisoformat(bought["period_end"]),
    )
    await owner.execute("select take_back_paid_period($1)", payment)


async def blocked(owner: Owner, other: Owner) -> bool:
    """Whether the other connection waits for a lock that this one holds."""
    return bool(
        await owner.fetchval(
            "select $1 = any (pg_blocking_pids($2))", owner.get_server_pid(), other.get_server_pid()
        )
    )
