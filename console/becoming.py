"""Going on as another program of ours, which is no part of what is deployed."""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

from listener.errors import PulseError


def become(package: str, name: str, words: Sequence[str]) -> NoReturn:
    """Replaces this process."""
    if find_spec("devstack") is None or find_spec(package) is None:
        raise PulseError(f"{name} is not installed here: run this in a checkout of the project.")
    os.execv(sys.executable, [sys.executable, "-m", package, *words])  # noqa: S606 - our own program
