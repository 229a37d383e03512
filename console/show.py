"""`pulse show`: one job with its history."""

from argparse import ArgumentParser, Namespace
from datetime import datetime
from typing import TypedDict, cast

from console.asking import operator
from console.command import DONE, NOT_DONE, Command, Group, positive
from console.document import document
from console.looking import COLOUR_OF, JobJson, note, now_of
from console.screen import Cell, Colour, Screen
from console.words import moment, since, when


class _LetterJson(TypedDict):
    id: int
    attempt: int
    attempts: int
    error_class: str | None
    error_message: str | None
    error_stack: str | None
    failed_at: str
    replayed_at: str | None


class _StaleJson(TypedDict):
    attempt: int
    kind: str
    job_attempt: int | None
    job_status: str | None
    told_at: str


class _HistoryJson(TypedDict):
    now: str
    job: JobJson | None
    carried: dict[str, object] | None
    dead_letters: list[_LetterJson]
    stale_outcomes: list[_StaleJson]


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("id", metavar="JOB", type=positive, help="a job's id")
    parser.add_argument(
        "--data", action="store_true", help="also what it carries: its data, result and idempotency key"
    )
    parser.add_argument("--stack", action="store_true", help="also where in the code it failed")


async def _run(arguments: Namespace, screen: Screen) -> int:
    async with operator("pulse-show") as store:
        asked = {"job_id": arguments.id, "with_data": arguments.data}
        said = cast("_HistoryJson", await store.ask("job_history", asked))
    if not arguments.stack:
        for letter in said["dead_letters"]:
            letter["error_stack"] = None
    screen.answer(said)
    job, now = said["job"], now_of(said)
    if job is None:
        screen.problem(f"There is no job {arguments.id}: it never was, or it was purged.")
    else:
        _tell(job, now, screen)
    if said["carried"] is not None:
        _tell_carried(said["carried"], screen)
    for letter in said["dead_letters"]:
        _tell_letter(letter, now, screen)
    for stale in said["stale_outcomes"]:
        stood = f"{stale['job_status'] or 'gone'}, attempt {stale['job_attempt'] or '—'}"
        told = f"Attempt {stale['attempt']} said {stale['kind']!r} too late, {since(moment(stale['told_at']), now)}"
        screen.say(f"{told}: the job had moved on ({stood}). Nothing was changed.", Colour.YELLOW)
    return NOT_DONE if job is None else DONE


def _tell(job: JobJson, now: datetime, screen: Screen) -> None:
    screen.say(f"Job {job['id']}: {job['type']} in {job['queue']}", Colour.BOLD)
    counted = f"{job['counted']} of {job['max_attempts']}"
    if job["attempt"] != job["counted"]:
        counted += f" ({job['attempt']} in all; snoozed, handed back or replayed ones do not count)"
    pairs: list[tuple[str, Cell | str]] = [
        ("status", Cell(job["status"], COLOUR_OF.get(job["status"], Colour.PLAIN))),
        ("", note(job, now)),
        ("attempts", counted),
        ("made", when(moment(job["created_at"]), now)),
        ("last change", when(moment(job["updated_at"]), now)),
    ]
    if job["user_id"]:
        pairs.append(("user", job["user_id"]))
    if job["priority"]:
        pairs.append(("priority", str(job["priority"])))
    if job["worker_id"]:
        woken = f", woken by {job['woken_by']}" if job["woken_by"] else ""
        pairs.append(("last worker", f"{job['worker_id']}{woken}"))
    if job["last_outcome"]:
        pairs.append(("last outcome", job["last_outcome"]))
    screen.facts(pairs)
    if job["status"] in {"pending", "running"}:
        screen.hint(f"  why it is not done: pulse why {job['id']}")


def _tell_carried(carried: dict[str, object], screen: Screen) -> None:
    screen.facts([("key", str(carried["idempotency_key"] or "—"))])
    for name in ("data", "result"):
        screen.say(f"{name}:", Colour.DIM)
        screen.block(document(carried[name]))


def _tell_letter(letter: _LetterJson, now: datetime, screen: Screen) -> None:
    when = since(moment(letter["failed_at"]), now)
    screen.say(f"Dead letter {letter['id']}, {when}, after attempt {letter['attempt']}", Colour.RED)
    screen.say(
        f"  {letter['error_class'] or 'no error was told'}: {letter['error_message'] or ''}".rstrip(": ")
    )
    if letter["error_stack"]:
        screen.block(letter["error_stack"])
    if letter["replayed_at"]:
        screen.say(f"  replayed {since(moment(letter['replayed_at']), now)}", Colour.DIM)
    else:
        screen.say(f"  another run: pulse retry {letter['id']}", Colour.DIM)


COMMAND = Command(
    "show",
    Group.LOOK,
    "Show one job: its state, its dead letters, outcomes that came too late.",
    _run,
    _arguments,
    """
    pulse show 123
    pulse show 123 --stack                        # and where in the code it failed
    pulse show 123 --data                         # and what it carries, which may be private
    """,
)
