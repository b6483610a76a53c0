"""One cycle of one AgentOS: fetch → dedupe → fold → commit, batch by batch; then count, show and log its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from exporter.core.errors import ConfigError, ExporterError, ServerFailed, SourceError, SourceTimeout, StateError
from exporter.core.model import FUTURE, MICROSECONDS, KnownTrace
from exporter.counting.delta import SESSION, USER
from exporter.metrics.catalog import OUTCOMES, WINDOWS
from exporter.sources.protocol import LedgerView

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from exporter.bookkeeping.enrich import Enricher
    from exporter.bookkeeping.intake import Intake
    from exporter.bookkeeping.shared import Shared
    from exporter.ledger.store import Ledger
    from exporter.sources.protocol import Batch, Description, TraceSource

log = structlog.get_logger(__name__)

BACKOFF_LIMIT: Final = 300.0
"""Longest pause after failures, in seconds."""
STALE_AFTER: Final = 300.0
"""Seconds since the last success after which active sessions and users are unknown."""
_UNEXPECTED: Final = "bad_answer"
"""The outcome of a poll that met a bug of ours: something that AgentOS answered surprised us."""


class View(LedgerView):
    """The ledger as a source sees it: one AgentOS, in a thread."""

    def __init__(self, ledger: Ledger, agentos: str) -> None:
        self._ledger = ledger
        self._agentos = agentos

    async def cursors(self) -> dict[str, dict[str, Any]]:
        """See LedgerView."""
        return await asyncio.to_thread(self._ledger.cursors, self._agentos)

    async def known_traces(self, db: str, ids: Iterable[str]) -> dict[str, KnownTrace]:
        """See LedgerView."""
        return await asyncio.to_thread(self._ledger.known_traces, self._agentos, db, ids)

    async def open_due(self, db: str, now: int, limit: int) -> list[KnownTrace]:
        """See LedgerView."""
        return await asyncio.to_thread(self._ledger.open_due, self._agentos, db, now, limit)

    async def unsettled(self, db: str, limit: int, *, due: int, before: int = FUTURE) -> list[KnownTrace]:
        """See LedgerView."""
        return await asyncio.to_thread(self._ledger.unsettled, self._agentos, db, limit, due=due, before=before)

    async def sentinels(self, db: str, ages: Sequence[int]) -> list[str]:
        """See LedgerView."""
        return await asyncio.to_thread(self._ledger.sentinels, self._agentos, db, ages)

    async def any_trace(self) -> bool:
        """See LedgerView."""
        return await asyncio.to_thread(self._ledger.any_trace, self._agentos)


@dataclass(slots=True)
class Health:
    """How the last poll went. Times are in seconds since the epoch; `error` is '' while all is well."""

    outcome: str = ""
    error: str = ""
    last_poll: float | None = None
    last_success: float | None = None
    failures: int = 0


@dataclass(slots=True)
class _Tally:
    traces: int = 0
    spans: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of every AgentOS in the ledger at one moment: active sessions and users by window, and open traces."""

    active: dict[tuple[str, str], tuple[int, ...]]
    open_traces: dict[str, int]

    @classmethod
    def read(cls, ledger: Ledger, now: int) -> Figures:
        """Read them, in a thread; `now` is in microseconds. Raises StateError."""
        return cls(ledger.active([now - seconds * MICROSECONDS for seconds in WINDOWS.values()]), ledger.count_open())


class Poller:
    """Polls one AgentOS. A failure pauses it, longer each time; others are not concerned."""

    def __init__(
        self,
        name: str,
        source: TraceSource,
        intake: Intake,
        shared: Shared,
        *,
        interval: float,
        deadline: float,
        hold: float = 60.0,
        enricher: Enricher | None = None,
    ) -> None:
        """Poll one AgentOS.

        Args:
            name: Name of the instance.
            source: Reads it.
            intake: Counts its batches.
            shared: What all instances share.
            interval: Seconds between two polls.
            deadline: Seconds that a poll may take.
            hold: Seconds for which a backlog is shown after it was read, so that Prometheus scrapes it.
            enricher: Reads details of runs.

        """
        self.name = name
        self.health = Health()
        self.source = source
        self.intake = intake
        self.enricher = enricher
        self._shared = shared
        self._view = View(shared.ledger, name)
        self._interval = interval
        self._deadline = deadline
        self._hold = hold
        self._behind_until = float("-inf")
        self._not_before = float("-inf")
        self._stopping = False
        self._waiting: set[asyncio.Task[None]] = set()
        """tasks that wait for AgentOS, so that nothing is lost if they are cancelled"""
        self._surveyed = ""
        self._surveyed_once = False
        totals = shared.totals
        for outcome in OUTCOMES:
            totals.add("agentos_exporter_polls_total", (name, outcome), 0)
        if totals.value("agentos_exporter_catching_up", (name,)) is None:
            totals.gauge("agentos_exporter_catching_up", (name,), 0)

    @property
    def polled(self) -> bool:
        """Whether a first poll has ended, well or badly."""
        return self.health.last_poll is not None

    def stop(self) -> None:
        """Finish the current batch, and begin no more; do not wait for AgentOS."""
        self._stopping = True
        for task in self._waiting:
            task.cancel()
        if self.enricher is not None:
            self.enricher.stop()

    async def aclose(self) -> None:
        """Free the source's connections."""
        await self.source.aclose()

    async def poll(self) -> None:
        """One poll, unless failures ask for a pause. Never raises: errors are counted, shown and logged."""
        clock = self._shared.clock
        started = clock.monotonic()
        if self._stopping or started < self._not_before:
            return
        tally, error = _Tally(), None
        try:
            await self._read(tally, started + self._deadline)
            if self.enricher is not None and not self._stopping:
                await self.enricher.run(started + self._deadline)
        except ExporterError as failure:
            error = failure
        except Exception as failure:  # an unexpected error of one AgentOS must not stop the daemon
            log.exception("poll_bug", agentos=self.name)
            error = SourceError(f"a bug of agentos-exporter, please report it: {type(failure).__name__}")
        self._conclude(error, tally, started)
        self._shared.changed()
        if error is None and not self._surveyed_once:
            await self.survey()

    async def _read(self, tally: _Tally, deadline: float) -> None:
        async with aclosing(self.source.read(self._view, deadline=deadline)) as batches:
            while True:
                with self.awaiting():
                    batch = await anext(batches, None)
                if batch is None:
                    return
                await self._absorb(batch, tally)
                if self._stopping:
                    return

    @contextlib.contextmanager
    def awaiting(self) -> Iterator[None]:
        """In this block `stop` may cancel the task: it waits for AgentOS, and has no transaction in progress."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is a coroutine's
        self._waiting.add(task)
        try:
            yield
        finally:
            self._waiting.discard(task)

    async def _absorb(self, batch: Batch, tally: _Tally) -> None:
        # Rates must not be believed from the first increment of a backlog on.
        self._show_backlog()
        async with self._shared.lock:
            absorbed = await asyncio.to_thread(self.intake.absorb, batch)
        # Traces of an outage are a backlog as well, however few.
        self._show_backlog(past=2 * absorbed.late > absorbed.spans)
        tally.traces += absorbed.traces
        tally.spans += absorbed.spans
        tally.skipped += absorbed.skipped
        if absorbed.spans:
            self._shared.changed()

    def _conclude(self, error: ExporterError | None, tally: _Tally, started: float) -> None:
        clock, totals, health, source = self._shared.clock, self._shared.totals, self.health, self.source
        now, took = clock.now(), clock.monotonic() - started
        outcome = "ok" if error is None else _outcome(error)
        repeated = error is not None and (health.outcome, gist(health.error)) == (outcome, gist(str(error)))
        health.outcome, health.error, health.last_poll = outcome, "" if error is None else str(error), now
        if error is None:
            health.failures, health.last_success, self._not_before = 0, now, float("-inf")
            totals.gauge("agentos_exporter_last_success_timestamp_seconds", (self.name,), int(now * MICROSECONDS))
        else:
            # A poll that timed out with some spans is slow, not ill: after a long pause it would start over.
            progress = isinstance(error, SourceTimeout) and tally.spans > 0
            health.failures = 1 if progress else health.failures + 1
            self._not_before = clock.monotonic() + self._pause(error)
        totals.add("agentos_exporter_polls_total", (self.name, outcome))
        totals.observe("agentos_exporter_poll_duration_seconds", (self.name,), round(took * MICROSECONDS))
        totals.gauge("agentos_up", (self.name,), int(error is None))
        self._show_backlog()
        totals.gauge("agentos_exporter_watermark_timestamp_seconds", (self.name,), source.watermark)
        self._log_outcome(outcome, error, tally, took, repeated=repeated)

    def _show_backlog(self, *, past: bool = False) -> None:
        """Show whether a backlog is read, or was a moment ago: Prometheus must not miss it between two scrapes."""
        now = self._shared.clock.monotonic()
        # History whose tokens and cost still wait for details is a backlog, too.
        behind = past or self.source.catching_up or (self.enricher is not None and self.enricher.history)
        if behind:
            self._behind_until = now + self._hold
        catching_up = int(behind or now < self._behind_until)
        self._shared.totals.gauge("agentos_exporter_catching_up", (self.name,), catching_up)

    def _pause(self, error: ExporterError) -> float:
        """Seconds until the next try: doubling, with jitter, up to a few minutes; longer if AgentOS asks for that."""
        pause = min(BACKOFF_LIMIT, self._interval * 2.0 ** min(self.health.failures - 1, 30))
        pause *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
        asked = error.retry_after if isinstance(error, ServerFailed) else None
        return max(pause, min(asked or 0.0, BACKOFF_LIMIT))

    def _log_outcome(
        self, outcome: str, error: ExporterError | None, tally: _Tally, took: float, *, repeated: bool
    ) -> None:
        stats = self.source.stats
        fields: dict[str, Any] = {
            "agentos": self.name,
            "outcome": outcome,
            "traces": tally.traces,
            "spans": tally.spans,
            "skipped": tally.skipped,
            "requests": stats.requests,
            "bytes": stats.bytes,
            "search_ms": round(stats.search_ms, 1),
            "seconds": round(took, 3),
        }
        if self.source.catching_up:
            fields["catching_up"] = True
        if error is None:
            log.info("poll", **fields)
        elif repeated:
            log.info("poll", **fields, failures=self.health.failures, error=str(error))
        else:
            log.warning("poll", **fields, error=str(error))

    # Names, sessions and housekeeping

    async def survey(self) -> None:
        """Read names, version and session stats; observe idle sessions; forget old rows. Never raises."""
        if self._stopping or not self.health.last_success or self.health.failures:
            return
        self._surveyed_once = True
        try:
            with self.awaiting():
                description = await self.source.describe(self._view)
            self._show(description)
            self._surveyed = ""
        except ExporterError as error:
            if str(error) != self._surveyed:
                log.warning("survey", agentos=self.name, error=str(error))
            self._surveyed = str(error)
        except Exception:
            log.exception("survey_bug", agentos=self.name)
        try:
            await self._forget_old()
        except StateError as error:
            log.warning("survey", agentos=self.name, error=str(error))
        self._shared.changed()

    def _show(self, description: Description) -> None:
        totals, name = self._shared.totals, self.name
        totals.gauges("agentos_info", name, {(name, description.os_id, description.version): 1})
        components: dict[tuple[str, ...], float] = {
            (
                name,
                component.kind,
                component.id,
                component.name,
                component.span_name,
                component.model,
                component.provider,
            ): 1.0
            for component in description.components
        }
        totals.gauges("agentos_component_info", name, components)
        totals.gauge("agentos_sessions", (name,), description.sessions)
        windows = description.windows
        totals.gauges(
            "agentos_session_stats_sessions", name, {(name, window.window): window.sessions for window in windows}
        )
        totals.gauges(
            "agentos_session_stats_traces", name, {(name, window.window): window.traces for window in windows}
        )

    async def _forget_old(self) -> None:
        watermark = self.source.watermark
        if watermark is None:
            return
        async with self._shared.lock:
            await asyncio.to_thread(self.intake.observe_idle_sessions, watermark)
            for db, floor in self.source.floors.items():
                await asyncio.to_thread(self.intake.prune, db, created_before=floor)

    def refresh(self, figures: Figures) -> None:
        """Set the gauges that change with time alone."""
        totals, clock = self._shared.totals, self._shared.clock
        fresh = self.health.last_success is not None and clock.now() - self.health.last_success <= STALE_AFTER
        for metric, kind in (("agentos_active_sessions", SESSION), ("agentos_active_users", USER)):
            counts = figures.active.get((self.name, kind), (0,) * len(WINDOWS))
            for window, active in zip(WINDOWS, counts, strict=True):
                totals.gauge(metric, (self.name, window), active if fresh else None)
        totals.gauge("agentos_exporter_open_traces", (self.name,), figures.open_traces.get(self.name, 0))


_LEAD: Final = re.compile(r"(?:\w+: )?(\d{3}\b)?")


def gist(error: str) -> str:
    """The error without its endpoint and its numbers; a status stays. Equal gists are the same failure again."""
    lead = _LEAD.match(error)
    assert lead is not None  # noqa: S101 - it matches even nothing
    return (lead[1] or "") + re.sub(r"\d+(?:\.\d+)?", "#", error[lead.end() :])


def _outcome(error: ExporterError) -> str:
    if isinstance(error, StateError):
        return "state_error"
    if isinstance(error, ConfigError):  # a token file that cannot be read any more
        return "unauthorized"
    return error.outcome if isinstance(error, SourceError) else _UNEXPECTED
