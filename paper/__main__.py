"""`python -m paper`: the paper broker over HTTP, and what it takes to begin: an account, and quotes.

It works on the project at SUPABASE_URL with SUPABASE_SERVICE_ROLE_KEY, as a worker does.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from aiohttp import web

from paper import feeds
from paper.face import face
from paper.rest import DatabaseFailed, rest
from paper.store import Call, Store

_NEEDED = "SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY"


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command; its exit code."""
    asked = _parser().parse_args(words)
    missing = [name for name in _NEEDED if not os.environ.get(name)]
    if missing:
        print(f"paper: set {' and '.join(missing)}", file=sys.stderr)
        return 2
    try:
        asyncio.run(_run(asked))
    except (DatabaseFailed, feeds.BadQuotes, OSError) as error:
        print(f"paper: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


async def _run(asked: argparse.Namespace) -> None:
    async with rest(*(os.environ[name] for name in _NEEDED)) as call:
        if asked.command == "open":
            await _open(call, asked)
        elif asked.command == "price":
            quote = {"symbol": asked.symbol, "bid": str(asked.bid), "ask": str(asked.ask)}
            await call("note_paper_quotes", {"quotes": [quote], "feed": asked.feed})
        elif asked.command == "quotes":
            await _import(call, asked)
        else:
            await _serve(call, asked)


async def _serve(call: Call, asked: argparse.Namespace) -> None:
    runner = web.AppRunner(face(call), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, asked.host, asked.port)
        await site.start()
        host, port = runner.addresses[0][:2]
        print(f"the paper broker listens at http://{host}:{port}", flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _open(call: Call, asked: argparse.Namespace) -> None:
    settings = {"market": asked.market, "shorting": asked.shorting}
    words = {"label": asked.label, "cash": str(asked.cash), "feed": asked.feed, "settings": settings}
    opened = await call("open_paper_account", {"opened": words})
    print(f"account    {opened['account_id']}\nkey id     {opened['key_id']}\nsecret     {opened['secret']}")


async def _import(call: Call, asked: argparse.Namespace) -> None:
    with Path(asked.file).open(newline="") as lines:  # noqa: ASYNC230  # one command, nothing else waits
        quotes = feeds.read(lines, datetime.now(UTC) if asked.from_now else None)
    for batch in feeds.batches(quotes):
        await Store(call).note_quotes(batch, asked.feed)
    print(f"{len(quotes)} quotes")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m paper", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    serve = commands.add_parser("serve", help="speak Alpaca's trading API over HTTP (also without a word)")
    for one in (parser, serve):
        one.add_argument("--host", default="127.0.0.1")
        one.add_argument("--port", type=int, default=8790)
    opens = commands.add_parser("open", help="open an account; shows its secret this once")
    opens.add_argument("--label")
    opens.add_argument("--cash", type=Decimal, default=Decimal(100_000))
    opens.add_argument("--market", choices=("us_equities", "always"), default="us_equities")
    opens.add_argument("--shorting", action="store_true")
    price = commands.add_parser("price", help="let a symbol have this price from now on")
    price.add_argument("symbol")
    price.add_argument("bid", type=Decimal)
    price.add_argument("ask", type=Decimal)
    quotes = commands.add_parser("quotes", help="import quotes from a CSV file")
    quotes.add_argument("file")
    quotes.add_argument("--from-now", action="store_true", help="move them, so that the first one is now")
    for one in (opens, price, quotes):
        one.add_argument(
            "--feed", default="shared", help="the quotes of one feed are seen by its accounts alone"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
