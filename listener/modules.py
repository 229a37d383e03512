"""The files of `handlers/` as modules: which there are, and what is said of one that Python cannot load."""

import importlib
import pkgutil
from collections.abc import Container, Iterator
from pathlib import Path
from types import ModuleType

from listener.errors import ConfigError


def imported(name: str) -> ModuleType:
    """A module. One that cannot be loaded is told by its name and place, never by its text."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError([f"{name} cannot be loaded: there is no module {error.name}."]) from error
    except SyntaxError as error:
        raise ConfigError([f"{name} cannot be loaded: line {error.lineno} is no Python."]) from error


def holds(root: ModuleType, name: str) -> bool:
    """Whether a package has such a file."""
    return any(one.name == name for one in pkgutil.iter_modules(root.__path__))


def modules_below(root: ModuleType, wanted: Container[str] | None) -> Iterator[ModuleType]:
    """Each module one level below (of the wanted folders); a folder as `clients` just has no handlers."""
    for folder in _folders(root):
        if wanted is None or folder in wanted:
            package = imported(f"{root.__name__}.{folder}")
            for file in pkgutil.iter_modules(package.__path__):
                yield imported(f"{package.__name__}.{file.name}")


def _folders(root: ModuleType) -> list[str]:
    """Also those without an `__init__.py`, which pkgutil passes over and `import` does not."""
    found = (one for path in root.__path__ for one in Path(path).iterdir() if one.name.isidentifier())
    return sorted({one.name for one in found if any(one.glob("*.py"))})
