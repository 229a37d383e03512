"""The `pulse` command, and `python -m console`."""

import sys
from pathlib import Path


def main() -> None:
    """Runs the command line and leaves with its exit code."""
    # As a console script, Python looks for `handlers` beside the script only; it is in the project that we run in.
    sys.path.insert(0, str(Path.cwd()))
    try:
        from console.program import run  # here, since loading takes a moment: Ctrl-C then is no traceback

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
