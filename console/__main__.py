"""The `pulse` command, and `python -m console`."""

import sys
from pathlib import Path

from console.program import run


def main() -> None:
    """Runs the command line and leaves with its exit code."""
    # As a console script, Python looks for `handlers` beside the script only; it is in the project that we run in.
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
