"""Sums of days beside the counters that they are parts of."""

import datetime as dt
from collections import Counter

from exporter.ledger.store import Ledger
from exporter.metrics.catalog import DAILY
from exporter.metrics.increments import Key
from exporter.metrics.totals import Totals


def sums(ledger: Ledger, agentos: str | None = None) -> dict[Key, int]:
    """Return the sums over all days."""
    found: Counter[Key] = Counter()
    for row in ledger.days(agentos, dt.date.min, dt.date.max).rows:
        found[row.metric, row.labels] += row.value
    return dict(found)


def counters(totals: Totals) -> dict[Key, int]:
    """Return what the counters stand at of which there are sums of days; they must be the same, if there ever were."""
    return {(series.metric, series.labels): series.value for series in totals.stored() if series.metric in DAILY}
