"""What stands in agno's tables beside traces. Contents, arguments and texts of errors never leave the database.

Where agno 3.1.10 has its tables, and what they have an index on:

| table | PostgreSQL | SQLite | MySQL, MariaDB | read by |
|---|---|---|---|---|
| approvals | yes | yes | no | created_at, status, id |
| schedules, schedule_runs | yes | yes | no | created_at, id |
| jobs | yes | no | no | status |
| eval_runs | yes | yes | yes | created_at |
| memories | yes | yes | yes | user_id |
| knowledge | yes | yes | yes | nothing: it is gone through |
| runs | yes | yes | yes | status, run_id |

Times are whole seconds since the epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporter.core.errors import Unauthorized
from exporter.sources.database.surfaces.approvals import StoredApprovals
from exporter.sources.database.surfaces.evals import StoredEvals
from exporter.sources.database.surfaces.holdings import Knowledge, Memory
from exporter.sources.database.surfaces.paused import PausedRuns
from exporter.sources.database.surfaces.queue import StoredJobs
from exporter.sources.database.surfaces.schedules import StoredSchedules
from exporter.sources.database.surfaces.tables import Databases
from exporter.sources.operations import (
    APPROVALS,
    EVALS,
    KNOWLEDGE,
    MEMORY,
    QUEUE,
    RUNS,
    SCHEDULES,
    Reading,
    Refused,
)
from exporter.sources.surfaces.approvals import Approvals
from exporter.sources.surfaces.evals import Evals
from exporter.sources.surfaces.queue import Queue
from exporter.sources.surfaces.schedules import Schedules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporter.core.model import Clock
    from exporter.sources.database.connection import Connection


class DatabaseSurfaces:
    """The surfaces of one AgentOS. See OperationsSource."""

    def __init__(self, connections: Sequence[Connection], clock: Clock, *, lookback: int) -> None:
        """Read approvals, schedules and the like of one AgentOS.

        Args:
            connections: Connections that nothing else uses.
            clock: The clocks.
            lookback: Microseconds of history that are read at first.

        """
        self._clock = clock
        self._lookback = lookback
        self._databases = databases = Databases(connections, clock)
        self._ending = {
            APPROVALS: Approvals(StoredApprovals(databases)).read,
            SCHEDULES: Schedules(StoredSchedules(databases)).read,
            QUEUE: Queue(StoredJobs(databases)).read,
            EVALS: Evals(StoredEvals(databases)).read,
        }
        self._standing = {
            KNOWLEDGE: Knowledge(databases, clock).read,
            MEMORY: Memory(databases, clock).read,
            RUNS: PausedRuns(databases).read,
        }

    @property
    def surfaces(self) -> Sequence[str]:
        """See OperationsSource."""
        return (*self._ending, *self._standing)

    @property
    def connections(self) -> Sequence[Connection]:
        """One for each database."""
        return self._databases.connections

    async def read(self, surface: str, position: Mapping[str, Any] | None) -> Reading:
        """See OperationsSource."""
        try:
            if surface in self._standing:
                return await self._standing[surface]()
            return await self._ending[surface](position, self._clock.now_us() - self._lookback)
        except Unauthorized as error:
            raise Refused(str(error)) from error

    async def aclose(self) -> None:
        """Close all connections."""
        await self._databases.aclose()
