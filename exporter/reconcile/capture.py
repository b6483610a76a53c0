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
    """Our cost over the vendor's, of the last days before today that both sides tell whole.

    None where there is no such day, or where the vendor states no cost of them. What costs money and is no token is a
    part of the vendor's cost.
    """
    window = days_between(today - dt.timedelta(days=days), today - dt.timedelta(days=1))
    since = ours.since
    if since is None:
        return None
    stated = {day for (day, _), figures in statement.rows.items() if Measure.COST in figures}
    stated |= {day for day, _ in statement.beyond}
    whole = {day for day in window if day in statement.complete & stated and since <= start_of(day)}
    theirs = sum(figures.get(Measure.COST, 0) for (day, _), figures in statement.rows.items() if day in whole)
    theirs += sum(amount for (day, _), amount in statement.beyond.items() if day in whole)
    if theirs <= 0:
        return None
    mine = sum(
        tally.costs.total()
        for (day, provider, model), tally in ours.tallies.items()
        if day in whole and seller_of(provider, model) == statement.vendor
    )
    return Decimal(mine) / theirs
