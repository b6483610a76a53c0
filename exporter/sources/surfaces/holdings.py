"""Contents of knowledge bases, and memories of users. Only gauges; nothing ends here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.sources.operations import OTHER, Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.sources.operations import Labels

_STATUSES: Final = ("processing", "completed", "partial", "failed")


class Contents:
    """Figures of the contents of knowledge bases."""

    def __init__(self) -> None:
        self._some = False
        """whether there ever was any"""

    def reading(self, counts: Mapping[str | None, int]) -> Reading:
        """The reading of a whole count by status; every status that is known is shown."""
        sums: dict[Labels, float] = {(status,): 0 for status in _STATUSES}
        for status, number in counts.items():
            labels = (status if status in _STATUSES else OTHER,)
            sums[labels] = sums.get(labels, 0) + number
        total = sum(counts.values())
        self._some = self._some or total > 0
        return Reading(gauges={"agentos_knowledge_contents": sums}, doubtful=self._some and not total)


class Memories:
    """Figures of memories."""

    def __init__(self) -> None:
        self._some = False

    def reading(self, memories: int, users: int) -> Reading:
        """The reading of so many memories, of so many users."""
        self._some = self._some or memories > 0
        gauges: dict[str, Mapping[Labels, float]] = {
            "agentos_memory_users": {(): users},
            "agentos_memories": {(): memories},
        }
        return Reading(gauges=gauges, doubtful=self._some and not memories)
