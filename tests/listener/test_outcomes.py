"""Each outcome has the JSON that `finish` reads, no more and no less."""

from datetime import timedelta

import pytest

from listener.jobs import AttemptRef
from listener.outcomes import Cancel, Completed, Dead, ErrorText, Outcome, Retry, Snooze, to_json

REF = AttemptRef("broker", 7, 2)
ERROR = ErrorText("OSError", "no answer", "Traceback …")
ERROR_JSON = {"error_class": "OSError", "error_message": "no answer", "error_stack": "Traceback …"}


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Completed(), {"kind": "completed"}),
        (Completed({}), {"kind": "completed", "result": {}}),
        (Completed({"n": 1}), {"kind": "completed", "result": {"n": 1}}),
        (Snooze(timedelta(minutes=1), "busy"), {"kind": "snooze", "delay_seconds": 60.0, "reason": "busy"}),
        (Cancel("gone"), {"kind": "cancel", "reason": "gone"}),
        (Retry(ERROR), {"kind": "retry", **ERROR_JSON}),
        (Retry(ERROR, timedelta()), {"kind": "retry", "delay_seconds": 0.0, **ERROR_JSON}),
        (Dead(ERROR), {"kind": "dead", **ERROR_JSON}),
    ],
    ids=repr,
)
def test_words(outcome: Outcome, words: dict[str, object]) -> None:
    assert to_json(REF, outcome) == {"queue": "broker", "id": 7, "attempt": 2, **words}
