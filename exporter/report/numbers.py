"""Figures and names as people read them. Unknown is a dash."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Final

from exporter.core.text import escaped
from exporter.pricing import money
from exporter.report.columns import Column
from exporter.report.tables import Group, Table

UNKNOWN: Final = "\N{EN DASH}"
_EMPTY: Final = {"agent": "(no agent)", "token_class": "(all in one sum)"}
"""The meaning of an empty value, if that is not "unknown"."""
_LARGE: Final = 100 * money.USD
"""From here on cents are fine enough."""


def label(text: str, key: str = "") -> str:
    """The value of a key, on one line; an empty value is shown by its meaning."""
    return escaped(text) or _EMPTY.get(key, "(unknown)")


def dollars(amount: int | None, places: int = 2) -> str:
    """Dollars with so many decimals; a smaller amount is not shown as 0."""
    if amount is None:
        return UNKNOWN
    least = money.USD // 10**places
    return f"<{money.text(least)}" if 0 < amount < least else f"{money.decimal(amount):,.{places}f}"


def places(amount: int | None) -> int:
    """The decimals for all costs of a table with this total."""
    return 2 if (amount or 0) >= _LARGE else 4


def count(figure: int | None) -> str:
    """A number of calls or tokens."""
    return UNKNOWN if figure is None else f"{figure:,}"


def percent(part: Fraction | None) -> str:
    """A part of a whole, as `12.3 %`."""
    if part is None:
        return UNKNOWN
    if 0 < part < Fraction(1, 1000):
        return "<0.1 %"
    return f"{Decimal(part.numerator) * 100 / part.denominator:.1f} %"


def figure(table: Table, group: Group, column: Column) -> str:
    """The text of one cell.

    Args:
        table: The table, whose total decides the decimals.
        group: The row.
        column: The column.

    """
    value = group.figures.get(column.name)
    return dollars(value, places(table.total.figures.get("cost_usd"))) if column.money else count(value)
