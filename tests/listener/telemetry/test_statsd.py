"""Numbers arrive at an agent as DogStatsD words them: once, in small datagrams, and nobody waits for the agent."""

import errno
import re
import socket
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from listener.errors import PulseError
from listener.events import Called, Claimed, LoopAnswered
from listener.jobs import WokenBy
from listener.outcomes import Completed
from listener.telemetry import catalogue as c
from listener.telemetry.counts import Counts, Numbers
from listener.telemetry.statsd import Statsd
from tests.listener.telemetry.test_counts import finished
from tests.waiting import until

LINE = re.compile(
    r"(?P<name>[a-z][a-z_.]+):(?P<values>-?[\d.e+-]+(?::-?[\d.e+-]+)*)\|(?P<kind>[cgd])"
    r"(?:\|@(?P<rate>[\d.]+))?(?:\|#(?P<tags>[^|\s]+))?"
)
"""As Datadog describes a datagram's line: more than one value only for distributions."""
TWO = timedelta(seconds=2)


class Agent:
    """Takes datagrams."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def datagrams(self) -> list[bytes]:
        """What has come since the last time."""
        got: list[bytes] = []
        while True:
            try:
                got.append(self._socket.recv(65536))
            except BlockingIOError:
                return got

    def lines(self) -> list[re.Match[str]]:
        found = [
            LINE.fullmatch(line) for datagram in self.datagrams() for line in datagram.decode().split("\n")
        ]
        assert all(found)
        return [line for line in found if line is not None]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def agent() -> Iterator[Agent]:
    agent = Agent()
    yield agent
    agent.close()


@pytest.fixture
def counts() -> Counts:
    return Counts({"payment": ["stripe_webhook"], "broker": ["execute_order"]})


@pytest.fixture
def statsd(agent: Agent, counts: Counts) -> Iterator[Statsd]:
    statsd = Statsd("127.0.0.1", agent.port)
    counts.tap(statsd.measured)
    yield statsd
    statsd.close()


def job_line(line: re.Match[str]) -> bool:
    return line["name"] == "worker.job.processed"


async def test_a_job_is_counted_with_the_tags_of_the_brief(
    agent: Agent, counts: Counts, statsd: Statsd
) -> None:
    event = finished(Completed(), queue="payment", type_="stripe_webhook")
    for _ in range(3):
        counts(event)
    await statsd.send(counts.read())
    lines = agent.lines()
    (line,) = filter(job_line, lines)
    assert line[0] == "worker.job.processed:3|c|#type:payment,job:stripe_webhook,status:success"
    (ran,) = [line for line in lines if line["name"] == "worker.job.duration"]
    assert ran[0] == "worker.job.duration:2:2:2|d|#type:payment,job:stripe_webhook"


async def test_a_counter_goes_once(agent: Agent, counts: Counts, statsd: Statsd) -> None:
    total = 0.0
    for turn in range(4):
        for _ in range(turn):
            counts(finished(Completed()))
        await statsd.send(counts.read())
        total += sum(float(line["values"]) for line in filter(job_line, agent.lines()))
    assert total == 6


async def test_gauges_are_as_they_are(agent: Agent, counts: Counts, statsd: Statsd) -> None:
    numbers = counts.read()
    numbers.values[c.DUE]["payment",] = 12
    numbers.values[c.READY][()] = 1.0
    for _ in range(2):
        await statsd.send(numbers)
        gauges = {line[0] for line in agent.lines() if line["kind"] == "g"}
        assert gauges == {"worker.queue.due:12|g|#type:payment", "worker.ready:1|g"}


async def test_datagrams_are_small_and_whole(agent: Agent, counts: Counts, statsd: Statsd) -> None:
    for n in range(500):
        counts(Called(f"function_{n % 40}", timedelta(seconds=n), "ok"))
    await statsd.send(counts.read())
    datagrams = agent.datagrams()
    assert len(datagrams) > 3
    assert max(map(len, datagrams)) <= 1432
    for datagram in datagrams:
        assert all(LINE.fullmatch(line) for line in datagram.decode().split("\n"))


async def test_of_many_values_some_go_with_the_rate_of_all(
    agent: Agent, counts: Counts, statsd: Statsd
) -> None:
    for _ in range(10_000):
        counts(LoopAnswered(TWO))
    await statsd.send(counts.read())
    lines = [line for line in agent.lines() if line["name"] == "worker.loop.delay"]
    assert {line["rate"] for line in lines} == {"0.5"}
    assert sum(line["values"].count(":") + 1 for line in lines) == 5_000
    counts(LoopAnswered(TWO))
    await statsd.send(counts.read())
    (line,) = [line for line in agent.lines() if line["name"] == "worker.loop.delay"]
    assert line[0] == "worker.loop.delay:2|d"


async def test_what_nobody_took_is_told_and_goes_with_the_next(
    agent: Agent, counts: Counts, statsd: Statsd
) -> None:
    """A refusal reaches us with the next datagram, so the first one of an outage is lost, as UDP has it."""
    await statsd.send(counts.read())
    port = agent.port
    agent.close()
    told: list[str] = []

    async def is_told() -> bool:
        counts(finished(Completed()))
        try:
            await statsd.send(counts.read())
        except PulseError as error:
            told.append(str(error))
        return bool(told)

    await until("it is told that nobody listens", is_told)
    assert told == [f"nothing takes it at 127.0.0.1:{port} (Connection refused)"]
    again = Agent()
    again._socket.close()
    again._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    again._socket.bind(("127.0.0.1", port))
    again._socket.setblocking(False)
    await statsd.send(counts.read())
    (line,) = filter(job_line, again.lines())
    assert float(line["values"]) >= 1
    again.close()


async def test_what_went_out_before_an_error_is_not_told_again(
    agent: Agent, counts: Counts, statsd: Statsd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket takes some datagrams of a sending and refuses the next one: its buffer is full, say."""
    for n in range(100):
        counts(Called(f"function_{n}", TWO, "ok"))
    numbers = counts.read()
    room = 2

    class Narrow(socket.socket):
        def send(self, *words: Any) -> int:
            nonlocal room
            room -= 1
            if room < 0:
                raise BlockingIOError(errno.EAGAIN, "no room")
            return super().send(*words)

    monkeypatch.setattr(socket, "socket", Narrow)
    told: Counter[str] = Counter()

    def hear() -> None:
        told.update(line["tags"] for line in agent.lines() if line["name"] == c.CALLS.dotted)

    with pytest.raises(PulseError, match="nothing takes it"):
        await statsd.send(numbers)
    hear()
    assert 0 < len(told) < 100
    room = 1000
    await statsd.send(numbers)
    hear()
    assert (len(told), set(told.values())) == (100, {1}), "the rest goes with the next"


async def test_a_host_that_cannot_be_found_is_told(counts: Counts) -> None:
    statsd = Statsd("no-such-host.invalid", 8125)
    with pytest.raises(PulseError, match=r"no-such-host.invalid:8125 cannot be found"):
        await statsd.send(counts.read())


async def test_no_word_of_ours_can_forge_a_tag(agent: Agent, statsd: Statsd) -> None:
    numbers = Numbers({c.DUE: {("a,status:x|#\nworker.x:1|c",): 1.0}}, {})
    await statsd.send(numbers)
    (line,) = agent.lines()
    assert Counter(line[0])["|"] == 2
    assert "\n" not in line[0]


async def test_what_is_noted_between_two_sendings_is_bounded(statsd: Statsd, counts: Counts) -> None:
    for n in range(20_000):
        counts(Called("claim", timedelta(seconds=n), "ok"))
        counts(Claimed("payment", WokenBy.SWEEP, 1, TWO))
    assert sum(map(len, statsd._measured.values())) == 5_000
