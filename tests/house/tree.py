"""The files of the project, as a clone of it would have them."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_IGNORED = {".git", *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split())}


def files(pattern: str = "*", under: Path = ROOT) -> Iterator[Path]:
    """Every file whose name matches, without what git ignores and without following links."""
    for path in sorted(under.iterdir()):
        if any(path.match(ignored) for ignored in _IGNORED) or path.is_symlink():
            continue
        if path.is_dir():
            yield from files(pattern, path)
        elif path.match(pattern):
            yield path


def name(path: Path) -> str:
    """As one would write it in a sentence: relative to the root."""
    return path.relative_to(ROOT).as_posix()
