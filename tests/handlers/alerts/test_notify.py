"""What is told becomes an alert, and each target of its reader hears of it once, by whatever channel."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from tests.handlers.alerts.conftest import ALERT, Office, Post
from tests.handlers.conftest import Owner

Person = Callable[..., Awaitable[UUID]]


async def test_an_alert_reaches_every_target_of_its_reader(
    office: Office, pager: Post, person: Person, owner: Owner
) -> None:
    mail = office.channel("email", Post())
    user = await person(email="ann@example.com", pager="one")
    await owner.execute(
        "insert into alert_targets (user_id, channel, address) values ($1, 'pager', 'two')", user
    )
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
