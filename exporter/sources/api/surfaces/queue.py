"""The durable queue: how many jobs stand where, and how those that ended did.

AgentOS swallows errors of the queue's database: it answers `{"counts": {}, "oldest_queued_age_seconds": null}` and
empty lists. What the counts and the list say must fit together, and an emptiness is not believed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from exporter.core.errors import SilentEmpty
from exporter.core.model import MICROSECONDS
from exporter.sources.api.surfaces.lists import MARGIN, Lists, Page, Position, count, decode, decoder, moment, walk
from exporter.sources.facts import clean_name, identifier
from exporter.sources.operations import KEPT, Ended, Labels, Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENDED: Final = ("completed", "failed", "cancelled")
_STATUSES: Final = ("queued", "running", *_ENDED, "paused")
RETENTION: Final = 24 * 3600 * MICROSECONDS
"""AgentOS deletes jobs that ended so long ago, unless it is told otherwise."""
_LONGEST: Final = 10 * 365 * 86400
"""seconds"""


class _Stats(msgspec.Struct, gc=False):
    counts: dict[str, Any]
    oldest_queued_age_seconds: Any = None


class _Job(msgspec.Struct, gc=False):
    id: Any = None
    component_id: Any = None
    status: Any = None
    attempt: Any = None
    completed_at: Any = None


class _Standing(msgspec.Struct):
    list: Position
    some: bool = False
    """whether any job was there"""
    looked: int = 0
    """when it was last read, by AgentOS's clock"""


_stats: Final = msgspec.json.Decoder(_Stats)
_page: Final = decoder(_Job)


class Queue:
    """The queue of one AgentOS."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists

    async def read(self, position: Mapping[str, Any] | None, since: int) -> Reading:
        """See OperationsSource; `since` is where counting begins, in microseconds. Raises SourceError."""
        before = _Standing(Position(since + MARGIN)) if position is None else msgspec.convert(position, _Standing)
        body, now = await self._lists.get("/queue/stats", {}, "queue_stats")
        stats = decode(_stats, body, "queue_stats")
        counts = {status: count(stats.counts.get(status, 0)) for status in _STATUSES}
        rows, read_to = await walk(self._fetch, lambda job: moment(job.completed_at), before.list)
        if not read_to.some and any(counts[status] for status in _ENDED):
            raise SilentEmpty("queue_jobs: AgentOS counts jobs that ended and lists none; its database may fail")
        if read_to.some and not any(counts.values()):
            raise SilentEmpty("queue_stats: AgentOS lists jobs and counts none; its database may fail")
        some = any(counts.values())
        return Reading(
            position=msgspec.to_builtins(_Standing(read_to, some, now)),
            ended=[one for job in rows if (one := _ended(job)) is not None],
            gauges=_gauges(counts, stats.oldest_queued_age_seconds, now),
            forget_before=read_to.read_to - KEPT,
            gap=now - before.looked if before.looked and now - before.looked > RETENTION else 0,
            doubtful=before.some and not some,
        )

    async def _fetch(self, page: int, size: int) -> Page[_Job]:
        wanted = {"status": _ENDED, "sort_by": "completed_at", "sort_order": "desc", "limit": size, "page": page}
        return await self._lists.page("/queue/jobs", wanted, _page, "queue_jobs")


def _ended(job: _Job) -> Ended | None:
    """The attempt that ended: a job that failed may be queued again."""
    id_, at = identifier(job.id), moment(job.completed_at)
    if id_ is None or at is None or job.status not in _ENDED:
        return None
    component = clean_name(job.component_id) if isinstance(job.component_id, str) else ""
    return Ended(f"{id_}:{count(job.attempt)}", at, (component, job.status))


def _gauges(counts: Mapping[str, int], age: object, now: int) -> dict[str, dict[Labels, float]]:
    oldest: dict[Labels, float] = {}
    if isinstance(age, (int, float)) and not isinstance(age, bool) and 0 <= age <= _LONGEST:
        oldest[()] = now - round(age * MICROSECONDS)
    return {
        "agentos_queue_jobs": {(status,): number for status, number in counts.items()},
        "agentos_queue_oldest_job_timestamp_seconds": oldest,
    }
