"""When a market is open: US equities with their holidays, or always. Time is given; no clock is asked here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from paper.words import Hours, Settings

_DAY = timedelta(days=1)
NEW_YORK = ZoneInfo("America/New_York")
_EARLY = time(13)
US_HOLIDAYS: Mapping[date, time | None] = {
    date.fromisoformat(day): _EARLY if early else None
    for early, days in (
        (False, "2026-01-01 2026-01-19 2026-02-16 2026-04-03 2026-05-25 2026-06-19 2026-07-03"),
        (False, "2026-09-07 2026-11-26 2026-12-25"),
        (True, "2026-11-27 2026-12-24"),
        (False, "2027-01-01 2027-01-18 2027-02-15 2027-03-26 2027-05-31 2027-06-18 2027-07-05"),
        (False, "2027-09-06 2027-11-25 2027-12-24"),
        (True, "2027-11-26"),
        (False, "2028-01-17 2028-02-21 2028-04-14 2028-05-29 2028-06-19 2028-07-04 2028-09-04"),
        (False, "2028-11-23 2028-12-25"),
        (True, "2028-07-03 2028-11-24"),
    )
    for day in days.split()
}
"""Days without trading at all, and those that end at 13:00. Later years: add them here, or in an account's settings."""


class Calendar(Protocol):
    """The hours of one market."""

    def at(self, now: datetime) -> Hours:
        """How it stands at a moment. A session includes its beginning and not its end."""
        ...

    def day_ends(self, now: datetime) -> datetime:
        """When a day order that is accepted at a moment expires."""
        ...

    def opening(self, after: datetime, until: datetime) -> datetime | None:
        """The first opening after a moment and not after another one."""
        ...


@dataclass(frozen=True, slots=True)
class Always:
    """A market that never closes. Its day ends at midnight UTC."""

    def at(self, now: datetime) -> Hours:
        """Open; what a session would be, a day is."""
        day_ends = self.day_ends(now)
        return Hours(is_open=True, changes_at=None, opens_at=day_ends, closes_at=day_ends, now=now)

    def day_ends(self, now: datetime) -> datetime:
        """The next midnight."""
        return datetime.combine(now.astimezone(UTC).date() + _DAY, time(), UTC)

    def opening(self, after: datetime, until: datetime) -> datetime | None:  # noqa: ARG002
        """None: it is open already."""
        return None


@dataclass(frozen=True, slots=True)
class Sessions:
    """A market with one session on each weekday that is no holiday."""

    zone: ZoneInfo = NEW_YORK
    opens: time = time(9, 30)
    closes: time = time(16)
    holidays: Mapping[date, time | None] | None = None

    def at(self, now: datetime) -> Hours:
        """Open within a session."""
        start, end = next(self._from(now))
        if now < start:
            return Hours(is_open=False, changes_at=start, opens_at=start, closes_at=end, now=now)
        next_start, _ = next(self._from(end))
        return Hours(is_open=True, changes_at=end, opens_at=next_start, closes_at=end, now=now)

    def day_ends(self, now: datetime) -> datetime:
        """The end of this session, or of the next one."""
        return next(self._from(now))[1]

    def opening(self, after: datetime, until: datetime) -> datetime | None:
        """The beginning of the next session, if that comes in time."""
        starts = (start for start, _ in self._from(after) if start > after)
        found = next(starts)
        return found if found <= until else None

    def _from(self, now: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The sessions that end after a moment, in order."""
        holidays = US_HOLIDAYS if self.holidays is None else self.holidays
        day = now.astimezone(self.zone).date()
        while True:
            closes = holidays.get(day, self.closes)
            if day.weekday() < 5 and closes is not None:
                start, end = (
                    datetime.combine(day, t, self.zone).astimezone(UTC) for t in (self.opens, closes)
                )
                if end > now:
                    yield start, end
            day += _DAY


def calendar_of(settings: Settings) -> Calendar:
    """The calendar of an account's market."""
    return Always() if settings.market == "always" else Sessions(holidays=settings.holidays)
