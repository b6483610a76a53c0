"""A report on a terminal. No text of it is read as markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.table import Table as Drawing
from rich.text import Text

from exporter.report.columns import Column
from exporter.report.numbers import dollars, figure, label, percent, places
from exporter.report.tables import Group, Table

if TYPE_CHECKING:
    from rich.console import Console

    from exporter.report.document import Report

_TOTAL: Final = "total"
_SHARE: Final = "share"


def draw(console: Console, report: Report) -> None:
    """Draw the first table with its totals, then the cost by source, and the notes."""
    table = report.tables[0]
    period = report.period
    _line(console, f"{period.first} to {period.last} (UTC): {', '.join(map(label, report.agentos)) or 'no AgentOS'}")
    console.print()
    if table.groups:
        console.print(_drawing(table))
    else:
        _line(console, "nothing was counted")
    console.print()
    if report.sources:
        digits = places(report.total.figures.get("cost_usd"))
        sums = (f"{label(source)} {dollars(amount, digits)}" for source, amount in report.sources.items())
        _line(console, f"cost in USD by source: {', '.join(sums)}")
    for note in report.notes:
        _line(console, f"note: {note}")


def _drawing(table: Table) -> Drawing:
    keys = table.grouping.keys
    drawing = Drawing(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_footer=False)
    for key in keys:
        drawing.add_column(key, overflow="fold")
    for title in _titles(table.shown):
        drawing.add_column(title, justify="right", no_wrap=True)
    for group in table.groups:
        drawing.add_row(
            *(Text(label(value, key)) for key, value in zip(keys, group.labels, strict=True)), *_figures(table, group)
        )
    drawing.add_section()
    first = [Text(_TOTAL), *(Text("") for _ in keys[1:])] if keys else []
    drawing.add_row(*first, *_figures(table, table.total), style="bold")
    return drawing


def _titles(columns: Sequence[Column]) -> list[str]:
    """The share is shown beside the cost."""
    return [title for column in columns for title in ((column.title, _SHARE) if column.money else (column.title,))]


def _figures(table: Table, group: Group) -> list[str]:
    cells = []
    for column in table.shown:
        cells.append(figure(table, group, column))
        if column.money:
            cells.append(percent(table.share(group)))
    return cells


def _line(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
