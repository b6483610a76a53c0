"""Contents of knowledge bases and memories, from their lists."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from exporter.core.model import MICROSECONDS
from exporter.sources.api.surfaces.lists import PAGES, Lists, decoder
from exporter.sources.operations import Reading
from exporter.sources.surfaces.holdings import Contents, Memories

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Places = Callable[[], Sequence[Mapping[str, str]]]

_SIZE: Final = 100
_MANY: Final = PAGES * _SIZE
_REST: Final = 10 * 60 * MICROSECONDS
"""Between two counts of many contents."""


class _Content(msgspec.Struct, gc=False):
    status: Any = None


_page: Final = decoder(_Content)


class Knowledge:
    """The knowledge bases of one AgentOS.

    AgentOS counts contents, but not by status. So their list is read, over several turns if it is long.
    """

    def __init__(self, lists: Lists, places: Places) -> None:
        self._lists = lists
        self._places = places
        self._contents = Contents()
        self._counts: Counter[str | None] = Counter()
        self._left: list[Mapping[str, str]] = []
        """rows that are still to be read for the current count"""
        self._at = 1
        self._not_before = 0

    async def read(self) -> Reading:
        """See OperationsSource. Raises SourceError."""
        if not self._left:
            self._left, self._at = list(self._places()), 1
            self._counts = Counter()
        now = 0
        for _ in range(PAGES):
            place = self._left[0]
            wanted = {"limit": _SIZE, "page": self._at, "sort_by": "created_at", **place}
            answer = await self._lists.page("/knowledge/content", wanted, _page, "knowledge_content")
            now = answer.date
            if now < self._not_before:
                self._left = []
                return Reading()
            self._counts.update(content.status if isinstance(content.status, str) else None for content in answer.data)
            self._at += 1
            if len(answer.data) < _SIZE:
                self._left, self._at = self._left[1:], 1
            if not self._left:
                self._not_before = now + _REST if self._counts.total() > _MANY else 0
                return self._contents.reading(self._counts)
        return Reading()


class Memory:
    """The memories of one AgentOS, over all its databases."""

    def __init__(self, lists: Lists, places: Places) -> None:
        self._lists = lists
        self._places = places
        self._memories = Memories()

    async def read(self) -> Reading:
        """See OperationsSource. Raises SourceError."""
        users = memories = 0
        for place in self._places():
            users += await self._lists.total("/user_memory_stats", place, "user_memory_stats")
            memories += await self._lists.total("/memories", place, "memories")
        return self._memories.reading(memories, users)
