"""How many rows a page of traces has."""

from __future__ import annotations

from typing import Final

_SMALLEST_PAGE: Final = 10
_LARGEST_PAGE: Final = 100


class PageSize:
    """The number of rows of a page, chosen so that one answer does not stall AgentOS for longer than the budget."""

    def __init__(self, stall_budget: float) -> None:
        """`stall_budget` is in seconds."""
        self._budget = stall_budget
        self.rows = _LARGEST_PAGE // 2

    def learn(self, elapsed: float, search_ms: float, rows: int) -> None:
        """Take into account how long a page took.

        Args:
            elapsed: Seconds from request to answer.
            search_ms: Milliseconds of them that AgentOS spent on finding the rows.
            rows: How many rows the page had.

        """
        if rows < 1:
            return
        search = search_ms / 1000
        each = max(elapsed - search, 1e-6) / rows
        wanted = _LARGEST_PAGE if search > self._budget / 2 else int((self._budget - search) / each)
        self.rows = max(_SMALLEST_PAGE, min(_LARGEST_PAGE, wanted))

    def shrink(self) -> bool:
        """Halve the page after an answer that was too large; False if it is one row already."""
        if self.rows == 1:
            return False
        self.rows = max(1, self.rows // 2)
        return True
