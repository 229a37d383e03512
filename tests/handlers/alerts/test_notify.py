"""What is told becomes an alert, and each target of its reader hears of it once, or it is written why not."""

import json
from uuid import UUID, uuid4

from handlers.clients.database import Database, call
from listener.outcomes import Completed, Dead
from tests.handlers.alerts.conftest import ALERT, Office, Person, Post
from tests.handlers.conftest import Json, Owner


def result(outcome: object) -> Json:
    assert isinstance(outcome, Completed)
    assert outcome.result is not None
    return dict(outcome.result)


async def test_an_alert_reaches_every_target_of_its_reader(
    office: Office, pager: Post, person: Person, owner: Owner
) -> None:
    mail = office.channel("email", Post())
    user = await person(email="ann@example.com", pager="one")
    await owner.execute(
        "insert into alert_targets (user_id, channel, address) values ($1, 'pager', 'two')", user
    )
    await person(email="bob@example.com", pager="three")
    await office.tell(userId=str(user), **ALERT, metadata={"order": "17"})
    await office.rounds()
    assert sorted(str(one.target.address) for one in pager.came) == ["one", "two"]
    [sent] = mail.came
    assert sent.target.address == "ann@example.com"
    assert sent.alert is not None
    assert (sent.alert.title, sent.alert.metadata, sent.send) == ("Filled", {"order": "17"}, 1)
    assert await office.deliveries("channel", "status", "sends", "resends") == [
        ("email", "sent", 1, 0),
        ("pager", "sent", 1, 0),
        ("pager", "sent", 1, 0),
    ]


async def test_a_channels_job_that_says_words_goes_by_that_channel_alone(
    office: Office, person: Person
) -> None:
    names = ("discord", "email", "push")
    posts = {name: office.channel(name, Post()) for name in names}
    user = await person(email="ann@example.com", discord="1234567", push="a-token-of-a-device")
    for name in names:
        words: Json = {"userId": str(user), "title": f"By {name}", "message": "World"}
        if name != "push":
            words |= {"alertType": "greeting", "metadata": {"n": 1}}
        await office.tell(name, **words)
    assert [result(one)["deliveries"] for one in await office.round()] == [1, 1, 1]
    await office.rounds()
    assert {name: post.titles for name, post in posts.items()} == {name: [f"By {name}"] for name in names}


async def test_a_channel_that_this_project_has_never_heard_of_needs_only_its_name(
    office: Office, person: Person
) -> None:
    carrier_pigeon = office.channel("carrier_pigeon", Post())
    user = await person(carrier_pigeon="the loft")
    await office.tell(userId=str(user), **ALERT)
    await office.rounds()
    assert [one.target.address for one in carrier_pigeon.came] == ["the loft"]


async def test_what_a_reader_does_not_want_is_written_down_and_not_sent(
    office: Office, person: Person, owner: Owner
) -> None:
    posts = [office.channel(name, Post()) for name in ("email", "pager", "push")]
    user = await person(email="ann@example.com", pager="1", push="a-token-of-a-device")
    await owner.execute(
        "insert into channel_preferences (user_id, channel, enabled, min_severity)"
        " values ($1, 'pager', false, 'info'), ($1, 'push', true, 'error')",
        user,
    )
    await owner.execute(
        "insert into notification_preferences (user_id, muted_types) values ($1, '{gossip}')", user
    )
    await office.tell(userId=str(user), **ALERT, severity="warning")
    await office.rounds()
    assert await office.deliveries() == [
        ("email", "sent", None),
        ("pager", "suppressed", "channel_off"),
        ("push", "suppressed", "below_minimum"),
    ]
    await owner.execute("delete from alerts")
    await office.tell(userId=str(user), **ALERT | {"alertType": "gossip"}, severity="critical")
    assert result((await office.rounds())[0])["reason"] == "muted"
    assert {row[1:] for row in await office.deliveries()} == {("suppressed", "muted")}
    assert sum(len(post.came) for post in posts) == 1


async def test_an_address_that_is_not_confirmed_or_gets_no_mail_any_more_is_left_alone(
    office: Office, person: Person, owner: Owner
) -> None:
    mail = office.channel("email", Post())
    stranger = await person(email="eve@example.com", confirmed=False)
    gone = await person(email="Gone@Example.com")
    await owner.execute(
        "insert into email_suppressions (address, reason) values ('gone@example.com', 'bounce')"
    )
    await office.tell(userId=str(stranger), **ALERT)
    await office.tell(userId=str(gone), **ALERT)
    assert sorted(str(result(one)["reason"]) for one in await office.rounds()) == ["bounce", "no_target"]
    assert (mail.came, await office.deliveries()) == ([], [("email", "suppressed", "bounce")])


async def test_mail_does_not_go_to_an_address_that_its_reader_has_given_up(
    office: Office, person: Person, owner: Owner
) -> None:
    mail = office.channel("email", Post())
    await office.tell(userId=str(await person(email="old@example.com")), **ALERT)
    await office.round()
    await owner.execute("update auth.users set email = 'new@example.com'")
    await office.rounds()
    assert (mail.came, await office.deliveries()) == ([], [("email", "suppressed", "target_removed")])


async def test_a_preference_that_changed_while_a_delivery_waited_counts(
    office: Office, pager: Post, person: Person, owner: Owner
) -> None:
    user = await person(pager="1")
    await office.tell(userId=str(user), **ALERT)
    await office.round()
    await owner.execute(
        "insert into notification_preferences (user_id, muted_types) values ($1, '{order_filled}')", user
    )
    await office.rounds()
    assert (pager.came, await office.deliveries()) == ([], [("pager", "suppressed", "muted")])


async def test_the_same_key_is_the_same_alert_of_one_user(
    office: Office, pager: Post, person: Person
) -> None:
    ann, bob = await person(pager="ann"), await person(pager="bob")
    for user in (ann, ann, bob):
        await office.tell(userId=str(user), **ALERT, dedupeKey="order 17")
    await office.rounds()
    assert sorted(str(one.target.address) for one in pager.came) == ["ann", "bob"]


async def test_an_alert_that_is_a_row_is_told_by_its_id_and_nobody_elses(
    office: Office, pager: Post, person: Person, owner: Owner
) -> None:
    user, other, id_ = await person(pager="1"), await person(pager="2"), str(uuid4())
    await office.tell("pager", userId=str(user), **ALERT, alertId=id_)
    await office.rounds()
    await office.tell(alertId=id_)
    await office.tell(userId=str(user), **ALERT, alertId=id_)
    outcomes = await office.rounds()
    assert {result(one)["alert_id"] for one in outcomes} == {id_}
    assert [one.target.address for one in pager.came] == ["1"]
    await office.tell(alertId=id_, userId=str(other))
    await office.tell(alertId=str(uuid4()))
    assert [type(one) for one in await office.rounds()] == [Dead, Dead]
    assert await owner.fetchval("select count(*) from alerts") == 1


async def test_what_says_nothing_or_to_nobody_is_a_dead_letter_at_once(office: Office) -> None:
    user = str(UUID(int=1))
    jobs: list[Json] = [
        {"userId": "123", "alertType": "a", "title": "t", "message": "m"},
        {"alertType": "a", "title": "t", "message": "m"},
        {"userId": user, "alertType": "a", "message": "m"},
        {"userId": user, "audience": "operators", "alertType": "a", "title": "t"},
        {"userId": user, "title": "t", "severity": "fatal"},
    ]
    for data in jobs:
        await office.tell(**data)
    outcomes = await office.rounds()
    assert [isinstance(one, Dead) and one.error.error_class for one in outcomes] == ["InvalidPayload"] * len(
        jobs
    )


async def test_what_payments_and_brokers_tell_arrives_at_users_and_at_operators(
    office: Office, pager: Post, person: Person, owner: Owner, db: Database
) -> None:
    user = await person(pager="of the user")
    await owner.execute("select register_operator_target('pager', 'of the desk', 'desk')")
    context = json.dumps({"amount": "10.00"})
    await owner.execute("select tell_operators('Payments', 'crypto_needs_a_person', 'tx', $1)", context)
    await owner.execute("select tell_operators('Trading', 'order_in_doubt', 'order', $1)", context)
    await owner.execute(
        "select tell_trader($1, 'order_filled', 'k', 'Filled', 'Your order', $2)", user, context
    )
    words: Json = {"alert_type": "payment_received", "title": "Paid", "message": "Thank you.", "metadata": {}}
    await call(db, "alert_payer", job_key="payment-1", user_id=user, **words)
    await office.rounds()
    assert {(str(one.target.address), one.alert.title) for one in pager.came if one.alert} == {
        ("of the desk", "Payments: crypto needs a person"),
        ("of the desk", "Trading: order in doubt"),
        ("of the user", "Filled"),
        ("of the user", "Paid"),
    }
    assert {row[1] for row in await office.deliveries()} == {"sent"}


async def test_what_is_severe_goes_first(office: Office, pager: Post, person: Person) -> None:
    user = await person(pager="1")
    for severity in ("info", "critical", "error"):
        await office.tell(userId=str(user), **ALERT | {"title": severity}, severity=severity)
    await office.rounds()
    assert pager.titles == ["critical", "error", "info"]
