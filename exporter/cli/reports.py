"""What reconciling found, as a table for people and as a document for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.core.text import escaped
from exporter.pricing import money
from exporter.reconcile.figures import Measure

if TYPE_CHECKING:
    from exporter.reconcile.compare import Line, Report
    from exporter.reconcile.reasons import Finding

_PIPED: Final = 200
"""Columns without a terminal."""
_UNKNOWN: Final = "?"


def record(report: Report) -> dict[str, Any]:
    """A report for programs: money as decimal text in USD, unknown values as null."""
    return {
        "against": report.by,
        "exit_code": report.code,
        "lines": [_line(line) for line in report.lines],
        "not_compared": [{"day": gap.day.isoformat(), **_finding(gap.finding)} for gap in report.gaps],
        "remarks": [_finding(remark) for remark in report.remarks],
        "unmatched_models": [{"side": side, "model": model} for side, model in report.unmatched],
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "day": line.day.isoformat(),
        "model": line.model or None,
        "measure": line.measure.value,
        "ours": _value(line.measure, line.ours),
        "theirs": _value(line.measure, line.theirs),
        "difference": _value(line.measure, line.difference),
        "percent": None if line.percent is None else str(line.percent),
        "differs": line.differs,
        "reasons": [_finding(finding) for finding in line.findings],
    }


def _finding(finding: Finding) -> dict[str, str]:
    return {"reason": finding.reason.value, "text": finding.text}


def _value(measure: Measure, value: int | None) -> int | str | None:
    return money.text(value) if measure is Measure.COST and value is not None else value


def draw(report: Report, *, same: bool) -> None:
    """Print a report as a table; `same`: with figures that do not differ."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _PIPED, highlight=False)
    equal = sum(not line.differs for line in report.lines)
    shown = [line for line in report.lines if same or line.differs]
    if shown:
        console.print(_table(shown, report.by))
    for gap in report.gaps:
        _print_line(console, f"{gap.day} is not compared: {gap.finding.text}")
    for remark in report.remarks:
        _print_line(console, f"note: {remark.text}")
    for side, model in report.unmatched:
        _print_line(console, f"model of {'ours' if side == 'ours' else report.by} alone: {model}")
    figures = f"{equal} of {len(report.lines)} figures are the same as those of {report.by}"
    _print_line(console, figures if report.lines else f"nothing could be compared with {report.by}")


def _table(lines: list[Line], by: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("day", "model", "figure"):
        table.add_column(title, no_wrap=True)
    for title in ("ours", by, "difference", "%"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for line in lines:
        numbers = (_shown(line.measure, value) for value in (line.ours, line.theirs, line.difference))
        percent = "" if line.percent is None else f"{line.percent:+}"
        reason = "; ".join(finding.text for finding in line.findings)
        cells = (line.day.isoformat(), line.model, line.measure.value, *numbers, percent, reason)
        table.add_row(*(Text(escaped(cell)) for cell in cells))
    return table


def _shown(measure: Measure, value: int | None) -> str:
    if value is None:
        return _UNKNOWN
    return money.text(value) if measure is Measure.COST else f"{value:,}"


def _print_line(console: Console, text: str) -> None:
    console.print(Text(escaped(text)), soft_wrap=True)
