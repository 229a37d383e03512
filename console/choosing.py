"""The filters that the lists share, the way through their pages, and a person's yes to what they chose.

What was shown is what is done: an act by filter chooses once, shows, and takes the ids that it has shown. On a terminal
the yes is asked for below them; elsewhere, without --yes, nothing is changed.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import cast

from console.command import WrongWords, positive
from console.screen import Screen
from console.words import a_span, a_user, things
from listener.store import Store


def filter_arguments(parser: ArgumentParser) -> None:
    """Adds --queue, --type, --user and --since."""
    parser.add_argument("--queue", help="of this queue only")
    parser.add_argument("--type", help="of this type only")
    parser.add_argument("--user", type=a_user, metavar="UUID", help="of this user only")
    parser.add_argument(
        "--since", type=a_span, metavar="TIME", help="not older than this, such as 30s, 15m, 2h, 7d"
    )


def filters(arguments: Namespace) -> dict[str, object]:
    """Those that were given, as the functions of sql/095 name them."""
    given: dict[str, object] = {
        "queue": arguments.queue,
        "type": arguments.type,
        "user_id": arguments.user,
        "within_seconds": None if arguments.since is None else arguments.since.total_seconds(),
    }
    return {name: value for name, value in given.items() if value is not None}


def acting_arguments(parser: ArgumentParser) -> None:
    """The same for a command that acts on what they choose, with --limit and --yes."""
    filter_arguments(parser)
    parser.add_argument(
        "--limit", type=positive, default=1000, metavar="N", help="at most so many by filter (default: 1000)"
    )
    parser.add_argument(
        "--yes", action="store_true", help="do it; without, filters only show what they choose"
    )


def one_of_both(ids: Sequence[int], chosen: Mapping[str, object], what: str) -> None:
    """Raises WrongWords unless there are either ids or filters."""
    if bool(ids) == bool(chosen):
        raise WrongWords(f"name {what} by their ids, or choose them by filter: one of both")


async def agreed(arguments: Namespace, count: int, would: str, screen: Screen) -> bool:
    """Whether to do what was shown: so many things that, in words, `would` have something done to them."""
    screen.say()
    if arguments.yes:
        return True
    most = " (there may be more: --limit)" if count == arguments.limit else ""
    if not screen.can_ask:
        screen.say(f"{would}{most}. Nothing was changed: add --yes to do it.")
        return False
    screen.say(f"{would}{most}.")
    if await screen.agrees("Do it? [y/N] "):
        return True
    screen.say("Nothing was changed.")
    return False


async def pages(
    store: Store,
    function: str,
    limit_name: str,
    rows: str,
    wanted: int,
    arguments: dict[str, object],
    screen: Screen,
) -> AsyncIterator[dict[str, object]]:
    """Asks page by page until so many rows are there or nothing is left; each page is what the function answered."""
    before = arguments.get("before")
    found = 0
    calls = 0
    while found < wanted:
        asked = {**arguments, "before": before, limit_name: min(wanted - found, 1000)}
        said = cast("dict[str, object]", await store.ask(function, asked))
        yield said
        found += len(cast("list[object]", said[rows]))
        before = said["before"]
        calls += 1
        if before is None:
            return
        screen.progress(f"{things(found, 'match', 'matches')} so far, looking on below {before} …")
