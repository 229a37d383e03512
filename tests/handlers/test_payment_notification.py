"""A fact about a payment becomes one alert, in the reader's own way to write amounts and dates."""

from typing import Any
from uuid import UUID

import pytest

from handlers.clients.database import Database
from handlers.clients.payment_texts import TEXTS, Notice, Reader, told
from handlers.payment.payment_notification import PaymentNotification, payment_notification
from tests.handlers.conftest import Owner, a_job

RENEWAL = {
    "tier": "Pro",
    "amount": "1249.90",
    "currency": "usd",
    "period_end": "2026-11-01T05:30:00+00:00",
    "grace_until": "2026-11-04T05:30:00+00:00",
}


def test_every_kind_has_a_text_that_says_something_without_any_fact_or_with_all() -> None:
    full = RENEWAL | {
        "missing": "1",
        "url": "https://pay.example/1",
        "next_attempt_at": "2026-11-01T00:00:00Z",
        "trial_ends_at": "2026-11-01T00:00:00Z",
    }
    assert set(TEXTS) == set(Notice)
    for notice in Notice:
        title, message = told(notice, full, Reader())
        assert len(message) > 20
        assert "{" not in title + message
        assert "{" not in told(notice, {}, Reader())[1]


@pytest.mark.parametrize(
    ("reader", "amount", "day"),
    [
        (Reader(), "$1,249.90", "November 1, 2026"),
        (Reader("de_DE", "Europe/Berlin"), "1.249,90\N{NO-BREAK SPACE}$", "1. November 2026"),
        (Reader("en-GB", "America/New_York"), "US$1,249.90", "1 November 2026"),
        (Reader("en_US", "America/Los_Angeles"), "$1,249.90", "October 31, 2026"),
        (Reader("ja_JP", "Asia/Tokyo"), "$1,249.90", "2026年11月1日"),
        (Reader("xx_YY", "Mars/Olympus"), "$1,249.90", "November 1, 2026"),
        (Reader("en_US", "Europe"), "$1,249.90", "November 1, 2026"),  # a folder among the zones' files
        (Reader("en_US", "/etc/passwd"), "$1,249.90", "November 1, 2026"),
    ],
)
def test_amounts_and_dates_are_the_readers(reader: Reader, amount: str, day: str) -> None:
    assert told(Notice.RENEWAL_REQUIRED, RENEWAL, reader)[1] == (
        f"Your subscription to Pro ends on {day}. Renew it for {amount}, and it goes on without a break."
    )


@pytest.mark.parametrize(
    ("value", "currency", "read"),
    [
        ("12.345678901234567890", "eth", "12.34567890123456789 ETH"),
        ("25", "usdc", "25 USDC"),
        ("1200", "jpy", "¥1,200"),
        ("1.5", "kwd", "KWD1.500"),
        ("nothing", "usd", ""),
    ],
)
def test_no_digit_of_a_token_is_lost(value: str, currency: str, read: str) -> None:
    assert Reader().amount(value, currency) == read


def test_a_sentence_without_its_facts_is_left_out() -> None:
    known = {key: value for key, value in RENEWAL.items() if key != "period_end"} | {"amount": "many"}
    assert told(Notice.SUBSCRIPTION_ACTIVATED, known, Reader())[1] == "Thank you. Pro is yours."
    assert told(Notice.RENEWAL_REQUIRED, known, Reader())[1] == ""


async def test_one_alert_whatever_the_number_of_attempts(db: Database, owner: Owner, user_id: UUID) -> None:
    await owner.execute(
        "insert into notification_preferences (user_id, locale, timezone) values ($1, 'de_DE', 'Europe/Berlin')",
        user_id,
    )
    data: dict[str, Any] = {"userId": str(user_id), "type": "renewal_required", "context": RENEWAL}
    payload = PaymentNotification.model_validate(data)
    job = a_job(data, type_="payment_notification")
    first = await payment_notification(payload, job=job, db=db)
    assert await payment_notification(payload, job=job, db=db) == first
    rows = await owner.fetch("select id, type, user_id, data ->> 'message' as message from alerts_jobs")
    assert [(row["id"], row["type"], row["user_id"]) for row in rows] == [
        (first["alert_job_id"], "notify", user_id)
    ]
    assert "1. November 2026" in rows[0]["message"]
