"""How far a list of rows was read."""

from __future__ import annotations

from typing import Final

import msgspec

from exporter.core.model import MICROSECONDS

MARGIN: Final = 2 * 60 * MICROSECONDS
"""For clocks of replicas that differ, and rows that are written late."""
SKEW: Final = 15 * 60 * MICROSECONDS
"""By how much the clock that dates rows, which may be the database's, may be behind that of AgentOS."""


class Position(msgspec.Struct):
    """How far a list was read. All but `read_to` and `some` is of pages alone, which the API has.

    Attributes:
        read_to: Rows that were written before were read, in microseconds of AgentOS's clock.
        began: The time up to which the walk under way reads, by the same clock; 0 where none is.
        page: The page at which it goes on; 0 where none is under way.
        size: Rows of its pages.
        some: Whether the list had any row.
        look: How many rows the list had when it was last read down to the position, and the date of the newest; None
            where that took several turns.
        alike: Readings since then that found both unchanged.

    """

    read_to: int
    began: int = 0
    page: int = 0
    size: int = 0
    some: bool = False
    look: tuple[int, int] | None = None
    alike: int = 0

    @property
    def floor(self) -> int:
        """Rows that were written since then are read again, in microseconds."""
        return self.read_to - MARGIN


def beginning(since: int) -> Position:
    """The position of a list that was never read; `since` is where counting begins, in microseconds."""
    return Position(since + MARGIN)
