"""The one list of what differs from the recorded servers, each with its reason, and the page that shows it.

A test fails when the list names a difference that is gone, and when it misses one that is there; another one fails
when docs/differences.md does not show the list as it is: `.venv/bin/python -m tests.contract.differences` writes it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.contract.realtime_lines import answers, realtime_recordings
from tests.contract.recorded import RECORDINGS, exchanges
from tests.contract.rest_questions import NEWER, REMAINING, Question
from tests.contract.rest_questions_call import CALLS, NEWER_CALLS
from tests.contract.rest_questions_read import TOPICS
from tests.contract.rest_questions_write import CHANGES

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"


@dataclass(frozen=True)
class Difference:
    """One recorded case that goes another way here."""

    recording: str
    case: str
    what: str
    """The fields that differ, as the comparison names them."""
    reason: str


WHOLE = "status, body, headers"
AS_14 = "PostgREST 12 said it so; the stack answers as version 14 does, and pgrst14_02 holds that"
NEVER = (
    "PostgREST repeats a transaction that failed with 40001 (14: also 40P01) without end and never answers, at the "
    "cost of a core; the stack tries three times, then answers 500 with a hint that says so"
)
BACK_AT_ONCE = (
    "the database is back, but PostgREST looks for it only after pauses of 1, 2, 4, 8 … 32 s; the stack looks at the "
    "next request. The fault `schema_cache` makes it answer so as long as a test likes"
)


def _each(recording: str, what: str, reason: str, *cases: str) -> tuple[Difference, ...]:
    return tuple(Difference(recording, case, what, reason) for case in cases)


REST = (
    *_each("pgrst12_02_rpc", "body", AS_14, "unknown function", "function name close to a real one"),
    *_each("pgrst12_02_rpc", "status", AS_14, "SQLSTATE 54001", "SQLSTATE 21000"),
    *_each("pgrst12_02_rpc", "header retry-after", AS_14, "SQLSTATE 53300", "SQLSTATE 08006"),
    *_each(
        "pgrst12_02_rpc",
        "body, header content-type",
        AS_14,
        "object accept on setof with 2",
        "object accept on setof with 0",
    ),
    *_each("pgrst12_02_rpc", "answered at all", NEVER, "SQLSTATE 40001"),
    *_each("pgrst12_02_rpc", "body", NEVER, "SQLSTATE 40P01"),
    *_each("pgrst14_02_rpc", "answered at all", NEVER, "SQLSTATE 40P01"),
    *_each("pgrst14_08_db_down", WHOLE, BACK_AT_ONCE, *(f"after start {n}" for n in range(14))),
    *_each("pgrst14_10_serialization_40001", "answered at all", NEVER, "SQLSTATE 40001"),
)

REALTIME: tuple[Difference, ...] = ()
"""Of a recording of Realtime a case is a line, counted from 1: `line 17`."""

OTHERWISE = (
    (
        "filters `like`, `ilike`, `is`, `match`, `imatch`, `isdistinct` and `not.`",
        (
            "as the recorded server (2.102.1) "
            "refused `like`: ``Error parsing `filter` params``. Later servers know them"
        ),
    ),
    (
        "`select` in a binding with a wildcard",
        "a `system` error that says so, after the join's reply: what the server does is not recorded",
    ),
    (
        "handshakes refused for a limit (429) or by a fault (401, 404, 429, 500)",
        "the JSON of later servers; bad keys are refused with 403 and an empty body, as recorded",
    ),
    ("the limit on bytes per second", "not kept: no answer of the server's to it is known"),
    (
        "a join while the database is away",
        (
            'is answered, and told "Subscribed" when the database is back; the real '
            "server refuses it after 15 s or more, in words that are not recorded"
        ),
    ),
    (
        "a socket without any channel",
        "stays until it is idle for 60 s; the real server also sweeps such sockets every ten minutes",
    ),
    (
        "binding ids",
        "other numbers than the real server's, but as stable: the same parameters have the same id",
    ),
    ("`log_level` in the handshake", "is not looked at"),
    ("more than 100 values in an `in` filter", "are served; the real server refuses them"),
    ("broadcast over HTTP: 400 and 413", "the real statuses; the words of the body are ours"),
    ("`persist` and the option `wait` of the newest JavaScript client", "are not looked at"),
    ("the project's limit on presence messages per second", "not kept; the one of each channel is"),
    (
        "a policy that takes long",
        "its socket waits for the answer, 15 s at most; on the real server its channel alone",
    ),
)
"""What else Realtime does otherwise, with no recording to show it."""


def listed(differences: Iterable[Difference], recording: str) -> dict[str, str]:
    """What is listed of one recording, by case."""
    return {each.case: each.what for each in differences if each.recording == recording}


def table(differences: Iterable[Difference]) -> str:
    """The list in Markdown; cases of one recording with one reason share a row."""
    cases: dict[tuple[str, str, str], list[str]] = {}
    for each in differences:
        cases.setdefault((each.recording, each.what, each.reason), []).append(each.case)
    rows = [
        f"| {recording} | {', '.join(named)} | {what} | {reason} |"
        for (recording, what, reason), named in cases.items()
    ]
    return "\n".join(("| Recording | Cases | What differs | Why |", "| --- | --- | --- | --- |", *rows))


def shares(differences: Iterable[Difference], counts: Mapping[str, int]) -> str:
    """How much of each recording is reproduced in every field that is compared, in Markdown."""
    known = tuple(differences)
    same = {name: count - len(listed(known, name)) for name, count in counts.items()}
    rows = [f"| {name} | {same[name]} of {count} |" for name, count in counts.items()]
    whole, every = sum(same.values()), sum(counts.values())
    total = f"| all | {whole} of {every}: {100 * whole / every:.1f} % |"
    return "\n".join(("| Recording | Reproduced exactly |", "| --- | --- |", *rows, total))


def rest_section() -> str:
    """What docs/differences.md says about the REST recordings."""
    names = sorted(path.stem for path in RECORDINGS.glob("pgrst*.jsonl"))
    counts = {name: sum(1 for _ in exchanges(f"{name}.jsonl")) for name in names}
    return f"{shares(REST, counts)}\n\n{table(REST)}"


def _shown(question: Question) -> str:
    sent = f" {json.dumps(question.body)}" if question.path.startswith("/rpc/") and question.body else ""
    return f"{question.method} {question.path}{sent}".replace("|", "&#124;")


def questions_section() -> str:
    """What docs/differences.md says about the questions that a PostgREST and ours are asked side by side."""
    count = sum(map(len, (*TOPICS.values(), CHANGES, *CALLS.values())))
    newer = [f"| `{_shown(each.question)}` | {each.reason} |" for each in (*NEWER, *NEWER_CALLS)]
    remaining = [f"| {what} | {real} | {ours} |" for what, real, ours in REMAINING]
    return "\n".join(
        (
            f"{count} questions are answered alike. Version 14 answers {len(newer)} otherwise than the judge:\n",
            *("| Question | Why |", "| --- | --- |", *newer),
            "\nWhat remains, and no question can hold:\n",
            *("| What | The real server | The stack |", "| --- | --- | --- |", *remaining),
        )
    )


def realtime_section() -> str:
    """What docs/differences.md says about the Realtime recordings, and about what no recording shows."""
    counts = {name: len(answers(name)) for name in realtime_recordings()}
    rows = (f"| {what} | {how} |" for what, how in OTHERWISE)
    otherwise = "\n".join(("| What | Here |", "| --- | --- |", *rows))
    listing = table(REALTIME) if REALTIME else "No recorded frame, handshake or close code differs."
    return f"{shares(REALTIME, counts)}\n\n{listing}\n\n{otherwise}"


SECTIONS = {"rest": rest_section, "questions": questions_section, "realtime": realtime_section}


def page(now: str) -> str:
    """The page with its generated sections as they should be; the words around them stay."""
    for name, section in SECTIONS.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, _, rest = now.partition(begin)
        after = rest.partition(end)[2]
        now = f"{before}{begin}{section()}{end}{after}"
    return now


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
