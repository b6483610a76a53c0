"""What everything that counts in one process shares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exporter.core.errors import StateRefused
from exporter.core.model import Clock

if TYPE_CHECKING:
    from exporter.ledger.leases import Lease
    from exporter.ledger.records import Changes
    from exporter.ledger.store import Ledger
    from exporter.metrics.increments import Increments
    from exporter.metrics.totals import Totals


@dataclass(slots=True)
class Shared:
    """The state of a process, and its clock.

    Attributes:
        ledger: What is durable.
        totals: What is shown, and what is about to be.
        clock: Both clocks of the process.
        changed: Wakes the publisher.
        lock: Held by whoever commits, so that transactions do not overlap.
        led: The AgentOS instances that this process leads, with their leases; None where it has the state for itself.
        term: The term of the leases that `led` is of.

    """

    ledger: Ledger
    totals: Totals
    clock: Clock
    changed: Callable[[], None] = lambda: None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    led: Mapping[str, Lease] | None = None
    term: int = 0

    def leads(self, agentos: str) -> bool:
        """Whether this process reads this AgentOS, rather than another that shares the state."""
        return self.led is None or agentos in self.led

    def commit(self, changes: Changes, delta: Increments, *, show: bool) -> None:
        """Write a transaction to the ledger, then add it to the totals in memory.

        Args:
            changes: What the ledger is to record.
            delta: The increments of series.
            show: Whether new series show their value at once, without a 0 before.

        Raises:
            StateError: The commit failed; nothing is counted then.

        """
        if not (self.leads(changes.agentos) and self.lease(changes.agentos) is changes.lease):
            raise StateRefused(f"another replica may read {changes.agentos} by now")
        changes.plan = self.totals.plan(delta, show=show)
        self.ledger.commit(changes)
        with self.totals.held():
            # Otherwise another replica counts from here on, and this one forgets the series.
            if self.lease(changes.agentos) is changes.lease:
                self.totals.apply(changes.plan)

    def lease(self, agentos: str) -> Lease | None:
        """The lease under which this process reads an AgentOS; None if the state needs none."""
        return None if self.led is None else self.led.get(agentos)
