"""What a channel saw of a send: the five ways to tell it. Alerts are doubled or lost where one is taken for another.

    what was seen                                            told as   what becomes of the delivery
    -------------------------------------------------------  --------  ------------------------------------------------
    the provider has it                                      Sent      sent
    it refused, and will again: the text, the target         Refused   failed; the target may go with it
    it refused for now: too fast, over a quota               Later     comes back, and no attempt counts
    nothing left this machine, or our own key is refused     NotSent   tried again by `patience`, then a dead letter;
                                                                       replaying that sends it after all
    all else: time-out, a cut connection, 5xx, an odd answer Unknown   sent again once, marked (`Sending.resend`)

An error that a channel raises while it sends is an Unknown, too.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing more for so long: to this target, or by the whole channel."""

    after: timedelta
    whole_channel: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider has it. `hold`: it also said that this was the last one for now."""

    provider_id: str | None = None
    hold: Hold | None = None
    outcome: Literal["sent"] = "sent"


@dataclass(frozen=True, slots=True)
class Refused:
    """It refused, and will again. `reason` is one word, `words` a sentence for people, without secrets."""

    reason: str
    words: str
    target: Literal["keep", "disable", "remove"] = "keep"
    """disable: nothing more is sent there, and its user is told by the other channels. remove: it is forgotten."""
    suppress: Literal["bounce", "spam", "invalid"] | None = None
    """For an e-mail address: no mail goes there any more, and this is why."""
    hold: Hold | None = None
    counts: bool = False
    """The provider counts it against all of us (`Pace.refusals`)."""
    outcome: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class Later:
    """It refused for now; nothing was delivered."""

    after: timedelta
    reason: str = "too_fast"
    hold: Hold | None = None
    counts: bool = False
    """As of a Refused."""
    outcome: Literal["later"] = "later"


@dataclass(frozen=True, slots=True)
class NotSent:
    """Nothing left this machine, or the fault is ours: a key that is refused, a setting that is missing."""

    reason: str
    words: str
    is_ours: bool = False
    """Only operators can mend it: they are told, once a day as long as it lasts."""
    hold: Hold | None = None
    counts: bool = False
    """As of a Refused."""
    outcome: Literal["not_sent"] = "not_sent"


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have arrived. `after`: when it may be sent again, if at all."""

    reason: str
    words: str
    after: timedelta = timedelta(seconds=30)
    hold: Hold | None = None
    outcome: Literal["unknown"] = "unknown"


Told: TypeAlias = Sent | Refused | Later | NotSent | Unknown


def as_recorded(told: Told) -> dict[str, object]:
    """As `record_delivery` reads it."""
    words: dict[str, object] = {"outcome": told.outcome}
    match told:
        case Sent():
            words["provider_id"] = told.provider_id
        case Refused():
            words |= {"words": told.words, "target": told.target, "suppress": told.suppress}
        case Later() | Unknown():
            words["delay_seconds"] = told.after.total_seconds()
        case NotSent():
            words["is_ours"] = told.is_ours
    if not isinstance(told, Sent):
        words["reason"] = told.reason
    if isinstance(told, NotSent | Unknown):
        words["words"] = told.words
    if told.hold is not None:
        words["hold_seconds"] = told.hold.after.total_seconds()
        words["hold_channel"] = told.hold.whole_channel
    return words
