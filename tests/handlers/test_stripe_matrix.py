"""Each event of the table arrives signed at the real door, and a real worker makes of it what the table says."""

from uuid import UUID, uuid4

import pytest

from devstack.stripe.double import StripeDouble
from handlers.payment.stripe_webhook import LOOKS
from tests.handlers.conftest import Attempt, Json, Owner
from tests.handlers.stripe_cases import ALERTS, CASES, SHOWN, TOLD, Case
from tests.handlers.stripe_door import send
from tests.waiting import until

PARTS = 4
"""A worker starts for each, and none takes long even where the machine is busy."""


def test_every_event_that_is_followed_is_in_the_table() -> None:
    assert {case.event for case in CASES} == {*LOOKS, "invoice.created"}


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("thin", [False, True], ids=["common events", "thin events"])
async def test_each_event_changes_and_tells_what_the_table_says(
    door: str, follow: Attempt, double: StripeDouble, owner: Owner, thin: bool, part: int
) -> None:
    wrong: list[str] = []
    for number, case in list(enumerate(CASES))[part::PARTS]:
        found, expected = await _play(case, door, follow, double, owner, thin=thin)
        if found != expected:
            wrong.append(f"{number} {case.event}: {found} and not {expected}")
    assert not wrong, "\n".join(wrong)


async def _play(
    case: Case, door: str, follow: Attempt, double: StripeDouble, owner: Owner, *, thin: bool
) -> tuple[object, object]:
    user_id = uuid4()
    double.books.sessions.clear()
    story = double.story(user_id, tells_user="subscription")
    for step in case.before:
        for event in step(story):
            await follow(event)
    told, alerts = await _kinds(owner, TOLD, user_id), await _kinds(owner, ALERTS)
    event = next(event for event in case.then(story) if event["type"] == case.event)
    delivered = double.books.thin(event) if thin else event
    status, answer = await send(door, *double.signed(delivered))
    assert status == 200, answer

    async def has_ended() -> bool:
        return bool(
            await owner.fetchval("select finished_at is not null from jobs where id = $1", answer["id"])
        )

    await until("the job has ended", has_ended)
    row = await owner.fetchrow("select status, last_error from jobs where id = $1", answer["id"])
    assert row is not None
    assert row["status"] == "completed", f"{case.event}: {row['last_error']}"
    shown = await owner.fetchrow(SHOWN, user_id)
    assert shown is not None
    new = sorted(await _kinds(owner, TOLD, user_id))
    for kind in told:
        new.remove(kind)
    raised = sorted(await _kinds(owner, ALERTS))
    for kind in alerts:
        raised.remove(kind)
    return (
        ({name: shown[name] for name in case.shows}, new, raised),
        (case.shows, sorted(case.tells), sorted(case.alerts)),
    )


async def _kinds(owner: Owner, query: str, *arguments: UUID) -> list[str]:
    return [row["kind"] for row in await owner.fetch(query, *arguments)]


async def test_an_event_told_twice_as_common_and_as_thin_is_told_to_the_user_once(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    events: list[Json] = double.story(user_id, tells_user="subscription").begin()
    for event in events:
        await follow(event)
        await follow(double.books.thin(event))
    told = sorted(await _kinds(owner, TOLD, user_id))
    assert told == ["payment_received", "subscription_activated"]
    assert await owner.fetchval("select count(*) from payments") == 1
