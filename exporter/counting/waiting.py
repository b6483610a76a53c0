"""LLM calls that wait for their run's detail, and how the detail is split among them. Pure: no clock, no network.

AgentOS's HTTP API shows prompt and completion tokens of a call. Cache and reasoning tokens are in the detail of its
run, summed up by model over the run's calls. These sums are divided among the calls in proportion to their own counts,
so each call has its own classes, which add up to the detail to the last token. The cost of a call is exact if all calls
of the model share a price: then it does not matter how the tokens were divided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

from exporter.core.model import Span, SpanKind, TokenUsage, Trace
from exporter.core.span_names import provider_label
from exporter.pricing import money

CallKey = tuple[str, int]
"""(trace id, span id) of a call: one span id may be in several traces, as in copies of one"""


@dataclass(frozen=True, slots=True)
class WaitingCall:
    """An LLM call that is counted, except for its tokens and its cost.

    `span` and `root` are span ids; `root` is that of the outermost run whose cost waits for this call, 0 if no run
    does. `run_id` and `session_id` are AgentOS's, `outer_run_id` that of the workflow around it, '' if unknown.
    `session` is the digest of the session that gets the cost. `since` is when the span was counted, by our clock, in
    microseconds; `first`: in the first pass over its database. `run_start` is when the run began, 0 in rows of an
    earlier release. `streamed`: the answer came in parts. `check`: the row stands for the run itself, which waits
    because only its detail can tell whether a guardrail blocked it. `outermost`: the run is not inside another one.
    """

    span: int
    trace: str
    db: str
    run_id: str
    session_id: str
    outer_run_id: str
    root: int
    session: int | None
    user_id: str | None
    root_name: str
    agent_name: str
    provider: str
    model: str
    model_class: str
    prompt: int | None
    completion: int | None
    start: int
    end: int
    since: int
    first: bool = False
    run_start: int = 0
    streamed: bool = False
    check: bool = False
    outermost: bool = False

    @property
    def counted(self) -> bool:
        """Whether its span reports any token count."""
        return self.prompt is not None or self.completion is not None

    @property
    def key(self) -> CallKey:
        """The key of the row, within its AgentOS."""
        return self.trace, self.span

    def as_span(self, usage: TokenUsage | None = None, reported: Decimal | None = None) -> Span:
        """The call as a span, with the fields that pricing needs; with its own counts unless others are given."""
        return Span(
            self.span,
            -1,
            SpanKind.LLM,
            "",
            self.start,
            self.end,
            provider=self.provider,
            model=self.model,
            model_class=self.model_class,
            usage=TokenUsage(self.prompt, self.completion) if usage is None else usage,
            reported_cost=reported,
        )


def check(trace: Trace, run: Span, root: Span, now: int, *, held: bool) -> WaitingCall:
    """A run that waits for its detail, which tells whether a guardrail blocked it.

    Args:
        trace: The trace of the run.
        run: The span of the run.
        root: The span of its outermost run.
        now: When the run was counted, in microseconds.
        held: Whether the outermost run waits for this detail as well.

    """
    return WaitingCall(
        span=run.id,
        trace=trace.id,
        db=trace.db,
        run_id=run.run_id or "",
        session_id=run.session_id or "",
        outer_run_id="",
        root=root.id if held else 0,
        session=None,
        user_id=None,
        root_name=root.name,
        agent_name=run.name,
        provider="",
        model="",
        model_class="",
        prompt=None,
        completion=None,
        start=run.start,
        end=run.end,
        since=now,
        check=True,
        outermost=run.id == root.id,
    )


ROLES: Final = frozenset(
    {
        *("output", "parser", "memory", "reasoning", "session_summary", "learning", "compression", "compaction"),
        *("followup", "other"),
    }
)
"""Purposes of models beside the answer itself (`agno.metrics.ModelType`)"""


@dataclass(frozen=True, slots=True)
class ModelUse:
    """The tokens of one model in a run's detail; counts that the detail leaves out are 0.

    `cost` is in USD, None if not reported. `role` is the purpose of the model: '' for the run's own, else one of
    `ROLES`.
    """

    model: str
    provider: str
    prompt: int = 0
    completion: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    total: int = 0
    cost: Decimal | None = None
    role: str = ""

    def plus(self, other: ModelUse) -> ModelUse:
        """Both together."""
        cost = None if self.cost is None and other.cost is None else (self.cost or 0) + (other.cost or Decimal(0))
        return ModelUse(
            self.model,
            self.provider,
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.reasoning + other.reasoning,
            self.total + other.total,
            cost,
            self.role,
        )


@dataclass(frozen=True, slots=True)
class RunDetail:
    """The detail of one run: `first_token` in microseconds, `uses` by model, the run's own model first.

    If AgentOS does not separate models (agno before 2.5), `uses` has one entry, without a model. `guardrail` is the
    check that blocked the run, '' if none did or AgentOS does not say. `metadata` is that of the run: its short texts
    and numbers.
    """

    run_id: str
    first_token: int | None = None
    uses: tuple[ModelUse, ...] = ()
    guardrail: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)


class Share(NamedTuple):
    """One call with its part of the detail."""

    call: WaitingCall
    span: Span


class Group(NamedTuple):
    """The calls of one model in one run with its entry in the detail; `cached` are the cached tokens of all of them."""

    shares: tuple[Share, ...]
    cached: int


def split(detail: RunDetail, calls: Sequence[WaitingCall]) -> list[Group]:
    """The calls of a run that agree with its detail: the sums of a model's calls are those of the detail.

    If all calls together do not agree, those of each trace may: the traces are copies.
    """
    groups = _agreeing(detail, calls)
    done = {call.key for group in groups for call, _ in group.shares}
    by_trace: dict[str, list[WaitingCall]] = {}
    for call in calls:
        if call.key not in done:
            by_trace.setdefault(call.trace, []).append(call)
    if len(by_trace) > 1:
        for trace_calls in by_trace.values():
            groups += _agreeing(detail, trace_calls)
    return groups


def _agreeing(detail: RunDetail, calls: Sequence[WaitingCall]) -> list[Group]:
    by_model: dict[str, list[WaitingCall]] = {}
    for call in calls:
        by_model.setdefault(call.model, []).append(call)
    groups = []
    for model, model_calls in by_model.items():
        for group, use in _assign(model, model_calls, detail.uses, alone=len(by_model) == 1):
            if (_sum(call.prompt for call in group), _sum(call.completion for call in group)) == (
                use.prompt,
                use.completion,
            ):
                groups.append(_deal(group, use))
    return groups


def _assign(
    model: str, calls: list[WaitingCall], uses: Sequence[ModelUse], *, alone: bool
) -> list[tuple[list[WaitingCall], ModelUse]]:
    """Which calls each entry speaks of; nothing where that is not certain."""
    entries: dict[str, ModelUse] = {}
    for use in uses:
        if use.model == model or (alone and not use.model and len(uses) == 1):
            label = provider_label(use.provider)
            entries[label] = entries[label].plus(use) if label in entries else use
    if len(entries) == 1:
        # The span's own label may say less than the detail (a model class that is not agno's), never another provider.
        (use,) = entries.values()
        return [(calls, use)] if len({(call.provider, call.model_class) for call in calls}) == 1 else []
    by_provider: dict[str, list[WaitingCall]] = {}
    for call in calls:
        by_provider.setdefault(call.provider, []).append(call)
    return [(group, entries[label]) for label, group in by_provider.items() if label in entries]


def _sum(counts: Iterable[int | None]) -> int:
    return sum(count or 0 for count in counts)


def _deal(calls: list[WaitingCall], use: ModelUse) -> Group:
    """Give each call its part, in the order in which they began."""
    calls = sorted(calls, key=lambda call: (call.start, call.span))
    prompts, completions = [call.prompt or 0 for call in calls], [call.completion or 0 for call in calls]
    read = deal(use.cache_read, prompts)
    write = deal(use.cache_write, [max(0, prompt - part) for prompt, part in zip(prompts, read, strict=True)])
    reasoning = deal(use.reasoning, completions)
    beyond = deal(max(0, use.total - use.prompt - use.completion), completions)
    costs: list[Decimal | None] = [None] * len(calls)
    if use.cost is not None and (units := money.reported(use.cost)) is not None:
        weights = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        costs = [money.decimal(part) for part in deal(units, weights)]
    shares = []
    for place, call in enumerate(calls):
        usage = TokenUsage(
            prompts[place],
            completions[place],
            read[place],
            write[place],
            reasoning[place],
            prompts[place] + completions[place] + beyond[place] if use.total else None,
            detailed=True,
        )
        shares.append(Share(call, call.as_span(usage, costs[place])))
    return Group(tuple(shares), use.cache_read + use.cache_write)


def deal(total: int, weights: Sequence[int]) -> list[int]:
    """Divide `total` in proportion to `weights`: whole numbers that add up to it, none above its weight if all fit."""
    if not any(weights):
        weights = [1] * len(weights)
    whole, before, parts = sum(weights), 0, []
    reached = 0
    for weight in weights:
        reached += weight
        share = total * reached // whole
        parts.append(share - before)
        before = share
    return parts


LONGEST_FIRST_TOKEN: Final = 86_400
"""Seconds: a longer time to the first token is not believed"""
