"""`python -m deploy.mixin.pictures`: draws boards from what a running Prometheus answers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.mixin.dashboards import boards
from deploy.mixin.pictures.asking import Prometheus, everything
from deploy.mixin.pictures.drawing import picture
from deploy.mixin.promql import seconds
from deploy.mixin.settings import Settings

FOLDER: Final = Path("docs/images")


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the boards; returns the exit code."""
    made = {board.uid: board.text() for board in boards(Settings())}
    parser = argparse.ArgumentParser(prog="python -m deploy.mixin.pictures", description=__doc__, allow_abbrev=False)
    parser.add_argument("--prometheus", default="http://localhost:9090", metavar="URL", help="default: %(default)s")
    parser.add_argument("--range", type=seconds, default=1800, metavar="DURATION", help="what they show (default: 30m)")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="where they go (default: %(default)s)")
    parser.add_argument("boards", nargs="*", metavar="UID", help=f"which (default: all): {', '.join(made)}")
    flags = parser.parse_args(arguments)
    if unknown := set(flags.boards) - set(made):
        parser.error(f"there is no board {', '.join(sorted(unknown))}")
    source = Prometheus(flags.prometheus, flags.range)
    flags.out.mkdir(parents=True, exist_ok=True)
    for uid in flags.boards or made:
        board = json.loads(made[uid])
        asked = [panel for panel in board["panels"] if panel["type"] != "row"]
        answers = {panel["id"]: source.panel(panel, everything(board)) for panel in asked}
        path = flags.out / f"{uid}.png"
        path.write_bytes(picture(board, answers, source.begin, source.end))
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")  # noqa: T201 - a command prints
    return 0


if __name__ == "__main__":
    sys.exit(main())
