"""A burst of Stripe's webhooks at the door, with a worker beside it: how soon it answers, and whether any is lost.

    .venv/bin/python -m bench.webhooks --requests 10000 --at-once 16

The database, the API, the double of Stripe, the door (`pulse web`) and the worker are processes of their own, and share
the machine with the one that sends. Every twentieth event is delivered twice.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast
from uuid import uuid4

import aiohttp
import asyncpg

from bench.stack import ROOT, Stack, ended, first_line, listening, python, running_stack
from devstack.keys import LOCAL
from devstack.stripe.books import Books
from devstack.stripe.double import WEBHOOK_SECRET, StripeDouble

Delivery = tuple[bytes, str]


async def _measure(requests: int, at_once: int) -> int:
    double = StripeDouble()
    deliveries = _deliveries(double, requests)
    async with running_stack() as stack, _stripe(double, stack.url) as environment:
        worker = ("worker", "--queues", "payment", "--no-scheduler")
        async with (
            listening("web", environment=environment) as [door],
            listening(*worker, environment=environment),
        ):
            _say(f"sending {len(deliveries)} deliveries of {requests} events, {at_once} at once …")
            began, busy = time.perf_counter(), await _cpu_seconds(door)
            answers = await _send(door, deliveries, at_once)
            sent_in = time.perf_counter() - began
            busy = await _cpu_seconds(door) - busy
            followed_in = await _until_followed(stack, began)
        failed, statuses = await _ends(stack)
    cuts = statistics.quantiles([took for _, took in answers], n=100)
    print(f"answers by status          {dict(Counter(status for status, _ in answers))}")
    print(f"answered per second        {len(answers) / sent_in:.0f}")
    print(f"answer, p50 / p95 / p99    {cuts[49]:.1f} / {cuts[94]:.1f} / {cuts[98]:.1f} ms")
    print(f"the door's CPU time        {busy / len(answers) * 1000:.2f} ms an answer")
    print(f"slowest answer             {max(took for _, took in answers):.1f} ms")
    print(f"all followed after         {followed_in:.0f} s ({requests / followed_in:.0f} a second)")
    print(f"events by end              {statuses}")
    print(f"events lost                {requests - sum(statuses.values())}")
    print(f"jobs not completed         {failed}")
    refused = sum(status != 200 for status, _ in answers)
    return 0 if not refused and not failed and sum(statuses.values()) == requests else 1


def _deliveries(double: StripeDouble, requests: int) -> list[Delivery]:
    """Eight events of each of many subscribers, signed, in the order in which Stripe would send them."""
    subscribers = -(-requests // 8)
    lives = [double.story(uuid4(), tells_user="subscription").begin() for _ in range(subscribers)]
    events = list(chain.from_iterable(lives))[:requests]
    return [
        double.signed(event) for number, event in enumerate(events) for _ in range(1 + (number % 20 == 0))
    ]


async def _send(door: str, deliveries: list[Delivery], at_once: int) -> list[tuple[int, float]]:
    waiting = iter(deliveries)
    answers: list[tuple[int, float]] = []

    async def sender(http: aiohttp.ClientSession) -> None:
        for body, signature in waiting:
            began = time.perf_counter()
            headers = {"Stripe-Signature": signature}
            async with http.post(f"{door}/webhooks/stripe", data=body, headers=headers) as answer:
                await answer.read()
            answers.append((answer.status, (time.perf_counter() - began) * 1000))

    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(sender(http))
    return answers


async def _until_followed(stack: Stack, began: float) -> float:
    connection = await asyncpg.connect(stack.dsn)
    try:
        open_jobs = (
            "select exists (select from payment_jobs where finished_at is null and type = 'stripe_webhook')"
        )
        while await connection.fetchval(open_jobs):  # noqa: ASYNC110 - the database is asked
            await asyncio.sleep(0.2)
        return time.perf_counter() - began
    finally:
        await connection.close()


async def _ends(stack: Stack) -> tuple[int, dict[str, int]]:
    """How many jobs did not complete, and the events by how they ended."""
    connection = await asyncpg.connect(stack.dsn)
    try:
        failed = await connection.fetchval(
            "select count(*) from payment_jobs where type = 'stripe_webhook' and status <> 'completed'"
        )
        rows = await connection.fetch("select status, count(*) as events from stripe_events group by status")
        return cast("int", failed), {row["status"]: row["events"] for row in rows}
    finally:
        await connection.close()


@asynccontextmanager
async def _stripe(double: StripeDouble, url: str) -> AsyncIterator[dict[str, str]]:
    """The double with these books in a process of its own; gives the settings of whoever uses it."""
    with TemporaryDirectory() as folder:
        books = Path(folder) / "books.json"
        books.write_text(json.dumps(asdict(double.books)))
        process = await python("-m", "bench.webhooks", "--serve-stripe", str(books), cwd=ROOT)
        try:
            yield {
                "SUPABASE_URL": url,
                "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret,
                "STRIPE_SECRET_KEY": double.api_key,
                "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
                "STRIPE_API_BASE": await first_line(process),
                "PYTHONPATH": str(ROOT),
            }
        finally:
            await ended(process)


async def _cpu_seconds(url: str) -> float:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/health") as answer:
        return cast("float", (await answer.json())["cpu_seconds"])


async def _serve_stripe(books: Books) -> None:
    double = StripeDouble()
    double.books = books
    async with double:
        print(double.url, flush=True)
        await asyncio.Event().wait()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measures and prints; exits with 1 if a delivery was refused or an event lost."""
    parser = argparse.ArgumentParser(prog="python -m bench.webhooks", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="events (default: 10000)")
    parser.add_argument("--at-once", type=int, default=16, help="connections (default: 16)")
    parser.add_argument("--serve-stripe", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_stripe is not None:
        asyncio.run(_serve_stripe(Books(**json.loads(arguments.serve_stripe.read_text()))))
    else:
        sys.exit(asyncio.run(_measure(arguments.requests, arguments.at_once)))


if __name__ == "__main__":
    main()
