"""What metrics cost in time series, as a configuration would count them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.metrics.catalog import METRICS, Kind, Life, Metric
from exporter.metrics.increments import Increments
from exporter.metrics.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.metrics.series import Dropped, Family, Limits


@dataclass(frozen=True, slots=True)
class Cost:
    """What one metric costs.

    Attributes:
        metric: The metric.
        label_sets: How many it has under limits and with labels dropped.
        undropped: How many it has under limits if no label is dropped.

    """

    metric: Metric
    label_sets: int
    undropped: int

    @property
    def series(self) -> int:
        """Time series."""
        return self.label_sets * self.metric.series

    @property
    def saved(self) -> int:
        """Time series that there are not since labels are dropped."""
        return (self.undropped - self.label_sets) * self.metric.series


def estimate(families: Sequence[Family], limits: Limits, dropped: Dropped) -> list[Cost]:
    """How many time series families make, in the order of the catalog.

    Args:
        families: Metric families that were counted without limits and with all labels.
        limits: The limits of the configuration.
        dropped: Its dropped labels.

    """
    kept, undropped = _label_sets(families, limits, dropped), _label_sets(families, limits, {})
    return [Cost(METRICS[name], kept[name], undropped[name]) for name in METRICS if undropped[name]]


def _label_sets(families: Sequence[Family], limits: Limits, dropped: Dropped) -> Counter[str]:
    """By name of a metric: how many label sets it would have."""
    label_sets: Counter[str] = Counter()
    born = Increments()
    for family in families:
        metric = family.metric
        if metric.life is not Life.DURABLE:
            label_sets[metric.name] += len(family.samples)
            continue
        for sample in family.samples:
            if metric.kind is Kind.HISTOGRAM:
                born.histogram(metric.name, sample.labels)
            else:
                born.add(metric.name, sample.labels, 0)
    plan = Totals(limits, zero_hold=0, dropped=dropped).plan(born, show=True)
    label_sets.update(name for name, _ in plan.series)
    return label_sets
