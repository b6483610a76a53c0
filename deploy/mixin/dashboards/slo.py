"""SLO: how much of the error budget is left, and how fast it burns."""

from __future__ import annotations

from deploy.mixin.dashboards import parts
from deploy.mixin.dashboards.board import Board, Row, Variable
from deploy.mixin.dashboards.colors import GREEN, ORANGE, RED, YELLOW, steps
from deploy.mixin.dashboards.panels import Panel, Query, cell, label, link, series, sized, stat, table, value
from deploy.mixin.dashboards.parts import share, total
from deploy.mixin.promql import bucket, number
from deploy.mixin.settings import Settings

ERRORS = "agentos_root:run_errors:ratio_rate"
SLOW = "agentos_root:slow_runs:ratio_rate"
WINDOWS = ("5m", "30m", "1h", "6h", "3d")
DURATION = "agentos_run_duration_seconds"
LEFT = steps((None, RED), (0, ORANGE), (0.25, GREEN))


def board(settings: Settings) -> Board:
    """The board for promises."""
    success, fast = 1 - settings.run_success_target, 1 - settings.latency_target
    objective = number(settings.latency_objective_seconds)
    return Board(
        parts.SLO,
        "SLO",
        f"Two objectives for each root: {percent(settings.run_success_target)} of the runs end without error, and "
        f"{percent(settings.latency_target)} take no longer than {objective} s.",
        (parts.JOB, parts.AGENTOS, Variable("root", "Root", "agentos_runs_total{@}")),
        (
            Row("In the shown range, all chosen roots together", _now(settings)),
            Row("Each root", (_roots(settings),)),
            Row(
                f"Runs without error: {percent(settings.run_success_target)}",
                _burn("Error", ERRORS, round(success, 6), settings),
            ),
            Row(
                f"Runs within {objective} s: {percent(settings.latency_target)}",
                _burn("Latency", SLOW, round(fast, 6), settings),
            ),
            Row("Duration", _duration(settings)),
        ),
        period="now-24h",
    )


def percent(share_of_one: float) -> str:
    """0.995 as `99.5 %`."""
    return f"{number(round(100 * share_of_one, 6))} %"


def _now(settings: Settings) -> tuple[Panel, ...]:
    allowed, slow_allowed = round(1 - settings.run_success_target, 6), round(1 - settings.latency_target, 6)
    failed = share(total("agentos_run_errors_total"), total("agentos_runs_total"))
    within = bucket(settings.latency_objective_seconds)
    in_time = total(f"{DURATION}_bucket", only=within)
    slow = f"(1 - {in_time} / ({total(f'{DURATION}_count')} > 0))"
    return sized(
        stat(
            "Runs without error",
            f"Share of the runs of the shown range. Objective: {percent(settings.run_success_target)}.",
            f"1 - {failed}",
            unit="percentunit",
            empty="no runs",
            colors=steps((None, RED), (settings.run_success_target, GREEN)),
            decimals=3,
        ),
        stat(
            "Error budget left",
            "If the budget were for the shown range: 1 - failed share ÷ allowed share. Below 0 it is overspent.",
            f"1 - {failed} / {number(allowed)}",
            unit="percentunit",
            empty="no runs",
            colors=LEFT,
            decimals=1,
        ),
        stat(
            "Runs in time",
            f"Share of the runs of the shown range that took at most {number(settings.latency_objective_seconds)} s. "
            f"Objective: {percent(settings.latency_target)}.",
            f"1 - {slow}",
            unit="percentunit",
            empty="no runs",
            colors=steps((None, RED), (settings.latency_target, GREEN)),
            decimals=3,
        ),
        stat(
            "Latency budget left",
            "If the budget were for the shown range: 1 - slow share ÷ allowed share. Below 0 it is overspent.",
            f"1 - {slow} / {number(slow_allowed)}",
            unit="percentunit",
            empty="no runs",
            colors=LEFT,
            decimals=1,
        ),
        width=6,
    )


def _roots(settings: Settings) -> Panel:
    by = "agentos, root_kind, root"
    allowed, slow_allowed = (
        number(round(1 - settings.run_success_target, 6)),
        number(round(1 - settings.latency_target, 6)),
    )
    burn = steps((None, GREEN), (settings.burn_slow, YELLOW), (settings.burn_medium, ORANGE), (settings.burn_fast, RED))

    def rule(metric: str, window: str, limit: str) -> str:
        return f"max by ({by}) ({metric}{window}{{@}}) / {limit}"

    return table(
        "Error budgets",
        "Burn: how many times faster than allowed the budget goes; 1 uses up exactly the budget of 30 days in 30 "
        "days. Left: of a budget for the last 3 days. From the recording rules: without them this is empty.",
        label("agentos", "AgentOS"),
        label("root", "Root", link=link("Drill down", parts.AGENT, agentos=cell("AgentOS"), root=cell("Root"))),
        label("root_kind", "Kind"),
        value("Runs", total("agentos_runs_total", by), "locale", decimals=0),
        value("Errors: burn 1h", rule(ERRORS, "1h", allowed), "short", colors=burn, decimals=2),
        value("Errors: burn 6h", rule(ERRORS, "6h", allowed), "short", colors=burn, decimals=2),
        value("Errors: left of 3d", f"1 - {rule(ERRORS, '3d', allowed)}", "percentunit", colors=LEFT, decimals=1),
        value("Slow: burn 1h", rule(SLOW, "1h", slow_allowed), "short", colors=burn, decimals=2),
        value("Slow: burn 6h", rule(SLOW, "6h", slow_allowed), "short", colors=burn, decimals=2),
        value("Slow: left of 3d", f"1 - {rule(SLOW, '3d', slow_allowed)}", "percentunit", colors=LEFT, decimals=1),
        sort="Errors: left of 3d",
        descending=False,
        empty="no runs, or no recording rules",
        width=24,
        height=9,
    )


def _burn(name: str, metric: str, allowed: float, settings: Settings) -> tuple[Panel, ...]:
    lines = steps(
        (None, "transparent"), (settings.burn_slow, YELLOW), (settings.burn_medium, ORANGE), (settings.burn_fast, RED)
    )
    return (
        series(
            f"{name} budget: burn rate",
            "Of the chosen root that burns fastest. Dashed: the rates at which the alerts start: slow over 3d and "
            "6h, medium over 6h and 30m, fast over 1h and 5m; both windows must be above.",
            *(Query(f"max({metric}{window}{{@}}) / {number(allowed)}", window) for window in WINDOWS),
            empty="no runs, or no recording rules",
            limit_lines=lines,
            calcs=("lastNotNull", "max"),
        ),
        series(
            f"{name} budget: share of runs, by root",
            f"Over the hour before each moment. Dashed: what is allowed, {percent(allowed)}.",
            Query(f"max by (root) ({metric}1h{{@}})", "{{root}}"),
            unit="percentunit",
            empty="no runs, or no recording rules",
            limit_lines=steps((None, "transparent"), (allowed, RED)),
        ),
    )


def _duration(settings: Settings) -> tuple[Panel, ...]:
    def of(name: str) -> Panel:
        return series(
            f"Run duration, {name}",
            "Over the 5 minutes before each moment, by root; from the recording rules. Dashed: the objective.",
            Query(f"max by (root) (agentos_root:run_duration_seconds:{name}_rate5m{{@}})", "{{root}}"),
            unit="s",
            empty="no runs, or no recording rules",
            limit_lines=steps((None, "transparent"), (settings.latency_objective_seconds, RED)),
            sort="Mean",
            width=8,
        )

    return (of("p50"), of("p95"), of("p99"))
