"""A table as CSV: RFC 4180, a row per group, money as exact decimals, empty for unknown figures."""

from __future__ import annotations

import csv
import io
from typing import Final

from exporter.pricing import money
from exporter.report.columns import Column
from exporter.report.tables import Group, Table

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""The beginning of a formula to a spreadsheet, or characters that it skips before one."""


def render(table: Table) -> str:
    """Lines that end with CR LF, the first with the names of the columns."""
    out = io.StringIO()
    writer = csv.writer(out)
    columns = table.grouping.columns
    writer.writerow([*table.grouping.keys, *(column.name for column in columns)])
    for group in table.groups:
        writer.writerow([*map(_harmless, group.labels), *(_exact(group, column) for column in columns)])
    return out.getvalue()


def _harmless(label: str) -> str:
    """The label in a form that no spreadsheet runs as a formula."""
    return f"'{label}" if label.startswith(_FORMULA) else label


def _exact(group: Group, column: Column) -> str:
    value = group.figures.get(column.name)
    if value is None:
        return ""
    return money.text(value) if column.money else str(value)
