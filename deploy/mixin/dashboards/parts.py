"""What several boards share: variables, colours of names, and pieces of PromQL.

`{@}` stands for the filters of the board's variables, see panels.Query.
"""

from __future__ import annotations

from typing import Final

from deploy.mixin.dashboards.board import Variable
from deploy.mixin.dashboards.colors import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    Json,
    fixed,
    named,
    steps,
    words,
)
from deploy.mixin.dashboards.panels import Panel, Query, stat
from deploy.mixin.settings import Settings

OVERVIEW: Final = "agentos-overview"
COST: Final = "agentos-cost"
AGENT: Final = "agentos-agent"
MODELS: Final = "agentos-models"
TOOLS: Final = "agentos-tools"
SLO: Final = "agentos-slo"
OPERATIONS: Final = "agentos-operations"
QUALITY: Final = "agentos-quality"
EXPORTER: Final = "agentos-exporter"

JOB: Final = Variable("job", "Job", "agentos_exporter_build_info")
AGENTOS: Final = Variable("agentos", "AgentOS", "agentos_up{@}")
SPANS: Final = "agentos_spans_total{@}"

UP: Final = words({1: ("up", GREEN), 0: ("DOWN", RED)})

TOKEN_CLASSES: Final[tuple[Json, ...]] = (
    named("input", BLUE),
    named("cache_read", GREEN),
    named("cache_write", PURPLE),
    named("output", YELLOW),
    named("reasoning", ORANGE),
)
COST_SOURCES: Final[tuple[Json, ...]] = (
    named("listed", GREEN),
    named("custom", BLUE),
    named("reported", PURPLE),
    named("estimated", ORANGE),
)
SPAN_KINDS: Final[tuple[Json, ...]] = (
    named("agent", BLUE),
    named("team", PURPLE),
    named("workflow", GREEN),
    named("llm", YELLOW),
    named("tool", ORANGE),
    named("other", GREY),
)
OUTCOMES: Final[tuple[Json, ...]] = (
    named("ok", GREEN),
    named("unreachable", RED),
    named("timeout", ORANGE),
    named("unauthorized", PURPLE),
    named("server_error", YELLOW),
    named("bad_answer", BLUE),
    named("silent_empty", "dark-red"),
    named("state_error", "dark-orange"),
)
QUANTILES: Final[tuple[Json, ...]] = (named("p50", GREEN), named("p95", ORANGE), named("p99", RED))
KINDS: Final[tuple[Json, ...]] = (
    named("agent", BLUE),
    named("team", PURPLE),
    named("workflow", GREEN),
    named("http", GREY),
    named("unknown", RED),
)

BUDGET: Final = "agentos, budget, period"
ESTIMATED: Final = (
    "Where cached tokens are not known the cost is estimated: an upper bound, for Anthropic, AWS Bedrock, Azure AI "
    "Foundry and Vertex AI a lower one. Tokens without a price cost nothing here: see Unpriced tokens."
)
"""What must be said wherever money is shown."""


DASHED: Final[Json] = {
    "matcher": {"id": "byRegexp", "options": "/, usual$/"},
    "properties": [
        {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}},
        {"id": "custom.fillOpacity", "value": 0},
        {"id": "color", "value": fixed(GREY)},
    ],
}
"""Override: what is compared with is dashed."""


def failing(settings: Settings) -> Json:
    """Colours of a share of failed runs: within the SLO, beyond it, burning its budget fast."""
    allowed = 1 - settings.run_success_target
    return steps((None, GREEN), (round(allowed, 6), ORANGE), (round(allowed * settings.burn_medium, 6), RED))


def failing_tools(settings: Settings) -> Json:
    """Colours of a share of failed tool calls; red: where the alert starts."""
    return steps((None, GREEN), (0.05, ORANGE), (settings.tool_error_ratio, RED))


def failing_calls(settings: Settings) -> Json:
    """Colours of a share of failed model calls; red: where the alert starts."""
    return steps((None, GREEN), (0.02, ORANGE), (settings.provider_error_ratio, RED))


def budget(metric: str, only: str = "") -> str:
    """A gauge of budgets. One for several AgentOS instances has an empty `agentos` and belongs to each of them."""
    return f"max by ({BUDGET}) ({metric}{{{budget_filter(only)}}})"


def budget_filter(only: str = "") -> str:
    """Matchers of what may be of several instances together, see `budget`."""
    return ", ".join(filter(None, ('job=~"$job"', 'agentos=~"|$agentos"', only)))


def over(by: str, inner: str, how: str = "sum") -> str:
    """`sum by (labels) (inner)`, or the sum of everything."""
    return f"{how} by ({by}) ({inner})" if by else f"{how}({inner})"


def rate(metric: str, by: str = "", only: str = "") -> str:
    """Events a second at each moment."""
    return over(by, f"rate({metric}{_at(only)}[$__rate_interval])")


def total(metric: str, by: str = "", only: str = "", window: str = "$__range") -> str:
    """Events in the whole range that is shown."""
    return over(by, f"increase({metric}{_at(only)}[{window}])")


def share(part: str, whole: str) -> str:
    """Part of a whole. Where nothing happened there is no share; where something did and no part was seen it is 0."""
    return f"({part} or {whole} * 0) / ({whole} > 0)"


def quantile(q: str, metric: str, by: str = "", only: str = "") -> str:
    """A quantile of a histogram at each moment."""
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', f'{by}, le' if by else 'le', only)})"


def quantiles(metric: str) -> tuple[Query, Query]:
    """The median and the 95th percentile of a histogram; `QUANTILES` has their colours."""
    return Query(quantile("0.5", metric), "p50"), Query(quantile("0.95", metric), "p95")


def failed(what: str, description: str, errors: str, everything: str, *, empty: str, colors: Json, link: Json) -> Panel:
    """The share of runs or calls that failed, over the whole range that is shown."""
    expr, name = share(total(errors), total(everything)), f"Failed {what}"
    return stat(name, description, expr, unit="percentunit", decimals=2, empty=empty, colors=colors, link=link)


def quantile_of_range(q: str, metric: str, by: str = "") -> str:
    """A quantile of a histogram over the whole range that is shown."""
    return f"histogram_quantile({q}, {total(f'{metric}_bucket', f'{by}, le' if by else 'le')})"


def buckets(metric: str) -> str:
    """What fell into each bucket of a histogram, for a heatmap."""
    return f"sum by (le) (increase({metric}_bucket{{@}}[$__rate_interval]))"


def mean(metric: str, by: str = "") -> str:
    """The mean of a histogram over the whole range that is shown."""
    return f"{total(f'{metric}_sum', by)} / ({total(f'{metric}_count', by)} > 0)"


def _at(only: str) -> str:
    return f"{{@, {only}}}" if only else "{@}"
