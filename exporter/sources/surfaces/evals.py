"""Runs of evaluations, and how good they found their agent, team or workflow to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from exporter.sources.facts import clean_name, identifier, moment
from exporter.sources.operations import KEPT, OTHER, Ended, Reading
from exporter.sources.surfaces.position import Position, beginning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TYPES: Final = ("accuracy", "agent_as_judge", "performance", "reliability")
_MOST: Final = {"accuracy": 10, "agent_as_judge": 100}
"""The highest score of a type, as AgentOS has it."""


class Data(msgspec.Struct, gc=False):
    """The result of a run; only these fields are read."""

    avg_score: Any = None
    pass_rate: Any = None
    eval_status: Any = None


class Eval(msgspec.Struct, gc=False):
    """A row; only these fields are read."""

    id: Any = None
    eval_type: Any = None
    name: Any = None
    evaluated_component_name: Any = None
    agent_id: Any = None
    team_id: Any = None
    workflow_id: Any = None
    created_at: Any = None
    eval_data: Data | None = None

    @property
    def created(self) -> int | None:
        """When its row was written, in microseconds."""
        return moment(self.created_at)


class EvalRows(Protocol):
    """Where evaluations are read from."""

    def places(self) -> Sequence[str]:
        """Names of the lists that are read one after the other, each with its own position."""

    async def since(self, place: str, position: Position) -> tuple[list[Eval], Position]:
        """Rows that may be new. Raises SourceError."""


class _State(msgspec.Struct):
    since: int
    databases: dict[str, Position] = {}


class Evals:
    """The evaluations of one AgentOS."""

    def __init__(self, rows: EvalRows) -> None:
        self._rows = rows

    async def read(self, position: Mapping[str, Any] | None, since: int) -> Reading:
        """See OperationsSource; `since` is where counting begins, in microseconds. Raises SourceError."""
        before = _State(since) if position is None else msgspec.convert(position, _State)
        databases = _handed_over(before, self._rows.places())
        ended: list[Ended] = []
        doubtful = False
        for place in self._rows.places():
            stood = databases[place]
            rows, databases[place] = await self._rows.since(place, stood)
            ended.extend(evaluation for row in rows if (evaluation := _ended(row)) is not None)
            doubtful = doubtful or (stood.some and not databases[place].some)
        read = [database.read_to for database in databases.values() if database.some]
        return Reading(
            position=msgspec.to_builtins(_State(before.since, databases)),
            ended=ended,
            forget_before=min(read, default=before.since) - KEPT,
            doubtful=doubtful,
        )


def _handed_over(before: _State, places: Sequence[str]) -> dict[str, Position]:
    """Positions of all places, and of former places until new ones have replaced them.

    A list that now has another name, as from the database instead of the API, begins at the former position.
    """
    new = [place for place in places if place not in before.databases]
    gone = [database.read_to for place, database in before.databases.items() if place not in places]
    start = min(gone, default=beginning(before.since).read_to)
    kept = {place: database for place, database in before.databases.items() if place in places or not new}
    return kept | {place: Position(start) for place in new}


def _ended(row: Eval) -> Ended | None:
    id_, at = identifier(row.id), row.created
    if id_ is None or at is None:
        return None
    kind = row.eval_type if row.eval_type in _TYPES else OTHER
    names = (row.evaluated_component_name, row.agent_id, row.team_id, row.workflow_id)
    component = next((clean_name(name) for name in names if isinstance(name, str) and name), "")
    name = clean_name(row.name) if isinstance(row.name, str) else ""
    return Ended(id_, at, (kind, name, component), score=score(kind, row.eval_data or Data()))


def score(kind: str, data: Data) -> float | None:
    """accuracy: 0 to 10; agent_as_judge: the part that passed; reliability: 1 or 0; None if there is no score."""
    if kind == "reliability":
        return {"PASSED": 1.0, "FAILED": 0.0}.get(data.eval_status) if isinstance(data.eval_status, str) else None
    value = data.avg_score if kind == "accuracy" else data.pass_rate
    if kind not in _MOST or isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not 0 <= value <= _MOST[kind]:
        return None
    return float(value) if kind == "accuracy" else value / 100
