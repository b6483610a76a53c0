"""Tools and errors: what is new comes first."""

from __future__ import annotations

from deploy.mixin.dashboards import parts
from deploy.mixin.dashboards.board import Board, Row, Variable
from deploy.mixin.dashboards.colors import BLUE, RED, steps
from deploy.mixin.dashboards.panels import Panel, Query, cell, label, link, number, series, sized, stat, table, value
from deploy.mixin.dashboards.parts import quantile, quantile_of_range, rate, share, total
from deploy.mixin.settings import Settings

CALLS = "agentos_tool_calls_total"
ERRORS = "agentos_tool_call_errors_total"
DURATION = "agentos_tool_call_duration_seconds"
FAILURES = "agentos_error_spans_total"
TYPE = "agentos, agent, span_kind, error_type"
NOT_ADDED = "One failure has a row for each kind of span that it marked: rows must not be added."


def board(settings: Settings) -> Board:
    """The board for whoever looks for what broke."""
    return Board(
        parts.TOOLS,
        "Tools and errors",
        "Errors by type, new ones first, and the tools that agents call.",
        (
            parts.JOB,
            parts.AGENTOS,
            Variable("root", "Root", parts.SPANS),
            Variable("agent", "Agent", parts.SPANS),
            Variable("tool", "Tool (panels of tools only)", f"{CALLS}{{@}}"),
        ),
        (
            Row("Now", _now(settings)),
            Row("New errors", (_new(), _all())),
            Row("Errors over time", _errors(settings)),
            Row("Tools", _tools(settings)),
        ),
    )


def happened() -> str:
    """Failed spans of the shown range, by type."""
    return f"{total(FAILURES, TYPE)} > 0"


def new() -> str:
    """Of these, those whose type did not occur in the day before the shown range."""
    before = f"sum by ({TYPE}) (increase({FAILURES}{{@}}[1d] offset $__range)) > 0"
    return f"({happened()}) unless ({before})"


def _now(settings: Settings) -> tuple[Panel, ...]:
    tool = parts.failing_tools(settings)
    return (
        stat(
            "New error types",
            "Types of error, each counted once for its agent and kind of span, that occurred in the shown range and "
            "not in the day before it.",
            f"count({new()})",
            unit="none",
            empty="none",
            colors=steps((None, RED)),
        ),
        parts.failed(
            "runs",
            "Share of the runs with status ERROR, over the shown range. Not filtered by agent.",
            "agentos_run_errors_total",
            "agentos_runs_total",
            empty="no runs",
            colors=parts.failing(settings),
            link=link("SLO", parts.SLO, "root"),
        ),
        parts.failed(
            "model calls",
            "Share of the LLM calls with status ERROR, over the shown range.",
            "agentos_llm_call_errors_total",
            "agentos_llm_calls_total",
            empty="no calls",
            colors=parts.failing_calls(settings),
            link=link("Models and providers", parts.MODELS, "agent"),
        ),
        stat(
            "Failed tool calls",
            "Share of the tool calls with status ERROR, over the shown range.",
            share(total(ERRORS), total(CALLS)),
            unit="percentunit",
            empty="no tool calls",
            colors=tool,
            decimals=2,
        ),
        number(
            "Tool calls",
            "Tool calls in the shown range.",
            total(CALLS),
        ),
        stat(
            "p95 of a tool call",
            "19 of 20 tool calls of the shown range took less than this. Not filtered by root and agent.",
            quantile_of_range("0.95", DURATION),
            unit="s",
            empty="no tool calls",
        ),
    )


def _new() -> Panel:
    first = (
        f"1000 * min_over_time(timestamp(sum by ({TYPE}) (increase({FAILURES}{{@}}[$__rate_interval])) > 0)"
        "[$__range:$__interval])"
    )
    return table(
        "New error types, latest first",
        "Errors of the shown range whose type (for this agent and kind of span) did not occur in the day before it, "
        f"the latest first. {NOT_ADDED} Error texts never leave AgentOS: only the name of the class does, else "
        "`other`.",
        label("error_type", "Error"),
        label("agent", "Agent", link=link("Drill down", parts.AGENT, agentos=cell("AgentOS"), agent=cell("Agent"))),
        label("span_kind", "Kind"),
        label("agentos", "AgentOS"),
        value("First seen", f"{first} and ({new()})", "dateTimeFromNow"),
        value("Spans", new(), "locale", decimals=0, bar=True, colors=steps((None, RED))),
        sort="First seen",
        empty="none new",
        width=12,
        height=10,
    )


def _all() -> Panel:
    return table(
        "All errors by type",
        f"Spans with status ERROR in the shown range. {NOT_ADDED} Share: of the spans of this kind of this agent.",
        label("error_type", "Error"),
        label("agent", "Agent", link=link("Drill down", parts.AGENT, agentos=cell("AgentOS"), agent=cell("Agent"))),
        label("span_kind", "Kind"),
        label("agentos", "AgentOS"),
        value(
            "Share",
            f"({happened()}) / on (agentos, agent, span_kind) group_left "
            f"{total('agentos_spans_total', 'agentos, agent, span_kind')}",
            "percentunit",
            decimals=1,
        ),
        value("Spans", happened(), "locale", decimals=0, bar=True, colors=steps((None, RED))),
        sort="Spans",
        empty="none seen",
        width=12,
        height=10,
    )


def _errors(settings: Settings) -> tuple[Panel, ...]:
    return sized(
        series(
            "Errors per minute, by type",
            "Failed spans a minute, by kind of span and type. One failure marks several kinds: do not add the lines.",
            Query(f"60 * {rate(FAILURES, 'span_kind, error_type')}", "{{span_kind}}: {{error_type}}", exemplar=True),
            empty="none seen",
            sort="Mean",
            calcs=("mean", "max"),
        ),
        series(
            "Failed share of spans, and what is usual",
            "Solid: share of failed spans of each kind over 5 minutes. Dashed: its median over a day that ended "
            f"{settings.error_spike_baseline_age} before, which the alert compares with. By AgentOS and kind; not "
            "filtered by root and agent.",
            Query("max by (span_kind) (agentos_kind:error_spans:ratio_rate5m{@})", "{{span_kind}}"),
            Query("max by (span_kind) (agentos_kind:error_spans:ratio_baseline1d{@})", "{{span_kind}}, usual"),
            unit="percentunit",
            empty="no spans",
            overrides=(*parts.SPAN_KINDS, parts.DASHED),
        ),
        height=9,
    )


def _tools(settings: Settings) -> tuple[Panel, ...]:
    return *_tool_calls(), *_tool_tables(settings)


def _tool_calls() -> tuple[Panel, ...]:
    return sized(
        series(
            "Tool calls per minute",
            "Calls a minute, by tool.",
            Query(f"60 * {rate(CALLS, 'tool')}", "{{tool}}"),
            empty="none seen",
            stack=True,
        ),
        series(
            "Failed tool calls per minute",
            "Calls with status ERROR, by tool and type. The marks are single calls: click one to see its trace.",
            Query(f"60 * {rate(ERRORS, 'tool, error_type')}", "{{tool}}: {{error_type}}", exemplar=True),
            empty="none seen",
            sort="Mean",
        ),
        series(
            "Duration of a tool call, p95",
            "By tool. The marks are single calls: click one to see its trace. Not filtered by root and agent.",
            Query(quantile("0.95", DURATION, "tool"), "{{tool}}", exemplar=True),
            unit="s",
            empty="no tool calls",
            sort="Mean",
        ),
        width=8,
        height=9,
    )


def _tool_tables(settings: Settings) -> tuple[Panel, ...]:
    by = "agentos, agent, tool"
    return (
        table(
            "Tools",
            "Over the shown range, by the agent that called.",
            label("agentos", "AgentOS"),
            label("agent", "Agent", link=link("Drill down", parts.AGENT, agentos=cell("AgentOS"), agent=cell("Agent"))),
            label("tool", "Tool"),
            value(
                "Failed",
                share(total(ERRORS, by), total(CALLS, by)),
                "percentunit",
                decimals=1,
                colors=parts.failing_tools(settings),
            ),
            value("Calls", total(CALLS, by), "locale", decimals=0, bar=True, colors=steps((None, BLUE))),
            sort="Calls",
            empty="no tool calls",
        ),
        table(
            "Tool errors by type",
            "Over the shown range. Tools mostly raise bare messages, whose type is `other`: texts never leave AgentOS.",
            label("agentos", "AgentOS"),
            label("agent", "Agent"),
            label("tool", "Tool"),
            label("error_type", "Error"),
            value(
                "Errors",
                f"{total(ERRORS, f'{by}, error_type')} > 0",
                "locale",
                decimals=0,
                bar=True,
                colors=steps((None, RED)),
            ),
            sort="Errors",
            empty="none seen",
        ),
    )
