"""Approvals, from their list. AgentOS answers 404 for one that it does not know, and when its database fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from exporter.sources.api.surfaces.lists import MOST, PAGES, Lists, Page, decode, decoder, each, walk
from exporter.sources.surfaces.approvals import PENDING, Approval

if TYPE_CHECKING:
    from collections.abc import Collection

    from exporter.sources.surfaces.position import Position

_PATH: Final = "/approvals"
_ENDPOINT: Final = "approvals"
_SIZE: Final = 100
_page: Final = decoder(Approval)
_approval: Final = msgspec.json.Decoder(Approval)


class ListedApprovals:
    """See ApprovalRows."""

    most = MOST

    def __init__(self, lists: Lists) -> None:
        self._lists = lists

    async def pending(self) -> tuple[list[Approval], int]:
        """See ApprovalRows."""
        answer = await self._fetch(1, _SIZE, status=PENDING)
        for page in range(2, PAGES + 1):
            if len(answer.data) >= answer.total:
                break
            answer.data.extend((await self._fetch(page, _SIZE, status=PENDING)).data)
        return answer.data, answer.total

    async def since(self, position: Position, *, thorough: bool) -> tuple[list[Approval], Position]:
        """See ApprovalRows."""
        return await walk(self._fetch, lambda row: row.created, position, size=_SIZE, thorough=thorough)

    async def by_id(self, ids: Collection[str]) -> dict[str, Approval]:
        """See ApprovalRows."""
        return await each(ids, self._one)

    async def _one(self, id_: str) -> Approval:
        body, _ = await self._lists.get(f"{_PATH}/{quote(id_, safe='')}", {}, "approval")
        return decode(_approval, body, _ENDPOINT)

    async def _fetch(self, page: int, size: int, **more: str) -> Page[Approval]:
        return await self._lists.page(_PATH, {"limit": size, "page": page, **more}, _page, _ENDPOINT)
