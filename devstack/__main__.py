"""`python -m devstack start|stop|status`: the stack as one command, on the ports and keys of `supabase start`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final, cast

from devstack.postgres import PostgresError, reachable_by_server
from devstack.running import AlreadyRunning, Refused, held, read_note, table

DEFAULT_PORTS: Final = {"api": 54321, "db": 54322}
DETACH_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0


def main() -> None:
    """Runs one command; exits 1 with a sentence when it cannot be done."""
    words = sys.argv[1:] or ["start"]
    options = _arguments().parse_args(words)
    project = Path.cwd()
    data = cast(Path | None, options.data) or _default_data(project)
    try:
        if options.command == "start":
            _start(options, words, project, data)
        elif options.command == "stop":
            _stop(data)
        else:
            _status(data)
    except (Refused, PostgresError) as error:
        sys.exit(f"devstack: {error}")


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devstack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("--data", type=Path, help="folder of the database (default: .devstack)")
    start = commands.add_parser("start", parents=[folder], help="start it and stay until Ctrl-C")
    start.add_argument("--port", type=int, help=f"port of the API (default: {DEFAULT_PORTS['api']})")
    start.add_argument("--db-port", type=int, help=f"port of PostgreSQL (default: {DEFAULT_PORTS['db']})")
    start.add_argument("--detach", action="store_true", help="leave it running in the background")
    start.add_argument("--fresh", action="store_true", help="begin with an empty database")
    commands.add_parser("stop", parents=[folder], help="stop one that runs in the background")
    commands.add_parser("status", parents=[folder], help="show where it listens")
    return parser


def _start(options: argparse.Namespace, words: list[str], project: Path, data: Path) -> None:
    if options.detach:
        _start_detached(words, data)
        return
    try:
        with held(data):
            port = _port(options.port, "--port", "api", project)
            db_port = _port(options.db_port, "--db-port", "db", project, but_not=port)
            if options.fresh:
                shutil.rmtree(data / "postgres", ignore_errors=True)
            from devstack.stack import serve  # slow to import, and only needed here

            asyncio.run(serve(project, data, port, db_port, partial(print, flush=True)))
    except AlreadyRunning:
        _status(data)


def _start_detached(words: list[str], data: Path) -> None:
    if read_note(data) is not None:
        _status(data)
        return
    data.mkdir(parents=True, exist_ok=True)
    log = data / "devstack.log"
    with log.open("w") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "devstack", *(word for word in words if word != "--detach")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + DETACH_SECONDS
    while time.monotonic() < deadline:
        ended = child.poll() is not None
        if read_note(data) is not None or ended:
            print(log.read_text().rstrip())
            if child.returncode:
                sys.exit(child.returncode)
            return
        time.sleep(0.02)
    raise Refused(f"not ready after {DETACH_SECONDS:.0f} s; see {log}")


def _stop(data: Path) -> None:
    note = read_note(data)
    if note is None:
        print("Nothing runs here.")
        return
    os.kill(note.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        if read_note(data) is None:
            print("Stopped.")
            return
        time.sleep(0.02)
    raise Refused(f"process {note.pid} is still there after {STOP_SECONDS:.0f} s")


def _status(data: Path) -> None:
    note = read_note(data)
    if note is None:
        raise Refused(f"nothing runs over {data}; `python -m devstack start` starts it")
    print(table(note.port, note.db_port))


def _default_data(project: Path) -> Path:
    usual = project / ".devstack"
    if reachable_by_server(project):
        return usual
    # As root the server runs as another user, who may not walk into root's own folders.
    elsewhere = Path("/var/tmp") / f"devstack-{sha256(str(project).encode()).hexdigest()[:12]}"
    print(f"The server's user cannot reach {project}; the database is in {elsewhere}.", file=sys.stderr)
    return elsewhere


def _port(given: int | None, flag: str, section: str, project: Path, *, but_not: int = 0) -> int:
    wanted = given or _configured(project).get(section, DEFAULT_PORTS[section])
    free = next(port for port in range(wanted, 65536) if port != but_not and _is_free(port))
    if free == wanted:
        return wanted
    if given is not None:
        raise Refused(f"port {wanted} is taken; {flag} {free} is free")
    print(f"Port {wanted} is taken, using {free} instead.", file=sys.stderr)
    return free


def _configured(project: Path) -> dict[str, int]:
    path = project / "supabase" / "config.toml"
    if not path.is_file():
        return {}
    config: dict[str, object] = tomllib.loads(path.read_text())
    sections = {name: config.get(name) for name in DEFAULT_PORTS}
    ports = {n: cast(dict[str, object], s).get("port") for n, s in sections.items() if isinstance(s, dict)}
    return {name: port for name, port in ports.items() if isinstance(port, int)}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
