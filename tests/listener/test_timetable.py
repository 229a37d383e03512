"""Slots come as cron users expect, in every zone, whenever clocks are set, and by policy when they were missed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.timetable import AT_ONCE, LATE, LOOKS_BACK, MOST, Rule, RuleError, settle

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
ZONES = (
    "UTC Asia/Kolkata Europe/Berlin Europe/London America/New_York America/Havana America/Santiago America/Nuuk"
    " Atlantic/Azores Africa/Cairo Africa/Casablanca Asia/Beirut Australia/Lord_Howe Australia/Adelaide Pacific/Chatham"
).split()
NOON = datetime(2027, 5, 5, 12, 0, tzinfo=UTC)


def table() -> Iterator[tuple[str, str, str, str]]:
    """The rows of the page: (zone, day, cron, what comes on that day, by the clocks there)."""
    page = Path(__file__).resolve().parents[2] / "docs" / "schedules.md"
    for line in page.read_text().splitlines():
        if match := re.fullmatch(r"\| (\w+/\w+) \| (\d{4}-\d\d-\d\d) \| `(.+?)` \| (.+?) \|", line):
            yield match[1], match[2], match[3], match[4]


def on_the_clocks(zone: str, day: date, rule: Rule) -> list[str]:
    """The slots of one local date, as its clocks show them, with their offset."""
    tz = ZoneInfo(zone)
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC) - DAY
    slots = [slot.astimezone(tz) for slot in rule.come(begin, begin + 3 * DAY)[0]]
    return [f"{slot:%H:%M%z}" for slot in slots if slot.date() == day]


@pytest.mark.parametrize(("zone", "day", "cron", "comes"), list(table()))
def test_the_table_of_the_page_is_what_happens(zone: str, day: str, cron: str, comes: str) -> None:
    wanted = [] if comes == "nothing" else comes.split(", ")
    assert on_the_clocks(zone, date.fromisoformat(day), Rule(cron=cron, timezone=zone)) == wanted


def test_the_table_has_several_zones_and_both_changes_of_a_year_in_each() -> None:
    days: dict[str, set[str]] = {}
    for zone, day, _, _ in table():
        days.setdefault(zone, set()).add(day)
    assert len(days) >= 4
    for zone, changes in days.items():
        noons = [datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone)) for day in changes]
        offsets = [[(noon + n * DAY).utcoffset() or timedelta() for n in (-1, 1)] for noon in noons]
        assert sorted(after > before for before, after in offsets) == [False, True], zone
        assert all(before != after for before, after in offsets), zone


@dataclass(frozen=True)
class Fields:
    """A cron expression, and by hand what each of its fields means."""

    text: str
    minutes: frozenset[int] = field(repr=False)
    hours: frozenset[int] = field(repr=False)
    days: frozenset[int] = field(repr=False)
    months: frozenset[int] = field(repr=False)
    weekdays: frozenset[int] = field(repr=False)

    def names(self, local: datetime) -> bool:
        """Whether the clock shows what it says."""
        in_month = local.day in self.days
        in_week = local.isoweekday() % 7 in self.weekdays
        _, _, dom, _, dow = self.text.split()
        on_day = in_month and in_week if "*" in {dom[0], dow[0]} else in_month or in_week
        return (
            local.minute in self.minutes
            and local.hour in self.hours
            and local.month in self.months
            and on_day
        )

    @property
    def follows_the_clock(self) -> bool:
        minute, hour, *_ = self.text.split()
        return "*" in {minute[0], hour[0]}


@st.composite
def a_field(draw: st.DrawFn, low: int, high: int) -> tuple[str, frozenset[int]]:
    every = range(low, high + 1)
    match draw(st.integers(0, 4)):
        case 0:
            return "*", frozenset(every)
        case 1:
            step = draw(st.integers(1, high))
            return f"*/{step}", frozenset(every[::step])
        case 2:
            first, last = sorted(draw(st.tuples(*[st.integers(low, high)] * 2)))
            return f"{first}-{last}", frozenset(range(first, last + 1))
        case _:
            some = draw(st.sets(st.integers(low, high), min_size=1, max_size=3))
            return ",".join(map(str, some)), frozenset(some)


@st.composite
def expressions(draw: st.DrawFn) -> Fields:
    drawn = [draw(a_field(0, 59)), draw(a_field(0, 23))]
    drawn += [draw(st.one_of(st.just(("*", frozenset(range(1, 32)))), a_field(1, 31)))]
    drawn += [("*", frozenset(range(1, 13)))]
    drawn += [draw(st.one_of(st.just(("*", frozenset(range(7)))), a_field(0, 6)))]
    texts, sets = zip(*drawn, strict=True)
    return Fields(" ".join(texts), *sets)


def changes(zone: str) -> list[datetime]:
    """The hours in which a zone's clocks are set, or are not, in two years."""
    tz = ZoneInfo(zone)
    hours = [datetime(2026, 6, 1, tzinfo=UTC) + n * HOUR for n in range(2 * 365 * 24)]
    offsets = [hour.astimezone(tz).utcoffset() for hour in hours]
    return [hour for hour, (a, b) in zip(hours, pairwise(offsets), strict=False) if a != b] or [NOON]


CHANGES = {zone: changes(zone) for zone in ZONES}


def looked_up(fields: Fields, zone: str, minutes: Sequence[datetime]) -> list[datetime]:
    """What comes in these minutes, by looking at the clock on the wall in each of them."""
    tz = ZoneInfo(zone)
    shown = [(minute, minute.astimezone(tz).replace(tzinfo=None)) for minute in minutes]
    if fields.follows_the_clock:
        return [minute for minute, local in shown if fields.names(local)]
    first: dict[datetime, datetime] = {}
    for minute, local in shown:
        first.setdefault(local, minute)
    found = {minute for local, minute in first.items() if fields.names(local)}
    for (_, before), (minute, local) in pairwise(shown):
        gap = [before + n * MINUTE for n in range(1, (local - before) // MINUTE)]
        if any(fields.names(each) for each in gap):
            found.add(minute)
    return sorted(found)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), fields=expressions(), zone=st.sampled_from(ZONES))
def test_slots_are_what_the_clock_on_the_wall_says(data: st.DataObject, fields: Fields, zone: str) -> None:
    change = data.draw(st.sampled_from(CHANGES[zone]))
    begin = change.replace(minute=0) - 14 * HOUR
    minutes = [begin + n * MINUTE for n in range(30 * 60)]
    rule = Rule(cron=fields.text, timezone=zone)
    wanted = [slot for slot in looked_up(fields, zone, minutes) if slot > begin + HOUR]
    assert rule.come(begin + HOUR, minutes[-1]) == (wanted[-MOST:], len(wanted))
    # From wherever one asks: nothing twice, nothing left out.
    moment = data.draw(st.sampled_from(minutes[60:])) + data.draw(st.timedeltas(timedelta(), MINUTE))
    later = [slot for slot in wanted if slot > moment]
    if later:
        assert rule.after(moment) == later[0]


@settings(deadline=None)
@given(
    now=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    seconds=st.sampled_from([1, 7, 60, 300, 420, 900, 3600, 5400, 86400, 604800]),
)
def test_an_interval_comes_at_its_multiples_in_utc(now: datetime, seconds: int) -> None:
    rule = Rule(every=timedelta(seconds=seconds))
    slot = rule.after(now)
    assert now < slot <= now + timedelta(seconds=seconds)
    assert slot.timestamp() % seconds == 0
    assert rule.come(slot - timedelta(seconds=seconds), slot) == ([slot], 1)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if 86400 % seconds == 0:
        assert (slot - midnight) % timedelta(seconds=seconds) == timedelta(), (
            "as it was before there was a table"
        )


@pytest.mark.parametrize(
    ("cron", "timezone", "words"),
    [
        ("* * * *", "UTC", "five fields"),
        ("* * * * * *", "UTC", "five fields"),
        ("60 * * * *", "UTC", "Bad minute"),
        ("0 0 31 2 *", "UTC", "Bad day-of-month"),
        ("0 0 30 2 *", "UTC", "Bad day-of-month"),
        ("* * */20 * 1L", "UTC", "a day that does not come"),
        ("0 0 * * *", "Mars/Olympus", "time zone Mars/Olympus is not known here"),
        ("0 0 * * *", "Europe", "time zone Europe is not known here"),
        ("0 0 * * *", "../etc/passwd", "is not known here"),
    ],
)
def test_a_wrong_rule_is_refused_with_a_sentence(cron: str, timezone: str, words: str) -> None:
    with pytest.raises(RuleError, match=re.escape(words)):
        Rule(cron=cron, timezone=timezone).after(NOON)


HOURLY = Rule(cron="0 * * * *")


@pytest.mark.parametrize(
    ("missed", "slots", "left_out"),
    [("skip", [], 5), ("once", [0], 4), ("all", [4, 3, 2, 1, 0], 0)],
)
def test_missed_slots_are_skipped_run_once_or_all_run(missed: str, slots: list[int], left_out: int) -> None:
    now = NOON + 30 * MINUTE
    found = settle(HOURLY, missed, NOON - 5 * HOUR, now)
    assert list(found.slots) == [NOON - n * HOUR for n in slots]
    assert (found.settles_to, found.next_slot, found.left_out) == (NOON, NOON + HOUR, left_out)


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
@pytest.mark.parametrize("late", [timedelta(), LATE])
def test_a_slot_that_is_served_in_time_is_no_missed_one(missed: str, late: timedelta) -> None:
    found = settle(HOURLY, missed, NOON - HOUR, NOON + late)
    assert (found.slots, found.left_out) == ((NOON,), 0)


def test_a_slot_that_came_twice_as_late_is_a_missed_one() -> None:
    assert settle(HOURLY, "skip", NOON - HOUR, NOON + 2 * LATE).slots == ()


@pytest.mark.parametrize("rule", [Rule(cron="* * * * *"), Rule(every=MINUTE)])
def test_of_very_many_missed_slots_the_last_thousand_are_made_up_for_portion_by_portion(rule: Rule) -> None:
    made: list[datetime] = []
    settled_to, left_out = NOON - 3 * MOST * MINUTE, 0
    while True:
        found = settle(rule, "all", settled_to, NOON)
        assert len(found.slots) <= AT_ONCE
        made += found.slots
        left_out += found.left_out
        settled_to = found.settles_to
        if found.next_slot > NOON:
            break
    assert made == [NOON - n * MINUTE for n in reversed(range(MOST))]
    assert left_out == 2 * MOST


def test_a_schedule_that_nobody_served_for_years_goes_on_with_its_next_slot() -> None:
    yearly = Rule(cron="0 0 1 1 *")
    found = settle(yearly, "once", NOON - LOOKS_BACK, NOON)
    assert found.slots == (datetime(2027, 1, 1, tzinfo=UTC),)
    leap = Rule(cron="0 0 29 2 *")
    found = settle(leap, "all", datetime(2023, 1, 1, tzinfo=UTC), NOON)
    assert (found.slots, found.next_slot) == ((), datetime(2028, 2, 29, tzinfo=UTC))


def test_a_clock_that_was_set_back_brings_nothing_again() -> None:
    found = settle(HOURLY, "all", NOON, NOON - 3 * HOUR)
    assert (found.slots, found.settles_to, found.next_slot) == ((), NOON, NOON + HOUR)
    assert settle(Rule(every=HOUR), "all", NOON, NOON - 3 * HOUR).left_out == 0
