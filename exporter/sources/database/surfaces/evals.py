"""Runs of evaluations, from their table. From the results, the database returns only the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from exporter.sources.database.surfaces.tables import Databases, Table
from exporter.sources.surfaces.evals import Data, Eval

if TYPE_CHECKING:
    from exporter.sources.surfaces.position import Position

_PLACE: Final = "database"
"""All databases have one position."""
TABLE: Final = Table(
    "eval_table",
    "run_id",
    "created_at",
    ("eval_type", "name", "evaluated_component_name", "agent_id", "team_id", "workflow_id"),
    json=("eval_data", Data.__struct_fields__),
)
_scores: Final = msgspec.json.Decoder(tuple[Any, Any, Any])


class StoredEvals:
    """See EvalRows."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    def places(self) -> list[str]:
        """See EvalRows."""
        return [_PLACE]

    async def since(self, place: str, position: Position) -> tuple[list[Eval], Position]:  # noqa: ARG002
        """See EvalRows."""
        rows, read_to = await self._databases.since(TABLE, position)
        return [_eval(row) for row in rows], read_to


def _eval(row: tuple[Any, ...]) -> Eval:
    *columns, scores = row
    read = dict(zip(TABLE.names, columns, strict=True))
    return Eval(id=read.pop("run_id"), eval_data=_data(scores), **read)


def _data(scores: object) -> Data | None:
    """The result of a run; None if it is cut short, or no JSON."""
    try:
        return Data(*_scores.decode(scores)) if isinstance(scores, str) else None
    except msgspec.DecodeError:
        return None
