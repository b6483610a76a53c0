"""What everything that counts in one process shares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exporter.core.model import Clock

if TYPE_CHECKING:
    from exporter.ledger.store import Ledger
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

    """

    ledger: Ledger
    totals: Totals
    clock: Clock
    changed: Callable[[], None] = lambda: None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
