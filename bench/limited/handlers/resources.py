"""What the limited handlers are handed: the file in which they note their runs."""

from collections.abc import AsyncIterator
from pathlib import Path

from bench.noting import FOLDER, Notes
from listener import Setting, Settings, resource


@resource(Setting(FOLDER, "bench.limits makes the folder", secret=False))
async def notes(settings: Settings) -> AsyncIterator[Notes]:
    """Open as long as the process lives."""
    with Notes.opened(Path(settings[FOLDER])) as opened:
        yield opened
