"""`./dev chaos` and `pulse chaos`: a storm of faults over real workers, and the proof that nothing was lost.

Exit codes: 0 every invariant holds · 1 one is broken · 2 wrong words.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from chaos.lab import storm
from chaos.plan import OWN_PROJECT, Plan
from chaos.weather import NAMES
from devstack.postgres import PostgresError
from listener.errors import ConfigError


def main(words: Sequence[str] | None = None) -> int:
    """Plays one storm; answers the exit code."""
    arguments = _parser().parse_args(words)
    plan = Plan(
        minutes=arguments.minutes,
        jobs=arguments.jobs,
        workers=arguments.workers,
        seed=arguments.seed,
        lease=arguments.lease,
        sweep=arguments.sweep,
        patience=arguments.patience,
        faults=arguments.faults,
        project=arguments.jobs_from.resolve(),
        sabotage=arguments.sabotage,
    )
    try:
        report = asyncio.run(storm(plan, _say))
    except ConfigError as error:
        print("\n".join(f"✗ {problem}" for problem in error.problems), file=sys.stderr)
        return 2
    except PostgresError as error:
        print(f"✗ {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(report.json() if arguments.json else report.text())
    return 0 if report.holds else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev chaos",
        description="A storm of faults over real workers, and the proof that nothing was lost.",
    )
    parser.add_argument(
        "--minutes", type=_positive, default=2.0, help="how long the storm lasts (default: 2)"
    )
    parser.add_argument("--jobs", type=_count, default=12_000, help="how many jobs it has (default: 12000)")
    parser.add_argument("--workers", type=_count, default=3, help="worker processes at once (default: 3)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed has the same weather (default: 1)")
    parser.add_argument("--lease", type=_positive, default=10.0, metavar="S", help="seconds (default: 10)")
    parser.add_argument("--sweep", type=_positive, default=2.0, metavar="S", help="seconds (default: 2)")
    parser.add_argument(
        "--jobs-from",
        type=Path,
        default=OWN_PROJECT,
        metavar="FOLDER",
        help="your own handlers: a folder with handlers/ and chaos_jobs.py (docs/chaos.md)",
    )
    parser.add_argument(
        "--faults", type=_faults, default=(), metavar="A,B", help=f"only these of {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--patience",
        type=_positive,
        default=100.0,
        metavar="S",
        help="until all must be at rest (default: 100)",
    )
    parser.add_argument(
        "--sabotage",
        type=_file,
        metavar="FILE",
        help="SQL that takes out a protection: does the lab find it?",
    )
    parser.add_argument("--json", action="store_true", help="the report for programs")
    return parser


def _faults(text: str) -> Sequence[str]:
    names = [name.strip() for name in text.split(",")]
    if strangers := [name for name in names if name not in NAMES]:
        raise argparse.ArgumentTypeError(f"there is no fault {strangers[0]!r}")
    return names


def _file(text: str) -> Path:
    if not (file := Path(text)).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return file


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("a number above 0")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 1_000_000:
        raise argparse.ArgumentTypeError("a number above 0")
    return number


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is left behind then either
    sys.exit(main())
