"""Money arrives in our tables to the last unit, whatever the currency, and never through a float."""

from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.stripe.double import StripeDouble
from handlers.clients.stripe_objects import money
from tests.handlers.conftest import Attempt, Owner

AMOUNTS = [
    (2900, "usd", "29.00"),
    (1, "eur", "0.01"),
    (0, "usd", "0.00"),
    (500, "jpy", "500"),
    (9_007_199_254_740_993, "jpy", "9007199254740993"),
    (1_234, "kwd", "1.234"),
    (10, "bhd", "0.010"),
    (99_999_999_999_999_999, "usd", "999999999999999.99"),
    (1_000, "isk", "10.00"),
    (1_000, "ugx", "10.00"),
]


@pytest.mark.parametrize(("minor", "currency", "amount"), AMOUNTS)
async def test_an_amount_is_stored_exactly(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner, minor: int, currency: str, amount: str
) -> None:
    story = double.story(user_id, tells_user="subscription", amount=minor, currency=currency)
    paid = story.begin()[4]
    await follow(paid)
    row = await owner.fetchrow("select amount::text, currency from payments")
    assert row is not None
    assert tuple(row) == (amount, currency)


@given(st.integers(0, 10**18), st.sampled_from(["usd", "jpy", "kwd"]))
def test_no_amount_is_rounded(minor: int, currency: str) -> None:
    digits = {"usd": 2, "jpy": 0, "kwd": 3}[currency]
    assert money(minor, currency) * 10**digits == minor
    assert isinstance(money(minor, currency), Decimal)
