"""All series with their values: totals, gauges, admitted label values, and which values are visible already.

A new series shows 0 first: `increase()` cannot see a jump from nothing, and the alert on the first error of a new kind
would never fire. A durable series shows 0 until `zero_hold` after the first scrape that could see the 0. "It was
exposed" is committed before its value is served, so a restart never takes a value back.
"""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from exporter.core.text import shorten
from exporter.metrics.catalog import METRICS, OTHER, Kind, Life, Metric
from exporter.metrics.increments import Exemplar, Increments, Key, Labels, keep_newest
from exporter.metrics.series import Dropped, Family, Limits, Plan, Sample, StoredSeries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_LIMITED: Final = "agentos_exporter_series_limited_total"
_SERIES: Final = "agentos_exporter_series"
_SHORTENED: Final = "agentos_exporter_label_values_shortened_total"
_FREE: Final = frozenset({"", OTHER})
_LEADER: Final = "agentos_exporter_leader"
"""It is shown of an AgentOS that another replica leads as well."""


class _Series:
    """One live series. `born` is the publish that first showed it as 0, while `shown` is False."""

    __slots__ = ("born", "counts", "exemplars", "shown", "total", "value")

    def __init__(self, metric: Metric, *, shown: bool) -> None:
        self.value: float = 0
        self.counts: tuple[int, ...] = (0,) * (len(metric.buckets) + 1) if metric.kind is Kind.HISTOGRAM else ()
        self.total = 0
        self.exemplars: dict[int, Exemplar] = {}
        self.shown = shown
        self.born: int | None = None

    def sample(self, labels: Labels) -> Sample:
        if not self.shown:
            return Sample(labels, 0, (0,) * len(self.counts))
        places = len(self.counts) or 1
        exemplars = tuple(self.exemplars.get(place) for place in range(places)) if self.exemplars else ()
        return Sample(labels, self.value, self.counts, self.total, exemplars)


class Totals:
    """Every series of the process. All methods may be called from any thread."""

    def __init__(self, limits: Limits, *, zero_hold: float, dropped: Dropped | None = None) -> None:
        """Begin without any series.

        Args:
            limits: The limits of the configuration.
            zero_hold: Seconds for which a new series shows 0.
            dropped: The dropped labels, by metric.

        """
        self._limits = limits
        self._zero_hold = zero_hold
        self._dropped = _places(dropped or {})
        self._lock = threading.RLock()
        self._series: dict[str, dict[Labels, _Series]] = {name: {} for name in METRICS}
        self._admitted: dict[str, set[str]] = {}
        self._changed: dict[str, int] = dict.fromkeys(METRICS, 0)
        self._families: dict[str, Family] = {}
        self._hidden: set[Key] = set()
        self._taken_off: set[str] = set()
        """names of AgentOS instances whose series are kept but not shown"""
        self._led: frozenset[str] | None = None
        self._version = 0
        self._scrapes: list[tuple[int, float]] = []
        """(version, monotonic time) of the first scrape of each version that was scraped, in order"""

    def use(self, limits: Limits, *, zero_hold: float, dropped: Dropped) -> None:
        """Apply these limits from now on. Existing series stay.

        Args:
            limits: The limits of the configuration.
            zero_hold: Seconds for which a new series shows 0.
            dropped: The dropped labels, by metric.

        """
        with self._lock:
            self._limits, self._zero_hold, self._dropped = limits, zero_hold, _places(dropped)

    # Instances that come and go

    def agentos_names(self) -> set[str]:
        """The instances of which there are series that are shown."""
        with self._lock:
            return {
                labels[place]
                for name, family in self._series.items()
                if name != _LEADER and (place := METRICS[name].agentos) is not None
                for labels in family
                if self._is_shown(labels[place])
            } - {""}

    def take_off(self, agentos: str) -> None:
        """Show no series of this AgentOS any more. They are kept, for the day on which it comes back."""
        with self._lock:
            self._taken_off.add(agentos)
            self._touch(agentos)

    def bring_back(self, agentos: str) -> None:
        """Show the series of this AgentOS again."""
        with self._lock:
            if agentos in self._taken_off:
                self._taken_off.remove(agentos)
                self._touch(agentos)

    def lead(self, names: frozenset[str]) -> None:
        """Show the series of these AgentOS instances alone; those of '' are about all of them together."""
        with self._lock:
            before = self._led
            self._led = names
            for name in names if before is None else names ^ before:
                self._touch(name)

    def forget(self, agentos: str) -> None:
        """Drop all series of an AgentOS: another replica may count on from here."""
        with self._lock:
            for name, labels in self._of(agentos):
                if name != _LEADER:
                    del self._series[name][labels]
                    self._hidden.discard((name, labels))
                    self._changed[name] += 1

    def forget_gauges(self, agentos: str) -> None:
        """Remove the gauges of an AgentOS that is no longer read: their values are unknown."""
        with self._lock:
            for name, labels in self._of(agentos):
                if METRICS[name].life is Life.NOW:
                    self.gauge(name, labels, None)

    def _touch(self, agentos: str) -> None:
        for name, _ in self._of(agentos):
            self._changed[name] += 1

    def _of(self, agentos: str) -> list[Key]:
        return [
            (name, labels)
            for name, family in self._series.items()
            if (place := METRICS[name].agentos) is not None
            for labels in family
            if labels[place] == agentos
        ]

    # Restoring

    def restore(self, series: Iterable[StoredSeries], admitted: Iterable[tuple[str, str]]) -> None:
        """Take over the series of a state; series of metrics that are no longer in the catalog are ignored."""
        with self._lock:
            for label, value in admitted:
                self._admitted.setdefault(label, set()).add(value)
            for stored in series:
                if stored.metric in self._series:
                    self._put(stored)

    def _put(self, stored: StoredSeries) -> None:
        metric = METRICS[stored.metric]
        family = self._series[stored.metric]
        live = family.get(stored.labels)
        if live is None:
            live = family[stored.labels] = _Series(metric, shown=stored.shown)
            if not stored.shown:
                self._hidden.add((stored.metric, stored.labels))
        live.value = stored.value
        live.total = stored.total
        if metric.kind is Kind.HISTOGRAM:
            live.counts = stored.counts
        self._changed[stored.metric] += 1

    # Durable increments: plan → commit → apply

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for a block, so that no other thread changes anything."""
        with self._lock:
            yield

    def plan(self, delta: Increments, *, show: bool) -> Plan:
        """The changes that `delta` makes, within the limits. With `show`, new series show their value at once."""
        with self._lock:
            return _Planner(self, show=show).run(delta)

    def apply(self, plan: Plan) -> None:
        """Apply a committed plan."""
        with self._lock:
            for label, value in plan.admitted:
                self._admitted.setdefault(label, set()).add(value)
            for stored in plan.series.values():
                self._put(stored)
            for (metric, labels), exemplars in plan.exemplars.items():
                live = self._series[metric][labels].exemplars
                for place, exemplar in exemplars.items():
                    keep_newest(live, place, exemplar)
            for (metric, labels), amount in plan.folded.items():
                self.add(metric, labels, amount)

    # Values of the process itself

    def add(self, metric: str, labels: Labels, amount: int = 1) -> None:
        """Add to a counter of the process itself.

        Args:
            metric: Name of the counter.
            labels: Values of its labels, in the order of the catalog.
            amount: What to add; 0 creates the series.

        """
        with self._lock:
            live = self._live(metric, labels, shown=amount == 0)
            live.value += amount
            self._changed[metric] += 1

    def observe(self, metric: str, labels: Labels, value: int) -> None:
        """Add one observation to a histogram of the process itself.

        Args:
            metric: Name of the histogram.
            labels: Values of its labels, in the order of the catalog.
            value: The observed value, in storage units.

        """
        with self._lock:
            live = self._live(metric, labels, shown=True)
            bucket = bisect_left(METRICS[metric].buckets, value)
            live.counts = (*live.counts[:bucket], live.counts[bucket] + 1, *live.counts[bucket + 1 :])
            live.total += value
            self._changed[metric] += 1

    def gauge(self, metric: str, labels: Labels, value: float | None) -> None:
        """Set a gauge.

        Args:
            metric: Name of the gauge.
            labels: Values of its labels, in the order of the catalog.
            value: The value in storage units; None removes the series, since unknown is not zero.

        """
        with self._lock:
            family = self._series[metric]
            if value is None:
                if family.pop(labels, None) is not None:
                    self._changed[metric] += 1
                return
            live = self._live(metric, labels, shown=True)
            if live.value != value:
                live.value = value
                self._changed[metric] += 1

    def gauges(self, metric: str, agentos: str, values: dict[Labels, float]) -> None:
        """Replace all series of a gauge that belong to one AgentOS. Long label values are shortened.

        Args:
            metric: Name of the gauge; its first label is the AgentOS.
            agentos: Name of the instance.
            values: Values in storage units, by labels.

        """
        length = self._limits.label_value_length
        values = {
            (agentos, *(shorten(label, length) for label in labels[1:])): value for labels, value in values.items()
        }
        with self._lock:
            for labels in [labels for labels in self._series[metric] if labels[0] == agentos and labels not in values]:
                self.gauge(metric, labels, None)
            for labels, value in list(values.items())[: self._limits.series_per_metric]:
                self.gauge(metric, labels, value)

    def _live(self, metric: str, labels: Labels, *, shown: bool) -> _Series:
        family = self._series[metric]
        live = family.get(labels)
        if live is None:
            described = METRICS[metric]
            live = family[labels] = _Series(described, shown=shown or described.kind is not Kind.COUNTER)
            self._changed[metric] += 1
            if not live.shown:
                self._hidden.add((metric, labels))
        return live

    def value(self, metric: str, labels: Labels) -> float | None:
        """The value of a counter or gauge in storage units, visible or not; None if there is no such series."""
        with self._lock:
            live = self._series[metric].get(labels)
            return None if live is None else live.value

    # Publishing

    def scraped(self, version: int, monotonic: float) -> None:
        """A scraper was given `version` (what `families` returned) at `monotonic` seconds."""
        if not self._scrapes or self._scrapes[-1][0] < version:
            self._scrapes.append((version, monotonic))

    def due(self, monotonic: float) -> list[Key]:
        """Series whose 0 was visible to scrapers for `zero_hold`; commit the durable ones."""
        with self._lock:
            self._forget_scrapes()
            versions = [version for version, _ in self._scrapes]
            due = []
            for key in self._hidden:
                born = self._series[key[0]][key[1]].born
                if born is None:
                    continue
                place = bisect_left(versions, born)
                if place < len(versions) and monotonic - self._scrapes[place][1] >= self._zero_hold:
                    due.append(key)
            return due

    def _forget_scrapes(self) -> None:
        """Keep only scrapes that a hidden series still counts from, and the newest."""
        births = [born for key in self._hidden if (born := self._series[key[0]][key[1]].born) is not None]
        oldest = min(births, default=self._version)
        keep = bisect_left(self._scrapes, (oldest, 0.0))
        del self._scrapes[: min(keep, len(self._scrapes) - 1)]

    def show(self, keys: Iterable[Key]) -> None:
        """From the next `families` on these series show their value; for durable ones that fact is committed by now."""
        with self._lock:
            for metric, labels in keys:
                self._hidden.discard((metric, labels))
                if (live := self._series[metric].get(labels)) is not None:  # it may be forgotten by now
                    live.shown = True
                    self._changed[metric] += 1

    @staticmethod
    def durable(keys: Iterable[Key]) -> list[Key]:
        """Those of the series that live in the state file."""
        return [key for key in keys if METRICS[key[0]].life is Life.DURABLE]

    def families(self) -> tuple[int, tuple[Family, ...]]:
        """(version, all families that have series) for the next publish."""
        with self._lock:
            self._count_series()
            self._version += 1
            for metric, labels in self._hidden:
                series = self._series[metric][labels]
                if series.born is None:
                    series.born = self._version
            for name, version in self._changed.items():
                old = self._families.get(name)
                if old is None or old.version != version:
                    samples = tuple(series.sample(labels) for labels, series in self._shown(name))
                    self._families[name] = Family(METRICS[name], version, samples)
            return self._version, tuple(family for family in self._families.values() if family.samples)

    def _shown(self, name: str) -> Iterable[tuple[Labels, _Series]]:
        place = METRICS[name].agentos
        if place is None or name == _LEADER or not (self._taken_off or self._led is not None):
            return self._series[name].items()
        return [(labels, live) for labels, live in self._series[name].items() if self._is_shown(labels[place])]

    def _is_shown(self, agentos: str) -> bool:
        return agentos not in self._taken_off and (self._led is None or agentos in self._led)

    def _count_series(self) -> None:
        for name, family in self._series.items():
            if family and name != _SERIES:
                self.gauge(_SERIES, (name,), len(family))
        others = len(self._series[_SERIES].keys() - {(_SERIES,)})
        self.gauge(_SERIES, (_SERIES,), others + 1 if others else None)

    def stored(self) -> Iterator[StoredSeries]:
        """Every durable series, for tests and for checks against the state file."""
        with self._lock:
            for name, family in self._series.items():
                if METRICS[name].life is Life.DURABLE:
                    for labels, live in family.items():
                        yield StoredSeries(name, labels, int(live.value), live.counts, live.total, live.shown)


def _places(dropped: Dropped) -> dict[str, frozenset[int]]:
    """By name of a metric: the positions of its dropped labels."""
    return {name: frozenset(map(METRICS[name].labels.index, labels)) for name, labels in dropped.items()}


class _Planner:
    """One run of `Totals.plan`. It admits label values and adds up, and leaves the live series as they are."""

    def __init__(self, totals: Totals, *, show: bool) -> None:
        self._totals = totals
        self._show = show
        self._plan = Plan()
        self._admitted: dict[str, set[str]] = {}
        self._new: dict[str, int] = {}

    def run(self, delta: Increments) -> Plan:
        within: dict[Key, Labels] = {}
        for (name, labels), amount in delta.counters.items():
            folded = within[name, labels] = self._within(METRICS[name], labels, amount)
            self._add(name, folded, amount)
            if (exemplar := delta.exemplars.get((name, labels))) is not None:
                self._exemplars(name, folded, {0: exemplar})
        for (day, name, labels), amount in delta.days.items():
            key = (day, name, within[name, labels])
            self._plan.days[key] = self._plan.days.get(key, 0) + amount
        for (name, labels), change in delta.histograms.items():
            folded = self._within(METRICS[name], labels, sum(change.counts))
            before = self._before(name, folded)
            counts = tuple(old + new for old, new in zip(before.counts, change.counts, strict=True))
            total = before.total + change.total
            self._plan.series[name, folded] = StoredSeries(name, folded, 0, counts, total, before.shown)
            if change.exemplars:
                self._exemplars(name, folded, change.exemplars)
        return self._plan

    def _exemplars(self, name: str, labels: Labels, exemplars: dict[int, Exemplar]) -> None:
        planned = self._plan.exemplars.setdefault((name, labels), {})
        for place, exemplar in exemplars.items():
            keep_newest(planned, place, exemplar)

    def _add(self, name: str, labels: Labels, amount: int) -> None:
        before = self._before(name, labels)
        self._plan.series[name, labels] = StoredSeries(name, labels, before.value + amount, (), 0, before.shown)

    def _before(self, name: str, labels: Labels) -> StoredSeries:
        planned = self._plan.series.get((name, labels))
        if planned is not None:
            return planned
        live = self._totals._series[name].get(labels)  # noqa: SLF001 - one thing in two classes
        if live is not None:
            return StoredSeries(name, labels, int(live.value), live.counts, live.total, live.shown)
        self._new[name] = self._new.get(name, 0) + 1
        metric = METRICS[name]
        counts = (0,) * (len(metric.buckets) + 1) if metric.kind is Kind.HISTOGRAM else ()
        # Series without labels from users are created at 0 with their AgentOS, so they never jump.
        return StoredSeries(name, labels, 0, counts, 0, self._show)

    def _within(self, metric: Metric, labels: Labels, amount: int) -> Labels:
        """The labels under which these increments count.

        Dropped labels are empty, long values are shortened, and values beyond the limits are `other`.
        """
        dropped = self._totals._dropped.get(metric.name, frozenset())  # noqa: SLF001
        limited = [place for place in metric.limited if place not in dropped] if dropped else metric.limited
        if not limited and not dropped:
            return labels
        folded = list(labels)
        for position in dropped:
            folded[position] = ""
        for position in limited:
            label = metric.labels[position]
            value = folded[position] = shorten(labels[position], self._totals._limits.label_value_length)  # noqa: SLF001
            if value != labels[position]:
                self._fold(_SHORTENED, metric.name, label, amount)
            # Each dimension has a limit of its own.
            under = f"{label} of {labels[metric.labels.index('dimension')]}" if label == "value" else label
            if not self._admit(under, value):
                folded[position] = OTHER
                self._fold(_LIMITED, metric.name, label, amount)
        result = tuple(folded)
        live = self._totals._series[metric.name]  # noqa: SLF001
        if not limited or result in live or (metric.name, result) in self._plan.series:
            return result
        if len(live) + self._new.get(metric.name, 0) < self._totals._limits.series_per_metric:  # noqa: SLF001
            return result
        self._fold(_LIMITED, metric.name, "", amount)
        return tuple(OTHER if place in limited else value for place, value in enumerate(result))

    def _admit(self, label: str, value: str) -> bool:
        if value in _FREE:
            return True
        admitted = self._totals._admitted.get(label, set())  # noqa: SLF001
        fresh = self._admitted.setdefault(label, set())
        if value in admitted or value in fresh:
            return True
        if len(admitted) + len(fresh) >= self._totals._limits.values_per_label:  # noqa: SLF001
            return False
        fresh.add(value)
        self._plan.admitted.append((label, value))
        return True

    def _fold(self, counter: str, metric: str, label: str, amount: int) -> None:
        key = (counter, (metric, label))
        if self._totals._led is None:  # noqa: SLF001
            self._add(*key, amount)
        else:
            self._plan.folded[key] = self._plan.folded.get(key, 0) + amount
