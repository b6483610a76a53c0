"""A snapshot as OTLP metrics: protobuf over HTTP, cumulative sums, gauges and histograms with explicit bounds.

A metric has the name that /metrics shows, and a unit only where the name ends in it. So whichever way a Prometheus
translates names, with suffixes or without, it ends with the name that a scrape gives it.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    DataPointFlags,
    Exemplar,
    HistogramDataPoint,
    NumberDataPoint,
)

from exporter import __version__
from exporter.metrics.render import EXEMPLAR_LABEL, GZIP_LEVEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
    from prometheus_client import metrics_core, samples

    from exporter.metrics.render import Snapshot

HEADERS: Final = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
BATCH: Final = 5000
"""Points of one request. It bounds memory, and receivers bound requests."""
_SCOPE: Final = "agentos-exporter"
_UNITS: Final = {"_seconds": "s", "_bytes": "By"}
"""By end of a name: the unit, which Prometheus spells as that end."""
_CUMULATIVE: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_NO_VALUE: Final = DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
_TRACE_ID_DIGITS: Final = 32
_INTEGER_BITS: Final = 63


def requests(snapshot: Snapshot, gone: Sequence[metrics_core.Metric], labels: Mapping[str, str]) -> Iterator[bytes]:
    """The bodies of the requests that send a snapshot.

    Args:
        snapshot: What was published.
        gone: Series that were sent before and exist no more.
        labels: Attributes of the resource.

    """
    batch = _Batch(labels)
    for metrics, is_gone in ((snapshot.metrics(), False), (gone, True)):
        for metric in metrics:
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            maker = _Points(_nanoseconds(snapshot.at), _nanoseconds(snapshot.since(name)), is_gone=is_gone)
            points: Iterable[Any] = maker.histogram(metric) if metric.type == "histogram" else maker.numbers(metric)
            for point in points:
                if batch.size == BATCH:
                    yield batch.body()
                    batch = _Batch(labels)
                batch.add(name, metric, point)
    yield batch.body()


def rejected(body: bytes) -> tuple[int, str]:
    """How many points an answer says were not taken, and why."""
    try:
        partial = ExportMetricsServiceResponse.FromString(body).partial_success
    except DecodeError:  # by a target that has its own idea of an answer
        return 0, ""
    return partial.rejected_data_points, partial.error_message


class _Batch:
    """One request, which points are added to."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.size = 0
        self._request = ExportMetricsServiceRequest()
        whole = self._request.resource_metrics.add()
        whole.resource.attributes.extend(_attributes(labels))
        self._scope = whole.scope_metrics.add()
        self._scope.scope.name, self._scope.scope.version = _SCOPE, __version__
        self._described: metrics_core.Metric | None = None
        self._points: Any = None

    def add(self, name: str, metric: metrics_core.Metric, point: NumberDataPoint | HistogramDataPoint) -> None:
        if metric is not self._described:
            self._described, self._points = metric, _points_of(self._scope.metrics.add(), name, metric)
        self._points.append(point)
        self.size += 1

    def body(self) -> bytes:
        return gzip.compress(self._request.SerializeToString(), GZIP_LEVEL)


def _points_of(described: Metric, name: str, metric: metrics_core.Metric) -> Any:  # noqa: ANN401 - of either kind
    """Describe a metric; return the container of its points."""
    described.name, described.description = name, metric.documentation
    stem = name.removesuffix("_total")
    described.unit = next((unit for end, unit in _UNITS.items() if stem.endswith(end)), "")
    if metric.type == "counter":
        described.sum.aggregation_temporality, described.sum.is_monotonic = _CUMULATIVE, True
        return described.sum.data_points
    if metric.type == "histogram":
        described.histogram.aggregation_temporality = _CUMULATIVE
        return described.histogram.data_points
    return described.gauge.data_points


class _Points:
    """Makes points of the samples of one metric."""

    def __init__(self, at: int, since: int, *, is_gone: bool) -> None:
        """Make data points of one metric.

        Args:
            at: The time of the snapshot, in nanoseconds since the epoch.
            since: The time since which the metric counts, likewise; gauges do not use it.
            is_gone: Whether the series have ended.

        """
        self._at, self._since, self._flags = at, since, _NO_VALUE if is_gone else 0

    def numbers(self, metric: metrics_core.Metric) -> Iterator[NumberDataPoint]:
        """One for each sample of a counter or gauge."""
        since = self._since if metric.type == "counter" else 0
        for sample in metric.samples:
            point = NumberDataPoint(
                attributes=_attributes(sample.labels),
                start_time_unix_nano=since,
                time_unix_nano=self._at,
                flags=self._flags,
            )
            if not self._flags:
                _set_value(point, sample.value)
                point.exemplars.extend(_exemplars(sample))
            yield point

    def histogram(self, metric: metrics_core.Metric) -> Iterator[HistogramDataPoint]:
        """One point for each histogram; prometheus_client gives its cumulative buckets, then its sum.

        A histogram that is gone keeps its bounds: they say which series of Prometheus end.
        """
        point, before = HistogramDataPoint(), 0
        for sample in metric.samples:
            if sample.name.endswith("_bucket"):
                bound = float(sample.labels["le"])
                if bound != float("inf"):
                    point.explicit_bounds.append(bound)
                point.bucket_counts.append(int(sample.value) - before)
                if not self._flags:
                    point.exemplars.extend(_exemplars(sample))
                before = int(sample.value)
            elif sample.name.endswith("_sum"):
                point.attributes.extend(_attributes(sample.labels))
                point.start_time_unix_nano, point.time_unix_nano = self._since, self._at
                point.flags, point.count, point.sum = self._flags, before, float(sample.value)
                yield point
                point, before = HistogramDataPoint(), 0


def _set_value(point: NumberDataPoint | Exemplar, value: float) -> None:
    if isinstance(value, int) and value.bit_length() <= _INTEGER_BITS:
        point.as_int = value
    else:
        point.as_double = value


def _exemplars(sample: samples.Sample) -> Iterator[Exemplar]:
    exemplar = sample.exemplar
    if exemplar is None:
        return
    made = Exemplar(time_unix_nano=_nanoseconds(float(exemplar.timestamp or 0)))
    _set_value(made, exemplar.value)
    labels = dict(exemplar.labels)
    trace = labels.get(EXEMPLAR_LABEL, "")
    if len(trace) == _TRACE_ID_DIGITS and not set(trace) - set("0123456789abcdef"):
        made.trace_id = bytes.fromhex(labels.pop(EXEMPLAR_LABEL))
    made.filtered_attributes.extend(_attributes(labels))
    yield made


def _attributes(labels: Mapping[str, str]) -> list[KeyValue]:
    """The labels; empty ones are left out, as Prometheus treats them."""
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in labels.items() if value]


def _nanoseconds(seconds: float) -> int:
    """Whole milliseconds, which is what Prometheus keeps."""
    return int(seconds * 1000) * 1_000_000
