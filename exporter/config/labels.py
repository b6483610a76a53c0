"""`labels` of the configuration: how users are shown, and which labels are dropped before anything is counted."""

from __future__ import annotations

import difflib
import re
from typing import Any, Final

import yaml

from exporter.config.values import parse_user_labels
from exporter.core.document import Table, kind, quoted, scalar
from exporter.counting.users import UserLabels
from exporter.metrics.catalog import METRICS, Kind, Life, Metric
from exporter.metrics.series import Dropped

_RATIOS: Final = (
    ("agentos_run_errors_total", "agentos_runs_total", ("root_kind", "root")),
    ("agentos_llm_call_errors_total", "agentos_llm_calls_total", ("provider", "model")),
    ("agentos_tool_call_errors_total", "agentos_tool_calls_total", ("tool",)),
    ("agentos_error_spans_total", "agentos_spans_total", ("span_kind",)),
)
"""Metrics that the shipped rules divide by each other, and the labels that both must have."""
_DROPPABLE: Final = tuple(name for name, metric in METRICS.items() if metric.droppable)


def read_labels(table: Table) -> dict[str, Any]:
    """The values of `labels`, by the names of `Config`; mistakes are problems of the table."""
    labels = table.mapping("labels", ("user", "drop"))
    if labels is None:
        return {}
    values: dict[str, Any] = {"user_labels": labels.parsed("user", parse_user_labels) or UserLabels.OFF}
    node = labels.entries.get("drop")
    if node is not None:
        values["dropped_labels"] = _read_dropped(labels, node)
    return values


def uneven(dropped: Dropped) -> list[str]:
    """Warnings where a label is dropped from one of two metrics that the shipped rules divide by each other."""
    nothing: frozenset[str] = frozenset()
    return [
        f"labels.drop: {label} of {dividend} is dropped and that of {other} is not: "
        "the shipped rules cannot divide them by each other, and their alerts are silent"
        for numerator, whole, labels in _RATIOS
        for dividend, other in ((numerator, whole), (whole, numerator))
        for label in labels
        if label in dropped.get(dividend, nothing) - dropped.get(other, nothing)
    ]


class _Metrics(Table):
    """A mapping whose keys are metrics."""

    plain_key = re.compile(r"[a-z_]{1,64}")

    def hint(self, key: str) -> str:
        """See Table."""
        close = difflib.get_close_matches(key, _DROPPABLE, n=1, cutoff=0.7)
        return f"did you mean {close[0]}?" if close else "`agentos-exporter metrics` lists what there is"


def _read_dropped(labels: Table, node: yaml.Node) -> dict[str, frozenset[str]]:
    """By metric: the labels to be dropped."""
    if not isinstance(node, yaml.MappingNode):
        labels.add("drop", f"must be a mapping of metrics to lists of labels, not {kind(node)}")
        return {}
    table = _Metrics(node, labels.where("drop"), tuple(METRICS), labels.problems)
    dropped: dict[str, frozenset[str]] = {}
    for name in table.entries:
        metric = METRICS[name]
        if metric.droppable:
            dropped[name] = _read_list(table, metric)
        else:
            table.add(name, _why_none(metric))
    return dropped


def _read_list(table: Table, metric: Metric) -> frozenset[str]:
    """The labels under one metric."""
    nodes = table.items(metric.name, f"[{metric.droppable[0]}]")
    if nodes == []:
        table.add(metric.name, "is empty; name labels, or remove it")
    dropped: set[str] = set()
    for i, node in enumerate(nodes or ()):
        where = f"{table.where(metric.name)}[{i}]"
        label = scalar(node, where, table.problems)
        if label is None:
            continue
        if label in dropped:
            table.problems.add(where, f"{quoted(label)} is given twice", node)
        elif label in metric.droppable:
            dropped.add(label)
        else:
            table.problems.add(where, _why_not(metric, label), node)
    return frozenset(dropped)


def _why_none(metric: Metric) -> str:
    """Why no label of a metric can be dropped."""
    if metric.kind is Kind.GAUGE:
        return "is a gauge, and labels of gauges stay; remove it"
    if metric.life is not Life.DURABLE:
        return "is about the exporter's own process and has few series; remove it"
    return "has no label that can be dropped; remove it"


def _why_not(metric: Metric, label: str) -> str:
    """Why this label of a metric cannot be dropped."""
    if label == "agentos":
        return "'agentos' stays: it says whose series it is"
    if label in metric.apart:
        return f"{quoted(label)} stays: the series that it tells apart cannot be added up"
    close = difflib.get_close_matches(label, metric.droppable, n=1, cutoff=0.7)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(metric.droppable)}"
    return f"{quoted(label)} is no label of this metric; {hint}"
