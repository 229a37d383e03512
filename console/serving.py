"""The words that `worker` and `web` have in common: where the door opens, and how much the log tells."""

from argparse import ArgumentParser

from listener.config import process_environment


def door_arguments(parser: ArgumentParser) -> None:
    """Adds them."""
    parser.add_argument("--host", default="127.0.0.1", help="address of the door (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port of the door (default: $PORT, else 8000 or a free one)")
    parser.add_argument(
        "--log-level",
        default=process_environment().get("PULSE_LOG_LEVEL", "INFO").upper(),
        help="DEBUG, INFO, WARNING or ERROR (default: $PULSE_LOG_LEVEL, else INFO)",
    )
