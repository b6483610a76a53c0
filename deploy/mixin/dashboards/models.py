"""Models and providers: which model is slow, fails, or answers without token counts."""

from __future__ import annotations

from deploy.mixin.dashboards import parts
from deploy.mixin.dashboards.board import Board, Row, Variable
from deploy.mixin.dashboards.colors import GREEN, GREY, ORANGE, RED, YELLOW, steps
from deploy.mixin.dashboards.panels import Panel, Query, heatmap, label, number, series, sized, stat, table, value
from deploy.mixin.dashboards.parts import buckets, quantile, quantile_of_range, rate, share, total
from deploy.mixin.settings import Settings

MODEL = "provider, model"
CALLS = "agentos_llm_calls_total"
ERRORS = "agentos_llm_call_errors_total"
BY_CLASS = "agentos_llm_call_errors_by_class_total"
SILENT = "agentos_llm_calls_without_usage_total"
DURATION = "agentos_llm_call_duration_seconds"
FIRST = "agentos_llm_time_to_first_token_seconds"
SPEED = "agentos_llm_output_tokens_per_second"
TOKEN_TIME = "agentos_llm_time_per_output_token_seconds"  # noqa: S105 - a name
RETRIES = "agentos_llm_retries_total"
FALLBACKS = "agentos_llm_fallbacks_total"
WASTED_TIME = "agentos_llm_wasted_seconds_total"
WASTED_COST = "agentos_llm_wasted_cost_usd_total"
WHOLE = "Not filtered by agent."


def board(settings: Settings) -> Board:
    """The board for a bad minute of a vendor."""
    return Board(
        parts.MODELS,
        "Models and providers",
        "Model calls: how many, how fast, how large, how many fail, and which providers have a bad time.",
        (
            parts.JOB,
            parts.AGENTOS,
            Variable("agent", "Agent", parts.SPANS),
            Variable("provider", "Provider", "agentos_llm_calls_total{@}"),
            Variable("model", "Model", "agentos_llm_calls_total{@}"),
        ),
        (
            Row("Now", _now(settings)),
            Row("Calls and errors", _calls()),
            Row("Latency", _latency()),
            Row("Speed", _speed()),
            Row("Attempts that came to nothing", _attempts()),
            Row("All models", (_models(settings),)),
            Row("Tokens", _tokens()),
        ),
    )


def _now(settings: Settings) -> tuple[Panel, ...]:
    failing = parts.failing_calls(settings)
    return (
        number(
            "LLM calls",
            "Model calls in the shown range.",
            total(CALLS),
        ),
        stat(
            "Failed",
            "Share of these with status ERROR. openinference-instrumentation-agno before 1.0.14 marks failed calls "
            "OK: they show as without usage.",
            share(total(ERRORS), total(CALLS)),
            unit="percentunit",
            empty="no calls",
            colors=failing,
            decimals=2,
        ),
        stat(
            "Worst provider, last 10 minutes",
            "Largest share of failed calls of one provider in the last 10 minutes. Red: where the alert starts. "
            "Providers that are not agno's own have no name.",
            f"max({share(total(ERRORS, 'provider', window='10m'), total(CALLS, 'provider', window='10m'))})",
            unit="percentunit",
            empty="no calls",
            colors=failing,
            decimals=1,
        ),
        stat(
            "Without usage",
            "Share of the calls that did not fail, and reported no token count: tokens and cost are unknown.",
            f"clamp_min({total(SILENT)} - ({total(ERRORS)} or {total(SILENT)} * 0), 0) / ({total(CALLS)} > 0)",
            unit="percentunit",
            empty="all reported",
            colors=steps((None, GREEN), (settings.usage_missing_ratio, ORANGE)),
            decimals=2,
        ),
        stat(
            "p95 of a call",
            f"19 of 20 calls of the shown range took less than this. {WHOLE}",
            quantile_of_range("0.95", DURATION),
            unit="s",
            empty="no calls",
        ),
        stat(
            "p95 to the first token",
            "From the start of a run to its first token. Only with `enrich_runs`, once a run; where a run does not "
            f"stream, its first token comes with its first whole answer. {WHOLE}",
            quantile_of_range("0.95", FIRST),
            unit="s",
            empty="unknown",
        ),
    )


def _calls() -> tuple[Panel, ...]:
    return sized(
        series(
            "LLM calls per minute",
            "Calls a minute, by model.",
            Query(f"60 * {rate(CALLS, MODEL)}", "{{provider}} {{model}}"),
            empty="none seen",
            stack=True,
        ),
        series(
            "Share of calls that fail, by provider",
            "Share of the calls with status ERROR. A gap: no calls.",
            Query(share(rate(ERRORS, "provider"), rate(CALLS, "provider")), "{{provider}}"),
            unit="percentunit",
            empty="no calls",
            limits=(0, 1),
            sort="Mean",
            calcs=("mean", "max"),
        ),
        series(
            "Errors per minute, by why",
            "Failed calls a minute. rate_limit: also quotas and credit. The class is told from the error text; other: "
            "nothing tells. The marks are single calls: click one to see its trace.",
            Query(f"60 * {rate(BY_CLASS, 'error_class')}", "{{error_class}}", exemplar=True),
            empty="none seen",
            stack=True,
            sort="Mean",
            calcs=("mean", "max"),
        ),
        series(
            "Errors per minute, by type",
            "Failed calls a minute. The marks are single calls: click one to see its trace.",
            Query(f"60 * {rate(ERRORS, f'{MODEL}, error_type')}", "{{model}}: {{error_type}}", exemplar=True),
            empty="none seen",
            sort="Mean",
            calcs=("mean", "max"),
        ),
        height=8,
    )


def _latency() -> tuple[Panel, ...]:
    return (
        series(
            "Duration of a call, p95",
            f"By model. The marks are single calls: click one to see its trace. {WHOLE}",
            Query(quantile("0.95", DURATION, MODEL), "{{model}}", exemplar=True),
            unit="s",
            empty="no calls",
            sort="Mean",
            height=9,
        ),
        heatmap(
            "Duration of calls",
            f"Calls by how long they took. {WHOLE}",
            buckets(DURATION),
            unit="s",
            empty="no calls",
            scheme="Blues",
        ),
        series(
            "p50, p95, p99 of the last 5 minutes",
            f"The worst model of each moment, from the recording rules. {WHOLE}",
            *(Query(f"max(agentos_model:llm_call_duration_seconds:{q}_rate5m{{@}})", q) for q in ("p50", "p95", "p99")),
            unit="s",
            empty="no calls",
            overrides=parts.QUANTILES,
        ),
        series(
            "Time to the first token, p95",
            "By model, from the start of a run. Only with `enrich_runs`, once a run; where a run does not stream, "
            f"its first token comes with its first whole answer. {WHOLE}",
            Query(quantile("0.95", FIRST, MODEL), "{{model}}"),
            unit="s",
            empty="unknown: needs enrich_runs",
            sort="Mean",
        ),
    )


def _speed() -> tuple[Panel, ...]:
    return sized(
        series(
            "Output tokens per second, median",
            f"By model: output tokens of a call for each second that the whole call took. {WHOLE}",
            Query(quantile("0.5", SPEED, MODEL), "{{model}}"),
            empty="none reported",
            sort="Mean",
        ),
        series(
            "Slow tenth: output tokens per second",
            f"By model: nine of ten calls were faster. {WHOLE}",
            Query(quantile("0.1", SPEED, MODEL), "{{model}}"),
            empty="none reported",
            sort="Mean",
        ),
        series(
            "Time per output token, p95",
            "By model: after the first token, of calls whose answer comes in parts. Only with `enrich_runs`, once a "
            f"run. {WHOLE}",
            Query(quantile("0.95", TOKEN_TIME, MODEL), "{{model}}"),
            unit="s",
            empty="unknown: needs enrich_runs",
            sort="Mean",
        ),
        width=8,
    )


def _attempts() -> tuple[Panel, ...]:
    return (
        series(
            "Retries per minute",
            "Calls that failed and were followed by the same model again, known once a run is settled.",
            Query(f"60 * {rate(RETRIES, MODEL)}", "{{provider}} {{model}}"),
            empty="none seen",
            width=8,
        ),
        series(
            "Fallbacks per minute",
            "Calls that failed and were followed by a fallback model, known once a run is settled. Not filtered by "
            "provider and model.",
            Query(f"60 * {rate(FALLBACKS, 'from_model, to_model')}", "{{from_model}} → {{to_model}}"),
            empty="none seen",
            width=8,
        ),
        series(
            "Share of time that went into failed calls",
            f"Time of failed calls ÷ time of all calls, by model. {WHOLE}",
            Query(share(rate(WASTED_TIME, MODEL), rate(f"{DURATION}_sum", MODEL)), "{{model}}"),
            unit="percentunit",
            empty="none seen",
            limits=(0, 1),
            width=4,
        ),
        series(
            "Cost of failed calls per hour",
            "Only of failed calls that report tokens: most do not, and their cost is unknown.",
            Query(f"3600 * {rate(WASTED_COST, MODEL)}", "{{model}}"),
            unit="currencyUSD",
            empty="unknown",
            width=4,
        ),
    )


def _models(settings: Settings) -> Panel:
    spent, tokens = total("agentos_llm_cost_usd_total", MODEL), total("agentos_llm_tokens_total", MODEL)
    missing = f"clamp_min({total(SILENT, MODEL)} - ({total(ERRORS, MODEL)} or {total(SILENT, MODEL)} * 0), 0)"
    return table(
        "Models",
        "Over the shown range. Providers that are not agno's own have no name. Without usage: calls that neither "
        f"failed nor reported token counts. Durations and unpriced tokens are not filtered by agent. {parts.ESTIMATED}",
        label("provider", "Provider"),
        label("model", "Model"),
        value("Calls", total(CALLS, MODEL), "locale", decimals=0),
        value(
            "Failed",
            share(total(ERRORS, MODEL), total(CALLS, MODEL)),
            "percentunit",
            decimals=1,
            colors=parts.failing_calls(settings),
        ),
        value(
            "Without usage",
            f"{missing} / ({total(CALLS, MODEL)} > 0)",
            "percentunit",
            decimals=1,
            colors=steps((None, GREY), (settings.usage_missing_ratio, ORANGE)),
        ),
        value("p50", quantile_of_range("0.5", DURATION, MODEL), "s"),
        value("p95", quantile_of_range("0.95", DURATION, MODEL), "s"),
        value("Tokens", tokens, "short"),
        value("Unpriced tokens", total("agentos_llm_unpriced_tokens_total", MODEL), "short", colors=steps((None, RED))),
        value("Cost", spent, "currencyUSD", bar=True, colors=steps((None, YELLOW))),
        sort="Cost",
        empty="no calls",
        width=24,
        height=9,
    )


def _tokens() -> tuple[Panel, ...]:
    def size(which: str) -> Panel:
        return series(
            f"{which.capitalize()} tokens of a call, p95",
            f"By model, of calls that report them, as far as buckets tell: each is four times the one before. {WHOLE}",
            Query(quantile("0.95", f"agentos_llm_call_{which}_tokens", MODEL), "{{model}}"),
            empty="none reported",
            sort="Mean",
            width=8,
        )

    return (
        series(
            "Tokens per minute, by model",
            "All classes, priced or not.",
            Query(f"60 * {rate('agentos_llm_tokens_total', MODEL)}", "{{model}}"),
            empty="none reported",
            stack=True,
            width=8,
        ),
        size("input"),
        size("output"),
    )
