"""Which function runs which job: handlers and webhooks are declared beside their code and found by walking `handlers/`.

A handler file is `handlers/<queue>/<type>.py` and holds one function of the same name:

    @handler(Queue.PAYMENT)
    async def subscription_renewal(payload: RenewSubscription, *, job: Job, db: Database) -> None: ...

The payload comes first (a pydantic model; None-typed handlers do not exist), all else is keyword-only and resolved by
its type. Whatever does not fit this shape is an error at start that names the file, never a surprise in mid-job.
"""

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import ModuleType
from typing import Protocol, TypeVar, get_type_hints, runtime_checkable

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from listener.backoff import Backoff
from listener.errors import ConfigError, PulseError
from listener.jobs import Job, NewJob
from listener.modules import holds, imported, modules_below
from listener.paths import path_problems
from listener.periodic import Declared, declared_on, schedule_problem
from listener.progress import Progress
from listener.resources import Provided, Resource, Setting, Settings, resources_in

_HANDLER = "__pulse_handler__"
_WEBHOOK = "__pulse_webhook__"
DEFAULT_TIMEOUT = timedelta(minutes=5)


class Payload(BaseModel):
    """The base for payloads: snake_case and camelCase keys, unknown keys refused, values kept out of its errors."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )


@runtime_checkable
class Function(Protocol):
    """An async function with a name."""

    __name__: str
    __module__: str

    def __call__(self, *args: object, **kwargs: object) -> Awaitable[object]: ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a provider posted to a webhook: the raw bytes, since signatures are over them, and its headers."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case."""
    received_at: datetime
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the sender filled into the parts of the path: `connection_id` for /webhooks/broker/{connection_id}."""


F = TypeVar("F", bound=Callable[..., Awaitable[object]])
PayloadModel = type[BaseModel]
Receive = Callable[[Delivery, Settings], NewJob]
Show = Callable[[Delivery, Settings, bool], str]
"""An HTML page for a person whose browser is at a webhook's path; the last says whether it has just delivered."""


@dataclass(frozen=True, slots=True)
class Handler:
    """One job type: what runs it and how."""

    queue: str
    type: str
    run: Callable[..., Awaitable[object]]
    payload: PayloadModel
    wants: Mapping[str, Provided]
    """Keyword-only parameters by name: resources, by type; `Job` and `Progress` are filled in for each attempt."""
    timeout: timedelta
    backoff: Backoff | None
    """None: the table in the database."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A path on the door whose deliveries become jobs."""

    path: str
    receive: Receive
    settings: tuple[Setting, ...]
    page: Show | None = None


def handler(
    queue: str, *, timeout: timedelta = DEFAULT_TIMEOUT, backoff: Backoff | None = None
) -> Callable[[F], F]:
    """Marks the function that runs the jobs of its own name. Returns it unchanged, so tests just call it.

    `timeout` bounds one attempt: the function is cancelled and the attempt fails. `backoff` replaces the retry table.
    """

    def mark(function: F) -> F:
        setattr(function, _HANDLER, (str(queue), timeout, backoff))
        return function

    return mark


def webhook(path: str, *settings: Setting, page: Show | None = None) -> Callable[[Receive], Receive]:
    """Marks the function that turns a verified delivery on `path` into a job, or raises DeliveryRefused.

    A path may have parts that the sender fills in, `/webhooks/broker/{connection_id}`; see `listener/paths.py`.
    It runs on the event loop and must only compute: the provider waits for its answer. So does `page`, which a path has
    where people go too, with a link from a mail say: it is what GET shows them, and what their POST is answered with.
    A GET changes nothing, since mail servers follow links to see what is there.
    """

    def mark(function: Receive) -> Receive:
        setattr(function, _WEBHOOK, Webhook(path, function, settings, page))
        return function

    return mark


@dataclass(frozen=True, slots=True)
class Registry:
    """Everything that a process can run or receive."""

    handlers: Mapping[tuple[str, str], Handler]
    """By route: (queue, type)."""
    webhooks: tuple[Webhook, ...]
    resources: tuple[Resource, ...]
    """Those that the handlers ask for, each once."""
    schedules: tuple[Declared, ...] = ()
    """Those that stand above the handlers."""

    def types(self, queue: str) -> list[str]:
        """The job types of a queue that this process can run, sorted."""
        return sorted(type_ for queue_, type_ in self.handlers if queue_ == queue)

    @property
    def queues(self) -> list[str]:
        """The queues with at least one handler, sorted."""
        return sorted({queue for queue, _ in self.handlers})

    @property
    def handler_settings(self) -> list[Setting]:
        """What a process that runs these handlers reads from the environment."""
        return _unique(setting for one in self.resources for setting in one.settings)

    @property
    def webhook_settings(self) -> list[Setting]:
        """What a process that answers these webhooks reads from the environment."""
        return _unique(setting for one in self.webhooks for setting in one.settings)


def load(package: str = "handlers", queues: Iterable[str] | None = None) -> Registry:
    """Imports and checks the handler files of the queues (None: of all). Raises ConfigError with every fault."""
    root = imported(package)
    wanted = None if queues is None else set(queues)
    handlers: dict[tuple[str, str], Handler] = {}
    webhooks: list[Webhook] = []
    schedules: list[Declared] = []
    problems: list[str] = []
    for module in modules_below(root, wanted):
        for value in vars(module).values():
            if getattr(value, "__module__", None) != module.__name__:
                continue  # imported from elsewhere; found where it lives
            if isinstance(found := getattr(value, _WEBHOOK, None), Webhook):
                webhooks.append(found)
            if hasattr(value, _HANDLER):
                try:
                    one = _inspect(value, module)
                except PulseError as error:
                    problems.append(str(error))
                else:
                    handlers[one.queue, one.type] = one
                    schedules += _schedules(value, one, problems)
            elif declared_on(value):
                problems.append(
                    f"{module.__name__}: a schedule stands above what is no handler; put @handler below it."
                )
    if wanted is not None:
        known = {queue for queue, _ in handlers}
        problems += [
            f"No handler serves the queue {queue!r}: add one at {package}/{queue}/, or leave it out of --queues."
            for queue in sorted(wanted - known)
        ]
    problems += path_problems([one.path for one in webhooks])
    problems += [
        f"Two schedules are called {name}: give each a name of its own, `name=`."
        for name, times in Counter(one.name for one in schedules).items()
        if times > 1
    ]
    resources = _resolve(handlers.values(), _offered(root), problems)
    if problems:
        raise ConfigError(problems)
    return Registry(handlers, tuple(webhooks), resources, tuple(schedules))


def _inspect(function: Function, module: ModuleType) -> Handler:
    """Reads a marked function's shape, or says what is wrong with it."""
    queue, timeout, backoff = getattr(function, _HANDLER)
    family, stem = module.__name__.split(".")[-2:]
    name = function.__name__

    def wrong(what: str) -> ConfigError:
        return ConfigError([f"{module.__name__}: {what}"])

    if name != stem:
        raise wrong(
            f"the handler is called {name}, but its file is {stem}.py; file, function and job type are one word."
        )
    if queue != family:
        raise wrong(f"the handler is for the queue {queue!r}, but lives in {family}/; move it to {queue}/.")
    if not inspect.iscoroutinefunction(function):
        raise wrong(f"{name} must be an `async def`.")
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise wrong(
            f"{name} is annotated with {error.name!r}, which cannot be resolved at run time."
        ) from error
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
        raise wrong(f"{name} must take its payload first.")
    first, *others = parameters
    payload = hints.get(first.name)
    if not (isinstance(payload, type) and issubclass(payload, BaseModel)):
        raise wrong(
            f"{name}'s payload {first.name!r} must be annotated with a pydantic model, such as listener.Payload."
        )
    if loose := [one.name for one in others if one.kind is not inspect.Parameter.KEYWORD_ONLY]:
        raise wrong(f"{name} must take {', '.join(loose)} keyword-only: put a * before.")
    if bare := [one.name for one in others if one.name not in hints]:
        raise wrong(f"{name} must annotate {', '.join(bare)}: they are resolved by type.")
    return Handler(
        queue, name, function, payload, {one.name: hints[one.name] for one in others}, timeout, backoff
    )


def _schedules(function: object, handler: Handler, problems: list[str]) -> list[Declared]:
    """What stands above a handler, with its name, queue and type; notes as a problem what is wrong with it."""
    found = [
        replace(one, name=one.name or handler.type, queue=handler.queue, type=handler.type)
        for one in declared_on(function)
    ]
    problems += [
        f"{handler.queue}/{handler.type}: {problem}"
        for one in found
        if (problem := schedule_problem(one, handler.payload))
    ]
    return found


def _offered(root: ModuleType) -> Mapping[Provided, Resource]:
    """What `resources.py` provides; a project whose handlers want nothing needs none."""
    return resources_in(imported(f"{root.__name__}.resources")) if holds(root, "resources") else {}


def _resolve(
    handlers: Iterable[Handler], offered: Mapping[Provided, Resource], problems: list[str]
) -> tuple[Resource, ...]:
    """The resources that the handlers ask for; notes as a problem what nobody provides."""
    needed: dict[Provided, Resource] = {}
    for one in handlers:
        for name, wanted in one.wants.items():
            if wanted in (Job, Progress):
                continue
            if wanted in offered:
                needed[wanted] = offered[wanted]
            else:
                type_ = getattr(wanted, "__name__", wanted)  # a union has no name
                problems.append(
                    f"{one.queue}/{one.type} asks for `{name}: {type_}`, which no @resource provides."
                )
    return tuple(needed.values())


def _unique(settings: Iterable[Setting]) -> list[Setting]:
    return list({setting.name: setting for setting in settings}.values())
