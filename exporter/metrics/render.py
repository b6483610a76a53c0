"""Totals and catalog → the bytes that /metrics sends, made once per publish.

    series.Family -> prometheus_client metric family -> bytes of that family, kept while its version lasts
        -> all families + process_* + python_info -> text 0.0.4 and OpenMetrics 1.0.0, each plain and gzipped

Rendering takes time in proportion to the number of samples that changed, so it belongs into a thread
(`asyncio.to_thread(renderer.render, families)`): a scrape then only sends what is ready.
"""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from prometheus_client import exposition, metrics_core, samples
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.utils import floatToGoString

from exporter.core.model import MICROSECONDS
from exporter.metrics.catalog import METRICS, Kind, Life, Metric
from exporter.metrics.increments import Exemplar
from exporter.metrics.series import Family, Sample

EXEMPLAR_LABEL: Final = "trace_id"
EXEMPLAR_LENGTH: Final = 128
"""OpenMetrics: names and values of an exemplar's labels together, in characters. Prometheus drops longer ones."""

GZIP_LEVEL: Final = 1
"""Level 1 leaves 16 % of the plain size in 3 ms a megabyte; level 6 leaves 14 % and takes 8 ms."""

# Other text than a plain id leads to no trace, and some parsers fail on it.
_TRACE_ID: Final = re.compile(rf"[0-9A-Za-z._:-]{{1,{EXEMPLAR_LENGTH - len(EXEMPLAR_LABEL)}}}")
_EOF: Final = b"# EOF\n"


@dataclass(frozen=True, slots=True)
class Rendered:
    """One state of all metrics, ready to be sent: text 0.0.4 and OpenMetrics 1.0.0, each plain and gzipped."""

    text: bytes
    openmetrics: bytes
    text_gzip: bytes
    openmetrics_gzip: bytes
    own: Sequence[metrics_core.Metric] = ()
    """process_* and python_info, which are in no family"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The metrics as they were published at one moment.

    Attributes:
        version: That of `Totals.families`.
        at: When it was published, in seconds since the epoch.
        families: All that have samples.
        rendered: The same as /metrics sends it.
        durable_since: From when counters in the state count, in seconds since the epoch.
        process_since: The same of counters that live with the process.

    """

    version: int
    at: float
    families: Sequence[Family]
    rendered: Rendered
    durable_since: float
    process_since: float

    def metrics(self) -> list[metrics_core.Metric]:
        """All that /metrics shows, as prometheus_client's own."""
        return [*map(metric_family, self.families), *self.rendered.own]

    def since(self, metric: str) -> float:
        """From when a metric counts."""
        definition = METRICS.get(metric)
        return self.durable_since if definition is not None and definition.life is Life.DURABLE else self.process_since

    def gone_since(self, before: Snapshot) -> list[metrics_core.Metric]:
        """The series of an earlier snapshot that this one no longer has."""
        now = {family.metric.name: family for family in self.families}
        gone: list[metrics_core.Metric] = []
        for old in before.families:
            new = now.get(old.metric.name)
            if new is None or new.version != old.version:
                kept = {sample.labels for sample in new.samples} if new is not None else set()
                rows = tuple(sample for sample in old.samples if sample.labels not in kept)
                if rows:
                    gone.append(metric_family(Family(old.metric, old.version, rows)))
        return gone


@dataclass(frozen=True, slots=True)
class _Bytes:
    """One family in both formats; OpenMetrics without its end mark."""

    version: int
    text: bytes
    openmetrics: bytes


@dataclass(frozen=True, slots=True)
class _Registry:
    """What prometheus_client asks for its metrics."""

    metrics: Iterable[metrics_core.Metric]

    def collect(self) -> Iterable[metrics_core.Metric]:
        """Everything to be rendered."""
        return self.metrics


class Renderer:
    """Renders families to exposition bytes and remembers each family until its version changes.

    May be called from any thread; calls wait for one another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, _Bytes] = {}
        # Not the global registry: importing prometheus_client anywhere would add to it.
        self._own = (ProcessCollector(registry=None), PlatformCollector(registry=None))

    def render(self, families: Sequence[Family]) -> Rendered:
        """Bytes of all families in the given order, then process_* and python_info, which are read each time.

        Families without samples are left out, as client libraries do. Raises ValueError if a sample does not fit its
        metric (number of labels or buckets).
        """
        with self._lock:
            self._kept = {family.metric.name: self._bytes(family) for family in families if family.samples}
            process_metrics = [metric for collector in self._own for metric in collector.collect()]
            parts = [*self._kept.values(), _render(0, process_metrics)]
        text = b"".join(part.text for part in parts)
        open_text = b"".join((*(part.openmetrics for part in parts), _EOF))
        return Rendered(text, open_text, _gzip(text), _gzip(open_text), process_metrics)

    def _bytes(self, family: Family) -> _Bytes:
        kept = self._kept.get(family.metric.name)
        if kept is not None and kept.version == family.version:
            return kept
        return _render(family.version, [metric_family(family)])


def metric_family(family: Family) -> metrics_core.Metric:
    """The family as prometheus_client's own: base units, cumulative buckets, no timestamps, no `_created`.

    Exemplars ride along; only OpenMetrics shows them. Raises ValueError where a sample does not fit its metric.
    """
    metric = family.metric
    return _BUILDERS[metric.kind](metric, family.samples)


def openmetrics_lines(metric: Metric, rows: Sequence[Sample]) -> list[str]:
    """The family as lines of OpenMetrics, without the end mark: first what describes it, then its samples.

    Raises ValueError where a sample does not fit the metric.
    """
    return _render(0, [metric_family(Family(metric, 0, tuple(rows)))]).openmetrics.decode().split("\n")[:-1]


def number(value: float, unit: int) -> str:
    """A value in storage units as the exposition writes it."""
    return _go(_base(value, unit))


def _counter(metric: Metric, rows: Sequence[Sample]) -> metrics_core.Metric:
    built = metrics_core.CounterMetricFamily(metric.name, metric.documentation, labels=metric.labels)
    for row in rows:
        exemplar = _exemplar(row.exemplars[0], metric.unit) if row.exemplars else None
        built.add_metric(_labels(metric, row), _base(row.value, metric.unit), exemplar=exemplar)
    return built


def _gauge(metric: Metric, rows: Sequence[Sample]) -> metrics_core.Metric:
    built = metrics_core.GaugeMetricFamily(metric.name, metric.documentation, labels=metric.labels)
    for row in rows:
        built.add_metric(_labels(metric, row), _base(row.value, metric.unit))
    return built


def _histogram(metric: Metric, rows: Sequence[Sample]) -> metrics_core.Metric:
    built = metrics_core.HistogramMetricFamily(metric.name, metric.documentation, labels=metric.labels)
    bounds = [*(_go(_base(bound, metric.unit)) for bound in metric.buckets), "+Inf"]
    for row in rows:
        exemplars = (_exemplar(exemplar, metric.unit) for exemplar in row.exemplars or (None,) * len(bounds))
        buckets = list(zip(bounds, accumulate(row.counts), exemplars, strict=True))
        # The annotation of add_metric knows no absent exemplar; its code does.
        built.add_metric(_labels(metric, row), buckets, _base(row.total, metric.unit))  # type: ignore[arg-type]
    return built


_BUILDERS: Final[dict[Kind, Callable[[Metric, Sequence[Sample]], metrics_core.Metric]]] = {
    Kind.COUNTER: _counter,
    Kind.GAUGE: _gauge,
    Kind.HISTOGRAM: _histogram,
}


def _base(value: float, unit: int) -> float:
    """Storage units → base units. Integers stay integers if nothing is divided; int / int is rounded correctly."""
    return value if unit == 1 else value / unit


def _go(number: float) -> str:
    """The number as Go writes it, which is how Prometheus normalises `le`."""
    text: str = floatToGoString(number)  # type: ignore[no-untyped-call]
    return text


def _labels(metric: Metric, row: Sample) -> tuple[str, ...]:
    if len(row.labels) != len(metric.labels):
        raise ValueError(f"{metric.name} has the labels {metric.labels}, a sample has the values {row.labels}")
    return tuple(map(_utf8, row.labels))


def _utf8(text: str) -> str:
    r"""Half a surrogate pair (JSON's "\ud800") has no UTF-8 form; one such label must not cost every other metric."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _exemplar(exemplar: Exemplar | None, unit: int) -> samples.Exemplar | None:
    if exemplar is None or not _TRACE_ID.fullmatch(exemplar.trace_id):
        return None
    return samples.Exemplar(
        {EXEMPLAR_LABEL: exemplar.trace_id}, _base(exemplar.value, unit), exemplar.at / MICROSECONDS
    )


def _render(version: int, metrics: Sequence[metrics_core.Metric]) -> _Bytes:
    registry = _Registry(metrics)
    open_text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
    return _Bytes(version, exposition.generate_latest(registry), open_text.removesuffix(_EOF))


def _gzip(plain: bytes) -> bytes:
    # No time of day inside: equal metrics are equal bytes.
    return gzip.compress(plain, GZIP_LEVEL, mtime=0)
