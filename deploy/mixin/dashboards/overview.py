"""Overview: is it fine, what does it cost, who fails?"""

from __future__ import annotations

from deploy.mixin.dashboards import parts
from deploy.mixin.dashboards.board import Board, Row, Variable
from deploy.mixin.dashboards.colors import GREEN, GREY, ORANGE, RED, YELLOW, steps
from deploy.mixin.dashboards.panels import (
    Panel,
    Query,
    cell,
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
from deploy.mixin.dashboards.parts import mean, quantile, quantile_of_range, rate, share, total
from deploy.mixin.settings import Settings

FIRING = 'ALERTS{alertstate="firing", alertname=~"AgentOS.+", job=~"|$job", agentos=~"|$agentos"}'
"""Alerts about an exporter as a whole have no `agentos`, those about a missing one no `job`: they belong to all."""


def board(settings: Settings) -> Board:
    """The board for the wall."""
    root = Variable("root", "Root", parts.SPANS)
    return Board(
        parts.OVERVIEW,
        "Overview",
        "Is it fine, what does it cost, who fails: all AgentOS instances at a glance.",
        (parts.JOB, parts.AGENTOS, root),
        (
            Row("Now", (*_state(settings), *_volume(settings))),
            Row("Runs", _runs(settings)),
            Row("Money", _money()),
            Row("Who", (_roots(settings), _alerts())),
            Row("Sessions and users", _sessions()),
            Row("Sessions that ended", _sessions_in_detail(), collapsed=True),
            Row("What runs where", _inventory(), collapsed=True),
        ),
    )


def _state(settings: Settings) -> tuple[Panel, ...]:
    return (
        stat(
            "AgentOS",
            "Whether the last poll of every chosen AgentOS reached it and was believed. Not filtered by root.",
            "min(agentos_up{@})",
            unit="none",
            colors=steps((None, RED), (1, GREEN)),
            mappings=[parts.UP],
            link=link("Exporter health", parts.EXPORTER),
        ),
        stat(
            "Firing alerts",
            "Alerts that fire now. `none` also where the rules are not loaded. Not filtered by root.",
            f"count({FIRING})",
            unit="none",
            empty="none",
            colors=steps((None, RED)),
        ),
        parts.failed(
            "runs",
            "Share of the finished runs whose outermost span has status ERROR, over the shown range. A streaming run "
            "whose model fails ends OK in AgentOS: see Failed model calls.",
            "agentos_run_errors_total",
            "agentos_runs_total",
            empty="no runs",
            colors=parts.failing(settings),
            link=link("SLO", parts.SLO, "root"),
        ),
        stat(
            "Slow runs (p95)",
            "19 of 20 runs of the shown range took less than this. Red: more than the objective of the SLO.",
            quantile_of_range("0.95", "agentos_run_duration_seconds"),
            unit="s",
            empty="no runs",
            colors=steps((None, GREEN), (settings.latency_objective_seconds, RED)),
        ),
        money(
            "Spent",
            f"Cost of the model calls in the shown range. {parts.ESTIMATED}",
            total("agentos_llm_cost_usd_total"),
            link=link("Cost", parts.COST, "root"),
        ),
        money(
            "Spent in the last hour",
            f"Cost of the model calls of the last hour, whatever range is shown. {parts.ESTIMATED}",
            total("agentos_llm_cost_usd_total", window="1h"),
            link=link("Cost", parts.COST, "root"),
        ),
    )


def _volume(settings: Settings) -> tuple[Panel, ...]:
    tokens = 'sum(increase(agentos_llm_tokens_total{job=~"$job", agentos=~"$agentos"}[$__range]))'
    return (
        number(
            "Runs",
            "Finished runs that users started, in the shown range.",
            total("agentos_runs_total"),
        ),
        parts.failed(
            "model calls",
            "Share of the LLM calls with status ERROR, over the shown range. openinference-instrumentation-agno before "
            "1.0.14 marks failed calls OK.",
            "agentos_llm_call_errors_total",
            "agentos_llm_calls_total",
            empty="no calls",
            colors=parts.failing_calls(settings),
            link=link("Models and providers", parts.MODELS),
        ),
        parts.failed(
            "tool calls",
            "Share of the tool calls with status ERROR, over the shown range.",
            "agentos_tool_call_errors_total",
            "agentos_tool_calls_total",
            empty="no tool calls",
            colors=parts.failing_tools(settings),
            link=link("Tools and errors", parts.TOOLS, "root"),
        ),
        stat(
            "Tokens",
            "Tokens of all classes in the shown range, priced or not.",
            total("agentos_llm_tokens_total"),
            unit="short",
            empty="none reported",
        ),
        stat(
            "Unpriced tokens",
            "Share of the tokens for which no price is known: their cost is missing from every dollar shown here. Of "
            "the whole AgentOS, since these tokens are not counted by root.",
            share(total("agentos_llm_unpriced_tokens_total"), tokens),
            unit="percentunit",
            empty="no tokens",
            colors=steps((None, GREEN), (0.0001, ORANGE)),
            decimals=2,
            link=link("Cost", parts.COST, "root"),
        ),
        stat(
            "Fullest budget",
            "Spent share of the budget that is nearest to its limit, in its current period. Budgets are configured "
            "in the exporter. Not filtered by root.",
            f"max({parts.budget('agentos_budget_spent_usd')} / {parts.budget('agentos_budget_limit_usd')})",
            unit="percentunit",
            empty="no budgets",
            colors=steps((None, GREEN), (settings.budget_warning_ratio, ORANGE), (1, RED)),
            link=link("Cost", parts.COST, "root"),
        ),
    )


def _runs(settings: Settings) -> tuple[Panel, ...]:
    return sized(
        series(
            "Runs per minute",
            "Finished runs a minute, by root: what a user called.",
            Query(f"60 * {rate('agentos_runs_total', 'root')}", "{{root}}"),
            empty="none seen",
            stack=True,
        ),
        series(
            "Share of runs that fail",
            "Share of the runs with status ERROR, by root. A gap: no run ended.",
            Query(share(rate("agentos_run_errors_total", "root"), rate("agentos_runs_total", "root")), "{{root}}"),
            unit="percentunit",
            empty="no runs",
            limits=(0, 1),
            sort="Mean",
        ),
        series(
            "Run duration, p95",
            "19 of 20 runs took less than this, by root. The marks are single runs: click one to see its trace. "
            "Dashed: the objective of the SLO.",
            Query(quantile("0.95", "agentos_run_duration_seconds", "root"), "{{root}}", exemplar=True),
            unit="s",
            empty="no runs",
            limit_lines=steps((None, "transparent"), (settings.latency_objective_seconds, RED)),
            sort="Mean",
        ),
        width=8,
        height=9,
    )


def _money() -> tuple[Panel, ...]:
    return sized(
        series(
            "Cost per hour, by model",
            f"What an hour costs at the rate of each moment. {parts.ESTIMATED}",
            Query(f"3600 * {rate('agentos_llm_cost_usd_total', 'model')}", "{{model}}"),
            unit="currencyUSD",
            empty="nothing priced",
            stack=True,
        ),
        series(
            "Cost per hour, by root",
            f"What an hour costs at the rate of each moment, members and nested agents included. {parts.ESTIMATED}",
            Query(f"3600 * {rate('agentos_llm_cost_usd_total', 'root')}", "{{root}}"),
            unit="currencyUSD",
            empty="nothing priced",
            stack=True,
        ),
        series(
            "Errors per minute, by kind of span",
            "Spans with status ERROR a minute. One failure marks several spans, from the tool or model up to the "
            "run: the lines must not be added.",
            Query(f"60 * {rate('agentos_error_spans_total', 'span_kind')}", "{{span_kind}}"),
            empty="none seen",
            overrides=parts.SPAN_KINDS,
        ),
        width=8,
        height=9,
    )


def _roots(settings: Settings) -> Panel:
    to_agent = link("Drill down", parts.AGENT, agentos=cell("AgentOS"), root=cell("Root"))
    by = "agentos, root_kind, root"
    failed = share(total("agentos_run_errors_total", by), total("agentos_runs_total", by))
    return table(
        "Roots",
        "What users called, over the shown range. The cost of a run is observed once it is settled, a minute or so "
        "after its end. Click a root to drill down.",
        label("agentos", "AgentOS"),
        label("root", "Root", link=to_agent),
        label("root_kind", "Kind"),
        value("Runs", total("agentos_runs_total", by), "locale", decimals=0),
        value("Continued", total("agentos_runs_continued_total", by), "locale", decimals=0),
        value("Failed", failed, "percentunit", decimals=1, colors=parts.failing(settings)),
        value(
            "p95",
            quantile_of_range("0.95", "agentos_run_duration_seconds", by),
            "s",
            colors=steps((None, GREY), (settings.latency_objective_seconds, RED)),
        ),
        value("LLM calls a run", mean("agentos_run_llm_calls", by), "short", decimals=1),
        value("Cost a run", mean("agentos_run_cost_usd", by), "currencyUSD"),
        value("Cost", total("agentos_run_cost_usd_sum", by), "currencyUSD", bar=True, colors=steps((None, YELLOW))),
        sort="Cost",
        empty="no runs",
        width=16,
        height=10,
    )


def _alerts() -> Panel:
    return table(
        "What fires",
        "Alerts of the shipped rules that fire now. Empty also where the rules are not loaded. Not filtered by root.",
        label("alertname", "Alert"),
        label("severity", "Severity"),
        label("agentos", "AgentOS"),
        value("Alerts", f"count by (alertname, severity, agentos) ({FIRING})", "none", colors=steps((None, RED))),
        sort="Severity",
        descending=False,
        empty="none fires",
        width=8,
        height=10,
    )


def _sessions() -> tuple[Panel, ...]:
    return sized(
        series(
            "Active sessions",
            "Distinct sessions in spans that ended within the window. Absent while the last successful poll is older "
            "than 5 minutes. Not filtered by root.",
            Query("sum by (window) (max by (agentos, window) (agentos_active_sessions{@}))", "last {{window}}"),
            unit="locale",
            empty="unknown",
            decimals=0,
        ),
        series(
            "Active users",
            "Distinct users in spans that ended within the window, added over AgentOS instances. Not filtered by root.",
            Query("sum by (window) (max by (agentos, window) (agentos_active_users{@}))", "last {{window}}"),
            unit="locale",
            empty="unknown",
            decimals=0,
        ),
        series(
            "Traces settled per minute",
            "Traces a minute by the kind of their outermost span, counted a minute or so after their end. http: a "
            "request without agent, team or workflow; unknown: spans that stayed hidden. Not filtered by root.",
            Query(f"60 * {rate('agentos_traces_total', 'root_kind')}", "{{root_kind}}"),
            empty="none seen",
            overrides=parts.KINDS,
        ),
        width=8,
    )


def _sessions_in_detail() -> tuple[Panel, ...]:
    def windows(metric: str) -> str:
        return f"max by (agentos, window) ({metric}{{@}})"

    ever = 'label_replace(max by (agentos) (agentos_sessions{@}), "window", "ever", "", "")'
    return sized(
        table(
            "What AgentOS itself counts",
            "Its session stats, as a cross-check. Empty where AgentOS stores no session ids on traces (HTTP root "
            "spans). Not filtered by root.",
            label("agentos", "AgentOS"),
            label("window", "Window"),
            value("Sessions", f"{windows('agentos_session_stats_sessions')} or {ever}", "locale", decimals=0),
            value("Traces", windows("agentos_session_stats_traces"), "locale", decimals=0),
            sort="Window",
            descending=False,
            empty="unknown: no session ids on traces",
            height=8,
        ),
        series(
            "Runs in a session",
            "Observed when a session has been idle for 30 minutes: empty until then. Not filtered by root.",
            *parts.quantiles("agentos_session_runs"),
            empty="no session has ended",
            overrides=parts.QUANTILES,
        ),
        series(
            "Length of a session",
            "From the first start to the last end of its runs; observed when it has been idle for 30 minutes: empty "
            "until then. Not filtered by root.",
            *parts.quantiles("agentos_session_duration_seconds"),
            unit="s",
            empty="no session has ended",
            overrides=parts.QUANTILES,
        ),
        width=8,
    )


def _inventory() -> tuple[Panel, ...]:
    component = "agentos_component_info"
    return (
        table(
            "AgentOS instances",
            "What each AgentOS says of itself; the version is agno's.",
            label("agentos", "AgentOS"),
            label("os_id", "Id"),
            label("version", "agno"),
            value("", "max by (agentos, os_id, version) (agentos_info{@})", "none"),
            sort="AgentOS",
            descending=False,
            empty="unknown",
            width=6,
        ),
        table(
            "Agents and teams",
            "As AgentOS lists them; Agent is the name as spans spell it. Click one to drill down.",
            label("agentos", "AgentOS"),
            label("kind", "Kind"),
            label("name", "Name"),
            label("agent", "Agent", link=link("Drill down", parts.AGENT, agentos=cell("AgentOS"), agent=cell("Agent"))),
            label("model", "Model"),
            label("provider", "Provider"),
            value(
                "", f'max by (agentos, kind, name, agent, model, provider) ({component}{{@, kind!="workflow"}})', "none"
            ),
            sort="Name",
            descending=False,
            empty="unknown",
        ),
        # A workflow is the root of what it calls, and nobody's agent.
        table(
            "Workflows",
            "As AgentOS lists them; Root is the name as spans spell it. Click one to drill down.",
            label("agentos", "AgentOS"),
            label("name", "Name"),
            label("agent", "Root", link=link("Drill down", parts.AGENT, agentos=cell("AgentOS"), root=cell("Root"))),
            value("", f'max by (agentos, name, agent) ({component}{{@, kind="workflow"}})', "none"),
            sort="Name",
            descending=False,
            empty="unknown",
            width=6,
        ),
    )
