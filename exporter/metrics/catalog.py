"""Every metric as data: name, kind, labels, help, buckets, storage unit, and what its reader must know.

This table drives the rendering, the reference page in the docs, the contract test and `agentos-exporter metrics`.
Values are stored as integers in `unit` (microseconds for seconds, 1 for counts), so sums are exact whatever their
order.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from exporter.core.error_class import ERROR_CLASSES
from exporter.core.model import MICROSECONDS
from exporter.pricing.money import USD, units


class Kind(enum.StrEnum):
    """Prometheus metric type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Life(enum.StrEnum):
    """How long a value lives."""

    DURABLE = "durable"
    """in the state file: survives restarts"""
    PROCESS = "process"
    """starts at 0 with the process"""
    NOW = "now"
    """a gauge that is computed again and again"""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family.

    `buckets` are upper bounds in storage units (`+Inf` is implied). `limited` are the places of labels whose values
    come from AgentOS's users and are therefore limited. `otel` is the OpenTelemetry GenAI counterpart, if any: a
    metric, the part of it with an attribute (in braces), or an attribute or event if there is no metric. `apart` are
    labels that separate series which must never be added up. `of_spans`: spans add to this counter or histogram, so a
    backfill can count its past.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    unit: int = 1
    buckets: tuple[int, ...] = ()
    life: Life = Life.DURABLE
    otel: str = ""
    notes: str = ""
    exemplars: bool = False
    apart: tuple[str, ...] = ()
    of_spans: bool = False

    @property
    def documentation(self) -> str:
        """HELP text: the meaning, and the OpenTelemetry GenAI counterpart if there is one."""
        return f"{self.help} (OpenTelemetry: {self.otel})" if self.otel else self.help

    @property
    def limited(self) -> tuple[int, ...]:
        """Positions in `labels` of those that the limits may fold into `other`."""
        return _limited(self.labels)

    @property
    def agentos(self) -> int | None:
        """Position of the label `agentos` in `labels`; None if there is none."""
        return _place("agentos", self.labels)

    @property
    def series(self) -> int:
        """Time series of one label set: of a histogram its buckets, +Inf among them, its sum and its count."""
        return len(self.buckets) + 3 if self.kind is Kind.HISTOGRAM else 1

    @property
    def droppable(self) -> tuple[str, ...]:
        """Labels that `labels.drop` may remove: those of durable series over which sums are right."""
        if self.life is not Life.DURABLE or self.agentos is None:
            return ()
        return tuple(label for label in self.labels if label != "agentos" and label not in self.apart)


@functools.cache
def _place(label: str, labels: tuple[str, ...]) -> int | None:
    return labels.index(label) if label in labels else None


@functools.cache
def _limited(labels: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(index for index, label in enumerate(labels) if label in LIMITED_LABELS)


LIMITED_LABELS: Final = frozenset(
    {
        *("root", "agent", "provider", "model", "from_model", "to_model", "tool", "error_type", "user"),
        *("schedule", "name", "component", "value"),
    }
)
GUARDRAILS: Final = (
    "prompt_injection",
    "pii_detected",
    "off_topic",
    "input_not_allowed",
    "output_not_allowed",
    "validation_failed",
    "other",
)
OTHER: Final = "other"

DURATION_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1800, 3600)
_D: Final = tuple(round(bound * MICROSECONDS) for bound in DURATION_SECONDS)
_T: Final = tuple(4**power for power in range(14))
COST_USD: Final = (
    "0.0001",
    "0.0003",
    "0.001",
    "0.003",
    "0.01",
    "0.03",
    "0.1",
    "0.25",
    "0.5",
    "1",
    "2.5",
    "5",
    "10",
    "30",
    "100",
)
_U: Final = tuple(units(Decimal(bound)) for bound in COST_USD)
SCORE: Final = 1000
"""Storage units in a score of 1."""
_S: Final = tuple(round(bound * SCORE) for bound in (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, *range(1, 11)))
_N: Final = (1, 2, 3, 5, 8, 13, 21, 34, 55, 100)
PER_SECOND: Final = 1000
"""Storage units in a token per second."""
_R: Final = tuple(PER_SECOND * rate for rate in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))
_P: Final = tuple(
    round(MICROSECONDS * bound)
    for bound in (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
)

_UNITS: Final = {_D: MICROSECONDS, _P: MICROSECONDS, _U: USD, _S: SCORE, _R: PER_SECOND}
_B: Final = ("agentos", "root", "agent")
_RUN: Final = ("agentos", "root_kind", "root")
_MODEL: Final = ("agentos", "provider", "model")
_CALL: Final = (*_B, "provider", "model")
_USER: Final = ("agentos", "user")
_DIMENSION: Final = ("agentos", "dimension", "value")
_DIMENSION_NOTES: Final = (
    "Only with `dimensions`. Counted once the run is settled. The sum over the values of one dimension is the whole; "
    "never sum over dimensions."
)
_ROLE: Final = ("agentos", "root", "model", "role")
_BUDGET: Final = ("agentos", "budget", "period")
_PENDING: Final = ("agentos", "approval_type", "source_type")
_SCHEDULE: Final = ("agentos", "schedule")
_EVAL: Final = ("agentos", "eval_type", "name", "component")


def _counter(name: str, labels: tuple[str, ...], text: str, **more: object) -> Metric:
    return Metric(name, Kind.COUNTER, labels, text, **more)  # type: ignore[arg-type]


def _gauge(name: str, labels: tuple[str, ...], text: str, **more: object) -> Metric:
    return Metric(name, Kind.GAUGE, labels, text, life=Life.NOW, **more)  # type: ignore[arg-type]


def _histogram(name: str, labels: tuple[str, ...], text: str, buckets: tuple[int, ...], **more: object) -> Metric:
    return Metric(name, Kind.HISTOGRAM, labels, text, unit=_UNITS.get(buckets, 1), buckets=buckets, **more)  # type: ignore[arg-type]


_OF_SPANS: Final = (
    # What users started
    _counter(
        "agentos_traces_total",
        ("agentos", "root_kind"),
        "Traces by kind of their outermost agent, team or workflow span; http: it has none; unknown: it stayed hidden.",
        notes="Counted when the trace settles (unchanged for one overlap) or expires, so it lags the span counters. "
        "One that shows only a POST, whose run may go on in the background, has `trace_horizon` to show it.",
    ),
    _counter(
        "agentos_runs_total",
        _RUN,
        "Finished runs that a user started: outermost agent, team and workflow spans.",
        otel="gen_ai.invoke_agent.duration (count)",
        notes="A cancelled run counts as a run without error; a trace can hold several runs (post-hooks). It counts "
        "requests: a run that paused for a person's confirmation and was continued is two traces with one run id, and "
        "counts twice, with duration, calls and cost of each part; agentos_runs_continued_total counts the later ones. "
        "A run that pauses is no error, and looks finished here; agentos_runs_paused has those that wait.",
    ),
    _counter(
        "agentos_runs_continued_total",
        _RUN,
        "Runs among those of agentos_runs_total that went on with a run which had paused.",
        notes="agentos_runs_total less this one counts each run once, however often it paused.",
    ),
    _gauge(
        "agentos_runs_paused",
        _RUN,
        "Runs that are paused until a person decides.",
        notes="From a database alone, and from agno 3 on: no route of the API lists the runs of all sessions. A run "
        "that is never continued stays paused. Shown as 0 once none of its root is paused any more.",
    ),
    _counter(
        "agentos_run_errors_total",
        (*_RUN, "error_type"),
        "Runs whose outermost span has status ERROR.",
        otel="gen_ai.invoke_agent.duration{error.type} (count)",
        exemplars=True,
        notes="A streaming run whose model fails ends OK in AgentOS: see agentos_llm_call_errors_total.",
    ),
    _histogram(
        "agentos_run_duration_seconds",
        _RUN,
        "Duration of runs.",
        _D,
        exemplars=True,
        otel="gen_ai.invoke_agent.duration",
    ),
    _histogram(
        "agentos_run_llm_calls",
        _RUN,
        "LLM calls of one run, observed once the run is settled; high values are runaway loops.",
        _N,
        otel="gen_ai.invoke_agent.inference_calls",
        notes="Includes the calls of team members and nested agents, but none that show up after the run settled.",
    ),
    _histogram(
        "agentos_run_cost_usd",
        _RUN,
        "Cost of one run in US dollars, observed once the run is settled.",
        _U,
        notes="Includes members and nested agents. Unpriced calls are left out; a run of them alone is not observed.",
    ),
    _counter(
        "agentos_guardrail_blocks_total",
        ("agentos", "root", "guardrail"),
        f"Runs of agents and teams that a guardrail blocked, by what it found: {', '.join(GUARDRAILS)}.",
        notes="Only with `enrich_runs`, since no span tells: those whose detail names what blocked them. That is each "
        "run that streams, each of a team, and each that one of agno's own guardrails blocked by its input. A run that "
        "does not stream and was blocked by a guardrail of your own, or by its output, looks like any failure. From "
        "a database: agno 3 and newer. guardrail is agno's check trigger; other: one that is not agno's. "
        "agentos_run_errors_total has runs that do not stream as well.",
    ),
    # Models
    _counter(
        "agentos_llm_calls_total",
        _CALL,
        "LLM calls; a vendor's span inside an LLM span is not counted again.",
        otel="gen_ai.client.inference.duration (count)",
        notes="Over the API, provider comes from the model class in the span name; '' where that is not one of agno's "
        "own. A database also has the provider that the span names.",
    ),
    _counter(
        "agentos_llm_call_errors_total",
        (*_CALL, "error_type"),
        "LLM calls with status ERROR.",
        otel="gen_ai.client.inference.duration{error.type} (count)",
        exemplars=True,
        notes="openinference-instrumentation-agno before 1.0.14 marks failed calls OK: they show as without usage.",
    ),
    _counter(
        "agentos_llm_call_errors_by_class_total",
        (*_CALL, "error_class"),
        f"LLM calls with status ERROR, by why they failed: {', '.join(ERROR_CLASSES)}.",
        exemplars=True,
        notes="The class is told from the exception type, the HTTP status and fixed phrases in the error text, which "
        "itself goes nowhere. rate_limit: also a quota or credit that is used up, and an overloaded Anthropic, as agno "
        "has it; guardrail: of a model gateway; other: nothing tells. The sum over error_class is that of "
        "agentos_llm_call_errors_total over error_type, for errors counted since this metric exists.",
    ),
    _counter(
        "agentos_llm_calls_without_usage_total",
        _CALL,
        "LLM calls without any token count: missing data, or a failure (which older instrumentors hide).",
        notes="Failed calls are included: subtract agentos_llm_call_errors_total to see missing data alone.",
    ),
    _histogram(
        "agentos_llm_call_duration_seconds",
        _MODEL,
        "Duration of LLM calls.",
        _D,
        otel="gen_ai.client.inference.duration",
        exemplars=True,
    ),
    _histogram(
        "agentos_llm_call_input_tokens",
        _MODEL,
        "Input tokens of one LLM call that reports them.",
        _T,
        otel="gen_ai.client.inference.operation.input_tokens",
    ),
    _histogram(
        "agentos_llm_call_output_tokens",
        _MODEL,
        "Output tokens of one LLM call that reports them.",
        _T,
        otel="gen_ai.client.inference.operation.output_tokens",
    ),
    _histogram(
        "agentos_llm_time_to_first_token_seconds",
        _MODEL,
        "Time from the start of a run to its first token.",
        _D,
        otel="gen_ai.client.inference.time_to_first_chunk",
        notes=(
            "Only with `enrich_runs`: the detail of a run has it, its spans do not. Observed once a run. Where it does "
            "not stream, its first token comes with its first whole answer."
        ),
    ),
    _histogram(
        "agentos_llm_output_tokens_per_second",
        _MODEL,
        "Output tokens of one LLM call for each second that the whole call took.",
        _R,
        notes="Calls that failed, or report no output tokens, are left out.",
    ),
    _histogram(
        "agentos_llm_time_per_output_token_seconds",
        _MODEL,
        "Time per output token after the first one, of a call whose answer came in parts.",
        _P,
        notes="Only with `enrich_runs`, and of the call that a run's first token came from.",
    ),
    _counter(
        "agentos_llm_retries_total",
        _CALL,
        "LLM calls that failed and were followed by another attempt with the same model.",
        notes="Told from the order of the calls once the trace is settled. Nothing is said where calls of one model "
        "overlap.",
    ),
    _counter(
        "agentos_llm_fallbacks_total",
        (*_B, "from_model", "to_model"),
        "LLM calls that failed and were followed by a fallback model.",
        notes="Told from the order of the calls once the trace is settled: the first call of a fallback model comes "
        "right after a failed one. A model for memories looks the same where it is first called at that very moment.",
    ),
    _counter(
        "agentos_llm_wasted_seconds_total",
        _CALL,
        "Time that went into LLM calls which failed.",
        unit=MICROSECONDS,
    ),
    _counter(
        "agentos_llm_wasted_cost_usd_total",
        _CALL,
        "Cost of LLM calls that failed, in US dollars; part of agentos_llm_cost_usd_total.",
        unit=USD,
        notes="A call that failed mostly reports no tokens: then its cost is not known, and there is no series.",
    ),
    _counter(
        "agentos_llm_tokens_total",
        (*_CALL, "token_class"),
        "Tokens by exclusive class; the sum over token_class is the total.",
        otel="gen_ai.client.inference.usage.*",
        notes=(
            "AgentOS's HTTP API knows input and output only: cache_read, cache_write and reasoning are absent, not 0, "
            "unless `enrich_runs` finds them in the detail of the run: tokens and cost wait for it, 2 minutes at most. "
            "For Anthropic, AWS Bedrock, Azure AI Foundry and Vertex AI its input leaves out cached tokens."
        ),
    ),
    _counter(
        "agentos_llm_cost_usd_total",
        (*_CALL, "token_class", "cost_source"),
        "Cost of LLM calls in US dollars. cost_source: reported, listed, estimated, custom.",
        unit=USD,
        notes=(
            "The price is that of the moment when the call began. reported: by the span itself, as a total with "
            "token_class ''. listed: genai-prices. custom: the price file. estimated: cache detail is not known (over "
            "the HTTP API an upper bound, for Anthropic, AWS Bedrock, Azure AI Foundry and Vertex AI a lower one), "
            "a gateway's price is not, or the model has a price for audio or images, whose tokens count as text (a "
            "lower bound). Gemini's thinking tokens are in no span: its cost is a lower bound, unless `enrich_runs` "
            "finds them."
        ),
    ),
    _counter(
        "agentos_llm_cache_savings_usd_total",
        _CALL,
        "What tokens read from a cache would have cost more as plain input, in US dollars.",
        unit=USD,
        notes="By the price of each call. What it costs to write a cache stands in agentos_llm_cost_usd_total. Absent "
        "where cached tokens are not known or the cost is that which the call itself reports.",
    ),
    _counter(
        "agentos_llm_unpriced_tokens_total",
        (*_MODEL, "token_class"),
        "Tokens for which no price is known: their cost is missing from agentos_llm_cost_usd_total.",
        notes="`agentos-exporter prices explain` says why, and a price file mends it.",
    ),
    _gauge(
        "agentos_cost_capture_ratio",
        ("agentos", "vendor"),
        "Our cost over the vendor's, of the last days that both tell whole; agentos is '' for all of them together.",
        notes="Only with `reconcile`. Compared once a day with the vendor's cost export. Absent while it is not known: "
        "no export, one that cannot be read, or no day of it that the daily sums of the state have whole. "
        "`agentos-exporter reconcile` says why it is not 1.",
    ),
    # Tools
    _counter("agentos_tool_calls_total", (*_B, "tool"), "Tool calls.", otel="gen_ai.execute_tool.duration (count)"),
    _counter(
        "agentos_tool_call_errors_total",
        (*_B, "tool", "error_type"),
        "Tool calls with status ERROR.",
        otel="gen_ai.execute_tool.duration{error.type} (count)",
        exemplars=True,
        notes="openinference-instrumentation-agno 0.1.x writes no span for a failed tool.",
    ),
    _histogram(
        "agentos_tool_call_duration_seconds",
        ("agentos", "tool"),
        "Duration of tool calls.",
        _D,
        otel="gen_ai.execute_tool.duration",
        exemplars=True,
    ),
    # Spans
    _counter(
        "agentos_spans_total",
        (*_B, "span_kind"),
        "Spans by kind: agent, team, workflow, llm, tool, other. HTTP spans are not counted.",
    ),
    _counter(
        "agentos_error_spans_total",
        (*_B, "span_kind", "error_type"),
        "Spans with status ERROR. One failure marks several spans: never sum over span_kind.",
        apart=("span_kind",),
        otel="attribute error.type",
        exemplars=True,
    ),
    # Beside the main model
    _counter(
        "agentos_run_overhead_tokens_total",
        _ROLE,
        "Tokens that a run spent on models beside its main one, by role: output, parser, memory, reasoning, "
        "session_summary, learning, compression, compaction, followup, other.",
        notes="Only with `enrich_runs`, from agno 2.5 on. Part of agentos_llm_tokens_total. Each run by itself: "
        "members and nested agents have roles of their own.",
    ),
    _counter(
        "agentos_run_overhead_cost_usd_total",
        _ROLE,
        "Cost of models beside the main one of a run, in US dollars, by role.",
        unit=USD,
        notes="Only with `enrich_runs`, from agno 2.5 on. Part of agentos_llm_cost_usd_total. The calls of one role "
        "are priced as one, so a model whose price depends on the length of the prompt may show more here.",
    ),
    # Sessions
    _gauge(
        "agentos_sessions",
        ("agentos",),
        "Sessions that AgentOS reports in its session stats.",
        notes="Absent where AgentOS stores no session ids on traces (HTTP root spans). "
        "Read from a database: the rows of its session table.",
    ),
    _gauge(
        "agentos_session_stats_sessions",
        ("agentos", "window"),
        "Sessions with traces created in the window, as the session stats report them.",
        notes="A cross-check of the span counts. Absent where traces have no session ids (HTTP root spans).",
    ),
    _gauge(
        "agentos_session_stats_traces",
        ("agentos", "window"),
        "Traces of the sessions with traces created in the window, as the session stats report them.",
        notes="A cross-check of the span counts. Absent where traces have no session ids (HTTP root spans).",
    ),
    _gauge(
        "agentos_active_sessions",
        ("agentos", "window"),
        "Distinct sessions seen in spans that ended in the window.",
        otel="attribute gen_ai.conversation.id",
        notes="Absent while the last successful poll is older than 5 minutes.",
    ),
    _gauge(
        "agentos_active_users",
        ("agentos", "window"),
        "Distinct users seen in spans that ended in the window.",
        otel="attribute user.id",
        notes="Absent while the last successful poll is older than 5 minutes.",
    ),
    _histogram(
        "agentos_session_runs",
        ("agentos",),
        "Runs of one session, observed when it has been idle for 30 minutes.",
        _N,
        notes="A session that resumes observes its new part only.",
    ),
    _histogram(
        "agentos_session_duration_seconds",
        ("agentos",),
        "Time from the first start to the last end of a session's runs, observed when it has been idle for 30 minutes.",
        _D,
        notes="A session that resumes observes its new part only.",
    ),
    _histogram(
        "agentos_session_cost_usd",
        ("agentos",),
        "Cost of one session in US dollars, observed when it has been idle for 30 minutes.",
        _U,
        notes="A session that resumes observes its new part only. What is unpriced is left out.",
    ),
    # Users
    _counter(
        "agentos_user_tokens_total",
        _USER,
        "Tokens of LLM calls by user: all token classes together.",
        notes=(
            "Only with `labels: {user: hashed}` or `plain`. The user is that of the nearest agent or team with one at "
            "or above the call, else the first that its run names; '' where nothing does."
        ),
    ),
    _counter(
        "agentos_user_cost_usd_total",
        _USER,
        "Cost of LLM calls in US dollars by user.",
        unit=USD,
        notes="Only with `labels: {user: hashed}` or `plain`. What is unpriced is left out.",
    ),
    # Dimensions
    _counter(
        "agentos_dimension_runs_total",
        _DIMENSION,
        "Runs that a user started, by the values of your own dimensions; value is '' where it is not known.",
        notes=_DIMENSION_NOTES,
        apart=("dimension",),
    ),
    _counter(
        "agentos_dimension_run_errors_total",
        _DIMENSION,
        "Of these, runs whose outermost span has status ERROR.",
        notes=_DIMENSION_NOTES,
        apart=("dimension",),
    ),
    _counter(
        "agentos_dimension_tokens_total",
        (*_DIMENSION, "model"),
        "Tokens of LLM calls, all token classes together, by the values of your own dimensions.",
        notes=_DIMENSION_NOTES,
        apart=("dimension",),
    ),
    _counter(
        "agentos_dimension_cost_usd_total",
        (*_DIMENSION, "model"),
        "Cost of LLM calls in US dollars by the values of your own dimensions.",
        unit=USD,
        notes=f"{_DIMENSION_NOTES} What is unpriced is left out.",
        apart=("dimension",),
    ),
)
"""Counters and histograms of spans, and gauges that belong to them"""

_BESIDE_SPANS: Final = (
    # Budgets
    _gauge(
        "agentos_budget_limit_usd",
        _BUDGET,
        "What may be spent in a period of the budget, in US dollars.",
        unit=USD,
        notes="agentos is '' for a budget that is not for one AgentOS.",
    ),
    _gauge(
        "agentos_budget_spent_usd",
        _BUDGET,
        "What was spent in the current period of the budget, in US dollars.",
        unit=USD,
        notes=(
            "An exact ledger in the state file, dated by when a call began: what is counted late goes to the period "
            "it belongs to. What is unpriced is left out. Absent for budgets with `per`."
        ),
    ),
    _gauge(
        "agentos_budget_reset_timestamp_seconds",
        _BUDGET,
        "When the current period of the budget ends.",
        unit=MICROSECONDS,
    ),
    _gauge(
        "agentos_budget_covered_since_timestamp_seconds",
        _BUDGET,
        "Spending in the current period of the budget before this moment is not known.",
        unit=MICROSECONDS,
        notes="The start of the period, unless the budget or its AgentOS was configured later.",
    ),
    _gauge(
        "agentos_budget_value_spent_usd",
        (*_BUDGET, "value"),
        "What a value of a dimension has spent in the current period of a budget that each value has, in US dollars.",
        unit=USD,
        notes="Only of budgets with `per`: of the 20 values that have spent most, and of all that have spent 80 % of "
        "agentos_budget_limit_usd, up to 500. Charged once the run is settled, dated by when a call began.",
    ),
    _gauge(
        "agentos_budget_values",
        _BUDGET,
        "Values of a dimension that have spent anything in the current period of a budget that each value has.",
    ),
    # AgentOS itself
    _gauge(
        "agentos_info", ("agentos", "os_id", "version"), "The AgentOS; version is agno's, '' where it does not say."
    ),
    _gauge(
        "agentos_component_info",
        ("agentos", "kind", "id", "name", "agent", "model", "provider"),
        "Agents, teams and workflows of the AgentOS; agent is the name as spans spell it: join on it.",
        otel="attributes gen_ai.agent.id, gen_ai.agent.name",
    ),
    _gauge("agentos_up", ("agentos",), "1 if the last poll reached AgentOS and was believed, else 0."),
    # Approvals, schedules and the like
    _gauge(
        "agentos_surface_up",
        ("agentos", "surface"),
        "1 if a part of AgentOS beside its traces could be read, 0 if it refuses or fails. "
        "surface: approvals, schedules, queue, evals, knowledge, memory, runs.",
        notes="Absent where AgentOS has no such part. 0 for a token without the scope; the log names it.",
    ),
    _gauge(
        "agentos_approvals_pending",
        _PENDING,
        "Approvals that wait for a person.",
        notes="Beyond 1000 of them, the older ones count under `other`.",
    ),
    _gauge(
        "agentos_approvals_oldest_pending_timestamp_seconds",
        _PENDING,
        "When the oldest approval that waits was asked for.",
        unit=MICROSECONDS,
        notes="Absent where none waits.",
    ),
    _counter(
        "agentos_approvals_resolved_total",
        ("agentos", "approval_type", "resolution"),
        "Approvals that wait no more, by resolution: approved, rejected, expired, cancelled, other.",
    ),
    _histogram(
        "agentos_approval_wait_seconds",
        ("agentos", "approval_type"),
        "Time from when an approval was asked for until it was resolved.",
        _D,
        notes="Where AgentOS has both times.",
    ),
    _counter(
        "agentos_schedule_runs_total",
        (*_SCHEDULE, "status"),
        "Runs of schedules that ended, each attempt by itself, by status: success, failed, paused, cancelled, other.",
        notes="AgentOS keeps no row of a run that it missed: agentos_schedule_next_run_timestamp_seconds then lies in "
        "the past.",
    ),
    _gauge(
        "agentos_schedule_last_run_timestamp_seconds",
        _SCHEDULE,
        "When the schedule last began a run.",
        unit=MICROSECONDS,
        notes="Absent before its first run.",
    ),
    _gauge(
        "agentos_schedule_next_run_timestamp_seconds",
        _SCHEDULE,
        "When the schedule is to run next.",
        unit=MICROSECONDS,
        notes="Absent while it is disabled. A time in the past: AgentOS has missed it, or the run is under way.",
    ),
    _gauge("agentos_schedule_enabled", _SCHEDULE, "1 if the schedule is enabled, else 0."),
    _gauge(
        "agentos_queue_jobs",
        ("agentos", "status"),
        "Jobs in the queue of AgentOS by status: queued, running, completed, failed, cancelled, paused.",
        notes="AgentOS deletes what has ended after a day, or after its retention.",
    ),
    _gauge(
        "agentos_queue_oldest_job_timestamp_seconds",
        ("agentos",),
        "When the oldest job that is queued was accepted.",
        unit=MICROSECONDS,
        notes="Absent where none is queued.",
    ),
    _counter(
        "agentos_queue_jobs_finished_total",
        ("agentos", "component", "status"),
        "Jobs that ended, each attempt by itself, by the id of their agent, team or workflow and by status: "
        "completed, failed, cancelled.",
    ),
    _counter(
        "agentos_eval_runs_total",
        _EVAL,
        "Runs of evaluations, by the name of the evaluation.",
        otel="event gen_ai.evaluation.result (count)",
    ),
    _histogram(
        "agentos_eval_score",
        _EVAL,
        "Score of an evaluation run: accuracy 0 to 10, agent_as_judge and reliability 0 to 1.",
        _S,
        apart=("eval_type",),
        otel="attribute gen_ai.evaluation.score.value",
        notes="accuracy: the average score. agent_as_judge: the part that passed. reliability: 1 passed, 0 failed. "
        "performance has no score.",
    ),
    _gauge(
        "agentos_knowledge_contents",
        ("agentos", "status"),
        "Contents of knowledge bases by status: processing, completed, partial, failed, other.",
        notes="partial: some chunks cannot be found. Over the API, more than 1000 are counted every 10 minutes; in a "
        "database as often as that takes no more than a 500th of its time.",
    ),
    _gauge("agentos_memories", ("agentos",), "Memories of users that AgentOS holds."),
    _gauge("agentos_memory_users", ("agentos",), "Users of whom AgentOS holds memories."),
    # The exporter itself
    _gauge("agentos_exporter_build_info", ("version", "revision", "python"), "The running exporter."),
    _gauge(
        "agentos_exporter_state_durable",
        (),
        "1 if totals live in a state file, 0 with `state: memory`: counters then start at 0 with the process.",
    ),
    _gauge(
        "agentos_exporter_leader",
        ("agentos",),
        "1 on the replica that reads this AgentOS, 0 on those that follow.",
        notes="Absent unless the state is in PostgreSQL.",
    ),
    _counter(
        "agentos_exporter_polls_total",
        ("agentos", "outcome"),
        "Polls by outcome: "
        "ok, unreachable, timeout, unauthorized, server_error, bad_answer, silent_empty, state_error.",
        life=Life.PROCESS,
    ),
    _histogram("agentos_exporter_poll_duration_seconds", ("agentos",), "Duration of polls.", _D, life=Life.PROCESS),
    _gauge(
        "agentos_exporter_last_success_timestamp_seconds",
        ("agentos",),
        "When the last successful poll ended.",
        unit=MICROSECONDS,
    ),
    _gauge(
        "agentos_exporter_watermark_timestamp_seconds",
        ("agentos",),
        "Everything that ended before this moment, less the overlap, was read; lag = time() - watermark.",
        unit=MICROSECONDS,
        notes="Absent until a first trace was seen.",
    ),
    _histogram(
        "agentos_exporter_span_ingest_delay_seconds",
        ("agentos",),
        "Time from the end of a span until it was counted.",
        _D,
    ),
    _gauge("agentos_exporter_open_traces", ("agentos",), "Traces with spans that are still hidden."),
    _counter(
        "agentos_exporter_hidden_spans_total",
        ("agentos",),
        "Spans that AgentOS reported and never showed until their trace expired or was deleted.",
        notes="A trace that reports no spans at all adds nothing here; it counts in agentos_traces_total as unknown.",
    ),
    _counter(
        "agentos_exporter_orphan_spans_total",
        ("agentos",),
        "Spans that count though an ancestor of theirs never came: its process was killed, or it is stored elsewhere.",
        notes="Read from a database alone: the API does not show such spans. They are part of all other span metrics.",
    ),
    _counter(
        "agentos_exporter_ignored_traces_total",
        ("agentos", "reason"),
        "Traces not counted: own (our own requests), too_old (older than the ledger remembers, or dated "
        "over a day before they were written), malformed, "
        "unreadable (AgentOS answers them with an error).",
    ),
    _counter(
        "agentos_exporter_ignored_values_total",
        ("agentos", "field"),
        "Values of spans that are no plausible numbers and count as not reported: token counts that are no whole "
        "number from 0 to 10^9, costs of a call that are none from 0 to 10^6 USD.",
        notes="field: input_tokens, output_tokens, cache_read, cache_write, reasoning, total, cost.",
    ),
    _counter(
        "agentos_exporter_ignored_rows_total",
        ("agentos", "surface", "reason"),
        "Rows that were seen while they waited, and whose end is unknown: gone (AgentOS deleted them before it was "
        "read), stuck (runs of schedules that did not end within a day).",
    ),
    _counter(
        "agentos_exporter_source_resets_total",
        ("agentos",),
        "The source lost what it had: traces deleted, or the database replaced.",
    ),
    _gauge(
        "agentos_exporter_catching_up",
        ("agentos",),
        "1 while a backlog is read: rates and costs then belong to the past.",
        notes="A backlog is what does not fit into one reading, or traces that ended over 10 minutes before they were "
        "first read, as after an outage. It stays 1 for `zero_hold` longer, so that Prometheus sees it.",
    ),
    _counter(
        "agentos_exporter_api_requests_total",
        ("agentos", "endpoint", "code"),
        "Requests to AgentOS by endpoint and status code; code is '' where no answer came.",
        life=Life.PROCESS,
        otel="http.client.request.duration (count)",
    ),
    _counter(
        "agentos_exporter_api_response_bytes_total",
        ("agentos", "endpoint", "code"),
        "Bytes of AgentOS's answers.",
        life=Life.PROCESS,
        otel="http.client.response.body.size (sum)",
    ),
    _gauge(
        "agentos_exporter_price_data_timestamp_seconds",
        (),
        "When the price data was made.",
        unit=MICROSECONDS,
    ),
    _gauge(
        "agentos_exporter_price_file_last_reload_successful",
        (),
        "1 if the price file was taken over when it was last read, 0 if it was refused and the one before it holds.",
        notes="Absent without a price file.",
    ),
    _gauge(
        "agentos_exporter_config_last_reload_successful",
        (),
        "1 if the configuration was taken over when it was last read, 0 if it was refused and the one before it holds.",
    ),
    _gauge(
        "agentos_exporter_config_last_reload_success_timestamp_seconds",
        (),
        "When the configuration was last taken over.",
        unit=MICROSECONDS,
    ),
    _gauge(
        "agentos_exporter_discovery_last_refresh_successful",
        ("mechanism",),
        "1 if all lists of instances could be read when they last were, 0 if what they said before holds.",
        notes="Absent without `agentos_file_sd` (mechanism `file`) or `agentos_http_sd` (`http`).",
    ),
    _gauge(
        "agentos_exporter_web_config_last_reload_successful",
        (),
        "1 if the file of `--web.config.file`, as it is now, is in force, 0 if it was refused and what was read before "
        "holds.",
        notes="Absent without such a file.",
    ),
    _counter(
        "agentos_exporter_push_total",
        ("target", "outcome"),
        "Pushes to a target by outcome: "
        "ok, partial, unreachable, timeout, unauthorized, throttled, refused, server_error, bug.",
        life=Life.PROCESS,
        notes="Absent without `push`. refused: any other answer than 401, 403 and 429 that is no success and no error "
        "of the server. partial: taken, but for some points.",
    ),
    _gauge(
        "agentos_exporter_push_lag_seconds",
        ("target",),
        "How long ago the newest snapshot that a target took was published.",
        unit=MICROSECONDS,
        notes="Absent until the target took a first one.",
    ),
    _gauge("agentos_exporter_series", ("metric",), "Series of a metric, histograms counted once per label set."),
    _counter(
        "agentos_exporter_series_limited_total",
        ("metric", "label"),
        "Increments that the limits folded into `other`; label is '' where the limit of the metric as a whole did.",
        notes="With replicas it starts at 0 with the process.",
    ),
    _counter(
        "agentos_exporter_label_values_shortened_total",
        ("metric", "label"),
        "Increments under a label value that was shortened, as it is longer than `limits.label_value_length`.",
        notes=(
            "The end of such a value is … and 8 hex digits of a digest: values that differ only there stay two. "
            "With replicas it starts at 0 with the process."
        ),
    ),
)

_ALL: Final = (
    *(replace(metric, of_spans=metric.kind is not Kind.GAUGE) for metric in _OF_SPANS),
    *_BESIDE_SPANS,
)

METRICS: Final = {metric.name: metric for metric in _ALL}
"""The catalog, in the order of the reference page."""

OUTCOMES: Final = (
    "ok",
    "unreachable",
    "timeout",
    "unauthorized",
    "server_error",
    "bad_answer",
    "silent_empty",
    "state_error",
)
PUSH_OUTCOMES: Final = (
    *("ok", "partial", "unreachable", "timeout", "unauthorized", "throttled", "refused", "server_error", "bug"),
)
VALUE_FIELDS: Final = ("input_tokens", "output_tokens", "cache_read", "cache_write", "reasoning", "total", "cost")
IGNORED_REASONS: Final = ("own", "too_old", "malformed", "unreadable")
ROW_REASONS: Final = ("gone", "stuck")
ROOT_KINDS: Final = ("agent", "team", "workflow", "http", "unknown")
DAILY: Final = (
    "agentos_runs_total",
    "agentos_run_errors_total",
    "agentos_llm_calls_total",
    "agentos_llm_call_errors_total",
    "agentos_llm_calls_without_usage_total",
    "agentos_llm_tokens_total",
    "agentos_llm_unpriced_tokens_total",
    "agentos_llm_cost_usd_total",
    "agentos_llm_cache_savings_usd_total",
    "agentos_tool_calls_total",
    "agentos_user_cost_usd_total",
    "agentos_user_tokens_total",
    "agentos_dimension_cost_usd_total",
    "agentos_dimension_tokens_total",
    "agentos_dimension_runs_total",
    "agentos_dimension_run_errors_total",
)
"""Counters of which the state also has the sum of each day in UTC: that on which a call or run began."""
WINDOWS: Final = {"5m": 300, "1h": 3600, "24h": 86400}
"""Windows of the activity gauges, in seconds."""
