"""The durable queue, from its table. agno has one in PostgreSQL alone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from exporter.sources.database.surfaces.tables import Databases, Table
from exporter.sources.facts import moment
from exporter.sources.surfaces.queue import ENDED, STATUSES, Counts, Job

if TYPE_CHECKING:
    from exporter.sources.database.sql import Sql
    from exporter.sources.surfaces.position import Position

_ENDED: Final = ", ".join(f"'{status}'" for status in ENDED)
_STATUSES: Final = ", ".join(f"'{status}'" for status in STATUSES)
TABLE: Final = Table(
    "job_table",
    "id",
    "completed_at",
    ("component_id", "status", "attempt"),
    # No index has the time of the end. AgentOS deletes what ended after a day, so the status finds few enough.
    only=f"status IN ({_ENDED})",
    index="status",
)


class StoredJobs:
    """See JobRows."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    async def counts(self) -> Counts:
        """See JobRows."""
        counts: Counter[str] = Counter()
        queued = []
        for status, number, accepted in await self._databases.every(TABLE.name, ("status", "created_at"), _counts):
            counts[status] += number
            queued.append(moment(accepted))
        oldest = min((at for at in queued if at is not None), default=None)
        return Counts(counts, oldest, await self._databases.now())

    async def since(self, position: Position) -> tuple[list[Job], Position]:
        """See JobRows."""
        rows, read_to = await self._databases.since(TABLE, position)
        return [Job(**dict(zip(TABLE.names, row, strict=True))) for row in rows], read_to


def _counts(_sql: Sql, name: str) -> str:
    """Rows of status, number of jobs, and when the oldest of those that are queued was accepted."""
    return (
        f"SELECT status, count(*), min(CASE WHEN status = 'queued' THEN created_at END) FROM {name} "
        f"WHERE status IN ({_STATUSES}) GROUP BY status"
    )
