"""How fast a channel is used: all processes together keep to it, and what has to wait comes back in turn."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

from handlers.clients.alerts.delivery import Pace, Sending
from handlers.clients.alerts.told import Hold, Later, Refused, Sent, Told
from listener.outcomes import Completed, Outcome, Snooze
from tests.handlers.alerts.conftest import ALERT, Office, Person, Post
from tests.handlers.conftest import Owner

MoveClock = Callable[[timedelta], Awaitable[None]]
SECOND = timedelta(seconds=1)


def delays(outcomes: list[Outcome]) -> list[float]:
    """How long each of those that wait does."""
    return [round(one.delay.total_seconds(), 1) for one in outcomes if isinstance(one, Snooze)]


async def tell(office: Office, *users: UUID) -> None:
    """One alert each; all are routed, and nothing is sent yet."""
    for user in users:
        await office.tell(userId=str(user), **ALERT)
    await office.round()


async def test_one_at_a_time_holds_for_a_target_and_not_for_others(
    office: Office, person: Person, move_clock: MoveClock
) -> None:
    """While the first is under way a second process comes to the same target, and to another one."""
    pager = office.channel("pager", Post(Pace(one_at_a_time=True)))
    ann, bob = await person(pager="one webhook"), await person(pager="another")
    other = office.neighbour()
    seen: list[Outcome] = []

    async def slow(sending: Sending) -> Told:
        await tell(office, ann, ann, bob)  # `ann` twice: both wait, one after the other
        other.channel("pager", Post(Pace(one_at_a_time=True)))
        seen.extend(await other.round())
        return Sent()

    office.channel("pager", pager, slow)
    await tell(office, ann)
    await office.round()
    turns = await office.deliveries("not_before")
    first, second = sorted(turn for (turn,) in turns if turn is not None)
    assert second - first >= timedelta(seconds=0.2)
    assert len(delays(seen)) == 2
    assert [one.result and one.result["status"] for one in seen if isinstance(one, Completed)] == ["sent"]
    await move_clock(SECOND)
    await other.rounds()
    await move_clock(SECOND * 2)
    assert delays(await other.rounds()) == []
    assert {row[1] for row in await office.deliveries()} == {"sent"}


async def test_a_hold_is_for_the_target_or_for_the_whole_channel(
    office: Office, pager: Post, person: Person, move_clock: MoveClock
) -> None:
    ann, bob = await person(pager="1"), await person(pager="2")
    pager.answers = [Sent("a", hold=Hold(SECOND * 60))]
    await tell(office, ann)
    await office.round()
    await tell(office, ann, ann, bob)
    held = await office.round()
    assert [20 < delay <= 61 for delay in delays(held)] == [True, True]
    assert len(pager.came) == 2  # Bob's, too

    pager.answers = [Later(SECOND * 5, hold=Hold(SECOND * 300, whole_channel=True))]
    await tell(office, bob)
    assert delays(await office.round()) == [5]
    await move_clock(SECOND * 70)
    assert [100 < delay < 301 for delay in delays(await office.round())] == [True] * 3
    await move_clock(SECOND * 400)
    await office.rounds()
    assert {row[1] for row in await office.deliveries()} == {"sent"}


async def test_a_channel_that_may_send_so_many_sends_no_more(
    office: Office, person: Person, move_clock: MoveClock
) -> None:
    pager = office.channel("pager", Post(Pace(allowed=2, per=SECOND * 300)))
    users = [await person(pager=str(n)) for n in range(5)]
    await tell(office, *users)
    waits = delays(await office.round())
    assert [200 < wait - n * 150 <= 300 for n, wait in enumerate(waits)] == [True] * 3  # each its own turn
    assert len(pager.came) == 2
    await move_clock(SECOND * 310)
    await office.rounds()
    assert len(pager.came) == 3
    await move_clock(SECOND * 610)
    await office.rounds()
    assert len(pager.came) == 5


async def test_a_dead_target_is_turned_off_and_its_users_are_told_by_what_is_left(
    office: Office, pager: Post, person: Person, owner: Owner
) -> None:
    mail = office.channel("email", Post())
    ann, bob = await person(email="ann@example.com", pager="dead"), await person(pager="dead")
    pager.answers = [Refused("webhook_gone", "The webhook was deleted.", target="disable")]
    await tell(office, ann, bob)
    await office.rounds()
    assert len(pager.came) == 1  # Bob's is the same webhook
    rows = await owner.fetch("select status, status_reason from alert_targets")
    assert [tuple(row) for row in rows] == [("disabled", "webhook_gone")] * 2
    assert sorted(mail.titles) == ["Filled", "Pager takes no alerts any more"]
    told = next(one.alert for one in mail.came if one.alert and one.alert.alert_type == "target_disabled")
    assert told.message.startswith("The webhook was deleted. Nothing more is sent there")
    statuses = sorted(row[1:] for row in await office.deliveries() if row[0] == "pager")
    assert statuses == [("failed", "webhook_gone"), ("suppressed", "target_disabled")]
    await tell(office, bob)
    await office.rounds()
    assert len(pager.came) == 1


async def test_a_device_that_is_gone_is_forgotten_without_a_word(
    office: Office, pager: Post, person: Person, owner: Owner
) -> None:
    user = await person(pager="1")
    pager.answers = [Refused("unregistered", "The app was removed.", target="remove")]
    await tell(office, user)
    await office.rounds()
    assert await owner.fetchval("select count(*) from alert_targets") == 0
    assert await owner.fetchval("select count(*) from alerts") == 1
    assert await office.deliveries() == [("pager", "failed", "unregistered")]


async def test_an_address_that_bounced_gets_no_mail_any_more(
    office: Office, person: Person, owner: Owner
) -> None:
    mail = office.channel("email", Post())
    user = await person(email="Ann@Example.com")
    mail.answers = [Refused("no_such_box", "There is no such box.", suppress="bounce")]
    await tell(office, user, user)
    await office.rounds()
    assert len(mail.came) == 1
    assert sorted(row[1:] for row in await office.deliveries()) == [
        ("failed", "no_such_box"),
        ("suppressed", "bounce"),
    ]
    suppressed = await owner.fetchrow("select address, scope, reason from email_suppressions")
    assert suppressed is not None
    assert tuple(suppressed) == ("ann@example.com", "all", "bounce")


async def test_a_channel_rests_before_its_refusals_shut_all_of_us_out(
    office: Office, person: Person, move_clock: MoveClock
) -> None:
    """Of strangers' webhooks that are none each costs one refusal; the real ones would pay for them."""
    pager = office.channel("pager", Post(Pace(refusals=3, refusals_per=SECOND * 600)))
    strangers = [await person(pager=str(number)) for number in range(4)]
    pager.answers = [Refused("webhook_gone", "No such thing.", target="disable", counts=True)] * 4
    await tell(office, *strangers)
    await office.rounds()
    ann = await person(pager="real")
    await tell(office, ann)
    assert [500 < delay <= 601 for delay in delays(await office.round())] == [True]
    assert len(pager.came) == 4
    await move_clock(SECOND * 610)
    await office.rounds()
    assert len(pager.came) == 5
