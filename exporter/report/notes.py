"""Notes on what a report does not know, in sentences."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from exporter.core import times
from exporter.ledger.daily import Days, DaySum
from exporter.metrics.catalog import LIMITED_LABELS, OTHER
from exporter.metrics.series import Dropped
from exporter.pricing import money
from exporter.report.columns import WITHOUT_USAGE, grouping
from exporter.report.numbers import count, label
from exporter.report.period import Period
from exporter.report.tables import Table, tabulate

_MODELS: Final = 10
"""How many models without a price are named."""


def notes(
    days: Days, period: Period, agentos: Sequence[str], tables: Sequence[Table], dropped: Dropped
) -> tuple[str, ...]:
    """All that keeps the figures from being the whole truth.

    Args:
        days: The daily sums.
        period: The days that were asked for.
        agentos: The AgentOS instances that should be in it.
        tables: What is shown.
        dropped: The labels that are not counted.

    """
    return (
        *_partial(days.since, period, agentos),
        *_unpriced(days.rows),
        *_without_usage(days.rows),
        *_estimated(days.rows),
        *_folded(tables),
        *_dropped(tables, dropped),
        *_settled(tables),
    )


def _partial(since: Mapping[str, int], period: Period, agentos: Sequence[str]) -> Iterator[str]:
    begin = times.micros(dt.datetime.combine(period.first, dt.time(), dt.UTC))
    for name in agentos:
        if name not in since:
            yield f"{label(name)}: there are no daily sums of it"
        elif since[name] > begin:
            moment = f"{times.utc(since[name]):%Y-%m-%d %H:%M} UTC"
            yield f"{label(name)}: the sums are complete from {moment} on; of what began before, some or all is missing"
    if not period.over:
        yield f"today, {period.today} in UTC, is not over"


def _unpriced(rows: Iterable[DaySum]) -> Iterator[str]:
    table = tabulate(rows, grouping(("provider", "model"), (), users=False))
    tokens = {group.labels: group.figures.get("unpriced_tokens", 0) for group in table.groups}
    models = sorted((labels for labels in tokens if tokens[labels]), key=lambda labels: (-tokens[labels], labels))
    for labels in models[:_MODELS]:
        provider, model = map(label, labels)
        of = f"{model} ({provider})" if labels[0] else model
        yield f"{count(tokens[labels])} tokens of model {of} have no price: the cost is at least what is shown"
    if others := models[_MODELS:]:
        yield f"{count(sum(tokens[labels] for labels in others))} tokens of {len(others)} more models have no price"


def _without_usage(rows: Iterable[DaySum]) -> Iterator[str]:
    if calls := sum(row.value for row in rows if row.metric == WITHOUT_USAGE):
        whose = "1 call is not known: it" if calls == 1 else f"{count(calls)} calls is not known: they"
        yield f"the cost of {whose} reported no tokens (failed calls often do not)"


def _estimated(rows: Iterable[DaySum]) -> Iterator[str]:
    if amount := cost_by_source(rows).get("estimated"):
        unknown = "cached tokens, or the price of a gateway, are not known"
        yield f"{money.text(amount)} USD of the cost is estimated: {unknown}"


def cost_by_source(rows: Iterable[DaySum]) -> dict[str, int]:
    """Cost in units of 10**-18 USD, by where its price comes from."""
    table = tabulate(rows, grouping(("cost_source",), (), users=False))
    return {group.labels[0]: group.figures["cost_usd"] for group in table.groups}


def _folded(tables: Sequence[Table]) -> Iterator[str]:
    limited = {
        key
        for table in tables
        for place, key in enumerate(table.grouping.keys)
        if key in LIMITED_LABELS or key == table.grouping.dimension
        if any(group.labels[place] == OTHER for group in table.groups)
    }
    for key in sorted(limited):
        yield f"{key} other: values beyond the limits (values_per_label, series_per_metric) when they were counted"


def _dropped(tables: Sequence[Table], dropped: Dropped) -> Iterator[str]:
    asked = {
        (column.metric, key, name)
        for table in tables
        for column in table.grouping.columns
        for key, name in zip(table.grouping.keys, table.grouping.labels_of(column.metric), strict=True)
    }
    for metric, key, name in sorted(asked):
        if name in dropped.get(metric, ()):
            yield f"{key}: labels.drop takes it from {metric}, of which the whole stands at {label('', key)}"


def _settled(tables: Sequence[Table]) -> Iterator[str]:
    for name in sorted({table.grouping.dimension for table in tables} - {""}):
        yield f"{name}: a run counts once it is settled, so the newest may be missing; do not add up dimensions"
