"""Approvals: those that wait for a person, and how they were decided.

They are listed by when they were requested, not by when they were resolved. So waiting ones are remembered, and one
that is no longer listed as waiting is asked for by its id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from exporter.sources.facts import identifier, moment
from exporter.sources.operations import KEPT, OTHER, RESOLUTIONS, Ended, Labels, Reading
from exporter.sources.surfaces.position import Position, beginning
from exporter.sources.surfaces.waiting import Waiting, follow, remembered

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

PENDING: Final = "pending"
FEW: Final = 5
_TYPES: Final = ("required", "audit")
_SOURCES: Final = ("agent", "team", "workflow", "schedule")


class Approval(msgspec.Struct, gc=False):
    """A row; only these fields are read."""

    id: Any = None
    status: Any = None
    approval_type: Any = None
    source_type: Any = None
    created_at: Any = None
    resolved_at: Any = None

    @property
    def created(self) -> int | None:
        """When it was asked for, in microseconds."""
        return moment(self.created_at)

    @property
    def labels(self) -> Labels:
        """Its type and its source."""
        kind = "required" if self.approval_type is None else self.approval_type
        return (
            kind if kind in _TYPES else OTHER,
            self.source_type if self.source_type in _SOURCES else OTHER,
        )


class ApprovalRows(Protocol):
    """Where approvals are read from. All methods raise SourceError."""

    most: int
    """Rows that can be asked for by their ids in a turn."""

    async def pending(self) -> tuple[list[Approval], int]:
        """The newest of those that wait, and how many wait."""

    async def since(self, position: Position, *, thorough: bool) -> tuple[list[Approval], Position]:
        """Rows that may be new; `thorough`: and those that were read and may have changed."""

    async def by_id(self, ids: Collection[str]) -> Mapping[str, Approval]:
        """Those of these rows that are found."""


class _State(msgspec.Struct):
    """How far approvals are read, and which wait."""

    list: Position
    waiting: dict[str, Waiting] = {}


class Approvals:
    """The approvals of one AgentOS."""

    def __init__(self, rows: ApprovalRows) -> None:
        self._rows = rows
        self._shown: set[Labels] = {("required", "agent")}
        """kinds that are shown as 0 when none waits"""

    async def read(self, position: Mapping[str, Any] | None, since: int) -> Reading:
        """See OperationsSource; `since` is where counting begins, in microseconds. Raises SourceError."""
        before = _State(beginning(since)) if position is None else msgspec.convert(position, _State)
        pending, total = await self._rows.pending()
        whole = len(pending) >= total
        now = {id_: Waiting(created, approval.labels) for id_, created, approval in _named(pending)}
        # Many decided approvals are cheaper to find in the list than one by one.
        thorough = len(before.waiting.keys() - now.keys()) > FEW
        rows, read_to = await self._rows.since(before.list, thorough=thorough)
        ended = {
            id_: _ended(id_, created, approval) for id_, created, approval in _named(rows) if approval.status != PENDING
        }
        oldest = min((approval.created for approval in now.values()), default=0)
        missing = {
            id_: approval
            for id_, approval in before.waiting.items()
            if id_ not in now and id_ not in ended and (whole or approval.created > oldest)
        }
        believed = read_to.some or not before.list.some
        followed = await follow(missing, self._find, most=self._rows.most, believed=believed)
        ended |= followed.ended
        kept = {id_: approval for id_, approval in before.waiting.items() if id_ not in missing and id_ not in ended}
        standing = _State(read_to, remembered({**kept, **now, **followed.waiting}))
        return Reading(
            position=msgspec.to_builtins(standing),
            ended=tuple(ended.values()),
            gauges=self._gauges(now, total),
            born=[("required", resolution) for resolution in RESOLUTIONS[:-1]] if position is None else (),
            lost=followed.lost,
            forget_before=read_to.read_to - KEPT,
            doubtful=before.list.some and not read_to.some,
        )

    async def _find(self, asked: Mapping[str, Waiting]) -> dict[str, Ended | None]:
        approvals = await self._rows.by_id(asked)
        return {
            id_: None if approval.status == PENDING else _ended(id_, asked[id_].created, approval)
            for id_, approval in approvals.items()
        }

    def _gauges(self, waiting: Mapping[str, Waiting], total: int) -> dict[str, dict[Labels, float]]:
        counts: dict[Labels, float] = dict.fromkeys(self._shown, 0)
        oldest: dict[Labels, float] = {}
        for approval in waiting.values():
            counts[approval.labels] = counts.get(approval.labels, 0) + 1
            oldest[approval.labels] = min(oldest.get(approval.labels, approval.created), approval.created)
        if total > len(waiting):
            counts[OTHER, OTHER] = counts.get((OTHER, OTHER), 0) + total - len(waiting)
        self._shown |= counts.keys()
        return {
            "agentos_approvals_pending": counts,
            "agentos_approvals_oldest_pending_timestamp_seconds": oldest,
        }


def _named(rows: Iterable[Approval]) -> list[tuple[str, int, Approval]]:
    """Rows with their ids and when they were asked for; those without are left out."""
    return [
        (id_, created, row)
        for row in rows
        if (id_ := identifier(row.id)) is not None and (created := row.created) is not None
    ]


def _ended(id_: str, created: int, approval: Approval) -> Ended:
    kind, _ = approval.labels
    resolved = moment(approval.resolved_at)
    wait = resolved - created if resolved is not None and resolved >= created else None
    return Ended(id_, created, (kind, approval.status if approval.status in RESOLUTIONS else OTHER), wait)
