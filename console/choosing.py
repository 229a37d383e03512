"""The filters that the lists share, and the way through their pages."""

from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from typing import cast

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
