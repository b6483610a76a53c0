"""Agent drill-down: one agent or root, from its rate and errors down to its tools and single traces."""

from __future__ import annotations

from deploy.mixin.dashboards import parts
from deploy.mixin.dashboards.board import Board, Row, Variable
from deploy.mixin.dashboards.colors import GREEN, RED, steps
from deploy.mixin.dashboards.panels import (
    Panel,
    Query,
    cell,
    heatmap,
    label,
    link,
    money,
    number,
    series,
    sized,
    stat,
    table,
    value,
)
from deploy.mixin.dashboards.parts import buckets, mean, quantile, quantile_of_range, rate, share, total
from deploy.mixin.promql import bucket
from deploy.mixin.settings import Settings

ITSELF = 'span_kind=~"agent|team"'
"""Spans of the agent or team itself, not of what it called."""
RUNS = "Runs of the chosen roots; by default those in which the chosen agent takes part."


def board(settings: Settings) -> Board:
    """The board that tables of agents and roots lead to."""
    agent = Variable("agent", "Agent", parts.SPANS)
    # All roots of the chosen agent: runs and their cost have no label `agent`, and are narrowed this way.
    root = Variable("root", "Root", parts.SPANS, chained_all=True)
    return Board(
        parts.AGENT,
        "Agent drill-down",
        "One agent, team or workflow: how often it runs, fails and how long it takes; what its runs cost; its model "
        "calls and tools; traces of single runs.",
        (parts.JOB, parts.AGENTOS, agent, root),
        (
            Row("The agent itself, whoever called it", (*_itself(settings), *_agent_lines())),
            Row("Runs that users started", _runs(settings)),
            Row("Cost and model calls of a run", _cost_of_runs(settings)),
            Row("Model calls", _models()),
            Row("Tools and errors", _tools(settings)),
        ),
    )


def _itself(settings: Settings) -> tuple[Panel, ...]:
    failed = share(
        total("agentos_error_spans_total", "span_kind", ITSELF), total("agentos_spans_total", "span_kind", ITSELF)
    )
    return (
        number(
            "Calls of the agent",
            "Runs of the chosen agents and teams in the shown range, whoever called them.",
            total("agentos_spans_total", only=ITSELF),
        ),
        stat(
            "Failed",
            "Share of these with status ERROR; agents and teams apart, since one failure marks both.",
            Query(failed, "{{span_kind}}", instant=True),
            unit="percentunit",
            empty="no calls",
            colors=parts.failing(settings),
            decimals=2,
        ),
        number(
            "LLM calls",
            "Model calls of the chosen agents in the shown range.",
            total("agentos_llm_calls_total"),
        ),
        stat(
            "Tokens",
            "Tokens of these model calls, of all classes, priced or not.",
            total("agentos_llm_tokens_total"),
            unit="short",
            empty="none reported",
        ),
        money(
            "Spent",
            f"Cost of these model calls. {parts.ESTIMATED}",
            total("agentos_llm_cost_usd_total"),
            link=link("Cost", parts.COST, "agent", "root"),
        ),
        number(
            "Tool calls",
            "Tool calls of the chosen agents in the shown range.",
            total("agentos_tool_calls_total"),
        ),
    )


def _agent_lines() -> tuple[Panel, ...]:
    return sized(
        series(
            "Calls of the agent per minute",
            "Calls a minute by agent and kind, whoever called.",
            Query(f"60 * {rate('agentos_spans_total', 'agent, span_kind', ITSELF)}", "{{agent}} ({{span_kind}})"),
            empty="none seen",
        ),
        series(
            "Errors inside the agent per minute, by kind",
            "Spans with status ERROR a minute, of the agent and of what it called. One failure marks several spans, "
            "from the tool or model up: the lines must not be added.",
            Query(f"60 * {rate('agentos_error_spans_total', 'span_kind')}", "{{span_kind}}"),
            empty="none seen",
            overrides=parts.SPAN_KINDS,
        ),
        series(
            "Cost per hour, by agent",
            f"What an hour costs at the rate of each moment. {parts.ESTIMATED}",
            Query(f"3600 * {rate('agentos_llm_cost_usd_total', 'agent')}", "{{agent}}"),
            unit="currencyUSD",
            empty="nothing priced",
            stack=True,
        ),
        width=8,
    )


def _runs(settings: Settings) -> tuple[Panel, ...]:
    objective = steps((None, "transparent"), (settings.latency_objective_seconds, RED))
    duration = "agentos_run_duration_seconds"
    return sized(
        series(
            "Runs per minute",
            f"Finished runs a minute. {RUNS}",
            Query(f"60 * {rate('agentos_runs_total', 'root')}", "{{root}}"),
            empty="none seen",
        ),
        series(
            "Failed runs per minute",
            f"Runs with status ERROR a minute, by type. {RUNS}",
            Query(
                f"60 * {rate('agentos_run_errors_total', 'root, error_type')}",
                "{{root}}: {{error_type}}",
                exemplar=True,
            ),
            empty="none seen",
        ),
        series(
            "Blocked runs per minute",
            "Runs of agents and teams, members among them, that a guardrail blocked, by what it found. Only with "
            f"`enrich_runs`, and only where AgentOS tells. {RUNS}",
            Query(f"60 * {rate('agentos_guardrail_blocks_total', 'root, guardrail')}", "{{root}}: {{guardrail}}"),
            empty="none told of",
        ),
        series(
            "Run duration",
            "The marks are single runs: click one to see its trace. Dashed: the objective of the SLO. " + RUNS,
            Query(quantile("0.5", duration), "p50", exemplar=True),
            Query(quantile("0.95", duration), "p95"),
            Query(quantile("0.99", duration), "p99"),
            unit="s",
            empty="no runs",
            overrides=parts.QUANTILES,
            limit_lines=objective,
        ),
        height=8,
    )


def _cost_of_runs(settings: Settings) -> tuple[Panel, ...]:
    normal = bucket(settings.runaway_llm_calls)
    return (
        money(
            "Mean cost of a run",
            f"Members and nested agents included, over the shown range. {RUNS} {parts.ESTIMATED}",
            mean("agentos_run_cost_usd"),
            width=6,
        ),
        money(
            "Expensive runs (p95)",
            f"19 of 20 runs of the shown range cost less than this, as far as buckets tell. {RUNS}",
            quantile_of_range("0.95", "agentos_run_cost_usd"),
            width=6,
        ),
        stat(
            "LLM calls of a run (mean)",
            f"Over the shown range. {RUNS}",
            mean("agentos_run_llm_calls"),
            unit="short",
            empty="no runs",
            decimals=1,
            width=6,
        ),
        stat(
            "Runaway runs",
            f"Share of the runs with more than {settings.runaway_llm_calls:g} LLM calls, over the shown range. {RUNS}",
            f"1 - {total('agentos_run_llm_calls_bucket', only=normal)} / ({total('agentos_run_llm_calls_count')} > 0)",
            unit="percentunit",
            empty="no runs",
            colors=steps((None, GREEN), (1e-6, RED)),
            decimals=2,
            width=6,
        ),
        heatmap(
            "Cost of a run",
            f"Runs by what they cost, observed once a run is settled, a minute or so after its end. {RUNS} Unpriced "
            "calls are left out; a run of them alone is not observed.",
            buckets("agentos_run_cost_usd"),
            unit="currencyUSD",
            empty="nothing priced",
        ),
        heatmap(
            "LLM calls of a run",
            "Runs by the number of their LLM calls, observed once a run is settled. High values are runaway loops. "
            f"{RUNS}",
            buckets("agentos_run_llm_calls"),
            unit="short",
            empty="no runs",
            scheme="Blues",
        ),
    )


def _models() -> tuple[Panel, ...]:
    return sized(
        series(
            "LLM calls per minute, by model",
            "Model calls a minute of the chosen agents.",
            Query(f"60 * {rate('agentos_llm_calls_total', 'model')}", "{{model}}"),
            empty="none seen",
            stack=True,
        ),
        series(
            "Failed LLM calls per minute",
            "Model calls with status ERROR a minute, by model and type.",
            Query(
                f"60 * {rate('agentos_llm_call_errors_total', 'model, error_type')}",
                "{{model}}: {{error_type}}",
                exemplar=True,
            ),
            empty="none seen",
        ),
        series(
            "Tokens per minute, by class",
            "Classes exclude each other. Without `enrich_runs` AgentOS's HTTP API tells input and output only: what "
            "is absent is unknown, not zero.",
            Query(f"60 * {rate('agentos_llm_tokens_total', 'token_class')}", "{{token_class}}"),
            empty="none reported",
            stack=True,
            overrides=parts.TOKEN_CLASSES,
        ),
        width=8,
    )


def _tools(settings: Settings) -> tuple[Panel, ...]:
    by = "agentos, agent, tool"
    failed = share(total("agentos_tool_call_errors_total", by), total("agentos_tool_calls_total", by))
    return (
        table(
            "Tools",
            "Tool calls of the chosen agents in the shown range.",
            label("agentos", "AgentOS"),
            label("agent", "Agent"),
            label(
                "tool", "Tool", link=link("Tools and errors", parts.TOOLS, agentos=cell("AgentOS"), agent=cell("Agent"))
            ),
            value("Calls", total("agentos_tool_calls_total", by), "locale", decimals=0),
            value("Failed", failed, "percentunit", decimals=1, colors=parts.failing_tools(settings)),
            sort="Calls",
            empty="no tool calls",
        ),
        table(
            "Errors by type",
            "Spans with status ERROR in the shown range. One failure has a row for each kind of span that it marked: "
            "rows must not be added.",
            label("agentos", "AgentOS"),
            label("agent", "Agent"),
            label("span_kind", "Kind"),
            label("error_type", "Error"),
            value(
                "Spans",
                f"{total('agentos_error_spans_total', 'agentos, agent, span_kind, error_type')} > 0",
                "locale",
                decimals=0,
                bar=True,
                colors=steps((None, RED)),
            ),
            sort="Spans",
            empty="none seen",
        ),
    )
