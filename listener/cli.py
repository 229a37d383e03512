"""The `pulse` command: worker, web, migrate, enqueue, retry, check, worker-key, dev, chaos.

Exit codes: 0 done · 1 it did not work · 2 wrong configuration or command line.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from importlib.util import find_spec
from types import FrameType
from typing import NoReturn, TypeVar, cast

from listener.config import (
    DATABASE_URL,
    DOOR_TOKEN,
    JWT_SECRET,
    Config,
    Tempo,
    process_environment,
    read_config,
    secrets_in,
)
from listener.errors import ConfigError, PulseError
from listener.events import Deaf, Event, Unannounced
from listener.jobs import QUEUE_OF, NewJob, WokenBy
from listener.keys import new_worker_key
from listener.metrics import tell_on
from listener.migrate import migrate, migrations
from listener.producer import enqueue_once, read_json
from listener.redaction import Redactor
from listener.registry import Registry, load
from listener.service import Plan, Service
from listener.store import connected
from listener.subscription import Subscription
from listener.uncaught import for_loop, last_words, leave_without_threads, tell_by_place
from listener.wakeups import Bell

_HEAR_SECONDS = 45
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
E = TypeVar("E", bound=BaseException)


def run(words: Sequence[str]) -> int:
    """Runs one command; answers its exit code."""
    arguments = _parser().parse_args(words)
    command = cast("Callable[[argparse.Namespace], Awaitable[int]]", arguments.command)
    return exit_code_of(lambda: command(arguments))


def exit_code_of(work: Callable[[], Awaitable[int]]) -> int:
    """Runs the work of a process to its end, says what went wrong, and answers the exit code."""
    code = 1
    try:
        code = asyncio.run(_awaited(work))
    except* ConfigError as group:  # alone, or out of the TaskGroup of a process that was already starting
        code = 2
        _tell_problems(each for error in _errors(group) for each in error.problems)
    except* PulseError as group:
        _tell_problems(str(error) for error in _errors(group))
    except* KeyboardInterrupt:
        code = 130
    except* SystemExit:
        print("✗ something in a handler called sys.exit(); the process ends", file=sys.stderr)
    except* Exception as group:  # noqa: BLE001 - whatever it is, its text may quote a key
        for error in _errors(group):
            last_words(error)
    return code


def _tell_problems(problems: Iterable[str]) -> None:
    """On stderr, for a person. A server or a resource may have quoted a key."""
    redactor = Redactor(secrets_in(process_environment()))
    print("\n".join(f"✗ {redactor.text(problem)}" for problem in problems), file=sys.stderr)


def _errors(group: BaseExceptionGroup[E]) -> Iterator[E]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _errors(cast("BaseExceptionGroup[E]", error))
        else:
            yield error


async def _awaited(work: Callable[[], Awaitable[int]]) -> int:
    return await work()


def _parser() -> argparse.ArgumentParser:
    environment = process_environment()
    parser = argparse.ArgumentParser(prog="pulse", description="Background jobs of a Supabase project.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable[[argparse.Namespace], Awaitable[int]], text: str
    ) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(command=command)
        return one

    worker = add("worker", _worker, "Run the jobs of some or all queues until told to stop.")
    worker.add_argument(
        "--queues", type=_names, help="queue names, comma-separated (default: all with handlers)"
    )
    worker.add_argument(
        "--concurrency", type=int, default=50, metavar="N", help="jobs of a queue at once (default: 50)"
    )
    worker.add_argument(
        "--no-scheduler", action="store_true", help="leave the periodic jobs to other processes"
    )
    web = add("web", _web, "Open the door alone: webhooks and POST / insert jobs, other processes run them.")
    for one in (worker, web):
        one.add_argument("--host", default="127.0.0.1", help="address of the door (default: 127.0.0.1)")
        one.add_argument(
            "--port", type=int, help="port of the door (default: $PORT, else 8000 or a free one)"
        )
    worker.add_argument("--no-door", action="store_true", help="do not open a door")
    for one in (worker, web):
        one.add_argument(
            "--log-level", default=environment.get("PULSE_LOG_LEVEL", "INFO").upper(), help="default: INFO"
        )

    add("migrate", _migrate, "Apply the files of sql/ that the database at DATABASE_URL lacks.")
    enqueue = add("enqueue", _enqueue, "Insert one job and print its id.")
    enqueue.add_argument("type", metavar="TYPE")
    enqueue.add_argument(
        "data", metavar="JSON", nargs="?", default="{}", help="the job's data (default: {}; -: from stdin)"
    )
    enqueue.add_argument("--queue", help="needed for types that are not the platform's own")
    enqueue.add_argument("--key", help="idempotency key: a second job with the same key is the first one")
    retry = add("retry", _retry, "Give dead letters another run, each at most once.")
    retry.add_argument("ids", metavar="ID", type=int, nargs="+", help="ids of rows in failed_jobs")
    check = add("check", _check, "Say whether this configuration works; exit code for CI.")
    check.add_argument("--queues", type=_names, help="as for `pulse worker`")
    key = add(
        "worker-key", _worker_key, "Print a key for workers, signed with the project's SUPABASE_JWT_SECRET."
    )
    key.add_argument(
        "--days", type=int, default=365, metavar="N", help="how long it is good for (default: 365)"
    )
    dev = add("dev", _dev, "The development stack, a Supabase on this machine: start, stop, reset, status …")
    dev.add_argument("words", nargs=argparse.REMAINDER, metavar="…", help="words for `python -m devstack`")
    # No character begins an option here: all words are for the other program.
    chaos = commands.add_parser(
        "chaos",
        help="The crash lab: a storm of faults over your own handlers.",
        prefix_chars="\0",
        add_help=False,
    )
    chaos.set_defaults(command=_chaos)
    chaos.add_argument("words", nargs=argparse.REMAINDER)
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _configured(queues: Sequence[str] | None, *, runs: bool, listens: bool) -> tuple[Config, Registry]:
    """Loads the handlers and reads the environment; every fault of both is in the one ConfigError."""
    problems: list[str] = []
    if queues is not None and not queues:  # an unset variable: such a process would run nothing and look well
        problems.append("--queues is empty: name at least one queue, or leave it out for all.")
    registry = Registry({}, (), ())
    try:
        registry = load(queues=queues)
    except ConfigError as error:
        problems += error.problems
    declared = [
        *(registry.handler_settings if runs else []),
        *(registry.webhook_settings if listens else []),
        DOOR_TOKEN,
    ]
    try:
        config = read_config(process_environment(), declared)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    if problems:
        raise ConfigError(problems)
    return config, registry


async def _worker(arguments: argparse.Namespace) -> int:
    listens = not arguments.no_door
    config, registry = _configured(arguments.queues, runs=True, listens=listens)
    if not 1 <= arguments.concurrency <= 1000:
        raise ConfigError(["--concurrency must be from 1 to 1000."])
    port, exact = _port(arguments)
    plan = Plan(
        queues=arguments.queues or registry.queues,
        places=arguments.concurrency,
        host=arguments.host,
        port=port if listens else None,
        exact_port=exact,
        schedules=not arguments.no_scheduler,
    )
    return await serve(config, registry, plan, arguments.log_level)


async def _web(arguments: argparse.Namespace) -> int:
    config, registry = _configured(None, runs=False, listens=True)
    port, exact = _port(arguments)
    plan = Plan(queues=(), host=arguments.host, port=port, exact_port=exact, schedules=False)
    return await serve(config, registry, plan, arguments.log_level)


async def serve(
    config: Config, registry: Registry, plan: Plan, log_level: str, tempo: Tempo | None = None
) -> int:
    """Is one process of workers until it has drained."""
    if log_level not in _LOG_LEVELS:
        raise ConfigError(
            [f"The log level (--log-level, PULSE_LOG_LEVEL) is one of {', '.join(_LOG_LEVELS)}."]
        )
    tell_on(sys.stdout, Redactor(config.secrets), log_level)
    service = Service(config, registry, plan, tempo=tempo)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(threads := ThreadPoolExecutor())
    loop.set_exception_handler(for_loop(service.metrics))
    tell_by_place(service.metrics)
    logging.captureWarnings(capture=True)
    _on_signal(signal.SIGTERM, service.drain)
    _on_signal(signal.SIGINT, service.stop)
    await service.run()
    leave_without_threads(threads)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    return 0


def _on_signal(number: signal.Signals, act: Callable[[], None]) -> None:
    """For good, unlike the loop's own handlers: a further signal must not turn a good end into a death by signal.

    One that comes in the very instant in which the loop falls asleep is heard when it wakes, within a second
    (`stillness.py` asks it for a sign).
    """
    loop = asyncio.get_running_loop()

    def handle(_number: int, _frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # the loop has closed: the end is near
            loop.call_soon_threadsafe(act)

    signal.signal(number, handle)


def _port(arguments: argparse.Namespace) -> tuple[int, bool]:
    """The door's port, and whether it must be that one."""
    given = process_environment().get("PORT", "") if arguments.port is None else str(arguments.port)
    if not given:
        return 8000, False
    if not given.isascii() or not given.isdigit() or int(given) > 65535:
        raise ConfigError(["The port of the door (--port, PORT) must be a number from 0 to 65535."])
    return int(given), True


async def _migrate(_: argparse.Namespace) -> int:
    environment = process_environment()
    if problem := DATABASE_URL.problem(environment):
        raise ConfigError([problem])
    files = migrations()
    applied = await migrate(environment[DATABASE_URL.name], files)
    for one in applied:
        print(f"✓ {one.label}")
    print(f"{len(applied)} applied, {len(files) - len(applied)} were there already.")
    return 0


async def _enqueue(arguments: argparse.Namespace) -> int:
    config = read_config(process_environment())
    queue = arguments.queue or QUEUE_OF.get(arguments.type)
    if queue is None:
        raise ConfigError([f"Which queue is {arguments.type!r} for? Name it with --queue."])
    try:
        # What stands on a command line can be read by everybody on the machine.
        given = await asyncio.to_thread(sys.stdin.read) if arguments.data == "-" else arguments.data
        data = read_json(given)
    except ValueError as error:
        raise ConfigError([f"The data is no JSON: {error}"]) from error
    job = NewJob(queue, arguments.type, cast("dict[str, object]", data), idempotency_key=arguments.key)
    async with connected(config.supabase_url, config.key, "pulse-enqueue", apikey=config.apikey) as store:
        enqueued = await enqueue_once(store, job)
    print(enqueued.id)
    return 0


async def _retry(arguments: argparse.Namespace) -> int:
    config = read_config(process_environment())
    async with connected(config.supabase_url, config.key, "pulse-retry", apikey=config.apikey) as store:
        replayed, skipped = await store.replay(arguments.ids)
    for failed_job_id, job_id in replayed.items():
        print(f"✓ dead letter {failed_job_id}: job {job_id} runs again")
    for failed_job_id in skipped:
        print(f"✗ dead letter {failed_job_id}: unknown, or replayed before", file=sys.stderr)
    return 1 if skipped else 0


async def _check(arguments: argparse.Namespace) -> int:
    config, registry = _configured(arguments.queues, runs=True, listens=True)
    queues = arguments.queues or registry.queues
    print(f"✓ configuration, and handlers for {', '.join(queues)}")
    async with connected(config.supabase_url, config.key, "pulse-check", apikey=config.apikey) as store:
        await store.heartbeat([], timedelta(seconds=1))
        print("✓ the REST API answers, the key is accepted and our functions are there")
        bells = {queue: Bell() for queue in queues}
        troubles: list[str] = []
        subscription = Subscription(
            url=config.supabase_url,
            key=config.key,
            apikey=config.apikey,
            bells=bells,
            canary=store.canary,
            worker_id=f"pulse-check-{time.time_ns()}",
            timings=Tempo().listening,
            by_broadcast=config.listens_to_broadcast,
            emit=lambda event: troubles.extend(_trouble(event)),
        )
        heard = await _hears(subscription, bells[queues[0]])
    if not heard:
        print(
            f"✗ Realtime announced nothing within {_HEAR_SECONDS} s. Jobs still run, up to one sweep late."
            " Is Realtime on, and are the job tables in the publication supabase_realtime?",
            *dict.fromkeys(troubles),
            sep="\n  ",
            file=sys.stderr,
        )
        return 1
    print("✓ Realtime announces inserts")
    return 0


def _trouble(event: Event) -> list[str]:
    match event:
        case Deaf(reason):
            return [reason]
        case Unannounced(problem):
            return [problem]
        case _:
            return []


async def _hears(subscription: Subscription, bell: Bell) -> bool:
    """Whether the subscription becomes ready in time."""
    listening = asyncio.ensure_future(subscription.run())
    try:
        return await bell.wait(_HEAR_SECONDS) is WokenBy.JOINED
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def _worker_key(arguments: argparse.Namespace) -> int:
    environment = process_environment()
    problems = [JWT_SECRET.problem(environment)]
    if not 1 <= arguments.days <= 36500:
        problems.append("--days must be from 1 to 36500.")
    if found := [problem for problem in problems if problem]:
        raise ConfigError(found)
    print(new_worker_key(environment[JWT_SECRET.name], timedelta(days=arguments.days)))
    return 0


async def _dev(arguments: argparse.Namespace) -> int:
    return _become("devstack", "The development stack", cast("list[str]", arguments.words))


async def _chaos(arguments: argparse.Namespace) -> int:
    return _become("chaos", "The crash lab", cast("list[str]", arguments.words))


def _become(package: str, name: str, words: Sequence[str]) -> NoReturn:
    """Goes on as another program of ours, which is no part of what is deployed."""
    if find_spec("devstack") is None or find_spec(package) is None:
        raise PulseError(f"{name} is not installed here: run this in a checkout of the project.")
    os.execv(sys.executable, [sys.executable, "-m", package, *words])  # noqa: S606 - our own program
