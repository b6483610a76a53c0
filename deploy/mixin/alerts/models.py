"""Alerts on what runs depend on: models, tools and caches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from deploy.mixin.alerts.alert import CRITICAL, INFO, WARNING, Alert, failing
from deploy.mixin.promql import FALLBACK, MODEL, ROOT, TOOL, bucket, by, number, unless_past
from deploy.mixin.settings import Settings


def _provider(settings: Settings) -> Iterator[Alert]:
    yield Alert(
        "AgentOSProviderFailing",
        failing(
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
        when="{provider_error_ratio} of the calls of a model fail, with {provider_min_errors} in 10m",
    )


def _rate_limits(settings: Settings) -> Iterator[Alert]:
    yield Alert(
        "AgentOSRateLimitStorm",
        failing(
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
        when=(
            "a rate limit or a quota refuses {rate_limit_ratio} of the calls of a model, with "
            "{rate_limit_min_errors} in 10m"
        ),
    )


def _tool(settings: Settings) -> Iterator[Alert]:
    yield Alert(
        "AgentOSToolFailing",
        failing(
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
        when="{tool_error_ratio} of the calls of a tool fail, with {tool_min_errors} in 15m",
    )


def _runaway(settings: Settings) -> Iterator[Alert]:
    calls = number(settings.runaway_llm_calls)
    most = f"agentos_run_llm_calls_bucket{{{bucket(settings.runaway_llm_calls)}}}"
    # Increases are not whole, and two of them differ in their last bits: one run is anything above a half.
    yield Alert(
        "AgentOSRunawayRun",
        f"{by(ROOT, 'increase(agentos_run_llm_calls_count[15m])')}\n-\n{by(ROOT, f'increase({most}[15m])')}\n> 0.5",
        WARNING,
        f"A run of {{{{ $labels.root }}}} made more than {calls} LLM calls",
        f'In the last 15m {{{{ $value | printf "%.0f" }}}} runs of {{{{ $labels.root_kind }}}} '
        f"{{{{ $labels.root }}}} "
        f"on {{{{ $labels.agentos }}}} made more than {calls} LLM calls each: likely a loop.",
        "agentos-agent",
        ("agentos", "root"),
        when="a run made more than {runaway_llm_calls} LLM calls",
    )


def _fallback(settings: Settings) -> Iterator[Alert]:
    count = by(FALLBACK, "increase(agentos_llm_fallbacks_total[30m])")
    yield Alert(
        "AgentOSFallbackInUse",
        f"{count} >= {number(settings.fallback_min)}\n{unless_past('30m')}",
        WARNING,
        "{{ $labels.to_model }} answers in place of {{ $labels.from_model }}",
        "{{ $labels.to_model }} was called in place of {{ $labels.from_model }}, which failed, "
        '{{ $value | printf "%.0f" }} times on {{ $labels.agentos }} in the last 30m.',
        "agentos-models",
        when="a fallback model is called in place of one that failed, {fallback_min} times in 30m",
    )


def _slow_model(settings: Settings) -> Iterator[Alert]:
    median, baseline = "agentos_model:llm_output_speed:p50_rate1h", "agentos_model:llm_output_speed:p50_baseline1d"
    calls = by(MODEL, "increase(agentos_llm_output_tokens_per_second_count[1h])")
    yield Alert(
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
        when=(
            "the median of a model's output tokens per second is below {speed_drop_ratio} of that of "
            "the last day, with {speed_min_calls} calls in 1h"
        ),
    )


def _usage(settings: Settings) -> Iterator[Alert]:
    missing, calls = "agentos_model:llm_usage_missing:increase1h", by(MODEL, "increase(agentos_llm_calls_total[1h])")
    yield Alert(
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
        when="more than {usage_missing_ratio} of the calls of a model that did not fail report no tokens",
    )


def _cache(settings: Settings) -> Iterator[Alert]:
    ratio, baseline = "agentos_model:llm_cache_hit:ratio_rate1h", "agentos_model:llm_cache_hit:ratio_baseline1d"
    tokens = by(MODEL, 'increase(agentos_llm_tokens_total{token_class=~"input|cache_read|cache_write"}[1h])')
    yield Alert(
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
        when="the cache-hit ratio of a model is below {cache_drop_ratio} of that of the last day",
    )


ALERTS: Final = (_provider, _rate_limits, _fallback, _slow_model, _tool, _runaway, _usage, _cache)
