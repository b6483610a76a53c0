"""A whole report: its period and groups, its figures, and notes on what is unknown."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporter.core import times
from exporter.ledger.daily import Days
from exporter.metrics.series import Dropped
from exporter.report.columns import Grouping, grouping, whole
from exporter.report.notes import cost_by_source, notes
from exporter.report.period import Period
from exporter.report.tables import Group, Table, tabulate


@dataclass(frozen=True, slots=True)
class Report:
    """The cost of a period.

    Attributes:
        agentos: The AgentOS instances in it.
        period: Its days.
        total: All that was counted by call and by run.
        sources: Cost in units of 10**-18 USD, by where its price comes from.
        tables: What was asked for, one at least; those after the first only where they have groups.
        by_day: Cost by day and model, for a chart.
        partial: Days of which some is missing.
        notes: What is not known, in sentences.

    """

    agentos: tuple[str, ...]
    period: Period
    total: Group
    sources: Mapping[str, int]
    tables: tuple[Table, ...]
    by_day: Table
    partial: frozenset[dt.date]
    notes: tuple[str, ...]


def make_report(
    days: Days, period: Period, agentos: Sequence[str], groupings: Sequence[Grouping], dropped: Dropped
) -> Report:
    """Make a report of daily sums.

    Args:
        days: The sums.
        period: Its days.
        agentos: The AgentOS instances that should be in it.
        groupings: Its tables.
        dropped: The labels that are not counted.

    """
    first, *others = (tabulate(days.rows, by) for by in groupings)
    tables = (first, *(table for table in others if table.groups))
    by_day = tabulate(days.rows, grouping(("day", "model"), (), users=False))
    return Report(
        tuple(agentos),
        period,
        tabulate(days.rows, whole()).total,
        cost_by_source(days.rows),
        tables,
        by_day,
        _partial(days, period),
        notes(days, period, agentos, tables, dropped),
    )


def _partial(days: Days, period: Period) -> frozenset[dt.date]:
    """Days that are not over, or began before all sums were complete."""
    begun = times.utc(max(days.since.values(), default=0))
    return frozenset(
        day for day in period.days() if day >= period.today or dt.datetime.combine(day, dt.time(), dt.UTC) < begun
    )
