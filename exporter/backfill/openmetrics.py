"""Series as text of OpenMetrics with timestamps: the names, labels and numbers of /metrics, over many samples."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from exporter.metrics.catalog import Kind, Metric
from exporter.metrics.render import number, openmetrics_lines
from exporter.metrics.series import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EOF: Final = "# EOF\n"
_AT_ONCE: Final = 500
"""Samples that are put together before they are written"""


def described(metric: Metric) -> str:
    """HELP and TYPE of a metric."""
    sample = _zero(metric, ("",) * len(metric.labels))
    return "".join(f"{line}\n" for line in openmetrics_lines(metric, [sample]) if line.startswith("# "))


class SeriesText:
    """One series of a metric. Its amounts are a counter's value, or a histogram's buckets, then its sum."""

    def __init__(self, metric: Metric, labels: tuple[str, ...], more: Sequence[tuple[str, str]]) -> None:
        """Write the series of one metric with one set of labels.

        Args:
            metric: The metric.
            labels: Values of the labels of the catalog, in its order.
            more: Names and values of further labels.

        """
        self._metric = metric
        shown = replace(metric, labels=(*metric.labels, *(name for name, _ in more)))
        sample = _zero(metric, (*labels, *(value for _, value in more)))
        lines = openmetrics_lines(shown, [sample])
        self._heads = [line.rpartition(" ")[0] for line in lines if not line.startswith("# ")]

    def render(self, amounts: Sequence[int], times: Sequence[str]) -> Iterator[str]:
        """The same amounts at each of these times, which are texts of seconds."""
        pieces = [f"{head} {value} " for head, value in zip(self._heads, self._values(amounts), strict=True)]
        for start in range(0, len(times), _AT_ONCE):
            # Each line of a sample ends with the time.
            yield "".join(f"{time}\n".join(pieces) + f"{time}\n" for time in times[start : start + _AT_ONCE])

    def _values(self, amounts: Sequence[int]) -> list[str]:
        unit = self._metric.unit
        if self._metric.kind is not Kind.HISTOGRAM:
            return [number(amounts[0], unit)]
        *counts, total = amounts
        buckets = [number(count, 1) for count in accumulate(counts)]
        return [*buckets, buckets[-1], number(total, unit)]


def zeros(metric: Metric) -> list[int]:
    """The amounts of a series that counted nothing."""
    return [0] * (len(metric.buckets) + 2) if metric.kind is Kind.HISTOGRAM else [0]


def seconds(milliseconds: int) -> str:
    """A time as OpenMetrics has it."""
    whole, rest = divmod(milliseconds, 1_000)
    return f"{whole}.{rest:03}" if rest else str(whole)


def _zero(metric: Metric, labels: tuple[str, ...]) -> Sample:
    counts = (0,) * (len(metric.buckets) + 1) if metric.kind is Kind.HISTOGRAM else ()
    return Sample(labels, 0, counts)
