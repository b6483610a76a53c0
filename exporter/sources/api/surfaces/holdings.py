"""What AgentOS holds: contents of knowledge bases, and memories of users. Gauges alone, nothing ends here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from exporter.core.model import MICROSECONDS
from exporter.sources.api.surfaces.lists import PAGES, Lists, decoder
from exporter.sources.operations import OTHER, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from exporter.sources.operations import Labels

    Places = Callable[[], Sequence[Mapping[str, str]]]

_STATUSES: Final = ("processing", "completed", "partial", "failed")
_SIZE: Final = 100
_MANY: Final = PAGES * _SIZE
_REST: Final = 10 * 60 * MICROSECONDS
"""Between two counts of many contents."""


class _Content(msgspec.Struct, gc=False):
    status: Any = None


_page: Final = decoder(_Content)


class Knowledge:
    """The knowledge bases of one AgentOS.

    AgentOS counts contents, but not by status; so their list is read, over several turns where it is long.
    """

    def __init__(self, lists: Lists, places: Places) -> None:
        self._lists = lists
        self._places = places
        self._counts: dict[Labels, float] = {}
        self._left: list[Mapping[str, str]] = []
        """what is still to be read of the count under way"""
        self._at = 1
        self._not_before = 0
        self._some = False
        """whether there ever was any"""

    async def read(self) -> Reading:
        """See OperationsSource. Raises SourceError."""
        if not self._left:
            self._left, self._at = list(self._places()), 1
            self._counts = {(status,): 0 for status in _STATUSES}
        now = 0
        for _ in range(PAGES):
            place = self._left[0]
            wanted = {"limit": _SIZE, "page": self._at, "sort_by": "created_at", **place}
            answer = await self._lists.page("/knowledge/content", wanted, _page, "knowledge_content")
            now = answer.date
            if now < self._not_before:
                self._left = []
                return Reading()
            for one in answer.data:
                labels = (one.status if one.status in _STATUSES else OTHER,)
                self._counts[labels] = self._counts.get(labels, 0) + 1
            self._at += 1
            if len(answer.data) < _SIZE:
                self._left, self._at = self._left[1:], 1
            if not self._left:
                return self._whole(now)
        return Reading()

    def _whole(self, now: int) -> Reading:
        total = sum(self._counts.values())
        self._not_before = now + _REST if total > _MANY else 0
        self._some = self._some or total > 0
        return Reading(gauges={"agentos_knowledge_contents": self._counts}, doubtful=self._some and not total)


class Memory:
    """The memories of one AgentOS, over all its databases."""

    def __init__(self, lists: Lists, places: Places) -> None:
        self._lists = lists
        self._places = places
        self._some = False

    async def read(self) -> Reading:
        """See OperationsSource. Raises SourceError."""
        users = memories = 0
        for place in self._places():
            users += await self._lists.total("/user_memory_stats", place, "user_memory_stats")
            memories += await self._lists.total("/memories", place, "memories")
        self._some = self._some or memories > 0
        gauges: dict[str, Mapping[Labels, float]] = {
            "agentos_memory_users": {(): users},
            "agentos_memories": {(): memories},
        }
        return Reading(gauges=gauges, doubtful=self._some and not memories)
