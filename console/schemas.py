"""`pulse schemas`: what payloads are held against at the INSERT, and whether what does not fit is refused."""

from argparse import ArgumentParser, Namespace
from typing import TypedDict, cast

from console.asking import operator
from console.command import DONE, NOT_DONE, Command, Group, WrongWords
from console.screen import Column, Screen
from listener.registry import load
from listener.schemas import schemas_of

_MODES = ("refuse", "accept", "default")


class _SchemaJson(TypedDict):
    queue: str
    type: str
    version: str
    mode: str
    retires_at: str | None


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", default="list", choices=["list", "publish", "retire", "mode"], help="default: list"
    )
    parser.add_argument(
        "words", nargs="*", metavar="…", help="retire: QUEUE/TYPE; mode: refuse, accept or default, and where"
    )


async def _run(arguments: Namespace, screen: Screen) -> int:
    words: list[str] = arguments.words
    match arguments.what, words:
        case "list", []:
            return await _list(screen)
        case "publish", []:
            return await _ask(screen, "publish_schemas", {"schemas": schemas_of(load().handlers.values())})
        case "retire", [place] if "/" in place:
            return await _ask(screen, "retire_schemas", _place(place))
        case "mode", [mode, *where] if mode in _MODES and len(where) < 2:
            chosen = None if mode == "default" else mode
            return await _ask(screen, "schema_mode", {"mode": chosen, **_place(*where)})
        case _:
            raise WrongWords(
                "retire wants QUEUE/TYPE, mode wants refuse, accept or default; the others nothing"
            )


def _place(where: str = "") -> dict[str, object]:
    queue, _, type_ = where.partition("/")
    return {name: word for name, word in (("queue", queue), ("type", type_)) if word}


async def _list(screen: Screen) -> int:
    async with operator("pulse-schemas") as store:
        schemas = cast("list[_SchemaJson]", await store.ask("list_schemas", {}))
    screen.answer({"schemas": schemas})
    if not schemas:
        screen.say("No schema is published: `pulse migrate` does it, or `pulse schemas publish`.")
        return DONE
    columns = (Column("queue"), Column("type"), Column("version"), Column("mode"), Column("counts until"))
    screen.table(
        columns,
        [
            (one["queue"], one["type"], one["version"], one["mode"], one["retires_at"] or "newer ones come")
            for one in schemas
        ],
    )
    return DONE


async def _ask(screen: Screen, function: str, arguments: dict[str, object]) -> int:
    async with operator("pulse-schemas") as store:
        said = cast("dict[str, object]", await store.ask(function, arguments))
    screen.answer(said)
    screen.done(", ".join(f"{name}: {value}" for name, value in said.items()))
    return NOT_DONE if said.get("retired") == 0 else DONE


COMMAND = Command(
    "schemas",
    Group.SET_UP,
    "Show, publish and retire the schemas of payloads; refuse wrong ones, or not.",
    _run,
    _arguments,
    """
    pulse schemas                                # what is published
    pulse schemas publish                        # where DATABASE_URL is not at hand; as `pulse migrate` does
    pulse schemas mode accept payment            # wrong payloads become dead letters again, in one queue
    pulse schemas mode default payment           # and are refused again
    pulse schemas retire payment/stripe_webhook  # this type is not checked until the next publication
    """,
)
