"""What several boards share: variables, colours of names, and pieces of PromQL.

`{@}` stands for the filters of the board's variables, see grafana.Query.
"""

from __future__ import annotations

from typing import Final

from deploy.mixin.dashboards.grafana import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    Json,
    Variable,
    fixed,
    named,
    steps,
    words,
)
from deploy.mixin.settings import Settings

OVERVIEW: Final = "agentos-overview"
COST: Final = "agentos-cost"
AGENT: Final = "agentos-agent"
MODELS: Final = "agentos-models"
TOOLS: Final = "agentos-tools"
SLO: Final = "agentos-slo"
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
OUTCOMES: Final[tuple[Json, ...]] = (named("ok", GREEN), named("silent_empty", RED), named("state_error", "dark-red"))
QUANTILES: Final[tuple[Json, ...]] = (named("p50", GREEN), named("p95", ORANGE), named("p99", RED))
KINDS: Final[tuple[Json, ...]] = (
    named("agent", BLUE),
    named("team", PURPLE),
    named("workflow", GREEN),
    named("http", GREY),
    named("unknown", RED),
)

BUDGET: Final = "agentos, budget, period"
BUDGET_SPENT: Final = f'max by ({BUDGET}) (agentos_budget_spent_usd{{job=~"$job", agentos=~"|$agentos"}})'
BUDGET_LIMIT: Final = BUDGET_SPENT.replace("spent_usd", "limit_usd")
"""A budget for several AgentOS instances has an empty `agentos`, and belongs to whichever is chosen."""

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
