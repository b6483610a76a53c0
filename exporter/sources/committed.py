"""What one process has read of a database and seen committed: spans by the time of their insertion.

Of each poll's overlap all but nothing is new. How many rows it holds, and what their times add up to, an index tells
without a look at the rows; where both are as remembered, only what was written later has to be listed. A row that came
late while another one of the very same fraction of a second was deleted is all that this could miss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import KeysView, Mapping, Sequence

_FEW: Final = 1_000
_SECOND: Final = len("2027-01-15T08:00:00")


class Stretch(NamedTuple):
    """Rows from a moment on: how many, and what `fraction` of their times adds up to."""

    rows: int
    total: int


def fraction(time: str) -> int:
    """Microseconds of the second, of a time as agno writes it; 0 without a point. Raises ValueError."""
    return int(time[20:26]) if time[19:20] == "." else 0


class Committed:
    """Spans that were read and committed. Times of insertion are as the table has them, text as agno writes it."""

    def __init__(self) -> None:
        self._spans: dict[str, Any] = {}
        self._forget_at = _FEW
        self._newest = ("", "")
        """(time, span id)"""
        self._seconds: dict[str, list[str]] = {}
        """times by their text up to the second: as texts, times sort like themselves"""
        self._sums: dict[str, Stretch] = {}
        """what they added up to when they were last asked for"""
        self._odd = False
        """whether there were times of another form"""

    @property
    def ids(self) -> KeysView[str]:
        """Of all that is remembered."""
        return self._spans.keys()

    def add(self, spans: Mapping[str, Any]) -> None:
        """Remember spans, by id with their time of insertion; those that are known stay as they are."""
        new = [(time, span_id) for span_id, time in spans.items() if span_id not in self._spans]
        self._spans.update(spans)
        if not new or self._odd:
            return
        seconds = self._seconds
        try:
            self._newest = max(self._newest, *new)
            for time, _ in new:
                second = time[:_SECOND]
                if second in seconds:
                    seconds[second].append(time)
                else:
                    seconds[second] = [time]
        except TypeError:  # one that is no text
            self._odd = True

    @property
    def newest(self) -> tuple[str, str] | None:
        """(time, span id) of the newest span; None where there is none, or none that is known."""
        return None if self._odd or self._newest == ("", "") else self._newest

    def since(self, time: str) -> Stretch | None:
        """What was inserted since; None where that is not known, or is nothing."""
        if self._odd:
            return None
        rows, total, first = 0, 0, time[:_SECOND]
        try:
            for second, times in self._seconds.items():
                if second > first:
                    one = self._sum(second, times)
                elif second == first:
                    one = _stretch([each for each in times if each >= time])
                else:
                    continue
                rows, total = rows + one.rows, total + one.total
        except ValueError:
            self._odd = True
            return None
        return Stretch(rows, total) if rows else None

    def _sum(self, second: str, times: list[str]) -> Stretch:
        known = self._sums.get(second)
        if known is None or known.rows != len(times):
            known = self._sums[second] = _stretch(times)
        return known

    def forget(self, before: str) -> None:
        """Forget spans that were inserted before, once there are many."""
        if len(self._spans) < self._forget_at:
            return
        self._spans = {span_id: time for span_id, time in self._spans.items() if str(time) >= before}
        self._forget_at = _FEW + 2 * len(self._spans)
        kept = ((second, [time for time in times if time >= before]) for second, times in self._seconds.items())
        self._seconds = {} if self._odd else {second: times for second, times in kept if times}
        self._sums = {}


def _stretch(times: Sequence[str]) -> Stretch:
    return Stretch(len(times), sum(map(fraction, times)))
