"""How much of a vendor's bill the ledger has: our cost over theirs."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING

from exporter.pricing.providers import seller_of
from exporter.reconcile.figures import Measure, days_between, start_of

if TYPE_CHECKING:
    from exporter.reconcile.figures import Statement
    from exporter.reconcile.ours import Ours


def capture_ratio(ours: Ours, statement: Statement, *, days: int, today: dt.date) -> Decimal | None:
    """The part of a vendor's bill that is in our costs.

    Money for other things than tokens is a part of the bill.

    Args:
        ours: Our figures.
        statement: The bill.
        days: How many days before today are compared; only those that both sides have completely.
        today: The present day in UTC.

    Returns:
        Our cost divided by the vendor's; None if no day can be compared or the vendor states no cost.

    """
    window = days_between(today - dt.timedelta(days=days), today - dt.timedelta(days=1))
    since = ours.since
    if since is None:
        return None
    stated = {day for (day, _), figures in statement.rows.items() if Measure.COST in figures}
    stated |= {day for day, _ in statement.beyond}
    complete_days = {day for day in window if day in statement.complete & stated and since <= start_of(day)}
    theirs = sum(figures.get(Measure.COST, 0) for (day, _), figures in statement.rows.items() if day in complete_days)
    theirs += sum(amount for (day, _), amount in statement.beyond.items() if day in complete_days)
    if theirs <= 0:
        return None
    counted = sum(
        tally.costs.total()
        for (day, provider, model), tally in ours.tallies.items()
        if day in complete_days and seller_of(provider, model) == statement.vendor
    )
    return Decimal(counted) / theirs
