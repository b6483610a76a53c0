"""What one transaction adds to the totals of one AgentOS. Pure arithmetic on integers.

Calls with the same labels are added up in a tally, which becomes increments of counters only when these are read:
finding the eight or so series of a call takes longer than adding to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from exporter.core.model import MICROSECONDS, SpanKind
from exporter.core.times import day_of
from exporter.metrics.catalog import PER_SECOND
from exporter.metrics.increments import HistogramDelta, Increments, Key, Labels
from exporter.pricing.tokens import TOKEN_CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.core.model import Span
    from exporter.counting.budgets import Allowance, Charge
    from exporter.counting.waiting import WaitingCall
    from exporter.pricing.tokens import Classes

SESSION: Final = "session"
USER: Final = "user"
_LLM: Final = str(SpanKind.LLM)
_TOOL: Final = str(SpanKind.TOOL)


@dataclass(slots=True)
class SessionPart:
    """The activity of a session since it was last observed.

    `first` start and `last` end in microseconds, number of `runs`, `cost` in 10**-18 USD.
    """

    first: int
    last: int
    runs: int = 0
    cost: int = 0

    def join(self, other: SessionPart) -> None:
        """Add another part to this one."""
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)
        self.runs += other.runs
        self.cost += other.cost


class CallTally:
    """LLM calls of one `day` (see `day_of`) with the same `labels`: agentos, root, agent, provider, model."""

    __slots__ = (
        *("_costs", "_day", "_delta", "_histograms", "_model", "calls", "failed", "labels", "savings", "tokens"),
        *("unpriced", "wasted_cost", "wasted_time", "without_usage"),
    )

    def __init__(self, delta: Delta, labels: Labels, day: int) -> None:
        """Begin with no calls.

        Args:
            delta: Takes the histograms at once, the counters with `add_to`.
            labels: agentos, root, agent, provider and model.
            day: The day on which the calls began, see `day_of`.

        """
        self._delta = delta
        self._day = day
        self.labels = labels
        self._model = (labels[0], *labels[3:])
        self._histograms: dict[str, HistogramDelta] = {}
        self.calls = 0
        self.without_usage = 0
        """calls without token counts"""
        self.tokens: dict[str, int] = {}
        """all tokens, by class"""
        self.unpriced: dict[str, int] = {}
        """tokens for which no price is known, by class"""
        self._costs: dict[str, dict[str, int]] = {}
        """by source of the price, then by token class: money, in 10**-18 USD"""
        self.failed = 0
        self.wasted_time = 0
        """microseconds that failed calls took"""
        self.wasted_cost: int | None = None
        """cost of failed calls, in 10**-18 USD; None if it is unknown of all of them"""
        self.savings: int | None = None
        """what cached tokens would have cost more as input, in 10**-18 USD; None if unknown"""

    def count(self, span: Span, trace_id: str) -> None:
        """Count a call, but for its tokens and cost."""
        self.calls += 1
        self._histogram("agentos_llm_call_duration_seconds").time(span.duration, trace_id, span.end)
        usage = span.usage
        prompt, completion = usage.prompt, usage.completion
        if prompt is not None:
            self._histogram("agentos_llm_call_input_tokens").observe(prompt)
        elif completion is None:
            self.without_usage += 1
        if completion is not None:
            self._histogram("agentos_llm_call_output_tokens").observe(completion)
        if span.error_type is not None:
            self.failed += 1
            self.wasted_time += span.duration
        elif completion and span.duration:
            rate = completion * PER_SECOND * MICROSECONDS // span.duration
            self._histogram("agentos_llm_output_tokens_per_second").observe(rate)

    def add_tokens(self, classes: Classes) -> None:
        """Add tokens."""
        _sum_up(self.tokens, classes)

    def add_unpriced(self, classes: Classes) -> None:
        """Add tokens for which no price is known."""
        _sum_up(self.unpriced, classes)

    def add_wasted_cost(self, cost: int) -> None:
        """Add the cost of a failed call."""
        self.wasted_cost = cost + (self.wasted_cost or 0)

    def add_savings(self, saved: int) -> None:
        """Add what cached tokens would have cost more as input."""
        self.savings = saved + (self.savings or 0)

    def add_cost(self, classes: Classes, usd: Mapping[str, int], source: str) -> None:
        """Add money.

        Args:
            classes: The tokens that are priced; a class that costs nothing shows as 0.
            usd: Money by token class, in 10**-18 USD.
            source: Source of the price, a value of the label `cost_source`.

        """
        costs = self._costs.get(source)
        if costs is None:
            costs = self._costs[source] = {}
        for token_class, tokens in zip(TOKEN_CLASSES, classes, strict=True):
            if tokens is not None and token_class not in costs:
                costs[token_class] = 0
        for token_class, amount in usd.items():
            costs[token_class] = costs.get(token_class, 0) + amount

    def _histogram(self, metric: str) -> HistogramDelta:
        histogram = self._histograms.get(metric)
        if histogram is None:
            histogram = self._histograms[metric] = self._delta.histogram(metric, self._model)
        return histogram

    def add_to(self, delta: Delta) -> None:
        """Add all this to the counters."""
        labels, add, day, add_on = self.labels, delta.add, self._day, delta.add_on
        if self.calls:
            add("agentos_spans_total", (*labels[:3], _LLM), self.calls)
            add_on(day, "agentos_llm_calls_total", labels, self.calls)
        if self.without_usage:
            add_on(day, "agentos_llm_calls_without_usage_total", labels, self.without_usage)
        for token_class, tokens in self.tokens.items():
            add_on(day, "agentos_llm_tokens_total", (*labels, token_class), tokens)
        for token_class, tokens in self.unpriced.items():
            add_on(day, "agentos_llm_unpriced_tokens_total", (*self._model, token_class), tokens)
        for source, costs in self._costs.items():
            for token_class, amount in costs.items():
                add_on(day, "agentos_llm_cost_usd_total", (*labels, token_class, source), amount)
        if self.failed:
            add("agentos_llm_wasted_seconds_total", labels, self.wasted_time)
        if self.wasted_cost is not None:
            add("agentos_llm_wasted_cost_usd_total", labels, self.wasted_cost)
        if self.savings is not None:
            add_on(day, "agentos_llm_cache_savings_usd_total", labels, self.savings)


def _sum_up(sums: dict[str, int], classes: Classes) -> None:
    for token_class, tokens in zip(TOKEN_CLASSES, classes, strict=True):
        if tokens is not None:
            sums[token_class] = sums.get(token_class, 0) + tokens


class ToolTally:
    """Calls of tools of one `day` (see `day_of`) with the same labels: agentos, root, agent, tool."""

    __slots__ = ("_day", "_durations", "calls", "labels")

    def __init__(self, delta: Delta, labels: Labels, day: int) -> None:
        """Begin with no calls.

        Args:
            delta: Takes the durations at once, the counters with `add_to`.
            labels: agentos, root, agent and tool.
            day: The day on which the calls began, see `day_of`.

        """
        self._day = day
        self.labels = labels
        self.calls = 0
        self._durations = delta.histogram("agentos_tool_call_duration_seconds", (labels[0], labels[3]))

    def count(self, span: Span, trace_id: str) -> None:
        """Count a call."""
        self.calls += 1
        self._durations.time(span.duration, trace_id, span.end)

    def add_to(self, delta: Delta) -> None:
        """Add all this to the counters."""
        delta.add("agentos_spans_total", (*self.labels[:3], _TOOL), self.calls)
        delta.add_on(self._day, "agentos_tool_calls_total", self.labels, self.calls)


@dataclass(slots=True)
class Delta(Increments):
    """What one transaction adds for one AgentOS: increments of series, and activity of sessions, users and budgets."""

    agentos: str
    activity: dict[tuple[str, int], int] = field(default_factory=dict)
    """(session or user, digest of its id) → end of its latest span; the enricher also notes timed runs here"""
    sessions: dict[int, SessionPart] = field(default_factory=dict)
    spending: dict[Charge, int] = field(default_factory=dict)
    """budget and period → spending, in 10**-18 USD"""
    allowances: dict[Allowance, int] = field(default_factory=dict)
    """the same of budgets that values of dimensions have"""
    waiting: list[WaitingCall] = field(default_factory=list)
    """LLM calls whose tokens and cost are added once the detail of their run has come"""
    spans: int = 0
    deferred: int = 0
    """spans that were not counted because a later reading may show their agent"""
    _calls: dict[tuple[int, Labels], CallTally] = field(default_factory=dict)
    _tools: dict[tuple[int, Labels], ToolTally] = field(default_factory=dict)
    _digests: dict[str, int] = field(default_factory=dict)

    @property
    def counters(self) -> dict[Key, int]:
        """Increments of counters, with those of all tallies."""
        for tallies in (self._calls, self._tools):
            for tally in tallies.values():
                tally.add_to(self)
            tallies.clear()
        return self._counters

    def calls(self, root: str, agent: str, call: Span) -> CallTally:
        """The tally of LLM calls for the model and the day of a call.

        Args:
            root: Name of the outermost run.
            agent: Name of the agent.
            call: The call.

        Returns:
            The tally; it is valid until the counters are read.

        """
        labels = (self.agentos, root, agent, call.provider, call.model)
        key = (day_of(call.start), labels)
        tally = self._calls.get(key)
        if tally is None:
            tally = self._calls[key] = CallTally(self, labels, key[0])
        return tally

    def tools(self, root: str, agent: str, call: Span) -> ToolTally:
        """The tally of tool calls for the tool and the day of a call.

        Args:
            root: Name of the outermost run.
            agent: Name of the agent.
            call: The call.

        Returns:
            The tally; it is valid until the counters are read.

        """
        labels = (self.agentos, root, agent, call.name)
        key = (day_of(call.start), labels)
        tally = self._tools.get(key)
        if tally is None:
            tally = self._tools[key] = ToolTally(self, labels, key[0])
        return tally

    def take_part(self, session_id: str | None, part: SessionPart) -> None:
        """Add to the activity of a session."""
        if session_id:
            recorded = self.sessions.setdefault(self._digest(session_id), part)
            if recorded is not part:
                recorded.join(part)

    def see(self, what: str, identifier: str, at: int) -> None:
        """Note that a session or user was active. Only a digest of its id is kept.

        Args:
            what: The kind, such as `SESSION` or `USER`.
            identifier: The id.
            at: When it was active, in microseconds.

        """
        key = (what, self._digest(identifier))
        self.activity[key] = max(at, self.activity.get(key, at))

    def _digest(self, identifier: str) -> int:
        if identifier not in self._digests:
            self._digests[identifier] = digest(identifier)
        return self._digests[identifier]


def digest(identifier: str) -> int:
    """Signed 64-bit digest of an id (blake2b)."""
    return int.from_bytes(blake2b(identifier.encode(), digest_size=8).digest(), "big", signed=True)
