"""Alerts on what users feel: failures, duration, and a sudden lack of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from textwrap import indent
from typing import Final

from deploy.mixin.alerts.alert import CRITICAL, WARNING, Alert, above_baseline, last_value
from deploy.mixin.promql import AGENTOS, KIND, ROOT, bucket, by, duration, number, seconds, unless_past
from deploy.mixin.settings import Settings


def _run_errors(settings: Settings) -> Iterator[Alert]:
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
        when=(
            "runs fail at {burn_fast} (1h), {burn_medium} (6h) or {burn_slow} (3d) times the pace that a "
            "target of {run_success_target} allows"
        ),
    )


def _slow_runs(settings: Settings) -> Iterator[Alert]:
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
        when=(
            "runs take longer than {latency_objective_seconds} s at the same multiples of the pace that a "
            "target of {latency_target} allows"
        ),
    )


_LONGEST_SILENCE: Final = "1h"
"""For how long, beside 5m, a backlog that was read keeps a budget from being judged; a window of the ratios."""


def _burns(
    settings: Settings,
    name: str,
    *,
    ratio: str,
    budget: float,
    events: Callable[[str], str],
    what: str,
    objective: str,
    when: str,
) -> Iterator[Alert]:
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
    for severity, long, short, burn, lasts in pairs:
        threshold = number(round(burn * budget, 9))
        still = f"{ratio}{short} > {threshold}"
        if seconds(short) > seconds(_LONGEST_SILENCE):
            unless = indent(unless_past(short), "    ")
            still += (
                f"\nand\n(\n  {ratio}{_LONGEST_SILENCE} > {threshold}\n  or\n  (\n    {ratio}{short}\n{unless}\n  )\n)"
            )
        yield Alert(
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
            when,
        )


def _percent(ratio: float) -> str:
    return f"{number(round(ratio * 100, 6))} % of runs"


def _error_spike(settings: Settings) -> Iterator[Alert]:
    ratio, baseline = "agentos_kind:error_spans:ratio_rate5m", "agentos_kind:error_spans:ratio_baseline1d"
    errors = by(KIND, "increase(agentos_error_spans_total[5m])")
    yield Alert(
        "AgentOSErrorSpanSpike",
        f"{above_baseline(ratio, baseline, settings.error_spike_factor)} > {number(settings.error_spike_floor)}\nand\n"
        f"{errors} >= {number(settings.error_spike_min_errors)}\n{unless_past('5m')}",
        WARNING,
        "{{ $value | humanizePercentage }} of the {{ $labels.span_kind }} spans of {{ $labels.agentos }} fail",
        "{{ $value | humanizePercentage }} of the {{ $labels.span_kind }} spans of {{ $labels.agentos }} failed "
        "in the "
        f"last 5m. This is more than {number(settings.error_spike_factor)} times the median of the last day.",
        "agentos-overview",
        lasts=settings.error_spike_for,
        when=(
            "the share of failed spans of a kind is above {error_spike_factor} times its baseline and "
            "{error_spike_floor}, with {error_spike_min_errors} errors in 5m"
        ),
    )


def _traffic(settings: Settings) -> Iterator[Alert]:
    runs, norm = "agentos:runs:increase30m", "agentos:runs:norm30m"
    up = "agentos_up"
    # While an AgentOS or the exporter is down runs are not seen: another alert's business. If the exporter was away for
    # the whole window, its first look counts as no increase.
    yield Alert(
        "AgentOSTrafficDropped",
        f"{runs} < {number(settings.traffic_drop_ratio)} * {norm}\nand\n"
        f"{norm} >= {number(settings.traffic_min_runs)}\n"
        f"and on ({', '.join(AGENTOS)})\n{by(AGENTOS, f'last_over_time({up}[5m] offset 30m)', how='max')}\n"
        f"unless on ({', '.join(AGENTOS)})\n{last_value(up, AGENTOS)} == 0",
        WARNING,
        'Only {{ $value | printf "%.0f" }} runs in 30m on {{ $labels.agentos }}',
        '{{ $labels.agentos }} ended {{ $value | printf "%.0f" }} runs in the last 30m: less than '
        f"{number(settings.traffic_drop_ratio * 100)} % of what this hour had on other days and a week ago. "
        "AgentOS itself answers.",
        "agentos-overview",
        lasts=settings.traffic_for,
        when="runs in 30m are below {traffic_drop_ratio} of what this hour has on other days",
    )


ALERTS: Final = (_run_errors, _slow_runs, _error_spike, _traffic)
