"""The work file becomes files of OpenMetrics: one for all days, or one for each day in UTC.

promtool reads a file once for each block of two hours, so files of a day are the fastest. A file gets its name when it
is complete. Equal work files make equal bytes.

A series shows 0 one sample before its first increment, and has a value at each sample after that. It ends with a 0: a
counter that falls was reset, so the value that the daemon shows at once is added to what was counted here.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, TextIO

from exporter.backfill.openmetrics import EOF, SeriesText, described, seconds, zeros
from exporter.core.times import utc
from exporter.metrics.catalog import METRICS, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from exporter.backfill.period import Period
    from exporter.backfill.work import Series, Work

_Event = tuple[int, int, tuple[int, ...]]
"""(series, sample, amounts)"""


class Output:
    """Writes the content of a work file as OpenMetrics."""

    def __init__(
        self,
        work: Work,
        period: Period,
        labels: Sequence[tuple[str, str]],
        written: Callable[[Path], None] = lambda _path: None,
    ) -> None:
        """Write the files of a backfill.

        Args:
            work: The work file, complete.
            period: The samples that are wanted, and the path of the output.
            labels: Names and values of further labels of each series.
            written: Called with the path of each file that is complete.

        """
        self._work = work
        self._period = period
        self._labels = labels
        self._written = written
        self._amounts: dict[int, list[int]] = {}
        """by series: what was counted before the part that is being written"""

    def write(self, path: Path, *, by_day: bool) -> list[Path]:
        """Write the file at `path`, or files in the folder there; return them. Raises OSError."""
        self._amounts.clear()
        period = self._period
        if not by_day:
            self._write_part(path, period.first, period.last)
            return [path]
        path.mkdir(exist_ok=True)
        paths = []
        for start, end in period.days():
            paths.append(path / f"{utc(start * 1_000):%Y-%m-%d}.om")
            self._write_part(paths[-1], start, end)
        return paths

    def _write_part(self, path: Path, start: int, end: int) -> None:
        """All samples in [start, end]."""
        times = self._period.samples(start, end)
        beside = path.with_name(path.name + ".part")
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            for metric in METRICS.values():
                self._write_family(file, metric, times)
            file.write(EOF)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        self._written(path)

    def _write_family(self, file: TextIO, metric: Metric, times: list[int]) -> None:
        texts = [seconds(time) for time in times]
        header = described(metric)
        for series, events in self._series(metric, times):
            lines = SeriesText(metric, series.labels, self._labels)
            amounts = self._amounts.setdefault(series.id, zeros(metric))
            text = _runs(lines, amounts, self._shown_from(series, times), events, times, texts)
            if times[-1] == self._period.last:
                text = chain(text, lines.render(zeros(metric), [seconds(self._period.reset)]))
            for piece in text:
                file.write(header + piece)
                header = ""

    def _series(self, metric: Metric, times: list[int]) -> Iterator[tuple[Series, list[_Event]]]:
        """Each series of a metric, with what these samples add to it."""
        rows = groupby(self._work.increments(metric.name, times[0], times[-1]), itemgetter(0))
        number, events = next(rows, (None, iter(())))
        for series in self._work.series(metric.name):
            if series.id == number:
                yield series, list(events)
                number, events = next(rows, (None, iter(())))
            else:
                yield series, []

    def _shown_from(self, series: Series, times: list[int]) -> int:
        """The place of the first of these samples that shows the series."""
        if series.born is None:
            return len(times)
        return bisect_left(times, self._period.before(series.born))


def _runs(
    lines: SeriesText, amounts: list[int], place: int, events: Sequence[_Event], times: list[int], texts: list[str]
) -> Iterator[str]:
    """The samples from a place on, in runs of equal amounts; `amounts` grow by what happens meanwhile."""
    for at, some in groupby(events, itemgetter(1)):
        until = bisect_left(times, at)
        yield from lines.render(amounts, texts[place:until])
        for _, _, added in some:
            amounts[:] = [before + more for before, more in zip(amounts, added, strict=True)]
        place = until
    yield from lines.render(amounts, texts[place:])
