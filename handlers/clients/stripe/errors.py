"""What goes wrong at Stripe, in our words: never again, or later; and how much later."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from listener import Job, Reject, Snooze

SHORTEST: Final = timedelta(seconds=5)
LONGEST: Final = timedelta(minutes=15)
PATIENCE: Final = timedelta(days=3)
"""How long a job waits for Stripe; Stripe itself delivers an event for as long."""


class Missing(Exception):
    """Stripe has no such object."""


class StripeAway(Exception):
    """Stripe cannot answer now. `delay` is the time that it named to come back, if any."""

    def __init__(self, why: str, delay: timedelta | None = None) -> None:
        super().__init__(why)
        self.delay = delay


def come_back(away: StripeAway, job: Job) -> Snooze:
    """The same job, when Stripe says; else the later the longer it has waited. Raises `away` when patience ends.

    A little later than that, so that those who wait for the same thing do not all come back at once.
    """
    age = datetime.now(UTC) - job.created_at
    if age > PATIENCE:
        raise away
    growing = min(max(age, SHORTEST), LONGEST)  # 5, 10, 20 seconds …
    return Snooze((away.delay or growing) * random.uniform(1, 1.25), str(away))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns the library's errors into ours: Reject for what no retry mends, StripeAway for what time mends, Missing."""
    import stripe

    try:
        yield
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise Reject(
            f"Stripe refused our key (HTTP {error.http_status}): check STRIPE_SECRET_KEY, then replay this job."
        ) from None
    except stripe.InvalidRequestError as error:
        if (
            error.code == "resource_missing"
        ):  # not any 404: a wrong address would look like objects that are gone
            raise Missing from None
        raise Reject(
            f"Stripe did not understand our request for {what} (HTTP {error.http_status}, "
            f"{error.code or 'no code'}, {error.request_id or 'no request id'})."
        ) from None
    except stripe.RateLimitError as error:
        raise StripeAway("Stripe is limiting our rate.", _named(error.headers)) from None
    except stripe.APIConnectionError:
        raise StripeAway("Stripe cannot be reached.") from None
    except stripe.APIError as error:
        raise StripeAway(f"Stripe has a failure (HTTP {error.http_status}).", _named(error.headers)) from None


def _named(headers: Mapping[str, str] | None) -> timedelta | None:
    seconds = (headers or {}).get("retry-after", "")
    return timedelta(seconds=int(seconds)) if seconds.isascii() and seconds.isdigit() else None
