"""Alerts on cost, budgets and prices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from deploy.mixin.alerts.alert import CRITICAL, INFO, WARNING, Alert, above_baseline, last_value
from deploy.mixin.promql import BILL, BUDGET, MODEL, by, number, unless_past
from deploy.mixin.settings import Settings


def _cost_spike(settings: Settings) -> Iterator[Alert]:
    spike = above_baseline(
        "agentos:llm_cost_usd:increase1h", "agentos:llm_cost_usd:baseline1h", settings.cost_spike_factor
    )
    yield Alert(
        "AgentOSCostSpike",
        f"{spike} > {number(settings.cost_spike_floor_usd)}\n{unless_past('1h')}",
        WARNING,
        '{{ $labels.agentos }} spent ${{ $value | printf "%.2f" }} in an hour',
        '{{ $labels.agentos }} spent ${{ $value | printf "%.2f" }} in the last hour, more than '
        f"{number(settings.cost_spike_factor)} times what this hour usually costs.",
        "agentos-cost",
        lasts=settings.cost_spike_for,
        when=(
            "an hour costs more than {cost_spike_floor_usd} USD and {cost_spike_factor} times what it "
            "costs on other days"
        ),
    )


_SPENT: Final = "agentos_budget_spent_usd"


_LIMIT: Final = "agentos_budget_limit_usd"


_OF: Final = "{{ $labels.budget }}{{ with $labels.agentos }} ({{ . }}){{ end }}"


def _budgets(settings: Settings) -> Iterator[Alert]:
    spent, limit = last_value(_SPENT, BUDGET), last_value(_LIMIT, BUDGET)
    reset = last_value("agentos_budget_reset_timestamp_seconds", BUDGET)
    covered = last_value("agentos_budget_covered_since_timestamp_seconds", BUDGET)
    used = f"{spent}\n/\n{limit}"
    # What was spent since it is known, extended evenly to the end: spent * (reset - covered) / (now - covered).
    known, passed = f"(\n  {reset}\n  - {covered}\n)", f"(time() - {covered})"
    variables = ("agentos", "budget")
    yield Alert(
        "AgentOSBudget80",
        f"{used}\n>= {number(settings.budget_warning_ratio)}\n< 1",
        WARNING,
        f"{{{{ $value | humanizePercentage }}}} of the budget {_OF} is spent",
        f"{{{{ $value | humanizePercentage }}}} of this {{{{ $labels.period }}}}'s budget {_OF} is spent.",
        "agentos-cost",
        variables,
        when="{budget_warning_ratio} of a budget is spent",
    )
    yield Alert(
        "AgentOSBudgetExhausted",
        f"{used}\n>= 1",
        CRITICAL,
        f"The budget {_OF} is spent",
        f"{{{{ $value | humanizePercentage }}}} of this {{{{ $labels.period }}}}'s budget {_OF} is spent. "
        "The exporter stops nobody: spending goes on.",
        "agentos-cost",
        variables,
        when="a budget is spent",
    )
    yield Alert(
        "AgentOSBudgetProjectedOverrun",
        f"{spent}\n* {known}\n/ {passed}\n/ {limit}\n> 1\nand\n"
        f"{passed}\n/ {known}\n>= {number(settings.budget_projection_after)}\nand\n{used}\n< 1",
        WARNING,
        f"The budget {_OF} will not last",
        f"At the pace so far, {{{{ $value | humanizePercentage }}}} of this {{{{ $labels.period }}}}'s budget "
        f"{_OF} will "
        "be spent when it ends.",
        "agentos-cost",
        variables,
        settings.budget_projection_for,
        when=("a budget will be exceeded at the pace so far, after {budget_projection_after} of its period"),
    )
    yield _tenant_over_budget(limit)


def _tenant_over_budget(limit: str) -> Alert:
    spent = last_value("agentos_budget_value_spent_usd", (*BUDGET, "value"))
    return Alert(
        "AgentOSTenantOverBudget",
        f"{spent}\n/ on ({', '.join(BUDGET)}) group_left ()\n{limit}\n>= 1",
        WARNING,
        f"{{{{ $labels.value }}}} has spent its budget {_OF}",
        f"{{{{ $labels.value }}}} has spent {{{{ $value | humanizePercentage }}}} of this {{{{ $labels.period }}}}'s "
        f"budget {_OF}, which each has. The exporter stops nobody: spending goes on.",
        "agentos-cost",
        ("agentos", "budget"),
        when="a tenant, user or other value of a dimension has spent the budget that each has",
    )


def _unpriced(settings: Settings) -> Iterator[Alert]:
    yield Alert(
        "AgentOSUnpricedModel",
        f"{by(MODEL, 'increase(agentos_llm_unpriced_tokens_total[1h])')} >= {number(settings.unpriced_min_tokens)}",
        INFO,
        "{{ $labels.model }} has no price",
        "{{ $value | humanize }} tokens of {{ $labels.model }} {{ with $labels.provider }}({{ . }}) {{ end }}on "
        "{{ $labels.agentos }} in the last hour have no price: costs, budgets and users leave them out.",
        "agentos-cost",
        when="tokens of a model have no price",
    )


def _capture(settings: Settings) -> Iterator[Alert]:
    yield Alert(
        "AgentOSCostCaptureLow",
        f"{last_value('agentos_cost_capture_ratio', BILL, how='min')}\n< {number(settings.cost_capture_ratio)}",
        WARNING,
        "Only {{ $value | humanizePercentage }} of the bill of {{ $labels.vendor }} is counted",
        "{{ $value | humanizePercentage }} of what {{ $labels.vendor }} bills "
        "{{ with $labels.agentos }}for {{ . }} {{ end }}is in our costs, less than "
        f"{number(settings.cost_capture_ratio * 100)} %: calls go past AgentOS, or prices differ.",
        "agentos-cost",
        when="our cost of the last days is less than {cost_capture_ratio} of a vendor's bill",
    )


ALERTS: Final = (_cost_spike, _budgets, _unpriced, _capture)
