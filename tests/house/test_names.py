"""The project names only what everybody has: no paths of one machine, no private package index, no secret."""

import re

from tests.house.tree import ROOT, files, name

_PRIVATE_PATH = re.compile(r"(?<![\w.…)}>])/(?:work|root|home/\w+|Users/\w+|tmp/\w+)/")
_LIVE_SECRET = re.compile(r"\b(?:sk_live_|rk_live_|whsec_|SG\.)[A-Za-z0-9_-]{20,}")


def test_nothing_points_into_somebodys_own_machine() -> None:
    found = [f"{place}: {line.strip()}" for place, line in _lines() if _PRIVATE_PATH.search(line)]
    assert not found


def test_nothing_looks_like_a_live_secret() -> None:
    assert not [place for place, line in _lines() if _LIVE_SECRET.search(line)]


def test_the_lock_file_knows_only_the_public_default_index() -> None:
    lock = (ROOT / "uv.lock").read_text()
    assert set(re.findall(r"https?://([^/\"]+)", lock)) == {"pypi.org", "files.pythonhosted.org"}


def _lines() -> list[tuple[str, str]]:
    return [
        (f"{name(path)}:{number}", line)
        for path in files()
        if name(path) != "uv.lock"
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
    ]
