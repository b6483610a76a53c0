"""Contents of knowledge bases and memories, counted in their tables as often as that costs little."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from exporter.sources.database.pace import Pace
from exporter.sources.operations import Reading
from exporter.sources.surfaces.holdings import Contents, Memories

if TYPE_CHECKING:
    from exporter.core.model import Clock
    from exporter.sources.database.sql import Sql
    from exporter.sources.database.surfaces.tables import Databases


class Knowledge:
    """The contents of all knowledge bases. No index has their status: the table is gone through."""

    def __init__(self, databases: Databases, clock: Clock) -> None:
        self._databases = databases
        self._pace = Pace(clock)
        self._contents = Contents()

    async def read(self) -> Reading:
        """See OperationsSource. Raises SourceError."""
        if not self._pace.due:
            return Reading()
        counts: Counter[str | None] = Counter()
        with self._pace.counting(self._databases.connections):
            for status, number in await self._databases.every("knowledge_table", ("status",), _by_status):
                counts[status] += number
        return self._contents.reading(counts)


class Memory:
    """The memories of all users, by the index on them."""

    def __init__(self, databases: Databases, clock: Clock) -> None:
        self._databases = databases
        self._pace = Pace(clock)
        self._memories = Memories()

    async def read(self) -> Reading:
        """See OperationsSource. Raises SourceError."""
        if not self._pace.due:
            return Reading()
        with self._pace.counting(self._databases.connections):
            rows = await self._databases.every("memory_table", ("user_id",), _memories)
        return self._memories.reading(sum(memories for memories, _ in rows), sum(users for _, users in rows))


def _by_status(_sql: Sql, name: str) -> str:
    return f"SELECT status, count(*) FROM {name} GROUP BY status"


def _memories(_sql: Sql, name: str) -> str:
    return f"SELECT count(*), count(DISTINCT user_id) FROM {name}"
