"""Handler packages as files, for tests of how they are found."""

import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

Package = Callable[[dict[str, str]], str]
RESOURCES = "resources.py"


def write_package(folder: Path, files: dict[str, str], name: str = "handlers") -> Path:
    """Writes a package of handler files below `folder`; its `__init__.py` files come by themselves."""
    root = folder / name
    for path, text in {"__init__.py": '"""."""', RESOURCES: "", **files}.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
        (file.parent / "__init__.py").touch()
    return root


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Writes handler files as an importable package and gives its name; forgotten after the test."""
    name = "handlers_under_test"

    def write(files: dict[str, str]) -> str:
        write_package(tmp_path, files, name)
        monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType] - untyped in pytest
        for module in [one for one in sys.modules if one.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        return name

    return write
