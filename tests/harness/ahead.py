"""`python ahead.py SECONDS ARGUMENTS...`: the exporter with a wall clock that is so far ahead."""

import sys
import time
from pathlib import Path

_TIME = time.time


def main() -> int:
    """Run it."""
    _, seconds, *arguments = sys.argv
    time.time = lambda: _TIME() + int(seconds)
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from exporter.cli.main import main as run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
