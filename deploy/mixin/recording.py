"""Recording rules: what boards and alerts both read.

Names follow level:metric:operation. The level says which labels are left beside those of the scrape target and
`agentos`: `agentos_root` keeps root_kind and root, `agentos_kind` span_kind, `agentos_model` provider and model,
`agentos_tool` tool.

Three rules hold for all of them:
- Where nothing happened there is no sample: 0/0 would be NaN, and NaN never ends in a comparison as one expects.
- What is unknown is absent, never 0.
- Errors are never added across span kinds: one failure marks several spans.
"""

from __future__ import annotations

from typing import Any, Final

from deploy.mixin.promql import AGENTOS, KIND, MODEL, ROOT, TOOL, bucket, by, share
from deploy.mixin.settings import Settings

WINDOWS: Final = ("5m", "30m", "1h", "6h", "3d")
"""of the SLO ratios: those of multi-window burn-rate alerts"""
FAST_WINDOWS: Final = ("5m", "30m", "1h")
QUANTILES: Final = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}
DAYS: Final = range(1, 8)
"""How many days back the same hour is looked at for a norm."""


def groups(settings: Settings) -> list[dict[str, Any]]:
    """All groups of recording rules, as Prometheus reads them."""
    fast, slow = settings.fast_interval, settings.slow_interval
    return [
        _group("agentos-slo", fast, [rule for window in FAST_WINDOWS for rule in _slo(window, settings)]),
        _group(
            "agentos-slo-long", slow, [rule for w in WINDOWS if w not in FAST_WINDOWS for rule in _slo(w, settings)]
        ),
        _group("agentos-errors", fast, _errors(settings)),
        _group("agentos-latency", fast, _latency()),
        _group("agentos-cost", slow, _cost(settings)),
        _group("agentos-tokens", slow, [*_usage(), *_cache(settings), *_speed(settings)]),
        _group("agentos-traffic", slow, _traffic()),
    ]


def _group(name: str, interval: str, rules: list[dict[str, str]]) -> dict[str, Any]:
    return {"name": name, "interval": interval, "rules": rules}


def _rule(record: str, expr: str) -> dict[str, str]:
    return {"record": record, "expr": expr}


def _rate(metric: str, window: str) -> str:
    return f"rate({metric}[{window}])"


def _increase(metric: str, window: str) -> str:
    return f"increase({metric}[{window}])"


def _slo(window: str, settings: Settings) -> list[dict[str, str]]:
    count = by(ROOT, _rate("agentos_run_duration_seconds_count", window))
    within = bucket(settings.latency_objective_seconds)
    in_time = by(ROOT, _rate(f"agentos_run_duration_seconds_bucket{{{within}}}", window))
    errors, runs = by(ROOT, _rate("agentos_run_errors_total", window)), by(ROOT, _rate("agentos_runs_total", window))
    return [
        _rule(f"agentos_root:run_errors:ratio_rate{window}", share(errors, runs)),
        # Rates of two buckets differ in the last bits even if no run was slow: that is no share below 0.
        _rule(
            f"agentos_root:slow_runs:ratio_rate{window}",
            f"clamp_min(\n  1 - (\n    {in_time}\n    /\n    ({count} > 0)\n  ),\n  0\n)",
        ),
    ]


def _errors(settings: Settings) -> list[dict[str, str]]:
    ratio = share(by(KIND, _rate("agentos_error_spans_total", "5m")), by(KIND, _rate("agentos_spans_total", "5m")))
    # The median of a day: it takes half a day of failures to move it. It ends before a spike that is judged now began.
    baseline = (
        f"quantile_over_time(0.5, agentos_kind:error_spans:ratio_rate5m[1d] offset {settings.error_spike_baseline_age})"
    )
    tool = share(
        by(TOOL, _rate("agentos_tool_call_errors_total", "5m")), by(TOOL, _rate("agentos_tool_calls_total", "5m"))
    )
    model = share(
        by(MODEL, _rate("agentos_llm_call_errors_total", "5m")), by(MODEL, _rate("agentos_llm_calls_total", "5m"))
    )
    return [
        _rule("agentos_kind:error_spans:ratio_rate5m", ratio),
        _rule("agentos_kind:error_spans:ratio_baseline1d", baseline),
        _rule("agentos_tool:tool_errors:ratio_rate5m", tool),
        _rule("agentos_model:llm_errors:ratio_rate5m", model),
    ]


def _latency() -> list[dict[str, str]]:
    rules = []
    for level, labels, metric in (
        ("agentos_root", ROOT, "run_duration_seconds"),
        ("agentos_model", MODEL, "llm_call_duration_seconds"),
    ):
        buckets = by((*labels, "le"), _rate(f"agentos_{metric}_bucket", "5m"))
        # The quantile of nothing is NaN: the comparison drops it.
        rules += [
            _rule(f"{level}:{metric}:{name}_rate5m", f"histogram_quantile(\n  {quantile},\n  {buckets}\n) >= 0")
            for name, quantile in QUANTILES.items()
        ]
    return rules


def _cost(settings: Settings) -> list[dict[str, str]]:
    total, runs = by(ROOT, _rate("agentos_run_cost_usd_sum", "1h")), by(ROOT, _rate("agentos_run_cost_usd_count", "1h"))
    mean = f"{total}\n/\n({runs} > 0)"
    hour = "agentos:llm_cost_usd:increase1h"
    return [
        _rule(hour, by(AGENTOS, _increase("agentos_llm_cost_usd_total", "1h"))),
        _rule("agentos:llm_cost_usd:increase1d", by(AGENTOS, _increase("agentos_llm_cost_usd_total", "1d"))),
        _rule("agentos_root:run_cost_usd:mean1h", mean),
        # A spike lasts hours; the same hour of other days knows nothing of it. In the first day there are none yet.
        _rule(
            "agentos:llm_cost_usd:baseline1h",
            f"{_same_hour(hour)}\nor\nquantile_over_time(0.5, {hour}[1d] offset {settings.cost_spike_baseline_age})",
        ),
    ]


def _same_hour(series: str) -> str:
    """The median of what the series was at this time of day, over the last seven days or those that there are."""
    days = "\n  or\n  ".join(f'label_replace({series} offset {day}d, "day", "{day}", "", "")' for day in DAYS)
    return f"quantile by ({', '.join(AGENTOS)}) (\n  0.5,\n  {days}\n)"


def _usage() -> list[dict[str, str]]:
    missing = by(MODEL, _increase("agentos_llm_calls_without_usage_total", "1h"))
    errors = by(MODEL, _increase("agentos_llm_call_errors_total", "1h"))
    # A failed call has no tokens: that is no gap. Where no call ever failed there is nothing to subtract.
    return [_rule("agentos_model:llm_usage_missing:increase1h", f"{missing}\n- {errors}\nor\n{missing}")]


def _cache(settings: Settings) -> list[dict[str, str]]:
    read = by(MODEL, _rate('agentos_llm_tokens_total{token_class="cache_read"}', "1h"))
    prompt = by(MODEL, _rate('agentos_llm_tokens_total{token_class=~"input|cache_read|cache_write"}', "1h"))
    ratio = "agentos_model:llm_cache_hit:ratio_rate1h"
    return [
        # Without a series of cache_read the cache is not known, and neither is the ratio.
        _rule(ratio, f"{read}\n/\n({prompt} > 0)"),
        _rule(
            "agentos_model:llm_cache_hit:ratio_baseline1d",
            f"quantile_over_time(0.5, {ratio}[1d] offset {settings.cache_baseline_age})",
        ),
    ]


def _speed(settings: Settings) -> list[dict[str, str]]:
    median = "agentos_model:llm_output_speed:p50_rate1h"
    buckets = by((*MODEL, "le"), _rate("agentos_llm_output_tokens_per_second_bucket", "1h"))
    return [
        # The quantile of nothing is NaN: the comparison drops it.
        _rule(median, f"histogram_quantile(\n  {QUANTILES['p50']},\n  {buckets}\n) >= 0"),
        _rule(
            "agentos_model:llm_output_speed:p50_baseline1d",
            f"quantile_over_time(0.5, {median}[1d] offset {settings.speed_baseline_age})",
        ),
    ]


def _traffic() -> list[dict[str, str]]:
    runs, median = "agentos:runs:increase30m", "agentos:runs:median30m"
    week_ago = f"min_over_time({runs}[2h] offset 6d23h)"
    return [
        _rule(runs, by(AGENTOS, _increase("agentos_runs_total", "30m"))),
        _rule(median, _same_hour(runs)),
        # The lesser of two: weekends, clock changes and a day of outage lower a norm, and nothing raises it.
        # Without samples of a week ago there is none: a new installation is not judged.
        _rule("agentos:runs:norm30m", f"({week_ago} < {median})\nor\n({median} and {week_ago})"),
    ]
