"""Reads the file that holds keys or tokens, and is held up by none: neither by a pipe nor by a mount that hangs.

The race: reading what hangs cannot be called off. So it is done by a thread that nobody waits for longer than a moment,
at the end of the process neither. While one hangs, the next look waits for the same one, so a file holds one thread.
"""

import stat
import threading
from concurrent.futures import Future
from pathlib import Path

PATIENCE_SECONDS = 3.0
_lock = threading.Lock()
_hanging: dict[str, Future[str]] = {}


def text_of(file: str) -> str | None:
    """The text of a file, or None when it does not come within some seconds.

    Raises OSError, UnicodeDecodeError (a ValueError), and IsNoFile.
    """
    with _lock:
        reading = _hanging.get(file)
        if reading is None:
            reading = _hanging[file] = Future()
            threading.Thread(target=_read, args=(file, reading), name="key file", daemon=True).start()
    try:
        return reading.result(PATIENCE_SECONDS)
    except TimeoutError:
        # It may be the file system's own, which is an OSError.
        return reading.result() if reading.done() else None


class IsNoFile(ValueError):
    """What has this name is a pipe, a folder or a device."""


def _read(file: str, into: "Future[str]") -> None:
    text: str | None = None
    failure: BaseException | None = None
    try:
        path = Path(file)
        if not stat.S_ISREG(path.stat().st_mode):
            raise IsNoFile
        text = path.read_text()
    except Exception as error:  # noqa: BLE001 - it is raised where the text is wanted
        failure = error
    with _lock:
        del _hanging[file]
    if failure is not None:
        into.set_exception(failure)
    elif text is not None:
        into.set_result(text)
