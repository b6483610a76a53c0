"""Which labels a series has, for every name that a board may use; a name that is none of these is a mistake."""

from __future__ import annotations

from typing import Final

from exporter.metrics.catalog import METRICS, Kind

SCRAPE: Final = ("job", "instance")
"""Labels that Prometheus adds to what it scrapes."""

LEVELS: Final = {
    "agentos": ("job", "agentos"),
    "agentos_kind": ("job", "agentos", "span_kind"),
    "agentos_root": ("job", "agentos", "root_kind", "root"),
    "agentos_model": ("job", "agentos", "provider", "model"),
    "agentos_tool": ("job", "agentos", "tool"),
}
"""Levels of the recording rules: what is in front of a name's first colon."""

FOREIGN: Final = {
    "up": SCRAPE,
    "process_start_time_seconds": SCRAPE,
    "process_cpu_seconds_total": SCRAPE,
    "process_resident_memory_bytes": SCRAPE,
    "process_open_fds": SCRAPE,
    "process_max_fds": SCRAPE,
    "ALERTS": ("alertname", "alertstate", "severity", "job", "agentos"),
}
"""What is not in the catalog: Prometheus writes `up` and `ALERTS`, the exporter's client library process_*."""


def labels_of(name: str) -> tuple[str, ...]:
    """The labels of a series. Raises KeyError where nobody makes it."""
    if name in FOREIGN:
        return FOREIGN[name]
    level, colon, _ = name.partition(":")
    if colon:
        return LEVELS[level]
    metric = METRICS.get(name)
    if metric is not None and metric.kind is not Kind.HISTOGRAM:
        return (*SCRAPE, *metric.labels)
    family, _, part = name.rpartition("_")
    if part not in {"bucket", "count", "sum"} or METRICS[family].kind is not Kind.HISTOGRAM:
        raise KeyError(name)
    return (*SCRAPE, *METRICS[family].labels, *(("le",) if part == "bucket" else ()))
