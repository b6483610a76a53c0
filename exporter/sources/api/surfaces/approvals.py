"""Approvals: what waits for a person, and how it was decided.

The list is ordered by when an approval was asked for, not by when it was resolved. So those that wait are remembered,
and one that waits no more is asked for by its id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from exporter.sources.api.surfaces.lists import MARGIN, PAGES, Lists, Page, Position, decode, decoder, moment, walk
from exporter.sources.api.surfaces.waiting import Waiting, follow, remembered
from exporter.sources.facts import identifier
from exporter.sources.operations import KEPT, OTHER, RESOLUTIONS, Ended, Labels, Reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PATH: Final = "/approvals"
_ENDPOINT: Final = "approvals"
_SIZE: Final = 100
_PENDING: Final = "pending"
FEW: Final = 5
_TYPES: Final = ("required", "audit")
_SOURCES: Final = ("agent", "team", "workflow", "schedule")


class _Approval(msgspec.Struct, gc=False):
    id: Any = None
    status: Any = None
    approval_type: Any = None
    source_type: Any = None
    created_at: Any = None
    resolved_at: Any = None

    @property
    def created(self) -> int | None:
        return moment(self.created_at)

    @property
    def labels(self) -> Labels:
        """Its type and its source."""
        kind = "required" if self.approval_type is None else self.approval_type
        return (
            kind if kind in _TYPES else OTHER,
            self.source_type if self.source_type in _SOURCES else OTHER,
        )


class _Standing(msgspec.Struct):
    """How far approvals are read, and which wait."""

    list: Position
    waiting: dict[str, Waiting] = {}


_page: Final = decoder(_Approval)
_approval: Final = msgspec.json.Decoder(_Approval)


class Approvals:
    """The approvals of one AgentOS."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        self._shown: set[Labels] = {("required", "agent")}
        """kinds that are shown as 0 where none waits"""

    async def read(self, position: Mapping[str, Any] | None, since: int) -> Reading:
        """See OperationsSource; `since` is where counting begins, in microseconds. Raises SourceError."""
        before = _Standing(Position(since + MARGIN)) if position is None else msgspec.convert(position, _Standing)
        pending, whole = await self._pending()
        now = {id_: Waiting(created, one.labels) for id_, created, one in _named(pending.data)}
        # Many that wait no more are cheaper to find in the list than one by one.
        thorough = len(before.waiting.keys() - now.keys()) > FEW
        rows, read_to = await walk(self._fetch, lambda row: row.created, before.list, size=_SIZE, thorough=thorough)
        ended = {id_: _ended(id_, created, one) for id_, created, one in _named(rows) if one.status != _PENDING}
        oldest = min((one.created for one in now.values()), default=0)
        missing = {
            id_: one
            for id_, one in before.waiting.items()
            if id_ not in now and id_ not in ended and (whole or one.created > oldest)
        }
        followed = await follow(missing, self._one, believed=read_to.some or not before.list.some)
        ended |= followed.ended
        kept = {id_: one for id_, one in before.waiting.items() if id_ not in missing and id_ not in ended}
        standing = _Standing(read_to, remembered({**kept, **now, **followed.waiting}))
        doubtful = before.list.some and not read_to.some
        return Reading(
            position=msgspec.to_builtins(standing),
            ended=tuple(ended.values()),
            gauges=self._gauges(now, pending.total),
            born=[("required", resolution) for resolution in RESOLUTIONS[:-1]] if position is None else (),
            lost=followed.lost,
            forget_before=read_to.read_to - KEPT,
            doubtful=doubtful,
        )

    async def _pending(self) -> tuple[Page[_Approval], bool]:
        """Those that wait, as one page, and whether it holds all of them."""
        found = await self._fetch(1, _SIZE, status=_PENDING)
        for page in range(2, PAGES + 1):
            if len(found.data) >= found.total:
                break
            found.data.extend((await self._fetch(page, _SIZE, status=_PENDING)).data)
        return found, len(found.data) >= found.total

    async def _fetch(self, page: int, size: int, **more: str) -> Page[_Approval]:
        return await self._lists.page(_PATH, {"limit": size, "page": page, **more}, _page, _ENDPOINT)

    async def _one(self, id_: str, waiting: Waiting) -> Ended | None:
        body, _ = await self._lists.get(f"{_PATH}/{quote(id_, safe='')}", {}, "approval")
        one = decode(_approval, body, _ENDPOINT)
        return None if one.status == _PENDING else _ended(id_, waiting.created, one)

    def _gauges(self, waiting: Mapping[str, Waiting], total: int) -> dict[str, dict[Labels, float]]:
        counts: dict[Labels, float] = dict.fromkeys(self._shown, 0)
        oldest: dict[Labels, float] = {}
        for one in waiting.values():
            counts[one.labels] = counts.get(one.labels, 0) + 1
            oldest[one.labels] = min(oldest.get(one.labels, one.created), one.created)
        if total > len(waiting):
            counts[OTHER, OTHER] = counts.get((OTHER, OTHER), 0) + total - len(waiting)
        self._shown |= counts.keys()
        return {
            "agentos_approvals_pending": counts,
            "agentos_approvals_oldest_pending_timestamp_seconds": oldest,
        }


def _named(rows: Iterable[_Approval]) -> list[tuple[str, int, _Approval]]:
    """Rows with their ids and when they were asked for; those without are left out."""
    return [
        (id_, created, one)
        for one in rows
        if (id_ := identifier(one.id)) is not None and (created := one.created) is not None
    ]


def _ended(id_: str, created: int, one: _Approval) -> Ended:
    kind, _ = one.labels
    resolved = moment(one.resolved_at)
    wait = resolved - created if resolved is not None and resolved >= created else None
    return Ended(id_, created, (kind, one.status if one.status in RESOLUTIONS else OTHER), wait)
