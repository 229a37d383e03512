"""What the commands do: start a stack over a folder, and speak with the one that runs there."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

from devstack.config import read_config
from devstack.keys import Keys
from devstack.postgres import reachable_by_server, throw_away_folder
from devstack.running import AlreadyRunning, Note, Refused, held, is_held, read_note

START_SECONDS: Final = 60.0
KILLED_SECONDS: Final = 5.0
STOP_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.01
FOLLOW_SECONDS: Final = 0.2
LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def data_folder(project: Path) -> Path:
    """Where a project's stack keeps its things unless told otherwise."""
    usual = project / ".devstack"
    if reachable_by_server(project):
        return usual
    # As root the server runs as another user, who may not walk into root's own folders.
    elsewhere = Path("/var/tmp") / f"devstack-{sha256(str(project).encode()).hexdigest()[:12]}"
    print(f"The server's user cannot reach {project}; the database is in {elsewhere}.", file=sys.stderr)
    return elsewhere


def start(
    project: Path, data: Path, port: int | None, db_port: int | None, binaries: Path | None, *, forget: bool
) -> None:
    """Serves in this process until a signal; shows the running stack when there is one.

    `forget` keeps the database in a folder that is gone at the end. Raises Refused.
    """
    config = read_config(project)
    with ExitStack() as leaving:
        try:
            leaving.enter_context(held(data))
        except AlreadyRunning:
            print(_ready(data).table())
            return
        _wait_for_the_killed(data / "postgres" / "cluster")
        api = _port(port, "--port", config.api_port)
        db = _port(db_port, "--db-port", config.db_port, but_not=api)
        cluster = leaving.enter_context(throw_away_folder()) if forget else data / "postgres"
        logging.basicConfig(filename=_log(data), filemode="w", level=logging.INFO, format=LOG_FORMAT)
        if sys.stderr.isatty():
            logging.getLogger().addHandler(logging.StreamHandler())
        from devstack.stack import Plan, serve  # slow to import, and only needed here

        plan = Plan(project, data, cluster, config, api, db, binaries=binaries, durable=not forget)
        asyncio.run(serve(plan, lambda text: print(text, flush=True)))


def start_detached(words: list[str], data: Path) -> None:
    """Starts another process with these words, prints what it says and leaves it; raises Refused."""
    data.mkdir(parents=True, exist_ok=True)
    said = data / "start.log"
    with said.open("w") as output:
        child = subprocess.Popen(
            [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "devstack", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    for _ in _waiting(START_SECONDS):
        ended = child.poll() is not None
        note = read_note(data)
        if ended or (note is not None and note.pid == child.pid):
            print(said.read_text().rstrip())
            if child.returncode:
                sys.exit(child.returncode)
            return
    raise Refused(f"not ready after {START_SECONDS:.0f} s; see {said}")


def stop(data: Path) -> None:
    """Ends the running stack and waits for its end."""
    note = read_note(data)
    if note is None:
        print("Nothing runs here.")
        return
    os.kill(note.pid, signal.SIGTERM)
    for _ in _waiting(STOP_SECONDS):
        if not is_held(data):
            print("Stopped.")
            return
    raise Refused(f"process {note.pid} is still there after {STOP_SECONDS:.0f} s")


def reset(data: Path) -> None:
    """Empties the database and applies migrations and seeds again, in the running stack or for the next start."""
    note = read_note(data)
    if note is None:
        if is_held(data):
            raise Refused(f"a stack is just coming up over {data}; try again in a moment")
        shutil.rmtree(data / "postgres", ignore_errors=True)
        print("The database was emptied; `start` begins with a new one.")
        return
    os.kill(note.pid, signal.SIGUSR1)
    for _ in _waiting(START_SECONDS):
        now = read_note(data)
        if now is not None and now.started != note.started:
            print("The database was emptied and made anew.")
            return
        if now is None and not is_held(data):
            raise Refused(f"the stack ended; {_log(data)} says why, and so does the terminal in which it ran")
    raise Refused(f"not ready again after {START_SECONDS:.0f} s; see {_log(data)}")


def status(data: Path, form: str) -> None:
    """Shows where the running stack listens, for eyes, for a shell (`env`) or as `json`; raises Refused."""
    note = _ready(data)
    if form == "env":
        print("\n".join(f'{name}="{value}"' for name, value in note.variables().items()))
    elif form == "json":
        print(json.dumps(note.variables(), indent=2))
    else:
        print(note.table())


def logs(data: Path, *, postgres: bool, follow: bool) -> None:
    """Prints the log of the running or last stack, or its PostgreSQL's; `follow` stays until Ctrl-C."""
    path = _log(data)
    if postgres:
        note = read_note(data)
        path = Path(note.cluster if note is not None else data / "postgres") / "server.log"
    try:
        log = path.open(errors="replace")
    except FileNotFoundError:
        raise Refused(f"there is no {path} yet; `start` begins one") from None
    with log:
        while True:
            print(log.read(), end="", flush=True)
            if not follow:
                return
            time.sleep(FOLLOW_SECONDS)


def faults(data: Path, wanted: str | None) -> None:
    """Shows what the running stack is asked to do wrong, or asks it for more with a JSON object; `off` ends all."""
    _ask_door(data, "faults", None if wanted is None else _fault_words(wanted))


def act(data: Path, name: str | None, arguments: str) -> None:
    """Does something once to the running Realtime, with arguments in a JSON object; without a name lists what."""
    if name is None:
        _ask_door(data, "realtime", None)
    else:
        _ask_door(data, f"realtime/{quote(name, safe='')}", arguments)


def _ask_door(data: Path, path: str, body: str | None) -> None:
    """Prints what the running stack's own door answers; raises Refused with its sentence."""
    request = urllib.request.Request(
        f"{_ready(data).url}/_devstack/{path}",
        None if body is None else body.encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            print(json.dumps(json.load(answer), indent=2))
    except urllib.error.HTTPError as error:
        raise Refused(json.load(error)["message"]) from error


def token(data: Path, user: str, role: str | None, seconds: int) -> None:
    """Prints an access token for an e-mail address or a UUID; raises Refused for an unknown address."""
    note = _ready(data)
    from devstack.auth.shell import UnknownUser, token_for  # slow to import, and only needed here

    keys = Keys(jwt_secret=note.jwt_secret)
    told = note.variables()
    try:
        minted = token_for(
            told["DB_URL"], user, issuer=told["AUTH_URL"], role=role, seconds=seconds, keys=keys
        )
        print(asyncio.run(minted))
    except UnknownUser as error:
        raise Refused(str(error)) from error


def _fault_words(wanted: str) -> str:
    if wanted != "off":
        return wanted
    from devstack.faults import Faults

    return json.dumps(asdict(Faults()))


def _ready(data: Path) -> Note:
    for _ in _waiting(START_SECONDS):
        note = read_note(data)
        if note is not None:
            return note
        if not is_held(data):
            break
    raise Refused(f"nothing runs over {data}; `start` starts it")


def _log(data: Path) -> Path:
    return data / "devstack.log"


def _waiting(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(POLL_SECONDS)


def _wait_for_the_killed(cluster: Path) -> None:
    """A stack that was killed leaves a server that ends by itself a moment later; until then it has port and data."""
    for _ in _waiting(KILLED_SECONDS):
        try:
            os.kill(int((cluster / "postmaster.pid").read_text().split("\n", 1)[0]), 0)
        except (OSError, ValueError):
            return


def _port(given: int | None, flag: str, usual: int, *, but_not: int = 0) -> int:
    wanted = given or usual
    free = next(port for port in range(wanted, 65536) if port != but_not and _is_free(port))
    if free == wanted:
        return wanted
    if given is not None:
        raise Refused(f"port {wanted} is taken; {flag} {free} is free")
    print(f"Port {wanted} is taken, using {free} instead.", file=sys.stderr)
    return free


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
