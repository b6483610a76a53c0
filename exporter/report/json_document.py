"""A report for programs. Money is exact, in dollars as text; unknown values are null."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from exporter.pricing import money
from exporter.report.columns import Column
from exporter.report.document import Report
from exporter.report.tables import Group


def render(report: Report) -> str:
    """One JSON object, ending in a line feed."""
    table = report.tables[0]
    keys, columns = table.grouping.keys, table.grouping.columns
    document = {
        "from": str(report.period.first),
        "to": str(report.period.last),
        "agentos": list(report.agentos),
        "by": list(keys),
        "groups": [_record(keys, group, columns) for group in table.groups],
        "total": _figures(table.total, columns),
        "cost_usd_by_source": {source: money.text(amount) for source, amount in report.sources.items()},
        "notes": list(report.notes),
    }
    return json.dumps(document, indent=2) + "\n"


def _record(keys: Sequence[str], group: Group, columns: Sequence[Column]) -> dict[str, Any]:
    # A dimension may be named like a figure.
    return {"labels": dict(zip(keys, group.labels, strict=True)), **_figures(group, columns)}


def _figures(group: Group, columns: Sequence[Column]) -> dict[str, Any]:
    return {column.name: _figure(group.figures.get(column.name), column) for column in columns}


def _figure(value: int | None, column: Column) -> int | str | None:
    return money.text(value) if value is not None and column.money else value
