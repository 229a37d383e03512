"""The captures of docs/command_line.md: the project they are of, and the program run as the page shows it."""

import asyncio
import io
import json
import re
import shlex
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from console.program import run
from tests.house.tree import ROOT
from tests.sql.calls import Calls, Connection

PAGE = ROOT / "docs" / "command_line.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_USER = "5b0c5f0e-6a0b-4a51-9d5c-0f1a2b3c4d5e"
_BEFORE, _NOW = "2027-03-01 09:30:00+00", "2027-03-01 12:00:00+00"
_WORKER = {
    "worker_id": "worker-1-4711-9f3b2a",
    "host": "worker-1",
    "version": "1.0.0",
    "queues": ["alerts", "broker", "maintenance", "payment"],
    "types": {"alerts": ["email"], "broker": ["sync_positions"], "maintenance": ["prune"], "payment": []},
    "places": 50,
    "running": 1,
    "problems": [],
    "up_seconds": 9000,
}


@dataclass(frozen=True)
class Capture:
    """A command of the page, and what stands below it."""

    command: str
    said: str


class Terminal(io.StringIO):
    """Somebody sits before it."""

    def isatty(self) -> bool:
        return True


def captures(text: str) -> list[Capture]:
    """Those of a page, in its order."""
    found: list[Capture] = []
    for block in _BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, said = part.partition("\n")
            found.append(Capture(command, said))
    return found


def rewritten(text: str, said: Sequence[Capture]) -> str:
    """The page with what the program says today."""
    answers = iter(said)

    def block(match: re.Match[str]) -> str:
        commands = re.split(r"^\$ ", match[1], flags=re.MULTILINE)[1:]
        told = "".join(f"$ {one.command}\n{one.said}" for one in (next(answers) for _ in commands))
        return f"```console\n{told}```"

    return _BLOCK.sub(block, text)


def run_as_shown(command: str) -> Capture:
    """In this process, at a terminal that wants no colours; behind `| cat` beside one."""
    words, _, pipe = command.partition(" | ")
    out = io.StringIO() if pipe else Terminal()
    with redirect_stdout(out), redirect_stderr(out if pipe else io.StringIO()) as err:
        code = run(shlex.split(words)[1:])
    said = out.getvalue() + ("" if err is out else err.getvalue())
    return Capture(command, said + (f"(exit code {code})\n" if code else ""))


async def set_clock(owner: Connection, moment: str) -> None:
    """Stops the database's clock."""
    await owner.execute(
        "create or replace function public.clock_now() returns timestamptz language sql stable parallel safe"
        f" as $$ select timestamptz '{moment}' $$"
    )


async def play(server: Calls, owner: Connection) -> None:
    """Makes the project that the page shows: six jobs, one worker, two schedules."""
    await set_clock(owner, _BEFORE)
    await server.insert("subscription_renewal", user_id=_USER)
    await server.insert("sync_positions", queue="broker", user_id=_USER, priority=5)
    for _ in range(2):
        await server.insert("email", queue="alerts", max_attempts=1)
    await server.insert("stripe_webhook", data='{"eventId": "evt_1"}', idempotency_key="evt_1")
    renewal, webhook = (
        await server.claim(
            5, types=("subscription_renewal", "stripe_webhook"), worker_id=str(_WORKER["worker_id"])
        )
    )["jobs"]
    await server.end(renewal, result={"renewed_until": "2027-04-01"})
    await server.end(
        webhook,
        "retry",
        error_class="StoreUnavailable",
        error_message="no answer within 15 s",
        delay_seconds=9060,
    )
    first, second = (
        await server.claim(5, queue="alerts", types=("email",), worker_id=str(_WORKER["worker_id"]))
    )["jobs"]
    stack = (
        'File "handlers/alerts/email.py", line 61, in email\n'
        'File "handlers/clients/alerts/mail.py", line 118, in send'
    )
    await server.end(
        first, "retry", error_class="TimedOut", error_message="The handler did not finish within 300 s."
    )
    await server.end(
        second, "retry", error_class="MailRefused", error_message="550 mailbox unavailable", error_stack=stack
    )
    await set_clock(owner, _NOW)
    await server.value(
        "insert into maintenance_jobs (type, run_at) values ('prune', public.clock_now() + interval '11 hours')"
        " returning id"
    )
    await server.claim(5, queue="broker", types=("sync_positions",), worker_id=str(_WORKER["worker_id"]))
    report = {"queue": "broker", "id": 2, "attempt": 1, "progress": {"done": 3, "of": 10, "note": "AAPL"}}
    await server.value("select report_progress($1)", json.dumps([report]))
    await server.value("select tell_worker($1)", json.dumps(_WORKER))
    await owner.execute(
        "insert into schedules (name, queue, type, cron, every_seconds, timezone, last_slot, next_slot) values"
        " ('nightly', 'maintenance', 'prune', '0 3 * * *', null, 'Europe/Berlin',"
        "  clock_now() - interval '10 hours', clock_now() + interval '14 hours'),"
        " ('sync_positions', 'broker', 'sync_positions', null, 300, 'UTC', null, clock_now() + interval '40 seconds')"
    )


async def all_said(commands: Sequence[str]) -> list[Capture]:
    """One after the other, as a reader of the page would."""
    return [await asyncio.to_thread(run_as_shown, command) for command in commands]
