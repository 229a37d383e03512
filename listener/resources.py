"""What handlers get handed: a resource is a thing opened once per process, closed at its end, and asked for by type.

    STRIPE_SECRET_KEY = Setting("STRIPE_SECRET_KEY", "Stripe dashboard, Developers, API keys")

    @resource(STRIPE_SECRET_KEY)
    async def stripe_client(settings: Settings) -> AsyncIterator[StripeClient]:
        client = StripeClient(settings["STRIPE_SECRET_KEY"])
        yield client
        await client.close_async()

A handler with a parameter `stripe: StripeClient` receives it. What no loaded handler asks for is neither needed nor
opened, so a process that serves only alerts starts without Stripe's key.

An opener that speaks to the project takes a second parameter, `keyring: Keyring`: the project's key may be replaced
while the process runs, and a setting is read once.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar, get_args, get_type_hints

from listener.errors import ConfigError
from listener.keyring import Keyring

Settings = Mapping[str, str]
"""Environment variables by name, as far as they are set."""

Provided = type[object]
"""A resource's type, which is its name."""

T = TypeVar("T")
Opener = Callable[..., AsyncIterator[T]]

_MARK = "__pulse_resource__"


@dataclass(frozen=True, slots=True)
class Setting:
    """An environment variable that a resource or webhook reads."""

    name: str
    where: str
    """Where a person finds its value; told when it is missing."""
    required: bool = True
    secret: bool = True
    """Its value is struck out of every log line and stored error."""

    def problem(self, settings: Settings) -> str | None:
        """A sentence when the environment lacks it, else None."""
        if not self.required or settings.get(self.name):
            return None
        return f"{self.name} is not set. Find it here: {self.where}"


@dataclass(frozen=True, slots=True)
class Resource:
    """How to open one resource, and what that takes."""

    provides: Provided
    settings: tuple[Setting, ...]
    open: Opener[object]
    wants_keyring: bool = False


def resource(*settings: Setting) -> Callable[[Opener[T]], Opener[T]]:
    """Marks an async generator function as the opener of what it yields. Returns the function unchanged."""

    def mark(opener: Opener[T]) -> Opener[T]:
        hints = get_type_hints(opener)
        (provides,) = get_args(hints["return"])
        setattr(opener, _MARK, Resource(provides, settings, opener, Keyring in hints.values()))
        return opener

    return mark


def resources_in(module: ModuleType) -> dict[Provided, Resource]:
    """The resources that a module declares, by the type that each provides."""
    found = [
        mark for value in vars(module).values() if isinstance(mark := getattr(value, _MARK, None), Resource)
    ]
    by_type = {one.provides: one for one in found}
    if len(by_type) < len(found):
        names = sorted(one.provides.__name__ for one in found)
        raise ConfigError(
            [f"{module.__name__} opens one type in two ways; keep one of each of: {', '.join(names)}."]
        )
    return by_type


@asynccontextmanager
async def opened(
    needed: Iterable[Resource], settings: Settings, keyring: Keyring | None = None
) -> AsyncIterator[Mapping[Provided, object]]:
    """Opens each resource, hands them out by type, and closes them in the opposite order whatever happened.

    Without a keyring one is made of the settings, if it is asked for.
    """
    async with AsyncExitStack() as stack:
        values: dict[Provided, object] = {}
        for one in needed:
            given = (settings, keyring or Keyring.of(settings)) if one.wants_keyring else (settings,)
            values[one.provides] = await stack.enter_async_context(asynccontextmanager(one.open)(*given))
        yield values
