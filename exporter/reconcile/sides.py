"""Each kind of other side, prepared for `compare`: which of our calls it covers, and the names that models share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.metrics.catalog import OTHER
from exporter.pricing.providers import seller_of
from exporter.reconcile.compare import Period, Report, compare
from exporter.reconcile.figures import Key, Measure, Statement
from exporter.reconcile.reasons import Finding, Reason

if TYPE_CHECKING:
    from exporter.pricing.prices import Pricer
    from exporter.reconcile.ours import Ours


def with_vendor(ours: Ours, statement: Statement, pricer: Pricer, period: Period) -> Report:
    """Compare the calls that a vendor bills with its export. A pricer is not safe for threads, and neither is this.

    Args:
        ours: Our figures.
        statement: The export.
        pricer: Knows spellings of models, and whose they are.
        period: The days that are compared.

    """
    vendor = statement.vendor

    def name(provider: str, model: str) -> str | None:
        return pricer.common_name(provider, model, vendor) if seller_of(provider, model) == vendor else None

    rows: dict[Key, Counter[Measure]] = {}
    rounding: Counter[Key] = Counter()
    for (day, model), figures in statement.rows.items():
        key = (day, pricer.common_name(vendor, model, vendor) if model else "")
        rows.setdefault(key, Counter()).update(figures)
        rounding[key] += statement.rounding.get((day, model), 0)
    named = replace(
        statement,
        rows={key: dict(figures) for key, figures in rows.items()},
        rounding=dict(rounding),
        remarks=(*statement.remarks, *_not_attributed(ours)),
    )
    return compare(ours, ours.grouped(name), named, period)


def _not_attributed(ours: Ours) -> Iterator[Finding]:
    """Calls that cannot be attributed to a company that bills them."""
    unsold = (
        model
        for (_, provider, model), tally in ours.tallies.items()
        if tally.calls and provider in {"", OTHER} and not seller_of("", model)
    )
    if unknown := sorted({model or "without a name" for model in unsold}):
        text = f"calls of these models are not compared, as nothing tells who bills them: {', '.join(unknown)}"
        yield Finding(Reason.PASSED_OVER, text)


def with_agentos(ours: Ours, statement: Statement, period: Period) -> Report:
    """Compare all calls and runs with AgentOS's own daily metrics.

    These name models of runs, not of calls: a model of which the ledger has no call is listed.

    Args:
        ours: Our figures.
        statement: AgentOS's daily metrics.
        period: The days that are compared.

    """
    report = compare(ours, ours.grouped(lambda _provider, _model: ""), statement, period)
    models = {model for _, _, model in ours.tallies}
    return replace(report, unmatched=tuple(("theirs", model) for model in sorted(statement.models - models)))
