"""Charts as inline SVG, with colours from the style sheet. All texts are escaped here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from exporter.pricing import money
from exporter.report.numbers import dollars
from exporter.report.page.axis import ticks

_WIDTH: Final = 720
_HEIGHT: Final = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 8, 10, 24
"""Room around the plot of `stacked`."""
_DATES: Final = 10
"""About how many days are named."""
_FILLED: Final = 0.8
"""The part of a day's width that its bar takes."""
_ROW: Final = 28
_NAMES: Final = 190
_SUMS: Final = 110
"""Room for the names and the sums of `bars`."""
_LONGEST: Final = 26
"""Characters of a name that have room."""


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of a stacked chart: units of 10**-18 USD by day. `style` is a class of the style sheet."""

    name: str
    style: str
    values: Mapping[dt.date, int]


def stacked(days: Sequence[dt.date], series: Sequence[Series], partial: Collection[dt.date]) -> str:
    """Stacked bars by day, as SVG.

    Args:
        days: The days.
        series: The amounts of each bar's segments.
        partial: Days that are incomplete, which are marked.

    Returns:
        The SVG; '' if nothing cost anything.

    """
    sums = [sum(model.values.get(day, 0) for model in series) for day in days]
    if not any(sums):
        return ""
    marks = ticks(max(sums))
    wide, high = (_WIDTH - _LEFT - _RIGHT) / len(days), _HEIGHT - _TOP - _BOTTOM
    parts = [*_grid(marks, high)]
    for place, day in enumerate(days):
        x = _LEFT + place * wide
        if day in partial:
            parts.append(_rectangle("partial", x, _TOP, wide, high, f"{day}: incomplete"))
        top = float(_TOP + high)
        for model in series:
            if value := model.values.get(day, 0):
                tall = value / marks[-1] * high
                top -= tall
                title = f"{day}: {model.name} {dollars(value, 4)} USD"
                parts.append(_rectangle(model.style, x + wide * (1 - _FILLED) / 2, top, wide * _FILLED, tall, title))
        if place % -(-len(days) // _DATES) == 0:
            parts.append(_text("date", x + wide / 2, _HEIGHT - 6, f"{day:%m-%d}"))
    return _svg(_HEIGHT, "Cost by day and model in US dollars", parts)


def bars(items: Sequence[tuple[str, int]], title: str) -> str:
    """Horizontal bars of (name, units of 10**-18 USD); '' if nothing cost anything."""
    largest = max((value for _, value in items), default=0)
    if not largest:
        return ""
    parts: list[str] = []
    for place, (name, value) in enumerate(items):
        y, shown = place * _ROW, f"{dollars(value, 4 if largest < money.USD else 2)} USD"
        long = value / largest * (_WIDTH - _NAMES - _SUMS)
        short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
        parts += (
            _text("name", _NAMES - 8, y + 18, short),
            _rectangle("s0", _NAMES, y + 5, long, _ROW - 10, f"{name}: {shown}"),
            _text("sum", _NAMES + long + 6, y + 18, shown),
        )
    return _svg(len(items) * _ROW, title, parts)


def _grid(marks: Sequence[int], high: float) -> Iterator[str]:
    for mark in marks:
        y = _TOP + high * (1 - mark / marks[-1])
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>'
        yield _text("tick", _LEFT - 8, y + 4, money.text(mark))


def _rectangle(style: str, x: float, y: float, wide: float, high: float, title: str) -> str:
    place = f'x="{x:.2f}" y="{y:.2f}" width="{wide:.2f}" height="{high:.2f}"'
    return f'<rect class="{style}" {place}><title>{escape(title)}</title></rect>'


def _text(style: str, x: float, y: float, text: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(high: int, title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {high}" role="img" aria-label="{escape(title)}">\n{body}\n</svg>'
