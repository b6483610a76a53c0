"""The span of time that is backfilled, and its samples.

Spans are dated in microseconds, samples in milliseconds, as Prometheus has them. Samples lie at multiples of the step
since the epoch, which are whole minutes in every time zone, and at the very end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_MILLISECOND: Final = 1_000
"""Microseconds"""
DAY: Final = 86_400_000
"""Milliseconds"""


@dataclass(frozen=True, slots=True)
class Period:
    """All that ended in [since, until), in microseconds; `step` between two samples, in milliseconds."""

    since: int
    until: int
    step: int

    @property
    def first(self) -> int:
        """The first sample: all counters are 0."""
        return self.since // _MILLISECOND // self.step * self.step

    @property
    def last(self) -> int:
        """The last sample: all is counted."""
        return self.until // _MILLISECOND

    @property
    def reset(self) -> int:
        """The sample after the last: all counters are 0 again, as those of the daemon begin from 0."""
        return self.last + 1

    def sample_of(self, end: int) -> int:
        """The first sample at or after `end`, in microseconds.

        A span that ended before or after the period is part of a trace that ended in it: it counts at the first or last
        sample.
        """
        step = self.step * _MILLISECOND
        at = -(-end // step) * self.step
        return min(max(at, self.first + self.step), self.last)

    def before(self, sample: int) -> int:
        """The sample before this one."""
        return (sample - 1) // self.step * self.step

    def samples(self, start: int, end: int) -> list[int]:
        """All samples in [start, end], but for the reset."""
        begin = -(-max(start, self.first) // self.step) * self.step
        times = list(range(begin, min(end + 1, self.last), self.step))
        return [*times, self.last] if start <= self.last <= end else times

    def days(self) -> list[tuple[int, int]]:
        """(first, last millisecond) of each day in UTC that has samples; the end of the last day belongs to it."""
        days = [(day, day + DAY - 1) for day in range(self.first // DAY * DAY, max(self.last, self.first + 1), DAY)]
        return [*days[:-1], (days[-1][0], days[-1][1] + 1)]
