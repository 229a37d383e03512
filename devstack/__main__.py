"""`python -m devstack`: a Supabase without Docker, on the ports and keys of `supabase start`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import cast

from devstack import commands
from devstack.postgres import PostgresError
from devstack.running import Refused


def main() -> None:
    """Runs one command in the project of the working folder; exits 1 with a sentence when it cannot be done."""
    words = sys.argv[1:] or ["start"]
    options = _arguments().parse_args(words)
    project = Path.cwd()
    try:
        data = cast("Path | None", options.data) or commands.data_folder(project)
        _run(options, words, project, data)
        sys.stdout.flush()
    except BrokenPipeError:  # of `… | head`: whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (Refused, PostgresError) as error:
        sys.exit(f"devstack: {error}")


def _run(options: argparse.Namespace, words: list[str], project: Path, data: Path) -> None:
    match options.command:
        case "start" if options.detach:
            commands.start_detached([word for word in words if word != "--detach"], data)
        case "start":
            commands.start(
                project, data, options.port, options.db_port, options.postgres, forget=options.forget
            )
        case "stop":
            commands.stop(data)
        case "reset":
            commands.reset(data)
        case "logs":
            commands.logs(data, postgres=options.postgres, follow=options.follow)
        case "faults":
            commands.faults(data, options.wanted)
        case "act":
            commands.act(data, options.name, options.arguments)
        case "token":
            commands.token(data, options.user, options.role, options.expires)
        case _:
            commands.status(data, options.output)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devstack", description=__doc__)
    known = parser.add_subparsers(dest="command", required=True)
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("--data", type=Path, help="folder of this stack's things (default: .devstack)")

    def command(name: str, does: str) -> argparse.ArgumentParser:
        return known.add_parser(name, parents=[folder], help=does, description=does)

    start = command("start", "start it and stay until Ctrl-C")
    start.add_argument("--port", type=int, help="port of the API (default: supabase/config.toml, 54321)")
    start.add_argument(
        "--db-port", type=int, help="port of PostgreSQL (default: supabase/config.toml, 54322)"
    )
    start.add_argument("--detach", action="store_true", help="leave it running in the background")
    start.add_argument("--forget", action="store_true", help="keep nothing: a new database, gone at the end")
    start.add_argument("--postgres", type=Path, help="the bin folder of another PostgreSQL, 15 to 18")
    command("stop", "stop the one that runs")
    command("reset", "empty the database, then apply migrations and seeds again")
    status = command("status", "show where it listens, and its keys")
    status.add_argument("-o", "--output", choices=["table", "env", "json"], default="table")
    logs = command("logs", "print its log: refused requests and what went wrong")
    logs.add_argument("--postgres", action="store_true", help="the log of PostgreSQL instead")
    logs.add_argument("-f", "--follow", action="store_true", help="stay and print what comes")
    faults = command("faults", "show what it is asked to do wrong, or ask it to")
    faults.add_argument("wanted", nargs="?", help='`off`, or JSON: \'{"realtime": {"deaf": true}}\'')
    act = command(
        "act", "do something once to Realtime, for example close every socket; without a name: what"
    )
    act.add_argument("name", nargs="?", help="for example close_sockets")
    act.add_argument("arguments", nargs="?", default="{}", help="JSON: '{\"code\": 1012}'")
    token = command("token", "print an access token, to try row level security as a person")
    token.add_argument("--user", required=True, help="whose: an e-mail address, or a UUID")
    token.add_argument("--role", help="another role than the person's own")
    token.add_argument(
        "--expires", type=int, default=3600, help="in how many seconds (3600); below 0: long since"
    )
    return parser


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
