"""Runs of evaluations, and how good they found their agent, team or workflow to be."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import msgspec

from exporter.sources.api.surfaces.lists import MARGIN, Lists, Page, Position, decoder, moment, walk
from exporter.sources.facts import clean_name, identifier
from exporter.sources.operations import KEPT, OTHER, Ended, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TYPES: Final = ("accuracy", "agent_as_judge", "performance", "reliability")
_SIZE: Final = 50
_MOST: Final = {"accuracy": 10, "agent_as_judge": 100}
"""The highest score of a type, as AgentOS has it."""


class _Data(msgspec.Struct, gc=False):
    avg_score: Any = None
    pass_rate: Any = None
    eval_status: Any = None


class _Eval(msgspec.Struct, gc=False):
    id: Any = None
    eval_type: Any = None
    name: Any = None
    evaluated_component_name: Any = None
    agent_id: Any = None
    team_id: Any = None
    workflow_id: Any = None
    created_at: Any = None
    eval_data: _Data | None = None


class _Standing(msgspec.Struct):
    since: int
    databases: dict[str, Position] = {}


_page: Final = decoder(_Eval)


class Evals:
    """The evaluations of one AgentOS; `places` names its databases, as parameters of a request."""

    def __init__(self, lists: Lists, places: Callable[[], Sequence[Mapping[str, str]]]) -> None:
        self._lists = lists
        self._places = places

    async def read(self, position: Mapping[str, Any] | None, since: int) -> Reading:
        """See OperationsSource; `since` is where counting begins, in microseconds. Raises SourceError."""
        before = _Standing(since) if position is None else msgspec.convert(position, _Standing)
        databases = dict(before.databases)
        ended: list[Ended] = []
        doubtful = False
        for place in self._places():
            database = place.get("db_id", "")
            stood = databases.get(database) or Position(before.since + MARGIN)
            rows, read_to = await walk(
                functools.partial(self._fetch, place), lambda row: moment(row.created_at), stood, size=_SIZE
            )
            databases[database] = read_to
            ended.extend(one for row in rows if (one := _ended(row)) is not None)
            doubtful = doubtful or (stood.some and not read_to.some)
        read = [one.read_to for one in databases.values() if one.some]
        return Reading(
            position=msgspec.to_builtins(_Standing(before.since, databases)),
            ended=ended,
            forget_before=min(read, default=before.since) - KEPT,
            doubtful=doubtful,
        )

    async def _fetch(self, place: Mapping[str, str], page: int, size: int) -> Page[_Eval]:
        wanted = {"sort_by": "created_at", "sort_order": "desc", "limit": size, "page": page, **place}
        return await self._lists.page("/eval-runs", wanted, _page, "eval_runs")


def _ended(row: _Eval) -> Ended | None:
    id_, at = identifier(row.id), moment(row.created_at)
    if id_ is None or at is None:
        return None
    kind = row.eval_type if row.eval_type in _TYPES else OTHER
    names = (row.evaluated_component_name, row.agent_id, row.team_id, row.workflow_id)
    component = next((clean_name(name) for name in names if isinstance(name, str) and name), "")
    name = clean_name(row.name) if isinstance(row.name, str) else ""
    return Ended(id_, at, (kind, name, component), score=_score(kind, row.eval_data or _Data()))


def _score(kind: str, data: _Data) -> float | None:
    """accuracy: 0 to 10; agent_as_judge: the part that passed; reliability: 1 or 0; None where it has none."""
    if kind == "reliability":
        return {"PASSED": 1.0, "FAILED": 0.0}.get(data.eval_status) if isinstance(data.eval_status, str) else None
    value = data.avg_score if kind == "accuracy" else data.pass_rate
    if kind not in _MOST or isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not 0 <= value <= _MOST[kind]:
        return None
    return float(value) if kind == "accuracy" else value / 100
