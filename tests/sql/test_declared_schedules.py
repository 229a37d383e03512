"""What code declares becomes rows, and leaves to operators what is theirs."""

import json
from datetime import datetime, timedelta
from typing import Any

from tests.sql.calls import Connection
from tests.sql.schedule_calls import HOUR, Schedules, set_clock

CODE = {"name": "report", "queue": "maintenance", "type": "report", "cron": "0 8 * * *"}


async def test_code_takes_over_its_own_changes_and_leaves_those_of_operators(
    schedules: Schedules, now: datetime
) -> None:
    async def row() -> tuple[Any, ...]:
        found = await schedules.connection.fetchrow(
            "select cron, timezone, missed, data, paused from schedules"
        )
        assert found is not None
        return tuple(found)

    assert await schedules.declare(CODE) == []
    assert await row() == ("0 8 * * *", "UTC", "once", "{}", False)
    assert not (await schedules.state())["changed"]
    await schedules.declare({**CODE, "timezone": "Europe/Berlin", "missed": "all"})
    assert await row() == ("0 8 * * *", "Europe/Berlin", "all", "{}", False)
    await schedules.connection.execute("update schedules set cron = '0 9 * * *', paused = true")
    assert (await schedules.state())["changed"]
    await schedules.declare({**CODE, "cron": "0 7 * * *", "data": {"full": True}})
    assert await row() == ("0 9 * * *", "Europe/Berlin", "once", '{"full": true}', True)
    await schedules.connection.execute("delete from schedules")
    await schedules.declare(CODE)
    assert await row() == ("0 8 * * *", "UTC", "once", "{}", False)


async def test_what_becomes_of_slots_that_overlap_is_declared_and_changed_like_all_else(
    schedules: Schedules, now: datetime
) -> None:
    """A version before, which does not know the word, lets them overlap."""

    async def overlap() -> tuple[str, bool]:
        state = await schedules.state()
        return state["overlap"], state["changed"]

    await schedules.declare(CODE)
    assert await overlap() == ("allow", False)
    await schedules.declare({**CODE, "overlap": "skip"})
    assert await overlap() == ("skip", False)
    await schedules.connection.execute("update schedules set overlap = 'allow'")
    assert await overlap() == ("allow", True)
    await schedules.declare({**CODE, "overlap": "skip", "missed": "all"})
    assert await overlap() == ("allow", True)
    await schedules.declare(CODE)
    assert await overlap() == ("allow", False)


async def test_a_declaration_that_is_wrong_or_has_an_operators_name_hinders_no_other(
    schedules: Schedules, now: datetime
) -> None:
    await schedules.add()
    refused = await schedules.declare(
        {**CODE, "name": "one"}, {**CODE, "name": "lost", "queue": "nowhere"}, {**CODE, "missed": "all"}
    )
    assert [(one["name"], one["why"].partition(":")[0]) for one in refused] == [
        ("lost", "schedule lost"),
        ("one", "a row of the table schedules has its name"),
    ]
    assert await schedules.value("select count(*) from schedules where origin = 'code'") == 1


async def test_an_interval_in_code_begins_with_the_slot_that_came_last_and_cron_with_the_next(
    schedules: Schedules, now: datetime
) -> None:
    hourly = {"name": "hourly", "queue": "maintenance", "type": "report", "every_seconds": 3600}
    await schedules.declare(CODE, hourly, {**hourly, "name": "skips", "missed": "skip"})
    settled = {one["name"]: datetime.fromisoformat(one["settled_to"]) for one in await schedules.due()}
    assert settled == {"report": now, "hourly": now - HOUR, "skips": now}


async def test_a_declaration_that_is_gone_from_all_code_ends_within_a_day_and_comes_back_with_it(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    await schedules.declare(CODE)
    await set_clock(owner, now + 23 * HOUR)
    assert len(await schedules.due()) == 1
    await schedules.declare(CODE)
    await set_clock(owner, now + 47 * HOUR)
    assert await schedules.due() == []
    assert json.loads(await schedules.value("select due_schedules()"))["undeclared"] == ["report"]
    assert "no process has declared it since 2027-03-29 11:00 UTC" in (await schedules.state())["problem"]
    await schedules.declare(CODE)
    assert len(await schedules.due()) == 1


async def test_a_rule_that_changes_loses_no_slot_of_the_one_before(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    """A slot came while no process was there, and the release that changes its rule is the first to be there again."""
    eight = now.replace(day=29, hour=8)
    nine = {**CODE, "cron": "0 9 * * *", "data": {"full": True}}
    await schedules.declare(CODE)
    (seen,) = await schedules.due()
    await schedules.run(seen, next_in=20 * HOUR)
    await set_clock(owner, eight + timedelta(minutes=30))
    assert await schedules.put_off(nine) == ["report"]
    assert await schedules.put_off(nine) == ["report"], "however often it is said"
    (seen,) = await schedules.due()
    assert await schedules.put_off(nine) == ["report"], (
        "and what another process has seen meanwhile stays as it is"
    )
    assert seen["cron"] == "0 8 * * *"
    assert not (await schedules.run(seen, eight, next_in=24 * HOUR))["moved"]
    assert await schedules.jobs() == [("report", "report@2027-03-29T08:00Z", {"full": True})], (
        "all else is new"
    )
    assert await schedules.put_off(nine) == []
    (seen,) = await schedules.due()
    assert (seen["cron"], datetime.fromisoformat(seen["settled_to"])) == (
        "0 9 * * *",
        eight + timedelta(minutes=30),
    )
    assert not (await schedules.state())["changed"]


async def test_a_changed_rule_waits_for_no_slot_of_a_pause_nor_for_one_that_is_refused_again_and_again(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    never = {**CODE, "cron": "0 0 30 2 *"}
    changed = [{**CODE, "cron": "0 9 * * *"}, {**CODE, "name": "held", "cron": "0 9 * * *"}]
    await schedules.declare(never, {**CODE, "name": "held"})
    await owner.execute("update schedules set paused = true where name = 'held'")
    for _ in range(3):
        await set_clock(owner, await owner.fetchval("select clock_now() + interval '1 minute'"))
        assert await schedules.put_off(*changed) == ["report"]
        (seen,) = await schedules.due()
        await schedules.run(seen, problem="cron names a day that does not come")
    assert await schedules.put_off(*changed) == []
    assert await schedules.value("select array_agg(distinct cron) from schedules") == ["0 9 * * *"]


async def test_a_changed_rule_that_comes_after_a_day_loses_no_slot_of_the_one_before(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    await schedules.declare(CODE)
    await set_clock(owner, now + 60 * HOUR)
    assert await schedules.due() == []
    assert await schedules.put_off({**CODE, "cron": "0 9 * * *"}) == ["report"]
    (seen,) = await schedules.due()
    assert datetime.fromisoformat(seen["settled_to"]) == now
