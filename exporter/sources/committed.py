"""What one process has read of a database and seen committed: spans by the time of their insertion.

Of each poll's overlap all but nothing is new. How many rows it holds, and what their times add up to, an index tells
without a look at the rows; where both are as remembered, only what was written later has to be listed. A row that came
late while another one of the very same fraction of a second was deleted is all that this could miss.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_FEW: Final = 1_000


class Stretch(NamedTuple):
    """Rows from a moment on: how many, and what `fraction` of their times adds up to."""

    rows: int
    total: int


def fraction(time: str) -> int:
    """Microseconds of the second, of a time as agno writes it; 0 without a point. Raises ValueError, TypeError."""
    if not isinstance(time, str):
        raise TypeError("not a text")
    return int(time[20:26]) if time[19:20] == "." else 0


class Committed:
    """Spans that were read and committed. Times of insertion are as the table has them, text as agno writes it."""

    def __init__(self) -> None:
        self._spans: dict[str, Any] = {}
        self._forget_at = _FEW
        self._rows: list[tuple[str, str]] = []
        """(time, span id), in this order"""
        self._totals: list[int] = [0]
        """before each row, and after the last: what the fractions add up to"""
        self._new: list[tuple[str, str]] = []
        """rows that are not in order yet"""
        self._odd = False
        """whether there were times of another form"""

    def __contains__(self, span_id: str) -> bool:
        return span_id in self._spans

    def add(self, spans: Mapping[str, Any]) -> None:
        """Remember spans, by id with their time of insertion; those that are known stay as they are."""
        if not self._odd:
            self._new += [(time, span_id) for span_id, time in spans.items() if span_id not in self._spans]
        self._spans.update(spans)

    @property
    def newest(self) -> tuple[str, str] | None:
        """(time, span id) of the newest span; None where there is none, or none that is known."""
        try:
            newest = max([*self._rows[-1:], *self._new], default=("", ""))
        except TypeError:
            return None
        return newest if newest[0] and isinstance(newest[0], str) else None

    def since(self, time: str) -> Stretch | None:
        """What was inserted since; None where that is not known, or is nothing."""
        if self._new:
            self._order()
        first = bisect_left(self._rows, (time, ""))
        if first == len(self._rows):
            return None
        return Stretch(len(self._rows) - first, self._totals[-1] - self._totals[first])

    def _order(self) -> None:
        """Put new rows in order and add them up."""
        try:
            self._new.sort()
            if self._rows and self._new[0] < self._rows[-1]:  # late
                self._new = sorted(self._rows + self._new)
                self._rows, self._totals = [], [0]
            fractions = [fraction(time) for time, _ in self._new]
            self._totals += islice(accumulate(fractions, initial=self._totals[-1]), 1, None)
            self._rows += self._new
        except (TypeError, ValueError):
            self._odd, self._rows, self._totals = True, [], [0]
        self._new = []

    def forget(self, before: str) -> None:
        """Forget spans that were inserted before, once there are many; as texts, times sort like themselves."""
        if len(self._spans) < self._forget_at:
            return
        self._spans = {span_id: time for span_id, time in self._spans.items() if str(time) >= before}
        self._rows, self._totals = [], [0]
        self._new = [] if self._odd else [(time, span_id) for span_id, time in self._spans.items()]
        self._forget_at = _FEW + 2 * len(self._spans)
