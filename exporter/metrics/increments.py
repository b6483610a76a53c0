"""Increments of series, summed up before they are planned into the totals. Pure arithmetic on integers."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import msgspec

from exporter.metrics.catalog import METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

Labels = tuple[str, ...]
Key = tuple[str, Labels]
"""A series: metric name and label values in the catalog's order."""
DayKey = tuple[int, str, Labels]
"""A series on one day in UTC, counted from the epoch."""

Place = TypeVar("Place")


class Exemplar(msgspec.Struct, frozen=True, gc=False):
    """A trace as the example of one increment: `value` in storage units, `at` in microseconds since the epoch."""

    trace_id: str
    value: int
    at: int


def keep_newest(exemplars: dict[Place, Exemplar], place: Place, exemplar: Exemplar) -> None:
    """Put an exemplar in its place unless a newer one is there: Prometheus refuses exemplars that go back in time."""
    if place not in exemplars or exemplars[place].at <= exemplar.at:
        exemplars[place] = exemplar


@dataclass(slots=True)
class HistogramDelta:
    """Observations to add: `counts` per bucket (not cumulative, +Inf last), `total` their sum in storage units."""

    bounds: Sequence[int]
    counts: list[int]
    total: int = 0
    exemplars: dict[int, Exemplar] = field(default_factory=dict)

    def observe(self, value: int) -> int:
        """Add one observation; returns its bucket."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.total += value
        return bucket

    def observe_all(self, values: Sequence[int]) -> None:
        """Add observations, at least one; those of one trace mostly lie in one bucket."""
        bounds, counts = self.bounds, self.counts
        first = bisect_left(bounds, min(values))
        if first == bisect_left(bounds, max(values)):
            counts[first] += len(values)
        else:
            for value in values:
                counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)

    def time(self, duration: int, trace_id: str, at: int) -> None:
        """Add a duration, with its trace as an exemplar.

        Args:
            duration: Microseconds.
            trace_id: The trace.
            at: When it ended, in microseconds.

        """
        keep_newest(self.exemplars, self.observe(duration), Exemplar(trace_id, duration, at))


@dataclass(slots=True, kw_only=True)
class Increments:
    """Increments of counters and histograms."""

    histograms: dict[Key, HistogramDelta] = field(default_factory=dict)
    exemplars: dict[Key, Exemplar] = field(default_factory=dict)
    days: dict[DayKey, int] = field(default_factory=dict)
    """increments of `DAILY` counters by day; complete once the counters were read"""
    _counters: dict[Key, int] = field(default_factory=dict)

    @property
    def counters(self) -> dict[Key, int]:
        """Increments of counters."""
        return self._counters

    def add(self, metric: str, labels: Labels, amount: int = 1) -> None:
        """Add to a counter.

        Args:
            metric: Name of the counter.
            labels: Values of its labels, in the order of the catalog.
            amount: What to add, in storage units; 0 creates the series.

        """
        key = (metric, labels)
        self._counters[key] = self._counters.get(key, 0) + amount

    def add_on(self, day: int, metric: str, labels: Labels, amount: int = 1) -> None:
        """Add to a `DAILY` counter, and to its sum of a day.

        Args:
            day: The day in UTC, counted from the epoch.
            metric: Name of the counter.
            labels: Values of its labels, in the order of the catalog.
            amount: What to add, in storage units; 0 creates the series.

        """
        self.add(metric, labels, amount)
        key = (day, metric, labels)
        self.days[key] = self.days.get(key, 0) + amount

    def observe(self, metric: str, labels: Labels, value: int) -> None:
        """Add one observation to a histogram.

        Args:
            metric: Name of the histogram.
            labels: Values of its labels, in the order of the catalog.
            value: The observed value, in storage units.

        """
        self.histogram(metric, labels).observe(value)

    def histogram(self, metric: str, labels: Labels) -> HistogramDelta:
        """The histogram to observe in."""
        key = (metric, labels)
        delta = self.histograms.get(key)
        if delta is None:
            bounds = METRICS[metric].buckets
            delta = self.histograms[key] = HistogramDelta(bounds, [0] * (len(bounds) + 1))
        return delta

    def error(self, metric: str, labels: Labels, trace_id: str, at: int) -> None:
        """Count one error, with its trace as an exemplar.

        Args:
            metric: Name of the counter.
            labels: Values of its labels, in the order of the catalog.
            trace_id: The trace.
            at: When it happened, in microseconds.

        """
        self.add(metric, labels)
        self._remember(metric, labels, trace_id, at)

    def error_on(self, day: int, metric: str, labels: Labels, trace_id: str, at: int) -> None:
        """Do the same with a `DAILY` counter."""
        self.add_on(day, metric, labels)
        self._remember(metric, labels, trace_id, at)

    def _remember(self, metric: str, labels: Labels, trace_id: str, at: int) -> None:
        keep_newest(self.exemplars, (metric, labels), Exemplar(trace_id, 1, at))
