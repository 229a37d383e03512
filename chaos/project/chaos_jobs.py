"""The lab's own kinds of jobs: every way in which a handler can behave, well or badly."""

from collections.abc import Mapping
from random import Random

from chaos.jobs import Kind

FAILED = frozenset({"failed"})
CANCELLED = frozenset({"cancelled"})


def _for_a_while(chance: Random) -> Mapping[str, object]:
    return {"seconds": round(chance.uniform(0.1, 1.5), 3)}


def _some_times(chance: Random) -> Mapping[str, object]:
    return {"times": chance.randint(1, 3)}


KINDS = [
    Kind("payment", "quick", share=80),
    Kind("payment", "slow", _for_a_while, share=8),
    Kind("payment", "flaky", _some_times, share=3),
    Kind("payment", "hopeless", share=1, ends=FAILED, max_attempts=3),
    Kind("payment", "rejected", share=1, ends=FAILED),
    Kind("broker", "prompt", share=5),
    Kind("broker", "told_when", _some_times, share=1),
    Kind("broker", "cancelling", share=1, ends=CANCELLED),
    Kind("broker", "endless", most=40, ends=CANCELLED, cancel=True),
    Kind("alerts", "snoozing", _some_times, share=2),
    Kind("alerts", "misshapen", lambda _: {"number": "not a number"}, share=0.5, ends=FAILED),
    Kind("alerts", "late", share=0.5),
    Kind("alerts", "stubborn", most=10),
    Kind("maintenance", "healed", most=20, replay=True),
    Kind("maintenance", "blocking", most=2),
    Kind("maintenance", "deadly", most=3, ends=FAILED, max_attempts=2),
]
