"""Alerts: what each asks, how bad it is, what it says, and where it leads.

Habits that hold for all of them:
- A ratio is judged together with a count: one failure of one run is 100 %.
- A baseline that does not exist yet counts as 0; the floor decides alone.
- Gauges are read through `last_over_time`, rates look further back than a restart takes: neither loses an alert.
- What belongs to the past does not fire: an exporter that reads a backlog is left out where rates and costs are judged.
  Facts that stay true, such as tokens without a price, are reported from a backlog as well.
- Nothing is filled with 0: what is absent is unknown. `AgentOSExporterDown` is there for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from textwrap import indent
from typing import Any, Final

from deploy.mixin.promql import (
    AGENTOS,
    APPROVAL,
    BILL,
    BUDGET,
    EVALUATION,
    FALLBACK,
    KIND,
    MODEL,
    ROOT,
    SCHEDULE,
    TARGET,
    TOOL,
    bucket,
    by,
    duration,
    number,
    seconds,
    unless_past,
)
from deploy.mixin.settings import Settings

CRITICAL: Final = "critical"
WARNING: Final = "warning"
INFO: Final = "info"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule. `board` is the uid of the board it leads to, `variables` the labels that are handed to it."""

    name: str
    expr: str
    severity: str
    summary: str
    description: str
    board: str
    variables: tuple[str, ...] = ("agentos",)
    lasts: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def rule(self, settings: Settings) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        query = "&".join(f"var-{label}={_value(label)}" for label in self.variables)
        return {
            "alert": self.name,
            "expr": self.expr,
            **({"for": self.lasts} if self.lasts else {}),
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{settings.runbook_url}/{self.name}.md",
                "dashboard_url": f"{settings.grafana_url}/d/{self.board}" + (f"?{query}" if query else ""),
            },
        }


def _value(label: str) -> str:
    # A budget can be for all instances: then it has no label `agentos`, and the board is to show all.
    return f"{{{{ with $labels.{label} }}}}{{{{ urlquery . }}}}{{{{ else }}}}$__all{{{{ end }}}}"


def groups(settings: Settings) -> list[dict[str, Any]]:
    """All groups of alerts, as Prometheus reads them."""
    return [
        {
            "name": name,
            "interval": settings.fast_interval,
            "rules": [alert.rule(settings) for one in makers for alert in one(settings)],
        }
        for name, makers in _GROUPS.items()
    ]


# What users feel


def _run_errors(settings: Settings) -> list[Alert]:
    def failed(window: str) -> str:
        return by(ROOT, f"increase(agentos_run_errors_total[{window}])")

    return _burns(
        settings,
        "AgentOSRunErrorBudgetBurn",
        ratio="agentos_root:run_errors:ratio_rate",
        budget=1 - settings.run_success_target,
        events=failed,
        what="fail",
        objective=f"{_percent(settings.run_success_target)} are to succeed",
    )


def _slow_runs(settings: Settings) -> list[Alert]:
    objective = settings.latency_objective_seconds
    within = bucket(objective)

    def slow(window: str) -> str:
        count = by(ROOT, f"increase(agentos_run_duration_seconds_count[{window}])")
        in_time = by(ROOT, f"increase(agentos_run_duration_seconds_bucket{{{within}}}[{window}])")
        return f"(\n  {count}\n  -\n  {in_time}\n)"

    limit = duration(round(objective)) if objective >= 1 else f"{float(objective)}s"
    return _burns(
        settings,
        "AgentOSLatencyBudgetBurn",
        ratio="agentos_root:slow_runs:ratio_rate",
        budget=1 - settings.latency_target,
        events=slow,
        what=f"take longer than {limit}",
        objective=f"{_percent(settings.latency_target)} are to be faster",
    )


_LONGEST_SILENCE: Final = "1h"
"""For how long, beside 5m, a backlog that was read keeps a budget from being judged; a window of the ratios."""


def _burns(
    settings: Settings, name: str, *, ratio: str, budget: float, events: Callable[[str], str], what: str, objective: str
) -> list[Alert]:
    """Multi-window, multi-burn-rate: the long window says that it matters, the short one that it still goes on.

    A backlog that was read leaves the short window soon, so that is as long as an exporter which caught up is left out:
    from then on the long window alone cannot fire. Six hours are too long for that, or one gap of a quarter of an hour
    would silence the slow burn until the evening: there the last hour, without the backlog, has to burn as well.
    """
    pairs = (
        (CRITICAL, "1h", "5m", settings.burn_fast, settings.burn_fast_for),
        (CRITICAL, "6h", "30m", settings.burn_medium, settings.burn_medium_for),
        (WARNING, "3d", "6h", settings.burn_slow, settings.burn_slow_for),
    )
    alerts = []
    for severity, long, short, burn, lasts in pairs:
        threshold = number(round(burn * budget, 9))
        still = f"{ratio}{short} > {threshold}"
        if seconds(short) > seconds(_LONGEST_SILENCE):
            unless = indent(unless_past(short), "    ")
            still += (
                f"\nand\n(\n  {ratio}{_LONGEST_SILENCE} > {threshold}\n  or\n  (\n    {ratio}{short}\n{unless}\n  )\n)"
            )
        alerts.append(
            Alert(
                name,
                f"{ratio}{long} > {threshold}\nand\n{still}\nand\n"
                f"{events(long)} >= {number(settings.burn_min_events)}\n"
                f"{unless_past(min(short, _LONGEST_SILENCE, key=seconds))}",
                severity,
                f"{{{{ $value | humanizePercentage }}}} of the runs of {{{{ $labels.root }}}} {what}",
                f"{{{{ $value | humanizePercentage }}}} of the runs of {{{{ $labels.root_kind }}}} "
                f"{{{{ $labels.root }}}} on {{{{ $labels.agentos }}}} {what} (over {long}, and still over {short}). "
                f"{objective}: their error budget burns at over {number(burn)} x the pace that 30 days allow.",
                "agentos-slo",
                ("agentos", "root"),
                lasts,
                {"long": long, "short": short},
            )
        )
    return alerts


def _percent(ratio: float) -> str:
    return f"{number(round(ratio * 100, 6))} % of runs"


def _error_spike(settings: Settings) -> list[Alert]:
    ratio, baseline = "agentos_kind:error_spans:ratio_rate5m", "agentos_kind:error_spans:ratio_baseline1d"
    errors = by(KIND, "increase(agentos_error_spans_total[5m])")
    return [
        Alert(
            "AgentOSErrorSpanSpike",
            f"{_spike(ratio, baseline, settings.error_spike_factor)} > {number(settings.error_spike_floor)}\nand\n"
            f"{errors} >= {number(settings.error_spike_min_errors)}\n{unless_past('5m')}",
            WARNING,
            "{{ $value | humanizePercentage }} of the {{ $labels.span_kind }} spans of {{ $labels.agentos }} fail",
            "{{ $value | humanizePercentage }} of the {{ $labels.span_kind }} spans of {{ $labels.agentos }} failed "
            "in the "
            f"last 5m. This is more than {number(settings.error_spike_factor)} times the median of the last day.",
            "agentos-overview",
            lasts=settings.error_spike_for,
        )
    ]


def _spike(series: str, baseline: str, factor: float) -> str:
    """Where a recorded series is above some multiple of its baseline, or has none."""
    return f"(\n  {series} > {number(factor)} * {baseline}\n  or\n  ({series} unless {baseline})\n)"


def _traffic(settings: Settings) -> list[Alert]:
    runs, norm = "agentos:runs:increase30m", "agentos:runs:norm30m"
    up = "agentos_up"
    # While an AgentOS or the exporter is down runs are not seen: another alert's business. If the exporter was away for
    # the whole window, its first look counts as no increase.
    return [
        Alert(
            "AgentOSTrafficDropped",
            f"{runs} < {number(settings.traffic_drop_ratio)} * {norm}\nand\n"
            f"{norm} >= {number(settings.traffic_min_runs)}\n"
            f"and on ({', '.join(AGENTOS)})\n{by(AGENTOS, f'last_over_time({up}[5m] offset 30m)', how='max')}\n"
            f"unless on ({', '.join(AGENTOS)})\n{_last(up, AGENTOS)} == 0",
            WARNING,
            'Only {{ $value | printf "%.0f" }} runs in 30m on {{ $labels.agentos }}',
            '{{ $labels.agentos }} ended {{ $value | printf "%.0f" }} runs in the last 30m: less than '
            f"{number(settings.traffic_drop_ratio * 100)} % of what this hour had on other days and a week ago. "
            "AgentOS itself answers.",
            "agentos-overview",
            lasts=settings.traffic_for,
        )
    ]


# What runs depend on


def _provider(settings: Settings) -> list[Alert]:
    return [
        Alert(
            "AgentOSProviderFailing",
            _failing(
                MODEL,
                "agentos_llm_call_errors_total",
                "agentos_llm_calls_total",
                "10m",
                settings.provider_error_ratio,
                settings.provider_min_errors,
            ),
            CRITICAL,
            "{{ $value | humanizePercentage }} of the calls of {{ $labels.model }} fail",
            "{{ $value | humanizePercentage }} of the calls of {{ $labels.model }} "
            "{{ with $labels.provider }}({{ . }}) {{ end }}from {{ $labels.agentos }} failed in the last 10m.",
            "agentos-models",
            ("agentos", "provider", "model"),
            settings.provider_for,
        )
    ]


def _rate_limits(settings: Settings) -> list[Alert]:
    return [
        Alert(
            "AgentOSRateLimitStorm",
            _failing(
                MODEL,
                'agentos_llm_call_errors_by_class_total{error_class="rate_limit"}',
                "agentos_llm_calls_total",
                "10m",
                settings.rate_limit_ratio,
                settings.rate_limit_min_errors,
            ),
            WARNING,
            "{{ $value | humanizePercentage }} of the calls of {{ $labels.model }} are rate limited",
            "{{ $value | humanizePercentage }} of the calls of {{ $labels.model }} "
            "{{ with $labels.provider }}({{ . }}) {{ end }}from {{ $labels.agentos }} were refused in the last 10m by "
            "a rate limit or a quota.",
            "agentos-models",
            ("agentos", "provider", "model"),
            settings.rate_limit_for,
        )
    ]


def _tool(settings: Settings) -> list[Alert]:
    return [
        Alert(
            "AgentOSToolFailing",
            _failing(
                TOOL,
                "agentos_tool_call_errors_total",
                "agentos_tool_calls_total",
                "15m",
                settings.tool_error_ratio,
                settings.tool_min_errors,
            ),
            WARNING,
            "{{ $value | humanizePercentage }} of the calls of the tool {{ $labels.tool }} fail",
            "{{ $value | humanizePercentage }} of the calls of the tool {{ $labels.tool }} on {{ $labels.agentos }} "
            "failed in the last 15m.",
            "agentos-tools",
            ("agentos", "tool"),
            settings.tool_for,
        )
    ]


def _failing(labels: tuple[str, ...], errors: str, calls: str, window: str, ratio: float, least: float) -> str:
    return (
        f"{by(labels, f'rate({errors}[{window}])')}\n/\n({by(labels, f'rate({calls}[{window}])')} > 0)\n"
        f">= {number(ratio)}\nand\n{by(labels, f'increase({errors}[{window}])')} >= {number(least)}\n"
        f"{unless_past(window)}"
    )


def _runaway(settings: Settings) -> list[Alert]:
    calls = number(settings.runaway_llm_calls)
    most = f"agentos_run_llm_calls_bucket{{{bucket(settings.runaway_llm_calls)}}}"
    # Increases are not whole, and two of them differ in their last bits: one run is anything above a half.
    return [
        Alert(
            "AgentOSRunawayRun",
            f"{by(ROOT, 'increase(agentos_run_llm_calls_count[15m])')}\n-\n{by(ROOT, f'increase({most}[15m])')}\n> 0.5",
            WARNING,
            f"A run of {{{{ $labels.root }}}} made more than {calls} LLM calls",
            f'In the last 15m {{{{ $value | printf "%.0f" }}}} runs of {{{{ $labels.root_kind }}}} '
            f"{{{{ $labels.root }}}} "
            f"on {{{{ $labels.agentos }}}} made more than {calls} LLM calls each: likely a loop.",
            "agentos-agent",
            ("agentos", "root"),
        )
    ]


def _fallback(settings: Settings) -> list[Alert]:
    count = by(FALLBACK, "increase(agentos_llm_fallbacks_total[30m])")
    return [
        Alert(
            "AgentOSFallbackInUse",
            f"{count} >= {number(settings.fallback_min)}\n{unless_past('30m')}",
            WARNING,
            "{{ $labels.to_model }} answers in place of {{ $labels.from_model }}",
            "{{ $labels.to_model }} was called in place of {{ $labels.from_model }}, which failed, "
            '{{ $value | printf "%.0f" }} times on {{ $labels.agentos }} in the last 30m.',
            "agentos-models",
        )
    ]


def _slow_model(settings: Settings) -> list[Alert]:
    median, baseline = "agentos_model:llm_output_speed:p50_rate1h", "agentos_model:llm_output_speed:p50_baseline1d"
    calls = by(MODEL, "increase(agentos_llm_output_tokens_per_second_count[1h])")
    return [
        Alert(
            "AgentOSModelSlow",
            f"{median} < {number(settings.speed_drop_ratio)} * {baseline}\nand\n"
            f"{calls} >= {number(settings.speed_min_calls)}\n{unless_past('1h')}",
            WARNING,
            '{{ $labels.model }} writes only {{ $value | printf "%.0f" }} tokens a second',
            "Half of the calls of {{ $labels.model }} {{ with $labels.provider }}({{ . }}) {{ end }}from "
            '{{ $labels.agentos }} wrote {{ $value | printf "%.1f" }} tokens a second or less in the last hour, '
            f"less than {number(settings.speed_drop_ratio * 100)} % of the usual speed.",
            "agentos-models",
            ("agentos", "provider", "model"),
            settings.speed_for,
        )
    ]


def _usage(settings: Settings) -> list[Alert]:
    missing, calls = "agentos_model:llm_usage_missing:increase1h", by(MODEL, "increase(agentos_llm_calls_total[1h])")
    return [
        Alert(
            "AgentOSUsageMissing",
            f"{missing}\n/\n({calls} > 0)\n> {number(settings.usage_missing_ratio)}\nand\n"
            f"{missing} >= {number(settings.usage_missing_min_calls)}",
            INFO,
            "{{ $value | humanizePercentage }} of the calls of {{ $labels.model }} report no tokens",
            "{{ $value | humanizePercentage }} of the calls of {{ $labels.model }} "
            "{{ with $labels.provider }}({{ . }}) {{ end }}on {{ $labels.agentos }} ended well in the last hour and "
            "reported "
            "no tokens: their tokens and cost are missing from all sums.",
            "agentos-models",
            ("agentos", "provider", "model"),
            settings.usage_missing_for,
        )
    ]


def _cache(settings: Settings) -> list[Alert]:
    ratio, baseline = "agentos_model:llm_cache_hit:ratio_rate1h", "agentos_model:llm_cache_hit:ratio_baseline1d"
    tokens = by(MODEL, 'increase(agentos_llm_tokens_total{token_class=~"input|cache_read|cache_write"}[1h])')
    return [
        Alert(
            "AgentOSCacheHitDrop",
            f"{ratio} < {number(settings.cache_drop_ratio)} * {baseline}\nand\n"
            f"{baseline} >= {number(settings.cache_min_baseline)}\nand\n"
            f"{tokens} >= {number(settings.cache_min_prompt_tokens)}\n{unless_past('1h')}",
            INFO,
            "Only {{ $value | humanizePercentage }} of the prompt tokens of {{ $labels.model }} come from the cache",
            "{{ $value | humanizePercentage }} of the prompt tokens of {{ $labels.model }} "
            "{{ with $labels.provider }}({{ . }}) {{ end }}on {{ $labels.agentos }} came from the cache in the last "
            "hour, "
            f"less than {number(settings.cache_drop_ratio * 100)} % of the usual share.",
            "agentos-models",
            ("agentos", "provider", "model"),
            settings.cache_for,
        )
    ]


# Money


def _cost_spike(settings: Settings) -> list[Alert]:
    spike = _spike("agentos:llm_cost_usd:increase1h", "agentos:llm_cost_usd:baseline1h", settings.cost_spike_factor)
    return [
        Alert(
            "AgentOSCostSpike",
            f"{spike} > {number(settings.cost_spike_floor_usd)}\n{unless_past('1h')}",
            WARNING,
            '{{ $labels.agentos }} spent ${{ $value | printf "%.2f" }} in an hour',
            '{{ $labels.agentos }} spent ${{ $value | printf "%.2f" }} in the last hour, more than '
            f"{number(settings.cost_spike_factor)} times what this hour usually costs.",
            "agentos-cost",
            lasts=settings.cost_spike_for,
        )
    ]


_SPENT: Final = "agentos_budget_spent_usd"
_LIMIT: Final = "agentos_budget_limit_usd"
_OF: Final = "{{ $labels.budget }}{{ with $labels.agentos }} ({{ . }}){{ end }}"


def _budgets(settings: Settings) -> list[Alert]:
    spent, limit = _last(_SPENT, BUDGET), _last(_LIMIT, BUDGET)
    reset = _last("agentos_budget_reset_timestamp_seconds", BUDGET)
    covered = _last("agentos_budget_covered_since_timestamp_seconds", BUDGET)
    used = f"{spent}\n/\n{limit}"
    # What was spent since it is known, extended evenly to the end: spent * (reset - covered) / (now - covered).
    known, passed = f"(\n  {reset}\n  - {covered}\n)", f"(time() - {covered})"
    variables = ("agentos", "budget")
    return [
        Alert(
            "AgentOSBudget80",
            f"{used}\n>= {number(settings.budget_warning_ratio)}\n< 1",
            WARNING,
            f"{{{{ $value | humanizePercentage }}}} of the budget {_OF} is spent",
            f"{{{{ $value | humanizePercentage }}}} of this {{{{ $labels.period }}}}'s budget {_OF} is spent.",
            "agentos-cost",
            variables,
        ),
        Alert(
            "AgentOSBudgetExhausted",
            f"{used}\n>= 1",
            CRITICAL,
            f"The budget {_OF} is spent",
            f"{{{{ $value | humanizePercentage }}}} of this {{{{ $labels.period }}}}'s budget {_OF} is spent. "
            "The exporter stops nobody: spending goes on.",
            "agentos-cost",
            variables,
        ),
        Alert(
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
        ),
        _tenant_over_budget(limit),
    ]


def _tenant_over_budget(limit: str) -> Alert:
    spent = _last("agentos_budget_value_spent_usd", (*BUDGET, "value"))
    return Alert(
        "AgentOSTenantOverBudget",
        f"{spent}\n/ on ({', '.join(BUDGET)}) group_left ()\n{limit}\n>= 1",
        WARNING,
        f"{{{{ $labels.value }}}} has spent its budget {_OF}",
        f"{{{{ $labels.value }}}} has spent {{{{ $value | humanizePercentage }}}} of this {{{{ $labels.period }}}}'s "
        f"budget {_OF}, which each has. The exporter stops nobody: spending goes on.",
        "agentos-cost",
        ("agentos", "budget"),
    )


def _last(metric: str, labels: tuple[str, ...], *, how: str = "max") -> str:
    """A gauge, through a restart of the exporter and a change of its instance."""
    return by(labels, f"last_over_time({metric}[5m])", how=how)


def _unpriced(settings: Settings) -> list[Alert]:
    return [
        Alert(
            "AgentOSUnpricedModel",
            f"{by(MODEL, 'increase(agentos_llm_unpriced_tokens_total[1h])')} >= {number(settings.unpriced_min_tokens)}",
            INFO,
            "{{ $labels.model }} has no price",
            "{{ $value | humanize }} tokens of {{ $labels.model }} {{ with $labels.provider }}({{ . }}) {{ end }}on "
            "{{ $labels.agentos }} in the last hour have no price: costs, budgets and users leave them out.",
            "agentos-cost",
        )
    ]


def _capture(settings: Settings) -> list[Alert]:
    return [
        Alert(
            "AgentOSCostCaptureLow",
            f"{_last('agentos_cost_capture_ratio', BILL, how='min')}\n< {number(settings.cost_capture_ratio)}",
            WARNING,
            "Only {{ $value | humanizePercentage }} of the bill of {{ $labels.vendor }} is counted",
            "{{ $value | humanizePercentage }} of what {{ $labels.vendor }} bills "
            "{{ with $labels.agentos }}for {{ . }} {{ end }}is in our costs, less than "
            f"{number(settings.cost_capture_ratio * 100)} %: calls go past AgentOS, or prices differ.",
            "agentos-cost",
        )
    ]


# What waits in AgentOS: where it has no such part, or it may not be read, there are no series


def _old(timestamp: str, labels: tuple[str, ...], waits_for: str, still: str) -> str:
    """Where a moment is so far in the past: of two exporters the later one is right, such moments only move on.

    A gauge that is gone is seen for 5m; `still` says whether there is anything to wait for.
    """
    return f"time()\n- {_last(timestamp, labels)}\n> {number(seconds(waits_for))}\nand\n{still}"


def _approvals(settings: Settings) -> list[Alert]:
    return [
        Alert(
            "AgentOSApprovalWaits",
            _old(
                "agentos_approvals_oldest_pending_timestamp_seconds",
                APPROVAL,
                settings.approval_waits_for,
                f"{_last('agentos_approvals_pending', APPROVAL)} > 0",
            ),
            WARNING,
            "An approval of {{ $labels.agentos }} has waited for {{ $value | humanizeDuration }}",
            "The oldest approval ({{ $labels.approval_type }}) that {{ $labels.source_type }} runs of "
            "{{ $labels.agentos }} asked for has waited for {{ $value | humanizeDuration }}. Its run stands still "
            "until a person decides.",
            "agentos-operations",
        )
    ]


def _schedules(settings: Settings) -> list[Alert]:
    def runs(status: str) -> str:
        return by(SCHEDULE, f'increase(agentos_schedule_runs_total{{status="{status}"}}[6h])')

    # AgentOS says when a schedule runs next once its run has ended: a long one is not missed.
    last, due = "agentos_schedule_last_run_timestamp_seconds", "agentos_schedule_next_run_timestamp_seconds"
    begun = f"{_last(last, SCHEDULE)}\n>= {_last(due, SCHEDULE)}"
    of = "The schedule {{ $labels.schedule }} of {{ $labels.agentos }}"
    return [
        Alert(
            "AgentOSScheduleMissed",
            _old(
                due,
                SCHEDULE,
                settings.schedule_late_for,
                f"{_last('agentos_schedule_enabled', SCHEDULE)} == 1\nunless\n{begun}",
            ),
            WARNING,
            f"{of} does not run",
            f"{of} is enabled, and was to run {{{{ $value | humanizeDuration }}}} ago. AgentOS has not begun it: "
            "its scheduler stands still or is not on.",
            "agentos-operations",
            lasts=settings.schedule_for,
        ),
        Alert(
            "AgentOSScheduleFailing",
            f"{runs('failed')} >= {number(settings.schedule_min_failed)}\nunless\n{runs('success')} > 0",
            WARNING,
            f"{of} fails",
            f'{of} failed about {{{{ $value | printf "%.0f" }}}} times in the last 6h, retries among them, and '
            "succeeded not once.",
            "agentos-operations",
        ),
    ]


def _queue(settings: Settings) -> list[Alert]:
    queued = 'agentos_queue_jobs{status="queued"}'
    return [
        Alert(
            "AgentOSQueueStuck",
            _old(
                "agentos_queue_oldest_job_timestamp_seconds",
                AGENTOS,
                settings.queue_waits_for,
                f"{_last(queued, AGENTOS)} > 0",
            ),
            WARNING,
            "A job of {{ $labels.agentos }} has been queued for {{ $value | humanizeDuration }}",
            "The oldest job in the queue of {{ $labels.agentos }} was accepted {{ $value | humanizeDuration }} ago, "
            "and no worker has begun it.",
            "agentos-operations",
        )
    ]


def _knowledge(settings: Settings) -> list[Alert]:
    failed = 'agentos_knowledge_contents{status=~"failed|partial"}'
    # It stays until somebody deletes the content: nobody has to come today.
    return [
        Alert(
            "AgentOSKnowledgeFailed",
            f"{_last(failed, (*AGENTOS, 'status'))} >= {number(settings.knowledge_min_failed)}",
            INFO,
            "{{ $value }} contents of knowledge bases of {{ $labels.agentos }} are {{ $labels.status }}",
            "{{ $value }} contents of knowledge bases of {{ $labels.agentos }} are {{ $labels.status }}: agents "
            "cannot find them, or not all of them.",
            "agentos-operations",
        )
    ]


def _scores(settings: Settings) -> list[Alert]:
    def of(part: str, window: str) -> str:
        return by(EVALUATION, f"increase(agentos_eval_score_{part}{window})")

    def mean(window: str) -> str:
        return f"(\n  {of('sum', window)}\n  /\n  ({of('count', window)} > 0)\n)"

    # Means are judged, not rates: scores that are read late say the same.
    day, week, least = "[1d]", "[7d] offset 1d", number(settings.score_min_runs)
    return [
        Alert(
            "AgentOSScoreDropped",
            f"{mean(day)}\n< {number(settings.score_drop_ratio)} *\n{mean(week)}\nand\n"
            f"{of('count', day)} >= {least}\nand\n{of('count', week)} >= {least}",
            WARNING,
            "The evaluation {{ $labels.name }} scores {{ $value | humanize }}",
            "Runs of the {{ $labels.eval_type }} evaluation {{ $labels.name }} "
            "{{ with $labels.component }}of {{ . }} {{ end }}on {{ $labels.agentos }} scored "
            "{{ $value | humanize }} on average in the last day, less than "
            f"{number(settings.score_drop_ratio * 100)} % of the week before.",
            "agentos-quality",
            ("agentos", "eval_type", "component", "name"),
            settings.score_for,
        )
    ]


# What can be seen


def _unreachable(settings: Settings) -> list[Alert]:
    return [
        Alert(
            "AgentOSUnreachable",
            f"{_last('agentos_up', AGENTOS)} == 0\nunless\n{_disbelieved(settings)}",
            CRITICAL,
            "{{ $labels.agentos }} cannot be read",
            "Polls of {{ $labels.agentos }} fail. What runs there meanwhile is counted once it can be read again; "
            "until then metrics, budgets and alerts know nothing of it.",
            "agentos-exporter",
            lasts=settings.unreachable_for,
        )
    ]


def _disbelieved(settings: Settings) -> str:
    polls = by(AGENTOS, 'increase(agentos_exporter_polls_total{outcome="silent_empty"}[15m])')
    return f"{polls} >= {number(settings.silent_empty_min_polls)}"


def _silent_empty(settings: Settings) -> list[Alert]:
    return [
        Alert(
            "AgentOSSilentEmpty",
            f"{_disbelieved(settings)}\nand\n{_last('agentos_up', AGENTOS)} == 0",
            CRITICAL,
            "{{ $labels.agentos }} answers, but shows no traces",
            '{{ $labels.agentos }} answered about {{ $value | printf "%.0f" }} polls in 15m with an empty page, '
            "although traces are known to exist: "
            "its database fails, the token may no longer see them, or all were deleted.",
            "agentos-exporter",
        )
    ]


def _stalled(settings: Settings) -> list[Alert]:
    last = _last("agentos_exporter_last_success_timestamp_seconds", AGENTOS)
    # Failing polls are AgentOSUnreachable. A process whose very first poll hangs knows no success yet. The lag says
    # nothing: it grows as well while nobody uses the AgentOS.
    return [
        Alert(
            "AgentOSPollStalled",
            f"(\n  time() - {last} > {number(seconds(settings.stalled_after))}\n  unless\n"
            f"  {_last('agentos_up', AGENTOS)} == 0\n)\nor\n"
            f"{_last('agentos_exporter_polls_total', AGENTOS, how='sum')} == 0",
            CRITICAL,
            "{{ $labels.agentos }} is no longer polled",
            "The exporter runs, and no poll of {{ $labels.agentos }} has ended for a while, neither well nor badly. "
            "Its "
            "metrics stand still.",
            "agentos-exporter",
            lasts=settings.stalled_for,
            labels={"what": "polls"},
        ),
        Alert(
            "AgentOSPollStalled",
            f"{_last('agentos_exporter_catching_up', AGENTOS)} == 1",
            WARNING,
            "Reading {{ $labels.agentos }} does not keep up",
            f"For {settings.behind_for} a backlog of {{{{ $labels.agentos }}}} has been read without an end. Nothing "
            "is lost, but until it is read, and up to 65m longer, no alert on rates or costs of this AgentOS can fire.",
            "agentos-exporter",
            lasts=settings.behind_for,
            labels={"what": "backlog"},
        ),
    ]


def _hidden(settings: Settings) -> list[Alert]:
    def increase(metric: str) -> str:
        return by(AGENTOS, f"increase({metric}[6h])")

    hidden, spans = increase("agentos_exporter_hidden_spans_total"), increase("agentos_spans_total")
    unknown, traces = increase('agentos_traces_total{root_kind="unknown"}'), increase("agentos_traces_total")
    return [
        Alert(
            "AgentOSHiddenSpans",
            f"{hidden}\n/\n(\n  {hidden}\n  + {spans}\n  or\n  {hidden}\n)\n> {number(settings.hidden_ratio)}\nand\n"
            f"{hidden} >= {number(settings.hidden_min_spans)}",
            WARNING,
            "{{ $labels.agentos }} hides {{ $value | humanizePercentage }} of its spans",
            "{{ $value | humanizePercentage }} of the spans that {{ $labels.agentos }} announced in the last 6h "
            "never showed: "
            "what they did, cost and failed is missing from all sums.",
            "agentos-exporter",
            labels={"what": "spans"},
        ),
        Alert(
            "AgentOSHiddenSpans",
            f"{unknown}\n/\n{traces}\n> {number(settings.hidden_traces_ratio)}\nand\n"
            f"{unknown} >= {number(settings.hidden_min_traces)}",
            WARNING,
            "{{ $value | humanizePercentage }} of the traces of {{ $labels.agentos }} show no spans",
            "{{ $value | humanizePercentage }} of the traces of {{ $labels.agentos }} in the last 6h never showed "
            "any span: "
            "what they did, cost and failed is missing from all sums.",
            "agentos-exporter",
            labels={"what": "traces"},
        ),
    ]


def _limited(_: Settings) -> list[Alert]:
    return [
        Alert(
            "AgentOSSeriesLimited",
            f"{by((*TARGET, 'metric', 'label'), 'increase(agentos_exporter_series_limited_total[1h])')} > 0",
            INFO,
            "{{ $labels.metric }} has reached its limit",
            'About {{ $value | printf "%.0f" }} increments of {{ $labels.metric }} in the last hour went to the value '
            "`other`"
            "{{ with $labels.label }} of its label {{ . }}{{ end }}. Sums stay exact, details are lost.",
            "agentos-exporter",
            (),
        )
    ]


def _leaders(settings: Settings) -> list[Alert]:
    # Two minutes bridge a restart and a handover. After a crash a leader is replaced within three leases.
    leads = "agentos_exporter_leader[2m]"
    return [
        Alert(
            "AgentOSExporterNoLeader",
            f"{by(AGENTOS, f'max_over_time({leads})', how='max')} == 0",
            CRITICAL,
            "No replica of agentos-exporter reads {{ $labels.agentos }}",
            "Replicas of agentos-exporter run, and none of them reads {{ $labels.agentos }}: its metrics are absent, "
            "and no other alert about it can fire. What happens meanwhile is counted once one reads it.",
            "agentos-exporter",
            lasts=settings.leader_for,
            labels={"what": "none"},
        ),
        Alert(
            "AgentOSExporterNoLeader",
            f"{by(AGENTOS, f'min_over_time({leads})')} > 1",
            WARNING,
            "{{ $value }} replicas of agentos-exporter say that they read {{ $labels.agentos }}",
            "{{ $value }} replicas of agentos-exporter show the metrics of {{ $labels.agentos }}, though one alone "
            "can hold its lease: in Prometheus they mix, or are added twice.",
            "agentos-exporter",
            lasts=settings.leader_for,
            labels={"what": "several"},
        ),
    ]


def _push(settings: Settings) -> list[Alert]:
    def pushes(outcome: str) -> str:
        return by((*TARGET, "target"), f"increase(agentos_exporter_push_total{{outcome{outcome}}}[15m])")

    failed, taken = pushes('!="ok"'), pushes('="ok"')
    return [
        Alert(
            "AgentOSExporterPushFailing",
            f"{failed} > 0\nunless\n{taken} > 0",
            WARNING,
            "{{ $labels.target }} takes no metrics",
            'About {{ $value | printf "%.0f" }} pushes to {{ $labels.target }} failed in the last 15m, and none was '
            "taken whole. Counters catch up with the next one that is; until then it knows nothing new of any AgentOS.",
            "agentos-exporter",
            (),
            settings.push_failing_for,
        )
    ]


def _down(settings: Settings) -> list[Alert]:
    job = settings.exporter_job
    operator = "=" if re.fullmatch(r"[\w:/-]+", job) else "=~"
    target = f'up{{job{operator}"{job}"}}'
    down = (
        f"(\n  {target} == 0\n  or\n  (\n    avg_over_time({target}[15m]) < {number(settings.exporter_flap_ratio)}\n"
        f"    and\n    changes({target}[15m]) >= {number(settings.exporter_flap_changes)}\n  )\n)"
    )
    # Where a replica leads, another one that is down blinds nobody.
    led = f"on ({', '.join(TARGET)})\n{by(TARGET, 'agentos_exporter_leader', how='max')} == 1"
    who = "agentos-exporter{{ with $labels.instance }} on {{ . }}{{ end }}"
    name, board = "AgentOSExporterDown", "agentos-exporter"
    return [
        Alert(
            name,
            f"{down}\nunless {led}\nor\nabsent({target})",
            CRITICAL,
            "agentos-exporter{{ with $labels.instance }} {{ . }}{{ end }} is down",
            f"Prometheus cannot scrape {who}, only now and then, or has no such target: "
            "no other alert about AgentOS can fire. What happens meanwhile is counted when it is back.",
            board,
            (),
            settings.exporter_down_for,
        ),
        Alert(
            name,
            f"{down}\nand {led}",
            WARNING,
            "The replica {{ $labels.instance }} of agentos-exporter is down",
            f"Prometheus cannot scrape {who}, or only now and then. Other replicas read what it read; "
            "if they fail too, nobody does.",
            board,
            (),
            settings.exporter_down_for,
        ),
    ]


_GROUPS: Final = {
    "agentos-alerts-runs": (_run_errors, _slow_runs, _error_spike, _traffic),
    "agentos-alerts-models": (_provider, _rate_limits, _fallback, _slow_model, _tool, _runaway, _usage, _cache),
    "agentos-alerts-money": (_cost_spike, _budgets, _unpriced, _capture),
    "agentos-alerts-operations": (_approvals, _schedules, _queue, _knowledge, _scores),
    "agentos-alerts-exporter": (_unreachable, _silent_empty, _stalled, _hidden, _limited, _push, _leaders, _down),
}
