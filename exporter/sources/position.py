"""The position of reading in one database, the settings of reading, and the sentinels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from exporter.core.model import FUTURE, MICROSECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

HOUR: Final = 3600 * MICROSECONDS
DAY: Final = 24 * HOUR
"""how long the ledger keeps ids of spans, past the cursor"""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a database is read; all times in microseconds, `stall_budget` in seconds.

    `metadata` and `tags`: whether the metadata of runs, and tags of spans, are wanted.
    """

    overlap: int
    lookback: int
    horizon: int
    stall_budget: float
    metadata: bool = False
    tags: bool = False


@dataclass(slots=True)
class Position:
    """The position of reading, for every source; committed as the cursor. Times are the source's, in microseconds.

    Attributes:
        cutoff: All that came before was read.
        floor: No trace that ended before counts at all.
        newest: The latest that was met.
        sentinels: Ids of traces that are known to exist. If none of them is there, an empty answer is not believed.
        first: Whether the first pass over the database, its history, is still under way.
        seen: Whether there ever was a trace.

    """

    cutoff: int
    floor: int
    newest: int = 0
    sentinels: list[str] = field(default_factory=list)
    first: bool = True
    seen: bool = False

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Self:
        """Read a committed cursor; keys of other versions are left out."""
        field_names = cls.__dataclass_fields__
        return cls(**{key: value for key, value in data.items() if key in field_names})

    def sentinel_ages(self, overlap: int) -> list[int]:
        """The latest end of each sentinel to be chosen. They differ in age, since AgentOS may delete traces by age."""
        newest = min(self.newest, self.cutoff + overlap)
        return [FUTURE, newest - HOUR, newest - 12 * HOUR]
