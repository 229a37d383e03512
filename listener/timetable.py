"""When the slots of a schedule come: pure functions of its rule and of moments, whatever a clock of this machine says.

The words of a cron expression are read by cronsim. The walk through days is ours, since it must hold in every zone:

- An expression whose minute and hour are both given ("30 2 * * *") comes once a day, whatever clocks do: a time that is
  left out when they are set forward comes right after the gap, one that comes twice is the first of the two.
- One with a star in front of its minute or hour ("*/15 * * * *") follows the clock on the wall: what is left out does
  not come, what the clock shows twice comes twice.

That is what cron does on Debian. An interval ("every 5 minutes") knows no zone: its slots are its multiples in UTC.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_LONGEST_WAIT = timedelta(days=366 * 50)
LATE = timedelta(seconds=60)
"""How late a slot may be run by a schedule that skips what was missed."""
MOST = 1000
"""How many missed slots are made up for at the most."""
LOOKS_BACK = timedelta(days=400)
"""Nothing is made up for that was missed before."""
AT_ONCE = 100
"""How many slots of one schedule are handed on together."""


class Missed(StrEnum):
    """What becomes of slots for which no process was there in time."""

    SKIP = "skip"
    """Nothing."""
    ONCE = "once"
    """One job, for the last of them."""
    ALL = "all"
    """A job for each, for the last `MOST` of them."""


class RuleError(ValueError):
    """The rule names no moments; the sentence says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When slots come: a cron expression in a zone, or an interval."""

    cron: str | None = None
    every: timedelta | None = None
    timezone: str = "UTC"

    def after(self, moment: datetime) -> datetime:
        """The first slot after a moment. Raises RuleError if the rule is wrong, or its next slot in 50 years."""
        for slot in self._slots(moment):
            return slot
        raise RuleError("cron names a day that does not come")

    def come(self, since: datetime, until: datetime) -> tuple[list[datetime], int]:
        """The slots after `since` up to and with `until`: the last `MOST` of them, and how many there are in all."""
        if self.every is not None:
            count = (until - _EPOCH) // self.every - (since - _EPOCH) // self.every
            since = max(since, until - self.every * MOST)
            return list(takewhile(lambda slot: slot <= until, self._slots(since))), max(count, 0)
        newest: deque[datetime] = deque(maxlen=MOST)
        count = 0
        for slot in takewhile(lambda slot: slot <= until, self._slots(max(since, until - LOOKS_BACK))):
            newest.append(slot)
            count += 1
        return list(newest), count

    def _slots(self, after: datetime) -> Iterator[datetime]:
        if self.every is not None:
            slot = _EPOCH + (after - _EPOCH) // self.every * self.every
            while True:
                slot += self.every
                yield slot
        words, zone = _words(self.cron or ""), _zone(self.timezone)
        last = after = after.astimezone(UTC)
        day = after.astimezone(zone).date() - _DAY
        end = day + _LONGEST_WAIT
        while day < end:
            if day.month in words.months and words.match_day(day):
                for slot in _slots_of_day(words, zone, day, last):
                    if slot > last:  # not the same moment twice: it may be where two times of a gap end up
                        last = slot
                        end = day + _LONGEST_WAIT
                        yield slot
            day += _DAY


@lru_cache(maxsize=4096)
def _words(cron: str) -> CronSim:
    if len(cron.split()) != 5:
        raise RuleError("cron has five fields: minute, hour, day of the month, month, day of the week")
    try:
        return CronSim(cron, _EPOCH)
    except CronSimError as error:
        raise RuleError(f"cron is not understood ({error})") from None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # the last for a folder of zones
        raise RuleError(f"the time zone {name} is not known here") from None


def _slots_of_day(words: CronSim, zone: ZoneInfo, day: date, after: datetime) -> Iterator[datetime]:
    """The slots that have this local date, in their order; those before `after` may be missing."""
    begin, end = (datetime.combine(each, time(), zone).utcoffset() for each in (day, day + _DAY))
    if begin == end and begin is not None:
        here = after.replace(tzinfo=None) + begin
        first = here.hour if here.date() == day else 0
        if here.date() <= day:
            for hour in sorted(words.hours):
                for minute in sorted(words.minutes) if hour >= first else ():
                    yield (datetime.combine(day, time(hour, minute)) - begin).replace(tzinfo=UTC)
        return
    star = words.parts[1].startswith("*") or words.parts[2].startswith("*")
    times = (datetime.combine(day, time(hour, minute)) for hour in words.hours for minute in words.minutes)
    yield from sorted({slot for local in times for slot in _moments(local, zone, star=star)})


def _moments(local: datetime, zone: ZoneInfo, *, star: bool) -> Iterator[datetime]:
    """When the clocks of a zone show a time: once, or on the day on which they are set twice or never."""
    shown = [
        moment
        for fold in (0, 1)
        if (moment := local.replace(tzinfo=zone, fold=fold).astimezone(UTC))
        .astimezone(zone)
        .replace(tzinfo=None)
        == local
    ]
    if star:
        yield from shown
    elif shown:
        yield shown[0]
    else:
        yield from _moments(local + timedelta(minutes=1), zone, star=star)


@dataclass(frozen=True, slots=True)
class Settled:
    """What becomes of the slots that have come."""

    slots: tuple[datetime, ...]
    """To be run, oldest first."""
    settles_to: datetime
    """The last slot that is settled with them."""
    next_slot: datetime
    """The first one after that; it may have come already."""
    left_out: int
    """How many get no job."""


def settle(rule: Rule, missed: str, settled_to: datetime, now: datetime) -> Settled:
    """Decides about the slots after `settled_to` that have come by `now`. Raises RuleError."""
    come, count = rule.come(settled_to, now)
    too_many = count - len(come)
    match missed:
        case Missed.ALL:
            wanted = come = come[:AT_ONCE]
        case Missed.SKIP:
            wanted = [slot for slot in come[-1:] if now - slot <= LATE]
        case Missed.ONCE:
            wanted = come[-1:]
        case _:
            raise RuleError(f"what becomes of missed slots is not understood here ({missed})")
    settles_to = come[-1] if come else settled_to
    next_slot = rule.after(max(settles_to, now - LOOKS_BACK))
    return Settled(tuple(wanted), settles_to, next_slot, too_many + len(come) - len(wanted))
