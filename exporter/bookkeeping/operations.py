"""One reading of a surface becomes one transaction: which ended rows are new, and their increments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from exporter.ledger.records import Changes, SurfaceChange
from exporter.metrics.catalog import ROW_REASONS, SCORE
from exporter.metrics.increments import Increments
from exporter.sources.operations import APPROVALS, EVALS, QUEUE, SCHEDULES

if TYPE_CHECKING:
    from exporter.bookkeeping.shared import Shared
    from exporter.sources.operations import Ended, Reading

_COUNTERS: Final = {
    APPROVALS: "agentos_approvals_resolved_total",
    SCHEDULES: "agentos_schedule_runs_total",
    QUEUE: "agentos_queue_jobs_finished_total",
    EVALS: "agentos_eval_runs_total",
}
_LOST: Final = "agentos_exporter_ignored_rows_total"
_REASONS: Final = {APPROVALS: ROW_REASONS[:1], SCHEDULES: ROW_REASONS}
"""Reasons for which the end of a row may stay unknown, if rows are followed."""


class Ends:
    """Makes readings of one AgentOS durable. Methods block; the caller keeps them from overlapping."""

    def __init__(self, agentos: str, shared: Shared) -> None:
        self.agentos = agentos
        self._shared = shared
        self._lease = shared.lease(agentos)

    def position(self, surface: str) -> dict[str, Any] | None:
        """The position in the list of a surface; None if it was never read. Raises StateError."""
        return self._shared.ledger.position(self.agentos, surface)

    def absorb(self, surface: str, reading: Reading, *, first: bool) -> int:
        """Count the rows that ended and are new, and commit them.

        Args:
            surface: Name of the list.
            reading: What was read of it.
            first: Whether the list was never read before, so that the rows are history.

        Returns:
            How many rows were counted.

        Raises:
            StateError: The commit failed; nothing is counted then.

        """
        if reading.position is None:
            return 0
        ended = {row.id: row for row in reading.ended}
        for counted in self._shared.ledger.ended(self.agentos, surface, ended):
            del ended[counted]
        delta = Increments()
        for labels in reading.born:
            delta.add(_COUNTERS[surface], (self.agentos, *labels), 0)
        if first:
            for reason in _REASONS.get(surface, ()):
                delta.add(_LOST, (self.agentos, surface, reason), 0)
        for reason, number in reading.lost.items():
            delta.add(_LOST, (self.agentos, surface, reason), number)
        for row in ended.values():
            self._count(delta, surface, row)
        # An older row waited and now has ended: its id need not be kept, since it is not read again.
        rows = {row.id: row.at for row in ended.values() if row.at >= reading.forget_before}
        change = SurfaceChange(surface, reading.position, rows, reading.forget_before)
        self._shared.commit(Changes(self.agentos, surface=change, lease=self._lease), delta, show=first)
        return len(ended)

    def _count(self, delta: Increments, surface: str, row: Ended) -> None:
        delta.add(_COUNTERS[surface], (self.agentos, *row.labels))
        if row.wait is not None:
            delta.observe("agentos_approval_wait_seconds", (self.agentos, row.labels[0]), row.wait)
        if row.score is not None:
            delta.observe("agentos_eval_score", (self.agentos, *row.labels), round(row.score * SCORE))
