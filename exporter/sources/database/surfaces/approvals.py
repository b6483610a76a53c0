"""Approvals, from their table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from exporter.sources.database.surfaces.tables import MOST, SIZE, Databases, Table
from exporter.sources.surfaces.approvals import PENDING, Approval

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from exporter.sources.database.sql import Sql
    from exporter.sources.surfaces.position import Position

TABLE: Final = Table("approvals_table", "id", "created_at", ("status", "approval_type", "source_type", "resolved_at"))


class StoredApprovals:
    """See ApprovalRows."""

    most = MOST

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    async def pending(self) -> tuple[list[Approval], int]:
        """See ApprovalRows."""
        rows = await self._databases.every(TABLE.name, TABLE.names, _pending)
        if len(rows) < SIZE:
            return _approvals(rows), len(rows)
        counts = await self._databases.every(TABLE.name, TABLE.names, _count)
        return _approvals(rows), sum(count for (count,) in counts)

    async def since(self, position: Position, *, thorough: bool) -> tuple[list[Approval], Position]:  # noqa: ARG002
        """See ApprovalRows. Those that may have changed are cheap to ask for by their ids."""
        rows, read_to = await self._databases.since(TABLE, position)
        return _approvals(rows), read_to

    async def by_id(self, ids: Collection[str]) -> dict[str, Approval]:
        """See ApprovalRows."""
        return {approval.id: approval for approval in _approvals(await self._databases.by_id(TABLE, ids))}


def _approvals(rows: Iterable[tuple[Any, ...]]) -> list[Approval]:
    return [Approval(**dict(zip(TABLE.names, row, strict=True))) for row in rows]


def _pending(_sql: Sql, name: str) -> str:
    # The sum keeps the index on the status in use: in that on the time, those that wait may be few among many.
    return (
        f"SELECT {', '.join(TABLE.names)} FROM {name} WHERE status = '{PENDING}' "
        f"ORDER BY created_at + 0 DESC, id DESC LIMIT {SIZE}"
    )


def _count(_sql: Sql, name: str) -> str:
    return f"SELECT count(*) FROM {name} WHERE status = '{PENDING}'"
