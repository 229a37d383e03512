"""A provider that does not answer is left alone for a while, and does not get all places of a worker."""

import asyncio
from datetime import timedelta

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from handlers.clients.alerts import smtp
from handlers.clients.alerts.mail import Mail, Mailer, Sender
from handlers.clients.alerts.outage import AWAY, MISSES, SLOW, TRYING, WAITING, Outage
from handlers.clients.alerts.told import Hold, Later, NotSent, Refused, Sent, Told, Unknown
from tests.doubles.smtp import MailServer
from tests.handlers.alerts.mails import a_mail, outcomes
from tests.waiting import until

SILENCE = Unknown("timed_out", "It did not answer.")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outage(clock: Clock) -> Outage:
    return Outage(clock)


async def told(outage: Outage, answer: Told) -> Told:
    async def send() -> Told:
        return answer

    return await outage.watch(send)


async def test_so_many_in_a_row_without_an_answer_and_nobody_sends_for_a_while(outage: Outage) -> None:
    assert [(await told(outage, SILENCE)).hold for _ in range(MISSES)] == [None] * (MISSES - 1) + [
        Hold(AWAY, True)
    ]
    assert await told(outage, Sent()) == Later(AWAY, "provider_away", Hold(AWAY, whole_channel=True))


async def test_an_answer_in_between_begins_the_count_anew(outage: Outage) -> None:
    for answer in (Refused("bad_request", "No."), Later(SLOW), Sent()):
        for _ in range(MISSES - 1):
            assert (await told(outage, NotSent("no_connection", "No."))).hold is None
        assert await told(outage, answer) == answer


async def test_after_a_while_one_tries_and_the_others_wait_for_what_it_hears(
    outage: Outage, clock: Clock
) -> None:
    for _ in range(MISSES):
        await told(outage, SILENCE)
    clock.now += AWAY.total_seconds()
    answered = asyncio.Event()

    async def tries() -> Told:
        await answered.wait()
        return Sent()

    trying = asyncio.ensure_future(outage.watch(tries))
    await asyncio.sleep(0)
    assert await told(outage, Sent()) == Later(TRYING, "provider_away", Hold(TRYING, whole_channel=True))
    answered.set()
    assert await trying == Sent()
    assert await told(outage, Sent()) == Sent()


async def test_one_that_tries_in_vain_holds_again(outage: Outage, clock: Clock) -> None:
    for _ in range(MISSES):
        await told(outage, SILENCE)
    clock.now += AWAY.total_seconds()
    assert (await told(outage, SILENCE)).hold == Hold(AWAY, whole_channel=True)
    assert isinstance(await told(outage, Sent()), Later)


async def test_those_who_wait_for_an_answer_leave_places_for_others(outage: Outage, clock: Clock) -> None:
    answered = asyncio.Event()

    async def slow() -> Told:
        await answered.wait()
        return Sent()

    waiting = [asyncio.ensure_future(outage.watch(slow)) for _ in range(WAITING)]
    await asyncio.sleep(0)
    assert await told(outage, Sent()) == Sent()  # they have only just left
    clock.now += SLOW.total_seconds() + 0.1
    assert await told(outage, Sent()) == Later(SLOW, "provider_away", Hold(SLOW, whole_channel=True))
    answered.set()
    assert await asyncio.gather(*waiting) == [Sent()] * WAITING
    assert await told(outage, Sent()) == Sent()


async def test_one_that_is_cancelled_waits_no_more(outage: Outage, clock: Clock) -> None:
    waiting = [asyncio.ensure_future(outage.watch(asyncio.Event().wait)) for _ in range(WAITING)]  # type: ignore[arg-type]  # never answers
    await asyncio.sleep(0)
    clock.now += timedelta(minutes=1).total_seconds()
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await told(outage, Sent()) == Sent()


class PostOffice:
    """A way for mails to leave that says the same to each."""

    def __init__(self, answer: Told) -> None:
        self.answer = answer
        self.asked = 0

    async def send(self, mail: Mail) -> Told:
        self.asked += 1
        return self.answer


async def test_mails_wait_for_a_provider_that_does_not_answer() -> None:
    office = PostOffice(Unknown("no_answer", "It did not answer."))
    mailer = Mailer(office, None, None)
    said = [await mailer.send(a_mail()) for _ in range(MISSES + 3)]
    assert office.asked == MISSES
    assert isinstance(said[-1], Later)
    assert said[-1].hold is not None
    assert said[-1].hold.whole_channel


async def test_a_key_that_is_refused_is_an_answer_and_no_mail_waits_for_another() -> None:
    office = PostOffice(NotSent("key_refused", "Not with this key."))
    mailer = Mailer(office, None, None)
    said = [await mailer.send(a_mail()) for _ in range(MISSES + 3)]
    assert said == [office.answer] * len(said)


class SilentServer(MailServer):
    """Takes what is in the envelope, and does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        await self.may_answer.wait()
        return await super().handle_DATA(server, session, envelope)


async def test_behind_a_mail_that_a_server_does_not_answer_for_no_other_waits_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(smtp, "TIMEOUT_SECONDS", 5.0)
    monkeypatch.setattr(smtp, "AT_ONCE", 1)
    async with (
        SilentServer() as server,
        smtp.Smtp.open(f"smtp://127.0.0.1:{server.port}", Sender("alerts@example.com", "")) as client,
    ):
        told_ = await asyncio.gather(*(client.send(a_mail(f"{n}@example.com")) for n in range(10)))
        server.may_answer.set()
    assert outcomes(told_) == ["unknown no_answer"] + ["later provider_away"] * 9


@pytest.mark.parametrize("greets", [True, False])
async def test_who_waited_for_a_connection_to_a_silent_server_does_not_wait_for_another_time_out(
    monkeypatch: pytest.MonkeyPatch, greets: bool
) -> None:
    monkeypatch.setattr(smtp, "TIMEOUT_SECONDS", 4.0 if greets else 1.0)
    monkeypatch.setattr(smtp, "AT_ONCE", 1)
    came = asyncio.Event()

    async def says_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await released.wait()
        writer.close()

    released = asyncio.Event()
    mute = await asyncio.start_server(says_nothing, "127.0.0.1", 0)
    async with mute, SilentServer() as server:
        port = server.port if greets else mute.sockets[0].getsockname()[1]
        sender = Sender("alerts@example.com", "")
        async with smtp.Smtp.open(f"smtp://127.0.0.1:{port}", sender) as client, asyncio.TaskGroup() as group:
            first = group.create_task(client.send(a_mail()))
            await until("it hangs", lambda: came.is_set() or server.connections == 1)
            second = group.create_task(client.send(a_mail()))
        server.may_answer.set()
        released.set()
    kind = "unknown no_answer" if greets else "not_sent no_connection"
    assert outcomes([first.result(), second.result()]) == [kind, "later provider_away"]
