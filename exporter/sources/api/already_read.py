"""What this process has itself read of a database lately, so that it is not read again for nothing.

It is never restored from the state: after a crash, reading once too often is safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from exporter.core.model import FUTURE, MICROSECONDS, Clock, ListedTrace, Trace
from exporter.counting.fold import awaits_run
from exporter.sources.facts import clean_id
from exporter.sources.position import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

log = structlog.get_logger(__name__)

_UNFINISHED: Final = 50
"""Unfinished traces that show more as soon as they grow. Each makes a search a little longer; others are asked for."""


@dataclass(slots=True)
class _Unreadable:
    """A trace that AgentOS cannot serve: since when (monotonic seconds), and its end (microseconds) at that time."""

    since: float
    end: int


class AlreadyRead:
    """The traces of one database that were read, and those that AgentOS cannot serve."""

    def __init__(self, db: str, settings: Settings, clock: Clock) -> None:
        self._db, self._settings, self._clock = db, settings, clock
        self._read: dict[str, tuple[float, int]] = {}
        """id → (monotonic time of reading, its end), oldest first"""
        self._unfinished: set[str] = set()
        """those of them with spans that are still hidden, or that show a request and no run that it may have begun"""
        self._unreadable: dict[str, _Unreadable] = {}
        """id → a trace that AgentOS cannot serve, oldest first"""

    def add(self, traces: Iterable[Trace], malformed: Iterable[str] = ()) -> None:
        """Remember traces that were read and committed."""
        now = self._clock.monotonic()
        for trace in traces:
            self._read.pop(trace.id, None)
            self._read[trace.id] = (now, trace.end)
            unfinished = trace.open or awaits_run(trace)
            (self._unfinished.add if unfinished else self._unfinished.discard)(trace.id)
        for trace_id in malformed:
            self._read.pop(trace_id, None)
            self._read[trace_id] = (now, FUTURE)

    def __contains__(self, trace_id: str) -> bool:
        return trace_id in self._read

    def newest(self, most: int) -> list[str]:
        """Ids of the traces that were read last."""
        return list(self._read)[-most:]

    def leave_out(self, trace_id: str, end: int) -> None:
        """Remember a trace that AgentOS answers with an error: it is not asked for until it ends later than `end`."""
        if trace_id not in self._unreadable:
            log.warning(
                "trace_unreadable",
                db=self._db,
                trace_id=clean_id(trace_id),
                reason="AgentOS answers this trace with an error, and others not; it is left out until it grows",
            )
        self._unreadable[trace_id] = _Unreadable(self._clock.monotonic(), end)
        # This end decides whether the trace is read again, whatever was read of it before.
        self._read.pop(trace_id, None)
        self._unfinished.discard(trace_id)

    def left_out(self) -> dict[str, int]:
        """Traces that AgentOS cannot serve, with their ends. A trace that has not grown for the horizon is given up."""
        since = self._clock.monotonic() - self._settings.horizon / MICROSECONDS
        for trace_id in [trace_id for trace_id, unreadable in self._unreadable.items() if unreadable.since < since]:
            del self._unreadable[trace_id]
        return {trace_id: unreadable.end for trace_id, unreadable in self._unreadable.items()}

    def is_new(self, listed: ListedTrace) -> bool:
        """Whether this listed trace was not asked for lately, or ends later than it did then."""
        grown = listed.id not in self._read or listed.end > self._read[listed.id][1]
        return grown and not self.still_unreadable(listed)

    def still_unreadable(self, listed: ListedTrace) -> bool:
        """Whether this listed trace is one that AgentOS cannot serve, and has not grown since."""
        unreadable = self._unreadable.get(listed.id)
        return unreadable is not None and listed.end <= unreadable.end

    def recent(self, lo: int, hi: int | None, most: int) -> list[str]:
        """Traces that need not be read again, newest last: those read within the last 2.5 overlaps.

        Args:
            lo: Only traces that end at or after this time, in microseconds.
            hi: Only traces that end before this time; None for no end.
            most: Most ids.

        """
        since = self._clock.monotonic() - 2.5 * self._settings.overlap / MICROSECONDS
        for trace_id in [trace_id for trace_id, (at, _) in self._read.items() if at < since]:
            del self._read[trace_id]
            self._unfinished.discard(trace_id)
        fresh = [
            trace_id
            for trace_id, (_, end) in self._read.items()
            if end >= lo and (hi is None or end < hi or end == FUTURE)
        ]
        return fresh[-most:]

    def unfinished(self, ids: Sequence[str]) -> dict[str, int]:
        """Of these traces the newest few that will show more, with their ends, which any further span moves."""
        some = [trace_id for trace_id in ids if trace_id in self._unfinished][-_UNFINISHED:]
        return {trace_id: self._read[trace_id][1] for trace_id in some}
