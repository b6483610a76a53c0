"""The durable queue, from its statistics and its list of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from exporter.core.model import MICROSECONDS
from exporter.sources.api.surfaces.lists import Lists, Page, decode, decoder, walk
from exporter.sources.surfaces.queue import ENDED, Counts, Job

if TYPE_CHECKING:
    from exporter.sources.surfaces.position import Position

_LONGEST: Final = 10 * 365 * 86400
"""seconds"""


class _Stats(msgspec.Struct, gc=False):
    counts: dict[str, Any]
    oldest_queued_age_seconds: Any = None


_stats: Final = msgspec.json.Decoder(_Stats)
_page: Final = decoder(Job)


class ListedJobs:
    """See JobRows."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists

    async def counts(self) -> Counts:
        """See JobRows."""
        body, now = await self._lists.get("/queue/stats", {}, "queue_stats")
        stats = decode(_stats, body, "queue_stats")
        age = stats.oldest_queued_age_seconds
        believed = isinstance(age, (int, float)) and not isinstance(age, bool) and 0 <= age <= _LONGEST
        return Counts(stats.counts, now - round(age * MICROSECONDS) if believed else None, now)

    async def since(self, position: Position) -> tuple[list[Job], Position]:
        """See JobRows."""
        return await walk(self._fetch, lambda job: job.completed, position)

    async def _fetch(self, page: int, size: int) -> Page[Job]:
        wanted = {"status": ENDED, "sort_by": "completed_at", "sort_order": "desc", "limit": size, "page": page}
        return await self._lists.page("/queue/jobs", wanted, _page, "queue_jobs")
