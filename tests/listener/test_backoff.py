"""A backoff doubles up to its cap and never breaks, whatever it is asked."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.backoff import exponential

SECOND = timedelta(seconds=1)


def middle() -> float:
    return 0.5


def test_it_doubles_up_to_the_cap() -> None:
    delay = exponential(SECOND, cap=10 * SECOND, draw=middle)
    assert [delay(n) / SECOND for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]


@pytest.mark.parametrize(("drawn", "seconds"), [(0.0, 8), (0.5, 10), (1.0, 12)])
def test_jitter_spreads_either_way(drawn: float, seconds: float) -> None:
    delay = exponential(10 * SECOND, jitter=0.2, draw=lambda: drawn)
    assert delay(1) / SECOND == pytest.approx(seconds)


@given(
    failed=st.integers(1, 1_000_000),
    base=st.timedeltas(timedelta(milliseconds=1), timedelta(days=400)),
    cap=st.timedeltas(timedelta(milliseconds=1), timedelta(days=400)),
)
def test_no_number_of_failures_and_no_base_overflows(failed: int, base: timedelta, cap: timedelta) -> None:
    delay = exponential(base, cap=cap, jitter=0)(failed)
    assert timedelta() < delay <= cap
