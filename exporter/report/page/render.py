"""The page, of `page.html` and `style.css`."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from exporter import __version__
from exporter.report.document import Report
from exporter.report.numbers import count, dollars, figure, label, percent, places
from exporter.report.page.charts import Series, bars, stacked
from exporter.report.tables import Group, Table

_FILES: Final = files("exporter.report.page")
_STYLE: Final = (_FILES / "style.css").read_text("utf-8")
_PAGE: Final = Template((_FILES / "page.html").read_text("utf-8"))
_COLOURS: Final = 8
"""Models with a colour of their own; the last colour of the style sheet is that of the others."""
_BARS: Final = 12
_ROWS: Final = 50
_SOURCES: Final = {
    "reported": "stated by the call itself",
    "listed": "the provider's list price",
    "custom": "your own price file",
    "estimated": "cached tokens, or the price of a gateway, are not known",
}


def render(report: Report) -> str:
    """The page, in ASCII, so that it is the same in any encoding."""
    period = report.period
    page = _PAGE.substitute(
        style=_STYLE,
        style_hash=base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode(),
        first=period.first,
        last=period.last,
        agentos=escape(", ".join(map(label, report.agentos))),
        headline=_headline(report.total),
        notes=_notes(report.notes),
        charts=_by_day(report)
        + "".join(_by_agent(table) for table in report.tables if table.grouping.keys == ("agent",)),
        tables="\n".join(map(_table, report.tables)) + _by_source(report),
        made=period.today,
        version=escape(__version__),
    )
    return page.encode("ascii", "xmlcharrefreplace").decode()


def _headline(total: Group) -> str:
    """The most important sums."""
    figures = total.figures
    cost = dollars(figures.get("cost_usd"), 2 if figures.get("cost_usd", 0) >= 10**18 else 4)
    at_least = figures.get("unpriced_tokens") or figures.get("calls_without_usage")
    tiles = [
        ("USD, at least" if at_least and "cost_usd" in figures else "USD", cost),
        ("runs", count(figures.get("runs"))),
        ("failed runs", _rate(figures.get("run_errors"), figures.get("runs"))),
        ("model calls", count(figures.get("calls"))),
        ("failed calls", _rate(figures.get("call_errors"), figures.get("calls"))),
        ("tokens", count(figures.get("tokens"))),
    ]
    if savings := figures.get("cache_savings_usd"):
        tiles.append(("USD saved by caches", dollars(savings)))
    return "\n".join(f"<div><dt>{name}</dt><dd>{escape(figure)}</dd></div>" for name, figure in tiles)


def _rate(part: int | None, whole: int | None) -> str:
    """A number, and its part of the whole."""
    if part is None or not whole:
        return count(part)
    return f"{count(part)} ({percent(Fraction(part, whole))})"


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "\n".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<section class="notes">\n<h2>What to know about these figures</h2>\n<ul>\n{items}\n</ul>\n</section>'


def _by_day(report: Report) -> str:
    """Cost by day, stacked by model, the dearest models each with a colour."""
    costs: defaultdict[str, Counter[dt.date]] = defaultdict(Counter)
    for group in report.by_day.groups:
        day, model = group.labels
        costs[model][dt.date.fromisoformat(day)] += group.figures.get("cost_usd", 0)
    models = sorted((model for model in costs if costs[model].total()), key=lambda name: (-costs[name].total(), name))
    series = [Series(label(model), f"s{n}", costs[model]) for n, model in enumerate(models[:_COLOURS])]
    if others := models[_COLOURS:]:
        together: Counter[dt.date] = Counter()
        for model in others:
            together.update(costs[model])
        series.append(Series(f"{len(others)} more models", f"s{_COLOURS}", together))
    days = report.period.days()
    chart = stacked(days, series, report.partial)
    keys = [(curve.style, curve.name) for curve in series]
    keys += [("partial", "incomplete day")] if report.partial else []
    legend = "\n".join(f'<li><span class="key {style}"></span>{escape(name)}</li>' for style, name in keys)
    return _figure("Cost by day and model, USD", f'{chart}\n<ul class="legend">\n{legend}\n</ul>') if chart else ""


def _by_agent(table: Table) -> str:
    costs = [
        (label(group.labels[0], "agent"), group.figures["cost_usd"])
        for group in table.groups
        if "cost_usd" in group.figures
    ]
    chart = bars(costs[:_BARS], "Cost by agent in US dollars")
    return _figure("Cost by agent", chart) if chart else ""


def _figure(title: str, body: str) -> str:
    return f'<section>\n<h2>{title}</h2>\n<div class="card chart">\n{body}\n</div>\n</section>\n'


def _table(table: Table) -> str:
    keys = table.grouping.keys
    groups, others = table.split(_ROWS)
    heads = [*(f'<th scope="col">{escape(key)}</th>' for key in keys)]
    for column in table.shown:
        heads.append(f'<th scope="col" class="number">{escape(column.title)}</th>')
        heads += ['<th scope="col" class="number">share</th>'] if column.money else []
    rows = [
        _row([label(value, key) for key, value in zip(keys, group.labels, strict=True)], table, group)
        for group in groups
    ]
    if others is not None:
        names = [f"{len(table.groups) - len(groups):,} more", *("" for _ in keys[1:])]
        rows.append(_row(names, table, others))
    total = _row(["total", *("" for _ in keys[1:])], table, table.total)
    return _section(f"By {' and '.join(map(escape, keys))}", heads, rows, total)


def _row(names: Sequence[str], table: Table, group: Group) -> str:
    first, *others = names
    cells = [f'<th scope="row">{escape(first)}</th>', *(f"<td>{escape(name)}</td>" for name in others)]
    for column in table.shown:
        cells.append(_number(figure(table, group, column)))
        cells += [_number(percent(table.share(group)))] if column.money else []
    return f"<tr>{''.join(cells)}</tr>"


def _by_source(report: Report) -> str:
    """The cost by source of its price."""
    if not report.sources:
        return ""
    digits = places(report.total.figures.get("cost_usd"))
    heads = [
        '<th scope="col">source</th>',
        '<th scope="col" class="number">cost USD</th>',
        '<th scope="col">price</th>',
    ]
    rows = [
        f'<tr><th scope="row">{escape(label(source))}</th>{_number(dollars(amount, digits))}'
        f"<td>{_SOURCES.get(source, '')}</td></tr>"
        for source, amount in report.sources.items()
    ]
    return "\n" + _section("Where prices come from", heads, rows)


def _section(title: str, heads: Sequence[str], rows: Sequence[str], total: str = "") -> str:
    foot = f"<tfoot>\n{total}\n</tfoot>\n" if total else ""
    body = "\n".join(rows)
    return (
        f'<section>\n<h2>{title}</h2>\n<div class="card">\n<table>\n<thead>\n<tr>{"".join(heads)}</tr>\n</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n{foot}</table>\n</div>\n</section>"
    )


def _number(text: str) -> str:
    return f'<td class="number">{escape(text)}</td>'
