"""What one process has read of a database and seen committed: spans by the time of their insertion.

Of each poll's overlap all but nothing is new. How many rows it holds, and what their times add up to, an index tells
without a look at the rows; where both are as remembered, only what was written later has to be listed. A row that came
late while another one of the very same fraction of a second was deleted is all that this could miss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SECOND: Final = len("2027-01-15T08:00:00")


class Stretch(NamedTuple):
    """Rows from a moment on: how many, and what the `fractions` of their times add up to."""

    rows: int
    total: int


def fractions(times: Iterable[str]) -> int:
    """Sum of the microseconds of seconds, of times as agno writes them; 0 without a point. Raises ValueError."""
    return sum([int(time[20:26]) for time in times if time[19:20] == "."])


class Committed:
    """Spans that were read and committed. Times of insertion are as the table has them, text as agno writes it."""

    def __init__(self) -> None:
        self._seconds: dict[str, dict[Any, Any]] = {}
        """ids with their times, by the text of these up to the second: as texts, times sort like themselves"""
        self._totals: dict[str, int] = {}
        """what their fractions add up to, by second"""
        self._newest = ("", "")
        """(time, span id)"""
        self._odd = False
        """whether there were times of another form"""

    def knows(self, time: object, span_id: object) -> bool:
        """Whether a span is remembered."""
        return span_id in self._seconds.get(_second(time), ())

    def add(self, spans: Mapping[Any, Any]) -> None:
        """Remember spans, by id with their time of insertion; those that are known stay as they are."""
        fresh: dict[str, dict[Any, Any]] = {}
        for span_id, time in spans.items():
            second = _second(time)
            if second in fresh:
                fresh[second][span_id] = time
            else:
                fresh[second] = {span_id: time}
        for second, some in fresh.items():
            known = self._seconds.get(second)
            if known is None:
                self._seconds[second], new = some, some
            else:
                new = {span_id: time for span_id, time in some.items() if span_id not in known}
                known.update(new)
            if new and not self._odd:
                self._sum_up(second, new)

    def _sum_up(self, second: str, new: Mapping[Any, Any]) -> None:
        try:
            self._totals[second] = self._totals.get(second, 0) + fractions(new.values())
            self._newest = max(self._newest, *zip(new.values(), new.keys(), strict=True))
        except (TypeError, ValueError):
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
        for second, spans in self._seconds.items():
            if second > first:
                rows, total = rows + len(spans), total + self._totals[second]
            elif second == first:
                late = [each for each in spans.values() if each >= time]
                rows, total = rows + len(late), total + fractions(late)
        return Stretch(rows, total) if rows else None

    def forget(self, before: str) -> None:
        """Forget spans that were inserted before, but for those of the same second."""
        for second in [second for second in self._seconds if second < before[:_SECOND]]:
            del self._seconds[second]
            self._totals.pop(second, None)


def _second(time: object) -> str:
    """Of what is no text, something alike: a date and time of a driver's sorts in, bytes come after all others."""
    return time[:_SECOND] if type(time) is str else str(time).replace(" ", "T")[:_SECOND]
