"""A snapshot as requests of Prometheus's remote write 1.0: protobuf, compressed by snappy.

The messages are those of `prompb/remote.proto` and `prompb/types.proto` of Prometheus. Version 2.0 has no library in
Python that is kept up.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prometheus_client import metrics_core, samples

    from exporter.metrics.render import Snapshot

HEADERS: Final = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
BATCH: Final = 5000
"""Series of one request. It bounds memory, and receivers bound requests."""
_STALE: Final[float] = struct.unpack("<d", (0x7FF0000000000002).to_bytes(8, "little"))[0]
"""The NaN by which Prometheus knows that a series ended."""
_MESSAGES: Final[Mapping[str, Sequence[tuple[str, int, str]]]] = {
    "Label": [("name", 1, "string"), ("value", 2, "string")],
    "Sample": [("value", 1, "double"), ("timestamp", 2, "int64")],
    "Exemplar": [("labels", 1, "Label"), ("value", 2, "double"), ("timestamp", 3, "int64")],
    "TimeSeries": [("labels", 1, "Label"), ("samples", 2, "Sample"), ("exemplars", 3, "Exemplar")],
    "WriteRequest": [("timeseries", 1, "TimeSeries")],
}
"""By message: name, number and type of its fields. Fields whose type is a message are repeated."""


def _messages() -> Mapping[str, Any]:
    """The classes of the messages."""
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="prometheus/remote.proto", package="prometheus", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            if kind in _MESSAGES:
                message.field.add(
                    name=field,
                    number=number,
                    type=field_type.TYPE_MESSAGE,
                    type_name=f".prometheus.{kind}",
                    label=field_type.LABEL_REPEATED,
                )
            else:
                scalar = field_type.Type.Value(f"TYPE_{kind.upper()}")
                message.field.add(name=field, number=number, type=scalar, label=field_type.LABEL_OPTIONAL)
    # A pool of its own: somebody else in this process may know messages of these names.
    messages: Mapping[str, Any] = message_factory.GetMessages([file], descriptor_pool.DescriptorPool())
    return messages


WriteRequest: Final = _messages()["prometheus.WriteRequest"]


def requests(snapshot: Snapshot, gone: Sequence[metrics_core.Metric], labels: Mapping[str, str]) -> Iterator[bytes]:
    """The bodies of the requests that send a snapshot.

    Args:
        snapshot: What was published.
        gone: Series that were sent before and exist no more.
        labels: Labels of each series that has none of that name.

    """
    at = _milliseconds(snapshot.at)
    request = WriteRequest()
    for metrics, is_gone in ((snapshot.metrics(), False), (gone, True)):
        for metric in metrics:
            for sample in metric.samples:
                if len(request.timeseries) == BATCH:
                    yield _compressed(request)
                    request = WriteRequest()
                series = request.timeseries.add()
                _label(series, {**labels, **sample.labels, "__name__": sample.name})
                series.samples.add(value=_STALE if is_gone else sample.value, timestamp=at)
                if sample.exemplar is not None and not is_gone:
                    _add_exemplar(series, sample.exemplar)
    yield _compressed(request)


def _add_exemplar(series: Any, exemplar: samples.Exemplar) -> None:  # noqa: ANN401 - a message
    at = _milliseconds(float(exemplar.timestamp or 0))
    _label(series.exemplars.add(value=exemplar.value, timestamp=at), exemplar.labels)


def _label(message: Any, labels: Mapping[str, str]) -> None:  # noqa: ANN401 - a message
    """Labels are sorted, and empty ones are left out."""
    for name in sorted(labels):
        if labels[name]:
            message.labels.add(name=name, value=labels[name])


def _compressed(request: Any) -> bytes:  # noqa: ANN401 - a message
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
