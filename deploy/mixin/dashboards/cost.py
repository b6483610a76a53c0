"""Cost: what is spent, on what, by whom; what is not known; where it leads."""

from __future__ import annotations

from deploy.mixin.dashboards import parts
from deploy.mixin.dashboards.board import Board, Row, Variable
from deploy.mixin.dashboards.colors import BLUE, GREEN, ORANGE, RED, YELLOW, Json, shades, steps
from deploy.mixin.dashboards.panels import (
    Panel,
    Query,
    bars,
    cell,
    label,
    link,
    money,
    series,
    sized,
    stat,
    table,
    value,
)
from deploy.mixin.dashboards.parts import mean, rate, share, total
from deploy.mixin.settings import Settings

SPENT = "agentos_llm_cost_usd_total"
TOKENS = "agentos_llm_tokens_total"
UNPRICED = "agentos_llm_unpriced_tokens_total"
MODEL = "agentos, provider, model"
BUDGET = 'budget=~"$budget"'
SPLIT = 'token_class!=""'
WHOLE_COST = 'token_class=""'
SUCCEEDED = (
    f"({total('agentos_runs_total')} - ({total('agentos_run_errors_total')} or {total('agentos_runs_total')} * 0))"
)
"""Runs without error. Errors have no series before the first one: where runs were seen that is none, not unknown."""
ESTIMATED = parts.ESTIMATED
WHOLE = "Unpriced tokens and budgets are not told apart by root or agent: they are those of the whole AgentOS."


def board(settings: Settings) -> Board:
    """The board for whoever pays."""
    return Board(
        parts.COST,
        "Cost",
        "What model calls cost: by model, agent, root, user, token class, source of the price; and what is not known.",
        (
            parts.JOB,
            parts.AGENTOS,
            Variable("root", "Root", parts.SPANS),
            Variable("agent", "Agent", parts.SPANS),
            Variable("model", "Model", "agentos_llm_calls_total{@}"),
            Variable("budget", "Budget (panels of budgets only)", "agentos_budget_limit_usd"),
        ),
        (
            Row("Now", _now()),
            Row("Over time", _over_time()),
            Row("Who spends it", _who()),
            Row("By dimensions of your own", _dimensions()),
            Row("Token classes and cache", _classes()),
            Row("Beside the main model", _overhead()),
            Row("How exact this is", _sources()),
            Row("Budgets and forecast", _budgets(settings)),
            Row("Sessions", _sessions(), collapsed=True),
        ),
    )


SAVED = "agentos_llm_cache_savings_usd_total"
WHAT_IS_SAVED = (
    "What tokens read from prompt caches would have cost more as plain input, by the price of each call. Only of calls "
    "whose cached tokens are known: over AgentOS's HTTP API that takes `enrich_runs`. What it costs to write a cache "
    "is not taken off: it stands among the token classes."
)


def _now() -> tuple[Panel, ...]:
    return (
        money(
            "Spent",
            f"Cost of the model calls in the shown range. {ESTIMATED}",
            total(SPENT),
        ),
        money(
            "Spent in 24 hours",
            f"Cost of the model calls of the last 24 hours, whatever range is shown. {ESTIMATED}",
            total(SPENT, window="1d"),
        ),
        money(
            "A month at this rate",
            "What this calendar month would cost if all of it were like the shown range: its cost ÷ its length times "
            f"the days of the month. Too low where the exporter has run for less than the shown range. {ESTIMATED}",
            f"{total(SPENT)} / $__range_s * 86400 * scalar(days_in_month())",
        ),
        money(
            "Cost per successful run",
            "Everything spent on the runs of the shown range, failed ones too, ÷ the runs that ended without error. "
            "Too low on short ranges: a run's cost is known a minute or two after its end. By root; not filtered by "
            f"agent and model. {ESTIMATED}",
            f"{total('agentos_run_cost_usd_sum')} / ({SUCCEEDED} > 0)",
            empty="no run succeeded",
        ),
        stat(
            "Saved by caches",
            WHAT_IS_SAVED,
            total(SAVED),
            unit="currencyUSD",
            empty="unknown: no cache detail",
            color=GREEN,
        ),
        stat(
            "Unpriced tokens",
            "Tokens in the shown range for which no price is known: their cost is in no dollar shown here. "
            f"`agentos-exporter prices explain` says why, and a price file mends it. {WHOLE}",
            total(UNPRICED),
            unit="short",
            empty="none seen",
            colors=steps((None, GREEN), (1, ORANGE)),
        ),
    )


def _over_time() -> tuple[Panel, ...]:
    def by(name: str) -> Panel:
        return series(
            f"Cost per hour, by {name}",
            f"What an hour costs at the rate of each moment. {ESTIMATED}",
            Query(f"3600 * {rate(SPENT, name)}", f"{{{{{name}}}}}"),
            unit="currencyUSD",
            empty="nothing priced",
            stack=True,
            width=8,
            height=10,
        )

    return (by("model"), by("agent"), by("root"))


def _who() -> tuple[Panel, ...]:
    return _agents(), _roots(), *_models_and_users()


def _agents() -> Panel:
    agent = "agentos, agent"
    return table(
        "Agents",
        "Cost and use of models in the shown range by the agent (or team) that called them; without a name: by a "
        f"workflow itself. {ESTIMATED} Click one to drill down.",
        label("agentos", "AgentOS"),
        label("agent", "Agent", link=link("Drill down", parts.AGENT, agentos=cell("AgentOS"), agent=cell("Agent"))),
        value("LLM calls", f"{total('agentos_llm_calls_total', agent)} > 0", "locale", decimals=0),
        value("Tokens", total(TOKENS, agent), "short"),
        value("Cost a call", f"{total(SPENT, agent)} / ({total('agentos_llm_calls_total', agent)} > 0)", "currencyUSD"),
        value("Cost", total(SPENT, agent), "currencyUSD", bar=True, colors=steps((None, YELLOW))),
        sort="Cost",
        empty="no calls",
        width=12,
        height=10,
    )


def _roots() -> Panel:
    run = "agentos, root_kind, root"
    failed = f"({total('agentos_run_errors_total', run)} or {total('agentos_runs_total', run)} * 0)"
    succeeded = f"({total('agentos_runs_total', run)} - {failed})"
    return table(
        "Roots",
        "Runs in the shown range by what users called, members and nested agents included. The cost of a run is "
        "known a minute or two after its end: on short ranges `A successful run` is too low. Not filtered by "
        f"agent and model. {ESTIMATED}",
        label("agentos", "AgentOS"),
        label("root", "Root", link=link("Drill down", parts.AGENT, agentos=cell("AgentOS"), root=cell("Root"))),
        label("root_kind", "Kind"),
        value("Runs", total("agentos_runs_total", run), "locale", decimals=0),
        value("A run", mean("agentos_run_cost_usd", run), "currencyUSD"),
        value("A successful run", f"{total('agentos_run_cost_usd_sum', run)} / ({succeeded} > 0)", "currencyUSD"),
        value("Cost", total("agentos_run_cost_usd_sum", run), "currencyUSD", bar=True, colors=steps((None, YELLOW))),
        sort="Cost",
        empty="no runs",
        width=12,
        height=10,
    )


def _models_and_users() -> tuple[Panel, ...]:
    return sized(
        table(
            "Models",
            f"In the shown range. $/Mtok: cost ÷ tokens that have a price, over all classes. {ESTIMATED}",
            label("provider", "Provider"),
            label("model", "Model", link=link("Models and providers", parts.MODELS, "agent", model=cell("Model"))),
            value("LLM calls", total("agentos_llm_calls_total", "provider, model"), "locale", decimals=0),
            value("Tokens", total(TOKENS, "provider, model"), "short"),
            value(
                "$/Mtok",
                f"1e6 * {total(SPENT, 'provider, model')} / ({total(TOKENS, 'provider, model')} > 0)",
                "currencyUSD",
            ),
            value("Cost", total(SPENT, "provider, model"), "currencyUSD", bar=True, colors=steps((None, YELLOW))),
            sort="Cost",
            empty="no calls",
        ),
        table(
            "Users",
            "Only with `labels: {user: hashed}` (or `plain`) in the exporter's configuration; it is off by default. "
            "What is unpriced is left out of the cost. Not filtered by root, agent and model.",
            label("agentos", "AgentOS"),
            label("user", "User"),
            value("Tokens", total("agentos_user_tokens_total", "agentos, user"), "short"),
            value(
                "Cost",
                total("agentos_user_cost_usd_total", "agentos, user"),
                "currencyUSD",
                bar=True,
                colors=steps((None, YELLOW)),
            ),
            sort="Cost",
            empty="unknown: labels.user is off",
        ),
        height=10,
    )


def _dimensions() -> tuple[Panel, ...]:
    by = "agentos, dimension, value"
    where = "Only with `dimensions` in the exporter's configuration. Not filtered by root and agent."
    spent, runs = total("agentos_dimension_cost_usd_total", by), total("agentos_dimension_runs_total", by)
    return sized(
        table(
            "Tenants, versions and the like",
            "Runs, tokens and cost in the shown range by the values of your own dimensions; no value: unknown. "
            f"Never add up over dimensions: each has the whole. {where} Runs are not filtered by model either.",
            label("agentos", "AgentOS"),
            label("dimension", "Dimension"),
            label("value", "Value"),
            value("Runs", runs, "locale", decimals=0),
            value("Failed", share(total("agentos_dimension_run_errors_total", by), runs), "percentunit", decimals=1),
            value("Tokens", total("agentos_dimension_tokens_total", by), "short"),
            value("A run", f"{spent} / ({runs} > 0)", "currencyUSD"),
            value("Cost", spent, "currencyUSD", bar=True, colors=steps((None, YELLOW))),
            sort="Cost",
            empty="unknown: no dimensions",
            width=14,
        ),
        series(
            "Cost per hour, by value",
            f"{where} {ESTIMATED}",
            Query(f"3600 * {rate('agentos_dimension_cost_usd_total', 'dimension, value')}", "{{dimension}}: {{value}}"),
            unit="currencyUSD",
            empty="unknown: no dimensions",
            width=10,
        ),
        height=10,
    )


def _classes() -> tuple[Panel, ...]:
    return (
        series(
            "Cost per hour, by token class",
            f"`reported`: the span says its cost as a whole, without a split. {ESTIMATED}",
            Query(f"3600 * {rate(SPENT, 'token_class', SPLIT)}", "{{token_class}}"),
            Query(f"3600 * {rate(SPENT, only=WHOLE_COST)}", "reported"),
            unit="currencyUSD",
            empty="nothing priced",
            stack=True,
            overrides=parts.TOKEN_CLASSES,
        ),
        series(
            "Tokens per minute, by class",
            "Classes exclude each other: their sum is the total. Over AgentOS's HTTP API there are only input and "
            "output unless `enrich_runs` is on: what is absent is unknown, not zero.",
            Query(f"60 * {rate(TOKENS, 'token_class')}", "{{token_class}}"),
            empty="none reported",
            stack=True,
            overrides=parts.TOKEN_CLASSES,
        ),
        series(
            "Prompt tokens from the cache, last hour",
            "Share of the prompt's tokens that a cache held, by model, over the hour before each moment. A model "
            "without a line reports no cache detail. Not filtered by root and agent.",
            Query("max by (provider, model) (agentos_model:llm_cache_hit:ratio_rate1h{@})", "{{model}}"),
            unit="percentunit",
            empty="unknown: no cache detail",
            limits=(0, 1),
        ),
        series(
            "Saved by caches, per hour",
            WHAT_IS_SAVED,
            Query(f"3600 * {rate(SAVED, 'model')}", "{{model}}"),
            unit="currencyUSD",
            empty="unknown: no cache detail",
        ),
    )


def _overhead() -> tuple[Panel, ...]:
    where = "Only with `enrich_runs`. Not filtered by agent."
    return (
        series(
            "Cost per hour beside the main model, by role",
            f"What runs spend on memories, summaries, reasoning, parsing and the like; part of the cost above. {where}",
            Query(f"3600 * {rate('agentos_run_overhead_cost_usd_total', 'role')}", "{{role}}"),
            unit="currencyUSD",
            empty="unknown: needs enrich_runs",
            stack=True,
        ),
        series(
            "Tokens per minute beside the main model, by role",
            f"Tokens of the same. {where}",
            Query(f"60 * {rate('agentos_run_overhead_tokens_total', 'role')}", "{{role}}"),
            empty="unknown: needs enrich_runs",
            stack=True,
        ),
    )


def _sources() -> tuple[Panel, ...]:
    def of(source: str) -> str:
        return total(SPENT, MODEL, f'cost_source="{source}"')

    return (
        table(
            "Where prices come from",
            "Side by side, in the shown range: dollars the span itself reports, at list price, at your price file's, "
            "and estimated ones (cached tokens not known, or a gateway's own price); and tokens without any price. "
            "An empty cell: nothing of this kind was seen. Unpriced tokens are not filtered by root and agent.",
            label("agentos", "AgentOS"),
            label("provider", "Provider"),
            label("model", "Model"),
            value("Reported", of("reported"), "currencyUSD", colors=steps((None, "purple"))),
            value("Listed", of("listed"), "currencyUSD", colors=steps((None, GREEN))),
            value("Price file", of("custom"), "currencyUSD", colors=steps((None, BLUE))),
            value("Estimated", of("estimated"), "currencyUSD", colors=steps((None, ORANGE))),
            value("Unpriced tokens", total(UNPRICED, MODEL), "short", colors=steps((None, RED))),
            sort="Estimated",
            empty="nothing seen",
            height=9,
        ),
        series(
            "Cost per hour, by source of the price",
            "How much of the spending is known to the cent, and how much is estimated.",
            Query(f"3600 * {rate(SPENT, 'cost_source')}", "{{cost_source}}"),
            unit="currencyUSD",
            empty="nothing priced",
            stack=True,
            overrides=parts.COST_SOURCES,
            width=6,
            height=9,
        ),
        series(
            "Unpriced tokens per minute",
            f"Tokens for which no price is known, by model. {WHOLE}",
            Query(f"60 * {rate(UNPRICED, 'provider, model')}", "{{model}}"),
            empty="none seen",
            stack=True,
            color=shades(RED),
            width=6,
            height=9,
        ),
        series(
            "Part of vendors' bills that is counted",
            "Our cost ÷ the vendor's, of the last days that both tell whole, once a day (`reconcile`). Below 1: "
            "calls past AgentOS, prices that differ, searches and storage; `agentos-exporter reconcile` tells. Not "
            "filtered by root, agent and model. Without a name in front: all instances together.",
            Query(
                f"min by (agentos, vendor) (agentos_cost_capture_ratio{{{parts.budget_filter()}}})",
                "{{agentos}} {{vendor}}",
            ),
            unit="percentunit",
            empty="no bill is compared",
            width=24,
            height=7,
        ),
    )


def _budgets(settings: Settings) -> tuple[Panel, ...]:
    return *_spent(settings), *_pace()


def _spent(settings: Settings) -> tuple[Panel, ...]:
    full = steps((None, GREEN), (settings.budget_warning_ratio, ORANGE), (1, RED))
    return *_whole_budgets(full), *_budgets_of_values(full)


def _whole_budgets(full: Json) -> tuple[Panel, ...]:
    """Budgets as a whole; `full` are the colours of a spent share."""

    def of(metric: str) -> str:
        return parts.budget(metric, BUDGET)

    spent, limit = of("agentos_budget_spent_usd"), of("agentos_budget_limit_usd")
    reset, since = of("agentos_budget_reset_timestamp_seconds"), of("agentos_budget_covered_since_timestamp_seconds")
    projected = f"{spent} + {spent} / (time() - {since} > 0) * ({reset} - time())"
    slope = f"deriv(agentos_budget_spent_usd{{{parts.budget_filter(BUDGET)}}}[1h])"
    pace = parts.over(parts.BUDGET, f"clamp_min({slope}, 0)", "max")
    return (
        bars(
            "Budgets spent",
            "Spent share of each budget in its current period, from the exporter's own ledger: exact across restarts. "
            f"What is unpriced is left out. {WHOLE}",
            Query(f"sort_desc({spent} / {limit})", "{{budget}} ({{period}})", instant=True),
            unit="percentunit",
            empty="no budgets",
            colors=full,
            limits=(0, 1),
            width=6,
            height=6,
        ),
        table(
            "Budgets and where they lead",
            "Period end at average: spent so far plus the rest of the period at its average so far. At the last "
            "hour's pace: plus the rest at the slope of the last hour. Spending before `Known since` is not in it. "
            "Not filtered by root, agent and model.",
            label("agentos", "AgentOS"),
            label("budget", "Budget"),
            label("period", "Period"),
            value("Limit", limit, "currencyUSD"),
            value("Spent", spent, "currencyUSD"),
            value("Used", f"{spent} / {limit}", "percentunit", colors=full, decimals=1),
            value("At average", projected, "currencyUSD"),
            value("At last hour's pace", f"{spent} + {pace} * ({reset} - time())", "currencyUSD"),
            value("Forecast of limit", f"({projected}) / {limit}", "percentunit", colors=full, decimals=0),
            value("Resets", f"1000 * {reset}", "dateTimeFromNow"),
            value("Known since", f"1000 * {since}", "dateTimeFromNow"),
            sort="Forecast of limit",
            empty="no budgets",
            width=18,
            height=6,
        ),
    )


def _budgets_of_values(full: Json) -> tuple[Panel, ...]:
    """Budgets that each value of a dimension has."""
    spent = parts.over(
        f"{parts.BUDGET}, value", f"agentos_budget_value_spent_usd{{{parts.budget_filter(BUDGET)}}}", "max"
    )
    limit = parts.budget("agentos_budget_limit_usd", BUDGET)
    used = f"{spent} / on ({parts.BUDGET}) group_left () {limit}"
    return (
        table(
            "Budgets that each value has",
            "Budgets with `per`: what each tenant, user or the like has spent in the current period. Shown are the 20 "
            "that have spent most and all that are above 80 %. Not filtered by root, agent and model.",
            label("agentos", "AgentOS"),
            label("budget", "Budget"),
            label("period", "Period"),
            label("value", "Value"),
            value("Spent", spent, "currencyUSD"),
            value("Used", used, "percentunit", colors=full, decimals=1),
            sort="Used",
            empty="no such budgets",
            width=18,
            height=8,
        ),
        series(
            "Values with spending",
            "How many tenants, users or the like have spent anything in the current period, by budget with `per`. Not "
            "filtered by root, agent and model.",
            Query(parts.budget("agentos_budget_values", BUDGET), "{{budget}}"),
            empty="no such budgets",
            width=6,
            height=8,
        ),
    )


def _pace() -> tuple[Panel, ...]:
    return sized(
        series(
            "Spent in the last hour, and what is usual",
            "Solid: cost of the hour before each moment. Dashed: the same hour of other days (in the first day, of "
            "the day so far): what the cost alert compares with. By AgentOS; not filtered by root, agent and model.",
            Query("sum by (agentos) (agentos:llm_cost_usd:increase1h{@})", "{{agentos}}"),
            Query("sum by (agentos) (agentos:llm_cost_usd:baseline1h{@})", "{{agentos}}, usual"),
            unit="currencyUSD",
            empty="nothing priced",
            overrides=(parts.DASHED,),
        ),
        series(
            "Spent in the last 24 hours",
            "Cost of the day before each moment, by AgentOS. Not filtered by root, agent and model.",
            Query("sum by (agentos) (agentos:llm_cost_usd:increase1d{@})", "{{agentos}}"),
            unit="currencyUSD",
            empty="nothing priced",
            width=6,
        ),
        series(
            "Mean cost of a run, last hour",
            "Mean over the hour before each moment, by root. Not filtered by agent and model.",
            Query("sum by (root) (agentos_root:run_cost_usd:mean1h{@})", "{{root}}"),
            unit="currencyUSD",
            empty="nothing priced",
            width=6,
        ),
        height=8,
    )


def _sessions() -> tuple[Panel, ...]:
    return (
        series(
            "Cost of a session",
            "Observed when a session has been idle for 30 minutes: empty until then. What is unpriced is left out. Not "
            "filtered by root, agent and model.",
            *parts.quantiles("agentos_session_cost_usd"),
            unit="currencyUSD",
            empty="no session has ended",
            overrides=parts.QUANTILES,
            width=24,
        ),
    )
