"""Prints where an account is called back, and the secret that signs its callbacks:

    BROKER_CALLBACK_SECRET=… python -m handlers.broker_callback_secret ACCOUNT [VERSION]

The secret is computed, so this asks no database and can be run again at any time. Of two masters the first one counts.
"""

import argparse
import os
import sys
from uuid import UUID

from handlers.clients.broker.callback_signature import (
    BROKER_CALLBACK_SECRET,
    NoMaster,
    callback_path,
    callback_secret,
    masters_in,
)


def main() -> int:
    """Answers the exit code: 2 when something is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m handlers.broker_callback_secret",
        description="Prints where an account at a broker is called back, and the secret that signs its callbacks.",
    )
    parser.add_argument("account", type=UUID, help="the id of a row of broker_connections")
    parser.add_argument(
        "version", type=int, nargs="?", default=1, help="one of its callback_versions, if not the first"
    )
    asked = parser.parse_args()
    try:
        master, *_ = masters_in(os.environ.get(BROKER_CALLBACK_SECRET.name))
    except NoMaster as error:
        sys.stderr.write(f"{error}\n")
        return 2
    path = callback_path(asked.account, asked.version)
    secret = callback_secret(master, asked.account, asked.version)
    sys.stdout.write(f"URL     https://the-address-of-your-door{path}\nsecret  {secret}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
