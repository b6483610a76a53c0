"""Schedules, and their runs, from one table each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from exporter.sources.database.surfaces.tables import MOST, SIZE, Databases, Table
from exporter.sources.facts import identifier
from exporter.sources.operations import NoSurface
from exporter.sources.surfaces.position import Position
from exporter.sources.surfaces.schedules import Run, Schedule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from exporter.sources.database.sql import Sql
    from exporter.sources.surfaces.schedules import FollowedSchedule

SCHEDULES: Final = Table("schedules_table", "id", "created_at", ("name", "enabled", "next_run_at"))
RUNS: Final = Table("schedule_runs_table", "id", "created_at", ("schedule_id", "status", "triggered_at"))


class StoredSchedules:
    """See ScheduleRows."""

    most = MOST

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    async def listed(self) -> tuple[dict[str, Schedule], int]:
        """See ScheduleRows."""
        rows = await self._databases.every(SCHEDULES.name, SCHEDULES.names, _newest)
        # SQLite and MySQL have numbers for booleans.
        schedules = {
            id_: Schedule(id_, name, enabled == 1, next_run_at)
            for key, _, name, enabled, next_run_at in rows
            if (id_ := identifier(key)) is not None
        }
        return schedules, await self._databases.now()

    def chosen(self, listed: Mapping[str, Schedule], known: Mapping[str, FollowedSchedule], now: int) -> list[str]:  # noqa: ARG002
        """See ScheduleRows. One statement reads the runs of all."""
        return list(listed)

    async def runs(self, positions: Mapping[str, Position]) -> dict[str, tuple[list[Run], Position]]:
        """See ScheduleRows."""
        if not positions:
            return {}
        furthest_behind = Position(min(position.read_to for position in positions.values()))
        try:
            rows, read = await self._databases.since(RUNS, furthest_behind)
        except NoSurface:  # none has run yet
            return {}
        runs: dict[str, list[Run]] = {schedule: [] for schedule in positions}
        for row in rows:
            if (schedule := identifier(row[2])) in runs:
                runs[schedule].append(_run(row))
        return {
            schedule: (run, Position(max(positions[schedule].read_to, read.read_to), some=read.some))
            for schedule, run in runs.items()
        }

    async def runs_by_id(self, schedule: str, ids: Collection[str]) -> dict[str, Run]:  # noqa: ARG002
        """See ScheduleRows."""
        return {row[0]: _run(row) for row in await self._databases.by_id(RUNS, ids)}


def _run(row: tuple[Any, ...]) -> Run:
    id_, created_at, _, status, triggered_at = row
    return Run(id_, status, created_at, triggered_at)


def _newest(_sql: Sql, name: str) -> str:
    return f"SELECT {', '.join(SCHEDULES.names)} FROM {name} ORDER BY created_at DESC, id DESC LIMIT {SIZE}"
