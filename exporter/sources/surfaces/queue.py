"""The durable queue: the number of jobs by status, and how jobs ended.

AgentOS hides errors of the queue's database: it answers `{"counts": {}, "oldest_queued_age_seconds": null}` and empty
lists. So counts and list must agree, and an empty answer is not believed at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from exporter.core.errors import SilentEmpty
from exporter.core.model import MICROSECONDS
from exporter.sources.facts import clean_name, count, identifier, moment
from exporter.sources.operations import KEPT, Ended, Reading
from exporter.sources.surfaces.position import Position, beginning

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDED: Final = ("completed", "failed", "cancelled")
STATUSES: Final = ("queued", "running", *ENDED, "paused")
RETENTION: Final = 24 * 3600 * MICROSECONDS
"""AgentOS deletes jobs that ended so long ago, unless configured otherwise."""


class Job(msgspec.Struct, gc=False):
    """A row; only these fields are read."""

    id: Any = None
    component_id: Any = None
    status: Any = None
    attempt: Any = None
    completed_at: Any = None

    @property
    def completed(self) -> int | None:
        """When it ended, in microseconds."""
        return moment(self.completed_at)


@dataclass(frozen=True, slots=True)
class Counts:
    """Jobs by status, when the oldest that is queued was accepted, None if none is, and AgentOS's clock."""

    by_status: Mapping[Any, Any]
    oldest: int | None
    now: int


class JobRows(Protocol):
    """Where the queue is read from. All methods raise SourceError."""

    async def counts(self) -> Counts:
        """The number of jobs by status; times in microseconds."""

    async def since(self, position: Position) -> tuple[list[Job], Position]:
        """Jobs of which the end may be new, ordered by when they ended."""


class _State(msgspec.Struct):
    list: Position
    some: bool = False
    """whether any job was there"""
    looked: int = 0
    """when it was last read, by AgentOS's clock"""


class Queue:
    """The queue of one AgentOS."""

    def __init__(self, rows: JobRows) -> None:
        self._rows = rows

    async def read(self, position: Mapping[str, Any] | None, since: int) -> Reading:
        """See OperationsSource; `since` is where counting begins, in microseconds. Raises SourceError."""
        before = _State(beginning(since)) if position is None else msgspec.convert(position, _State)
        job_counts = await self._rows.counts()
        counts = {status: count(job_counts.by_status.get(status, 0)) for status in STATUSES}
        rows, read_to = await self._rows.since(before.list)
        if not read_to.some and any(counts[status] for status in ENDED):
            raise SilentEmpty("queue_jobs: AgentOS counts jobs that ended and lists none; its database may fail")
        if read_to.some and not any(counts.values()):
            raise SilentEmpty("queue_stats: AgentOS lists jobs and counts none; its database may fail")
        some = any(counts.values())
        return Reading(
            position=msgspec.to_builtins(_State(read_to, some, job_counts.now)),
            ended=[ended_job for job in rows if (ended_job := _ended(job)) is not None],
            gauges={
                "agentos_queue_jobs": {(status,): number for status, number in counts.items()},
                "agentos_queue_oldest_job_timestamp_seconds": {}
                if job_counts.oldest is None
                else {(): job_counts.oldest},
            },
            forget_before=read_to.read_to - KEPT,
            gap=job_counts.now - before.looked if before.looked and job_counts.now - before.looked > RETENTION else 0,
            doubtful=before.some and not some,
        )


def _ended(job: Job) -> Ended | None:
    """The attempt that ended: a job that failed may be queued again."""
    id_, at = identifier(job.id), job.completed
    if id_ is None or at is None or job.status not in ENDED:
        return None
    component = clean_name(job.component_id) if isinstance(job.component_id, str) else ""
    return Ended(f"{id_}:{count(job.attempt)}", at, (component, job.status))
