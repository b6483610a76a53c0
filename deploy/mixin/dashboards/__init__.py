"""Grafana dashboards, as readable Python: one module for each board, `panels` and `board` for the JSON.

`python -m deploy.mixin` writes them to deploy/grafana/dashboards/.
"""

from __future__ import annotations

from typing import Final

from deploy.mixin.dashboards import agent, cost, exporter, models, operations, overview, quality, slo, tools
from deploy.mixin.dashboards.board import Board
from deploy.mixin.settings import Settings

FOLDER: Final = "deploy/grafana/dashboards"
_MAKERS: Final = (overview, cost, agent, models, tools, slo, operations, quality, exporter)


def boards(settings: Settings) -> tuple[Board, ...]:
    """All boards, in the order in which one reads them."""
    return tuple(maker.board(settings) for maker in _MAKERS)


def files(settings: Settings) -> dict[str, str]:
    """The boards' files: by path in the repository, their text."""
    return {f"{FOLDER}/{board.uid}.json": board.text() for board in boards(settings)}
