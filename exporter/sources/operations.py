"""The interface for approvals, schedules and the like: what waits, and how it ended.

Each part of AgentOS that can be read by itself is a surface. A row that ended (a resolved approval, a run of a
schedule, a job, a run of an evaluation) counts once, by its id; waiting rows are gauges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from exporter.core.errors import SourceError
from exporter.core.model import MICROSECONDS

APPROVALS: Final = "approvals"
SCHEDULES: Final = "schedules"
QUEUE: Final = "queue"
EVALS: Final = "evals"
KNOWLEDGE: Final = "knowledge"
MEMORY: Final = "memory"
RUNS: Final = "runs"
"""Paused runs, which only tables tell."""

SCOPES: Final = {
    APPROVALS: "approvals:read",
    SCHEDULES: "schedules:read",
    QUEUE: "agent_os:admin",
    EVALS: "evals:read",
    KNOWLEDGE: "knowledge:read",
    MEMORY: "memories:read",
}
"""Every surface of the API, with the scope that a token needs."""
OTHER: Final = "other"
"""The value for an unknown kind or status."""
RESOLUTIONS: Final = ("approved", "rejected", "expired", "cancelled", OTHER)
RUN_STATUSES: Final = ("success", "failed", "paused", "cancelled", OTHER)
KEPT: Final = 24 * 3600 * MICROSECONDS
"""Ids of rows that ended are kept for so long behind the position."""

Labels = tuple[str, ...]


class NoSurface(SourceError):
    """AgentOS does not have this part: its release is older, or the part is not configured."""


class Refused(SourceError):
    """AgentOS does not allow this part to be read: a scope is missing, or it is not on this replica."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A row that came to its end.

    Attributes:
        id: What it counts by.
        at: The time by which its list is ordered, in microseconds of AgentOS's clock.
        labels: Those of its counter, but for the AgentOS.
        wait: Microseconds for which it waited, where that is known.
        score: How good it was, where it says so.

    """

    id: str
    at: int
    labels: Labels
    wait: int | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of one reading of a surface.

    Attributes:
        position: How far the surface is read; opaque to all but its source. None where there is nothing to count.
        ended: Rows that ended, counted before or not.
        gauges: By metric: values in storage units, by labels but for the AgentOS. What is not named stays as it is.
        born: Labels of counters that are known beforehand.
        lost: Rows that waited and whose end nobody will know, by reason.
        forget_before: Rows dated before will not be read again.
        gap: Microseconds since the reading before, if AgentOS may have deleted rows meanwhile that nobody saw.
        doubtful: An empty answer follows one with rows. AgentOS also answers so if its database fails.

    """

    position: Mapping[str, Any] | None = None
    ended: Sequence[Ended] = ()
    gauges: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)
    born: Sequence[Labels] = ()
    lost: Mapping[str, int] = field(default_factory=dict)
    forget_before: int = 0
    gap: int = 0
    doubtful: bool = False


class OperationsSource(Protocol):
    """The surfaces of one AgentOS, however they are read."""

    @property
    def surfaces(self) -> Sequence[str]:
        """Those that it reads, in this order."""

    async def read(self, surface: str, position: Mapping[str, Any] | None) -> Reading:
        """Read one surface, from the position of its last committed reading; None if there was none.

        Raises:
            NoSurface: AgentOS has none.
            Refused: it may not be read, and asking again soon is in vain.
            SourceError: it could not be read just now.

        """
