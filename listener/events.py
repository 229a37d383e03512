"""What can happen in a worker, as facts: the rooms emit them, `metrics.py` tells them, `telemetry/` counts them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from listener.jobs import Job, WokenBy
from listener.keyring import KeyEvent
from listener.outcomes import Ended, Outcome, Recorded


@dataclass(frozen=True, slots=True)
class Started:
    """The process is set up and begins to look for work."""

    worker_id: str
    queues: Sequence[str]
    types: Sequence[str]
    took: timedelta


@dataclass(frozen=True, slots=True)
class DoorOpen:
    """The process answers HTTP."""

    url: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim brought jobs."""

    queue: str
    woken_by: WokenBy
    count: int
    waited: timedelta
    """How long the oldest of them had been due."""
    jobs: Sequence[Job] = ()


@dataclass(frozen=True, slots=True)
class AttemptBegan:
    """A handler is about to run. Emitted in the context of its attempt, for whoever has something to put there."""

    job: Job


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """A handler has returned; its outcome is not recorded yet. None: the job had moved on, there is none to record."""

    job: Job
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class MissedWakeup:
    """A sweep found jobs that Realtime should have announced and did not."""

    queue: str
    count: int
    waited: timedelta


@dataclass(frozen=True, slots=True)
class AttemptsLost:
    """A sweep ended attempts whose lease had run out: their worker vanished without a word."""

    queue: str
    retried: int
    dead: int


@dataclass(frozen=True, slots=True)
class UnknownTypes:
    """Rows are due whose type no handler of this process serves; they wait for a process that does."""

    queue: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Finished:
    """An attempt ended and the database answered. `outcome` is what was recorded, less than what ended at times."""

    ended: Ended
    outcome: Outcome
    recorded: Recorded


@dataclass(frozen=True, slots=True)
class Recovered:
    """At start: a process that died left so many outcomes, which are recorded now."""

    count: int


@dataclass(frozen=True, slots=True)
class AttemptStopped:
    """A running attempt was told to stop; `why` says by whom. It may not listen."""

    job: Job
    why: str


@dataclass(frozen=True, slots=True)
class Hearing:
    """INSERTs are heard: one was, or none can be sent as a proof. Not after a `Deaf`: the server told of a gap."""

    deaf_for: timedelta
    """From the last proof of hearing before, or from the start; what was inserted meanwhile may have been missed."""


@dataclass(frozen=True, slots=True)
class Deaf:
    """An epoch of the subscription ended; sweeps carry the work until the next one is ready."""

    reason: str
    retry_in: timedelta


@dataclass(frozen=True, slots=True)
class Unannounced:
    """The process listens to broadcasts, and the database does not broadcast all inserts; `problem` says the mend."""

    problem: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The REST API does not answer; the work goes on as far as it can and the call is repeated."""

    call: str
    reason: str
    retry_in: timedelta


@dataclass(frozen=True, slots=True)
class Available:
    """The REST API answers again."""

    call: str
    after: timedelta


@dataclass(frozen=True, slots=True)
class Called:
    """A function of the database was called."""

    call: str
    took: timedelta
    answer: Literal["ok", "unavailable", "refused"]


@dataclass(frozen=True, slots=True)
class NotExported:
    """Numbers or spans could not be delivered. Numbers go with the next try; spans that do not fit are lost."""

    exporter: str
    reason: str
    retry_in: timedelta


@dataclass(frozen=True, slots=True)
class Exported:
    """They are delivered again."""

    exporter: str
    after: timedelta


@dataclass(frozen=True, slots=True)
class SlotInserted:
    """The scheduler put the job of a due slot into its queue (or found that a process of another version had)."""

    name: str
    slot: str
    job_id: int
    created: bool


@dataclass(frozen=True, slots=True)
class SlotWithoutHandler:
    """A schedule's type has no handler in this process: its rows will wait for a process that has one."""

    type: str
    queue: str


@dataclass(frozen=True, slots=True)
class SlotsLeftOut:
    """Slots of a schedule were missed, or came before the last job was done, and get no job by its policy."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class ScheduleRefused:
    """The slots of a schedule do not become jobs; `why` says the mend. The other schedules go on."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Swallowed:
    """A loop met an error that it survived. `where` names the loop; the text is redacted before it is told."""

    where: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class LoopAnswered:
    """The event loop gave the sign that it is asked for once a second."""

    after: timedelta


@dataclass(frozen=True, slots=True)
class StoodStill:
    """The event loop gives no sign: something blocks it, and nothing else gets done meanwhile."""

    how_long: timedelta
    where: str


@dataclass(frozen=True, slots=True)
class Draining:
    """No further claims; what runs may finish within `grace`."""

    running: int
    grace: timedelta


@dataclass(frozen=True, slots=True)
class Drained:
    """The process ends. `handed_back` attempts were stopped and given back uncounted; `abandoned` did not stop."""

    took: timedelta
    handed_back: int
    abandoned: int


Event = (
    Started
    | DoorOpen
    | Claimed
    | AttemptBegan
    | AttemptEnded
    | MissedWakeup
    | AttemptsLost
    | UnknownTypes
    | Finished
    | Recovered
    | AttemptStopped
    | Hearing
    | Deaf
    | Unannounced
    | Unavailable
    | Available
    | Called
    | NotExported
    | Exported
    | SlotInserted
    | SlotWithoutHandler
    | SlotsLeftOut
    | ScheduleRefused
    | Swallowed
    | LoopAnswered
    | StoodStill
    | Draining
    | Drained
    | KeyEvent
)

Emit = Callable[[Event], None]
"""Takes a fact. Never raises and never blocks."""
