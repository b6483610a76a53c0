"""The slow job of one AgentOS: approvals, schedules and the like, and how they ended. Traces never wait for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from exporter.core.errors import ExporterError, SilentEmpty, SourceError
from exporter.core.model import MICROSECONDS
from exporter.service.poller import STALE_AFTER, gist
from exporter.sources.operations import (
    APPROVALS,
    EVALS,
    KNOWLEDGE,
    MEMORY,
    QUEUE,
    RUNS,
    SCHEDULES,
    NoSurface,
    OperationsSource,
    Refused,
)

if TYPE_CHECKING:
    from exporter.bookkeeping.operations import Ends
    from exporter.bookkeeping.shared import Shared
    from exporter.service.poller import Poller
    from exporter.sources.operations import Reading

log = structlog.get_logger(__name__)

OFF_FOR: Final = 600.0
"""Seconds for which a surface is not asked for again that AgentOS refuses or does not have."""
BELIEVED_AFTER: Final = 3
"""Readings in a row that must say that nothing is left, each after a good poll of traces, before it is believed."""
_UP: Final = "agentos_surface_up"
_GAUGES: Final = {
    APPROVALS: ("agentos_approvals_pending", "agentos_approvals_oldest_pending_timestamp_seconds"),
    SCHEDULES: (
        "agentos_schedule_enabled",
        "agentos_schedule_next_run_timestamp_seconds",
        "agentos_schedule_last_run_timestamp_seconds",
    ),
    QUEUE: ("agentos_queue_jobs", "agentos_queue_oldest_job_timestamp_seconds"),
    EVALS: (),
    KNOWLEDGE: ("agentos_knowledge_contents",),
    MEMORY: ("agentos_memories", "agentos_memory_users"),
    RUNS: ("agentos_runs_paused",),
}


@dataclass(slots=True)
class _Health:
    """The last readings of a surface: times are monotonic seconds, `said` is the gist of its last failure."""

    not_before: float = float("-inf")
    last_success: float | None = None
    doubts: int = 0
    last_error: str = ""


class Operations:
    """Reads the surfaces of one AgentOS, one after the other. A failure concerns its surface alone."""

    def __init__(self, source: OperationsSource, ends: Ends, shared: Shared, poller: Poller) -> None:
        self._source = source
        self._ends = ends
        self._shared = shared
        self._poller = poller
        self._stopping = False
        self._health_of = {surface: _Health() for surface in source.surfaces}

    def stop(self) -> None:
        """Finish the current transaction, and begin no more."""
        self._stopping = True

    async def look(self) -> None:
        """Read each surface once, but for those that are off. Never raises."""
        health = self._poller.health
        for surface, state in self._health_of.items():
            # Only the poller asks an AgentOS that does not answer; its surfaces become stale.
            if self._stopping or not health.last_success or health.outcome in {"unreachable", "timeout"}:
                break
            if self._shared.clock.monotonic() < state.not_before:
                continue
            try:
                await self._read(surface, state)
            except ExporterError as error:
                self._fail(surface, state, error)
            except Exception as error:  # an unexpected error in one surface must not stop the others
                log.exception("surface_bug", agentos=self._ends.agentos, surface=surface)
                self._fail(surface, state, SourceError(f"a bug of agentos-exporter: {type(error).__name__}"))
        self._shared.changed()

    async def _read(self, surface: str, state: _Health) -> None:
        position = await asyncio.to_thread(self._ends.position, surface)
        with self._poller.awaiting():
            reading = await self._source.read(surface, position)
        if reading.doubtful:
            state.doubts += self._poller.health.failures == 0
            if state.doubts < BELIEVED_AFTER:
                raise SilentEmpty(f"{surface}: AgentOS says that nothing is left; its database may fail")
        else:
            state.doubts = 0
        async with self._shared.lock:
            await asyncio.to_thread(self._ends.absorb, surface, reading, first=position is None)
        self._show(surface, reading)
        if reading.gap:
            reason = "rows that AgentOS deleted since the last reading are counted nowhere"
            hours = round(reading.gap / MICROSECONDS / 3600)
            log.warning("rows_unknown", agentos=self._ends.agentos, surface=surface, hours=hours, reason=reason)
        if state.last_error:
            log.info("surface_read_again", agentos=self._ends.agentos, surface=surface)
        state.last_error, state.last_success = "", self._shared.clock.monotonic()

    def _show(self, surface: str, reading: Reading) -> None:
        name, totals = self._ends.agentos, self._shared.totals
        for metric, values in reading.gauges.items():
            totals.gauges(metric, name, {(name, *labels): value for labels, value in values.items()})
        totals.gauge(_UP, (name, surface), 1)

    def _fail(self, surface: str, state: _Health, error: ExporterError) -> None:
        self._forget(surface)
        off = isinstance(error, (NoSurface, Refused))
        if off:
            state.not_before = self._shared.clock.monotonic() + OFF_FOR
        up = None if isinstance(error, NoSurface) else 0
        self._shared.totals.gauge(_UP, (self._ends.agentos, surface), up)
        last_error = f"{type(error).__name__} {gist(str(error))}"
        if last_error != state.last_error:
            event = "surface_absent" if isinstance(error, NoSurface) else "surface_off" if off else "surface_failing"
            write = log.info if isinstance(error, NoSurface) else log.warning
            write(event, agentos=self._ends.agentos, surface=surface, error=str(error))
        state.last_error = last_error

    def _forget(self, surface: str) -> None:
        for metric in _GAUGES[surface]:
            self._shared.totals.gauges(metric, self._ends.agentos, {})

    def refresh(self) -> None:
        """Remove gauges that were read too long ago: unknown is not zero."""
        now = self._shared.clock.monotonic()
        for surface, state in self._health_of.items():
            if state.last_success is not None and now - state.last_success > STALE_AFTER:
                state.last_success = None
                self._forget(surface)
                if self._shared.totals.value(_UP, (self._ends.agentos, surface)):
                    self._shared.totals.gauge(_UP, (self._ends.agentos, surface), 0)
