"""`./dev demo`: the main job on real parts, from an INSERT to its outcome, told as it happens.

A PostgreSQL, a local Supabase before it, doubles of Stripe, Discord and Firebase, a mail server, a local chain (where
its program is installed) and a `pulse worker` process are started; jobs are inserted as plain rows by the official
client. `--once` ends after the story, with exit code 0 only if every outcome was the promised one; without it the stack
stays up until Ctrl-C.
"""

import argparse
import asyncio
import signal
import socket
import sys
from contextlib import AsyncExitStack, suppress

import asyncpg
from supabase import acreate_client

from demo import story
from demo.counterparts import Counterparts
from demo.shop import local_chain, settings
from demo.stage import Stage
from demo.worker import worker_process
from devstack.gateway import Gateway
from devstack.keys import LOCAL
from devstack.postgres import SUPERUSER, Postgres, bootstrap, throw_away_folder
from devstack.stripe.double import StripeDouble
from listener.migrate import migrate, migrations

API_PORT, DATABASE_PORT = 54321, 54322


async def play(*, once: bool) -> bool:
    """Starts everything, plays the story, and answers whether all went as promised."""
    async with AsyncExitStack() as stack:
        print("Starting PostgreSQL and a local Supabase …", flush=True)
        folder = stack.enter_context(throw_away_folder())
        api_port, database_port = _free(API_PORT), _free(DATABASE_PORT)
        server = await stack.enter_async_context(Postgres(folder, port=database_port))
        await bootstrap(server.dsn(user=SUPERUSER))
        applied = await migrate(server.dsn(), migrations())
        gateway = await stack.enter_async_context(Gateway(server.dsn(), port=api_port))
        stripe = await stack.enter_async_context(StripeDouble())
        counterparts = await stack.enter_async_context(Counterparts.open())
        chain_url = stack.enter_context(local_chain())
        print(
            f"  {gateway.url} answers as Supabase does; {len(applied)} files of sql/ are applied to {server.dsn()}"
        )
        environment = {
            "SUPABASE_URL": gateway.url,
            "SUPABASE_SERVICE_ROLE_KEY": LOCAL.service_role,
            "STRIPE_SECRET_KEY": stripe.api_key,
            "STRIPE_WEBHOOK_SECRET": stripe.webhook_secret,
            "STRIPE_API_BASE": stripe.url,
            **settings(chain_url),
            **counterparts.settings,
        }
        database = await acreate_client(gateway.url, LOCAL.service_role)
        owner = await asyncpg.connect(server.dsn())
        stack.push_async_callback(owner.close)
        stage = Stage(database, owner, environment)
        stopped = _interrupted()
        async with worker_process(environment, stage.hear):
            kept = await story.play(stage, stripe, chain_url, counterparts)
            if not once:
                _tell_what_next(gateway, server)
                await stopped.wait()
                print("\nStopping …", flush=True)
        return kept


def _tell_what_next(gateway: Gateway, server: Postgres) -> None:

    print(
        f"""
Everything stays up until Ctrl-C. Some lines to paste into another terminal:

  # insert a job as any program would; watch it here
  curl {gateway.url}/rest/v1/maintenance_jobs -H 'apikey: {LOCAL.secret}' -H 'Content-Type: application/json' \\
    -d '{{"type": "prune"}}'

  # look at the jobs
  curl '{gateway.url}/rest/v1/jobs?select=id,queue,type,status,attempt,woken_by&order=id' -H 'apikey: {LOCAL.secret}'

  # run another worker against it, from this folder
  SUPABASE_URL={gateway.url} SUPABASE_SERVICE_ROLE_KEY={LOCAL.secret} \\
    .venv/bin/pulse worker --queues maintenance

  # or SQL, with any client
  psql '{server.dsn()}'
""",
        flush=True,
    )


def _free(wanted: int) -> int:
    """The wanted port, or the next one that nobody listens on, which is told."""
    for port in range(wanted, wanted + 1000, 10):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            if port != wanted:
                print(f"  Port {wanted} is taken, {port} is used instead.")
            return port
    sys.exit(f"No port from {wanted} on is free.")


def _interrupted() -> asyncio.Event:
    """Set by the first Ctrl-C or SIGTERM."""
    event = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    return event


def main() -> None:
    """Plays."""
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    parser.add_argument(
        "--once", action="store_true", help="end after the story; exit 0 only if all went as promised"
    )
    sys.exit(0 if asyncio.run(play(once=parser.parse_args().once)) else 1)


if __name__ == "__main__":
    main()
