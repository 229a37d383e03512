"""Sends numbers to a Datadog agent, as DogStatsD reads them: datagrams that nobody answers.

    worker.job.processed:3|c|#type:payment,job:stripe_webhook,status:success
    worker.job.duration:0.012:0.034|d|#type:payment,job:stripe_webhook

Counters go as what was added since the last sending that went out, gauges as they are, and of histograms the values
themselves, since the agent makes its own. Of more values than `_MOST_VALUES` the first are kept, with the rate that
says how many there were. Sending never waits: what the socket does not take is told, and goes with the next sending
(but for values, which are lost).

The agent cannot tell a number that comes twice from one that was added twice, and a count too high is worse than one
that is lost, as UDP may lose any. So each addition goes at most once: what was in the datagrams that the socket took
counts as told, although a later one was refused.
"""

import asyncio
import re
import socket
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from listener.errors import PulseError
from listener.telemetry.catalogue import Kind, Metric
from listener.telemetry.counts import Labels, Numbers

# What fits into an Ethernet frame, as Datadog advises.
_LARGEST = 1432
_MOST_VALUES = 5_000
_VALUES_IN_LINE = 40
# In Datadog a queue is a type, as in failed_jobs.job_type, and what we call a type is a job.
_TAGS = {"queue": "type", "type": "job"}
_NO_TAG = re.compile(r"[^A-Za-z0-9_.\-/]")
_Counted: TypeAlias = tuple[tuple[Metric, Labels], float]


class _Line(NamedTuple):
    text: str
    counted: _Counted | None
    """Of a counter how far it has come with this line."""


def tags(metric: Metric, labels: Labels) -> list[str]:
    """The labels as Datadog knows them."""
    return [
        f"{_TAGS.get(name, name)}:{_NO_TAG.sub('_', value)}"
        for name, value in zip(metric.labels, labels, strict=True)
    ]


class Statsd:
    """One agent. `send` is for one task."""

    name = "DogStatsD"

    def __init__(self, host: str, port: int) -> None:
        self._where = host, port
        self._socket: socket.socket | None = None
        self._sent: dict[tuple[Metric, Labels], float] = {}
        self._measured: dict[tuple[Metric, Labels], list[float]] = {}
        self._kept = self._seen = 0

    def measured(self, metric: Metric, labels: Labels, value: float) -> None:
        """Notes one value of a histogram, from any thread."""
        self._seen += 1
        if self._kept < _MOST_VALUES:
            self._kept += 1
            self._measured.setdefault((metric, labels), []).append(value)

    async def send(self, numbers: Numbers) -> None:
        """Everything since the last time. Raises PulseError when it does not go out."""
        to = await self._connected()
        lines = [*self._counts(numbers), *_gauges(numbers), *self._values()]
        try:
            for packet in _packets(lines):
                to.send("\n".join(line.text for line in packet).encode())
                self._sent.update(line.counted for line in packet if line.counted is not None)
        except OSError as error:
            self.close()  # a further try looks the host up again
            raise PulseError(f"nothing takes it at {self._named} ({error.strerror})") from error

    def close(self) -> None:
        """Lets go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def _named(self) -> str:
        return f"{self._where[0]}:{self._where[1]}"

    async def _connected(self) -> socket.socket:
        if self._socket is None:
            loop = asyncio.get_running_loop()
            try:
                (family, kind, _, _, address), *_ = await loop.getaddrinfo(
                    *self._where, type=socket.SOCK_DGRAM
                )
                self._socket = socket.socket(family, kind)
                self._socket.setblocking(False)
                self._socket.connect(address)
            except OSError as error:
                self.close()
                raise PulseError(f"{self._named} cannot be found ({error.strerror})") from error
        return self._socket

    def _counts(self, numbers: Numbers) -> Iterator[_Line]:
        for metric, series in numbers.values.items():
            for labels, value in series.items() if metric.kind is Kind.COUNTER else ():
                if added := value - self._sent.get((metric, labels), 0.0):
                    yield _line(metric, f"{added:.10g}|c", labels, ((metric, labels), value))

    def _values(self) -> Iterator[_Line]:
        measured, self._measured = self._measured, {}
        rate = f"|@{self._kept / self._seen:.6g}" if self._seen > self._kept else ""
        self._kept = self._seen = 0
        for (metric, labels), values in measured.items():
            for at in range(0, len(values), _VALUES_IN_LINE):
                words = ":".join(f"{value:.6g}" for value in values[at : at + _VALUES_IN_LINE])
                yield _line(metric, f"{words}|d{rate}", labels)


def _gauges(numbers: Numbers) -> Iterator[_Line]:
    for metric, series in numbers.values.items():
        if metric.kind is Kind.GAUGE:
            for labels, value in series.items():
                yield _line(metric, f"{value:.10g}|g", labels)


def _line(metric: Metric, value: str, labels: Labels, counted: _Counted | None = None) -> _Line:
    tagged = ",".join(tags(metric, labels))
    return _Line(f"{metric.dotted}:{value}{'|#' if tagged else ''}{tagged}", counted)


def _packets(lines: Iterable[_Line]) -> Iterator[list[_Line]]:
    """As many whole lines in each as fit."""
    packet: list[_Line] = []
    size = 0
    for line in lines:
        if packet and size + len(line.text) + 1 > _LARGEST:
            yield packet
            packet, size = [], 0
        packet.append(line)
        size += len(line.text) + 1
    if packet:
        yield packet
