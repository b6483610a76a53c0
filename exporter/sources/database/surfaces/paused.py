"""Runs that are paused until a person decides, from agno's table of runs.

A run that continues keeps its row, whose status then is COMPLETED. Runs of members have a parent, and pause with it.
agno has the table from 3.0 on; earlier releases keep runs inside their sessions.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from exporter.core.errors import BadAnswer
from exporter.sources.facts import clean_name, spelled
from exporter.sources.operations import Reading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporter.sources.database.sql import Sql
    from exporter.sources.database.surfaces.tables import Databases
    from exporter.sources.operations import Labels

_KINDS: Final = ("agent", "team", "workflow")
_IDS: Final = ", ".join(f"{kind}_id" for kind in _KINDS)
_COLUMNS: Final = ("run_id", "run_type", "agent_id", "team_id", "workflow_id", "parent_run_id", "status", "run_data")
_MOST: Final = 500
"""Agents, teams and workflows of which runs are paused."""


class PausedRuns:
    """The paused runs of one AgentOS, by the names that spans have."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._shown: set[Labels] = set()
        """roots that are shown as 0 when none of their runs is paused any more"""

    async def read(self) -> Reading:
        """See OperationsSource. Raises SourceError."""
        groups = await self._databases.every("runs_table", _COLUMNS, _paused, index="status")
        if len(groups) > _MOST:
            raise BadAnswer(f"runs of more than {_MOST} agents, teams and workflows are paused")
        names = await self._names([run for _, _, run in groups]) if groups else {}
        counts: Counter[Labels] = Counter()
        for kind, number, run in groups:
            counts[kind, _root(kind, names.get(run))] += number
        self._shown |= counts.keys()
        return Reading(gauges={"agentos_runs_paused": {labels: counts[labels] for labels in self._shown}})

    async def _names(self, runs: Sequence[str]) -> Mapping[str, Any]:
        def statement(sql: Sql, name: str) -> str:
            cases = " ".join(f"WHEN '{kind}' THEN {sql.json_text('run_data', f'{kind}_name')}" for kind in _KINDS)
            return f"SELECT run_id, CASE run_type {cases} END FROM {name} WHERE run_id IN ({sql.marks(len(runs))})"

        return dict(await self._databases.every("runs_table", _COLUMNS, statement, runs))


def _root(kind: str, name: object) -> str:
    """The name as spans have it; they call one that has none by its kind."""
    return spelled(clean_name(name)) if isinstance(name, str) and name else kind.capitalize()


def _paused(_sql: Sql, name: str) -> str:
    """Rows of kind, number of runs and one of them, for each agent, team and workflow."""
    kinds = ", ".join(f"'{kind}'" for kind in _KINDS)
    return (
        f"SELECT run_type, count(*), max(run_id) FROM {name} WHERE status = 'PAUSED' AND parent_run_id IS NULL "
        f"AND run_type IN ({kinds}) GROUP BY run_type, {_IDS} LIMIT {_MOST + 1}"
    )
