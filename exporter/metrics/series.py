"""Series as they are stored, planned and shown, and the limits that they are within."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.metrics.catalog import Metric
from exporter.metrics.increments import DayKey, Exemplar, Key, Labels

Dropped = Mapping[str, frozenset[str]]
"""By name of a metric: the labels that are dropped before anything is counted."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series as it is to be shown now.

    Counter and gauge: `value`, in storage units (the metric's `unit` divides it). Histogram: `counts` per bucket, not
    cumulative, the last one for +Inf, and `total`, the sum in storage units. `exemplars` has one place for a counter,
    one a bucket for a histogram.
    """

    labels: Labels
    value: float = 0
    counts: tuple[int, ...] = ()
    total: int = 0
    exemplars: tuple[Exemplar | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """All series of one metric; `version` changes whenever anything in it does."""

    metric: Metric
    version: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many series a metric and how many values a label may have before the rest folds into `other`.

    `label_value_length` is in characters; the end of a longer value becomes a digest.
    """

    series_per_metric: int = 10_000
    values_per_label: int = 500
    label_value_length: int = 256


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """A durable series in the state file: counters have `value`, histograms `counts` and `total`."""

    metric: str
    labels: Labels
    value: int = 0
    counts: tuple[int, ...] = ()
    total: int = 0
    shown: bool = False


@dataclass(slots=True)
class Plan:
    """The changes of a delta: new absolute values, which are committed first and applied afterwards."""

    series: dict[Key, StoredSeries] = field(default_factory=dict)
    admitted: list[tuple[str, str]] = field(default_factory=list)
    exemplars: dict[Key, dict[int, Exemplar]] = field(default_factory=dict)
    days: dict[DayKey, int] = field(default_factory=dict)
    """additions to the sums of days, by series"""
    folded: dict[Key, int] = field(default_factory=dict)
    """effects of the limits if they are not kept: they belong to no AgentOS, and each has its own leader"""
