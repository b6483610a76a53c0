"""Spans → increments. Pure arithmetic on integers: no clock, no network, no Prometheus.

Which span counts where follows the shape of AgentOS's trees:

- `root` is the outermost AGENT, TEAM or WORKFLOW span, `agent` the nearest AGENT or TEAM at or above.
- In streaming workflows LLM and TOOL spans are siblings of their agent: under a WORKFLOW with exactly one AGENT or TEAM
  child, that child is their agent. Such spans wait until their trace is complete, and for a while after where no
  sibling shows: it may be written last.
- An LLM span whose nearest typed ancestor is an LLM span is a vendor's view of the same call: it counts nowhere.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from exporter.budgets import Budgets, Charge
from exporter.catalog import METRICS
from exporter.model import RUN_KINDS, Span, SpanKind, Trace
from exporter.waiting import WaitingCall

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from exporter.pricing.prices import Priced

    Price = Callable[[Span], Priced]

Labels = tuple[str, ...]
Key = tuple[str, Labels]
"""A series: metric name and label values in the catalog's order."""

# Looking a member up in its enum takes as long as the rest of a test for it.
_HTTP, _LLM, _TOOL, _WORKFLOW = SpanKind.HTTP, SpanKind.LLM, SpanKind.TOOL, SpanKind.WORKFLOW
_AGENTS: Final = frozenset({SpanKind.AGENT, SpanKind.TEAM})
_UNTYPED: Final = frozenset({_HTTP, SpanKind.OTHER})
_BESIDE_THEIR_AGENT: Final = frozenset({_LLM, _TOOL})

Place = TypeVar("Place")

_REPORTED: Final = "reported"

SESSION: Final = "session"
USER: Final = "user"


class Exemplar(msgspec.Struct, frozen=True, gc=False):
    """A trace that stands for one increment: `value` in storage units, `at` in microseconds since the epoch."""

    trace_id: str
    value: int
    at: int


def keep_newest(exemplars: dict[Place, Exemplar], place: Place, exemplar: Exemplar) -> None:
    """Put an exemplar in its place unless a newer one is there: Prometheus refuses exemplars that go back in time."""
    if place not in exemplars or exemplars[place].at <= exemplar.at:
        exemplars[place] = exemplar


@dataclass(slots=True)
class HistogramDelta:
    """Observations to add: `counts` per bucket (not cumulative, +Inf last), `total` their sum in storage units."""

    bounds: Sequence[int]
    counts: list[int]
    total: int = 0
    exemplars: dict[int, Exemplar] = field(default_factory=dict)

    def observe(self, value: int) -> int:
        """Add one observation; returns its bucket."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.total += value
        return bucket


@dataclass(slots=True)
class SessionPart:
    """What a session did since it was last observed.

    `first` start and `last` end in microseconds, number of `runs`, `cost` in 10**-18 USD.
    """

    first: int
    last: int
    runs: int = 0
    cost: int = 0

    def join(self, other: SessionPart) -> None:
        """Take the other part in."""
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)
        self.runs += other.runs
        self.cost += other.cost


@dataclass(slots=True)
class RunRecord:
    """What is gathered of one run until its trace settles; `cost` in 10**-18 USD, of the calls that are `priced`.

    A run that is `settled` is kept only while the cost of some of its calls is `waiting` for its detail.
    """

    root_kind: str
    root: str
    llm_calls: int = 0
    priced: int = 0
    cost: int = 0
    waiting: int = 0
    settled: bool = False

    def add_cost(self, cost: int | None) -> None:
        """What one LLM call of the run costs; None: it is not known."""
        if cost is not None:
            self.priced += 1
            self.cost += cost


@dataclass(slots=True)
class Accounts:
    """To whom calls are charged: `user_label` makes a label of a user id (None: no metrics by user), and budgets.

    What is set here holds from the next batch on.
    """

    user_label: Callable[[str], str] | None = None
    budgets: Budgets = field(default_factory=Budgets)

    def __bool__(self) -> bool:
        return self.user_label is not None or bool(self.budgets)


@dataclass(slots=True)
class Delta:
    """Increments of one AgentOS, summed up."""

    agentos: str
    counters: dict[Key, int] = field(default_factory=dict)
    histograms: dict[Key, HistogramDelta] = field(default_factory=dict)
    exemplars: dict[Key, Exemplar] = field(default_factory=dict)
    activity: dict[tuple[str, int], int] = field(default_factory=dict)
    """(session or user, digest of its id) → end of its latest span"""
    sessions: dict[int, SessionPart] = field(default_factory=dict)
    spending: dict[Charge, int] = field(default_factory=dict)
    """budget and period → what was spent, in 10**-18 USD"""
    waiting: list[WaitingCall] = field(default_factory=list)
    """LLM calls whose tokens and cost are to be added once the detail of their run is known"""
    spans: int = 0
    lacking: int = 0
    """spans that were not counted because a later reading may show their agent"""
    _digests: dict[str, int] = field(default_factory=dict)

    def add(self, metric: str, labels: Labels, amount: int = 1) -> None:
        """Add to a counter; an amount of 0 gives birth to the series."""
        key = (metric, labels)
        self.counters[key] = self.counters.get(key, 0) + amount

    def observe(self, metric: str, labels: Labels, value: int, exemplar: Exemplar | None = None) -> None:
        """Add one observation in storage units to a histogram."""
        delta = self.histogram(metric, labels)
        bucket = delta.observe(value)
        if exemplar is not None:
            keep_newest(delta.exemplars, bucket, exemplar)

    def histogram(self, metric: str, labels: Labels) -> HistogramDelta:
        """The histogram to observe in."""
        key = (metric, labels)
        delta = self.histograms.get(key)
        if delta is None:
            bounds = METRICS[metric].buckets
            delta = self.histograms[key] = HistogramDelta(bounds, [0] * (len(bounds) + 1))
        return delta

    def error(self, metric: str, labels: Labels, trace_id: str, at: int) -> None:
        """Count one error and remember its trace; `at` is in microseconds."""
        self.add(metric, labels)
        keep_newest(self.exemplars, (metric, labels), Exemplar(trace_id, 1, at))

    def take_part(self, session_id: str | None, part: SessionPart) -> None:
        """Add to what a session did."""
        if session_id:
            known = self.sessions.setdefault(self._digest(session_id), part)
            if known is not part:
                known.join(part)

    def see(self, what: str, identifier: str, at: int) -> None:
        """Note that a session or user was active; ids themselves are not kept."""
        key = (what, self._digest(identifier))
        self.activity[key] = max(at, self.activity.get(key, at))

    def _digest(self, identifier: str) -> int:
        found = self._digests.get(identifier)
        if found is None:
            found = self._digests[identifier] = digest(identifier)
        return found


def digest(identifier: str) -> int:
    """Signed 64-bit digest of an id (blake2b)."""
    return int.from_bytes(blake2b(identifier.encode(), digest_size=8).digest(), "big", signed=True)


def root_kind(trace: Trace) -> str:
    """Kind of the outermost AGENT, TEAM or WORKFLOW span; `http` if none is shown, `unknown` if nothing is.

    It is unknown, too, where none is shown and ancestors are missing.
    """
    if not trace.spans:
        return "unknown"
    none = "unknown" if trace.orphans else "http"
    return next((str(span.kind) for span in trace.spans if span.kind in RUN_KINDS), none)


class _Tree:
    """Where each span of a trace stands. All lists are parallel to `trace.spans`; -1 stands for none."""

    def __init__(self, trace: Trace) -> None:
        self.spans = trace.spans
        self.root: list[int] = []
        """outermost AGENT, TEAM or WORKFLOW at or above"""
        self.agent: list[int] = []
        """nearest AGENT or TEAM at or above"""
        self.above: list[int] = []
        """nearest span above that is typed (not HTTP, not OTHER)"""
        self.owner: list[int] = []
        """nearest AGENT, TEAM or WORKFLOW at or above"""
        self.sessions: dict[int, str | None] = {}
        self.users: dict[int, str] = {}
        self.agents_below: dict[int, list[int]] = {}
        """WORKFLOW → its AGENT and TEAM children"""
        spans, roots, agents, aboves, owners = self.spans, self.root, self.agent, self.above, self.owner
        for index, span in enumerate(spans):
            parent, kind = span.parent, span.kind
            if parent < 0:
                root = agent = owner = above = -1
            else:
                root, agent, owner = roots[parent], agents[parent], owners[parent]
                above = aboves[parent] if spans[parent].kind in _UNTYPED else parent
            if kind in RUN_KINDS:
                owner = index
                if root < 0:
                    root = index
                if kind in _AGENTS:
                    agent = index
                    if parent >= 0 and spans[parent].kind is _WORKFLOW:
                        self.agents_below.setdefault(parent, []).append(index)
            roots.append(root)
            agents.append(agent)
            aboves.append(above)
            owners.append(owner)

    def session_of(self, run: int) -> str | None:
        """Session of a run: its own, else the first that a span below it names (a workflow span may name none)."""
        if run < 0:
            return None
        if run not in self.sessions:
            below = (span.session_id for root, span in zip(self.root, self.spans, strict=True) if root == run)
            self.sessions[run] = next(filter(None, below), None)
        return self.sessions[run]

    def user_of(self, index: int) -> str:
        """User of a span: that of the nearest AGENT or TEAM with one, else the first that its run names, else ''."""
        agent, root = self.agent_of(index), self.root[index]
        while agent >= 0:
            if user := self.spans[agent].user_id:
                return user
            parent = self.spans[agent].parent
            agent = self.agent[parent] if parent >= 0 else -1
        if root < 0:
            return self.spans[index].user_id or ""
        if root not in self.users:
            below = (span.user_id for place, span in zip(self.root, self.spans, strict=True) if place == root)
            self.users[root] = next(filter(None, below), "")
        return self.users[root]

    def is_view(self, index: int) -> bool:
        """Whether the span is a vendor's view of the LLM call above it, which counts nowhere."""
        above = self.above[index]
        return self.spans[index].kind is _LLM and above >= 0 and self.spans[above].kind is _LLM

    def beside_agent(self, index: int) -> bool:
        """Whether the span stands under a workflow step without an agent between: its agent may be a sibling."""
        owner = self.owner[index]
        return self.spans[index].kind in _BESIDE_THEIR_AGENT and owner >= 0 and self.spans[owner].kind is _WORKFLOW

    def lacks_agent(self, index: int, *, still_open: bool) -> bool:
        """Whether a later reading may show the agent beside which the span stands."""
        return self.beside_agent(index) and (still_open or not self.agents_below.get(self.owner[index]))

    def agent_of(self, index: int) -> int:
        """The agent that a span belongs to, -1 for none."""
        siblings = self.agents_below.get(self.owner[index], ()) if self.beside_agent(index) else ()
        return siblings[0] if len(siblings) == 1 else self.agent[index]


def fold(  # noqa: PLR0913 - a reading, what is known of it, and by what it is counted
    delta: Delta,
    trace: Trace,
    counted: Collection[int],
    runs: dict[int, RunRecord],
    *,
    now: int,
    final: bool,
    price: Price | None = None,
    accounts: Accounts | None = None,
    enrich: bool = False,
) -> list[int]:
    """Add to `delta` what the spans of `trace` that are not in `counted` bring; return their ids.

    `runs` gathers, by id of their outermost span, the runs that are not settled; it is changed in place. `now` is the
    time of counting in microseconds. Unless `final`, spans whose agent a later reading may show wait for it: they are
    counted in `delta.lacking` alone. `price` tells what an LLM span costs; without it there is no cost at all.
    `accounts` are those that calls are charged to. With `enrich`, tokens and cost of calls whose run AgentOS can tell
    more of are left to `delta.waiting`.
    """
    tree = _Tree(trace)
    spans, still_open = trace.spans, trace.open
    fresh: list[int] = []
    ends: list[int] = []
    charged = accounts or None
    orphans = 0
    for index, span in enumerate(spans):
        kind = span.kind
        if kind is _HTTP or span.id in counted:
            continue
        root, agent = tree.root[index], tree.agent[index]
        if kind in _BESIDE_THEIR_AGENT:
            if tree.is_view(index):
                continue
            if not final and tree.lacks_agent(index, still_open=still_open):
                delta.lacking += 1
                continue
            agent = tree.agent_of(index)
        base = (delta.agentos, spans[root].name if root >= 0 else "", spans[agent].name if agent >= 0 else "")
        fresh.append(span.id)
        ends.append(span.end)
        orphans += index in trace.orphans
        _count_span(delta, span, base, trace.id)
        if kind is _LLM:
            _count_llm(delta, span, base, trace.id)
            run = runs.get(spans[root].id) if root >= 0 else None
            waiting = _waiting(trace, tree, index, base, now) if enrich else None
            _bill(delta, tree, index, base, run, price, waiting, charged)
        elif kind is _TOOL:
            _count_tool(delta, span, base, trace.id)
        elif root == index:
            _count_run(delta, span, trace.id)
            delta.take_part(tree.session_of(index), SessionPart(span.start, span.end, runs=1))
            runs[span.id] = RunRecord(str(kind), span.name)
    if fresh:
        _count_reading(delta, ends, orphans, now)
    return fresh


def _count_reading(delta: Delta, ends: Sequence[int], orphans: int, now: int) -> None:
    """Count the spans of one reading, which ended then, once more: as ours."""
    delays = delta.histogram("agentos_exporter_span_ingest_delay_seconds", (delta.agentos,))
    for end in ends:
        delays.observe(max(0, now - end))
    if orphans:
        delta.add("agentos_exporter_orphan_spans_total", (delta.agentos,), orphans)
    delta.spans += len(ends)


def _count_span(delta: Delta, span: Span, base: Labels, trace_id: str) -> None:
    labels = (*base, str(span.kind))
    delta.add("agentos_spans_total", labels)
    if span.error_type is not None:
        delta.error("agentos_error_spans_total", (*labels, span.error_type), trace_id, span.end)
    if span.session_id:
        delta.see(SESSION, span.session_id, span.end)
    if span.user_id:
        delta.see(USER, span.user_id, span.end)


def _waiting(trace: Trace, tree: _Tree, index: int, base: Labels, now: int) -> WaitingCall | None:
    """The call as one that waits for the detail of its run; None where there is nothing to wait for."""
    span, agent = tree.spans[index], tree.agent_of(index)
    if agent < 0 or not span.usage.known or span.usage.detailed:
        return None
    own, outer = tree.spans[agent], tree.spans[tree.root[index]]
    if not own.run_id or not own.session_id:
        return None
    session = tree.session_of(tree.root[index])
    return WaitingCall(
        span.id,
        trace.id,
        trace.db,
        own.run_id,
        own.session_id,
        (outer.run_id or "") if outer.kind is _WORKFLOW else "",
        outer.id,
        digest(session) if session else None,
        tree.user_of(index) or None,
        base[1],
        base[2],
        span.provider,
        span.model,
        span.model_class,
        span.usage.prompt,
        span.usage.completion,
        span.start,
        span.end,
        now,
    )


def _bill(
    delta: Delta,
    tree: _Tree,
    index: int,
    base: Labels,
    run: RunRecord | None,
    price: Price | None,
    waiting: WaitingCall | None,
    accounts: Accounts | None,
) -> None:
    """Add tokens and cost of a call, to its run and session too; or leave that for later."""
    if run is not None and run.settled:
        run = None  # its cost waits for the calls that it had when it settled
    if run is not None:
        run.llm_calls += 1
        run.waiting += waiting is not None
    if waiting is not None:
        delta.waiting.append(waiting if run is not None else replace(waiting, root=0))
        return
    span = tree.spans[index]
    cost = charge(delta, span, base, price, accounts, tree.user_of(index) if accounts else "")
    if run is not None:
        run.add_cost(cost)
    if cost:
        delta.take_part(tree.session_of(tree.root[index]), SessionPart(span.start, span.end, cost=cost))


def _count_llm(delta: Delta, span: Span, base: Labels, trace_id: str) -> None:
    """Count a call, but for its tokens and cost."""
    labels = (*base, span.provider, span.model)
    model = (delta.agentos, span.provider, span.model)
    usage = span.usage
    delta.add("agentos_llm_calls_total", labels)
    if span.error_type is not None:
        delta.error("agentos_llm_call_errors_total", (*labels, span.error_type), trace_id, span.end)
    if not usage.known:
        delta.add("agentos_llm_calls_without_usage_total", labels)
    _time(delta, "agentos_llm_call_duration_seconds", model, span, trace_id)
    for tokens, direction in ((usage.prompt, "input"), (usage.completion, "output")):
        if tokens is not None:
            delta.observe(f"agentos_llm_call_{direction}_tokens", model, tokens)


def charge(
    delta: Delta, span: Span, base: Labels, price: Price | None, accounts: Accounts | None = None, user: str = ""
) -> int | None:
    """Add tokens and cost of a call; returns its cost in units of money, None where it is not known.

    `base` are the labels agentos, root, agent; `user` is the id of whom `accounts` charge, '' where unknown.
    """
    labels = (*base, span.provider, span.model)
    model = (delta.agentos, span.provider, span.model)
    usage = span.usage
    priced = price(span) if price is not None and (usage.known or span.reported_cost is not None) else None
    classes = {"input": usage.prompt, "output": usage.completion} if priced is None else priced.classes._asdict()
    known = {token_class: tokens for token_class, tokens in classes.items() if tokens is not None}
    for token_class, tokens in known.items():
        delta.add("agentos_llm_tokens_total", (*labels, token_class), tokens)
    if accounts:
        _account(delta, span, base, user, accounts, priced)
    if priced is None:
        return None
    if priced.usd is None:
        for token_class, tokens in known.items():
            delta.add("agentos_llm_unpriced_tokens_total", (*model, token_class), tokens)
        return None
    # What is free shows as 0: that is known. A total that the span reports says nothing of its classes.
    free = {} if priced.cost_source == _REPORTED else dict.fromkeys(known, 0)
    for token_class, amount in (free | priced.usd).items():
        delta.add("agentos_llm_cost_usd_total", (*labels, token_class, priced.cost_source), amount)
    return priced.total


def _account(delta: Delta, span: Span, base: Labels, user: str, accounts: Accounts, priced: Priced | None) -> None:
    """Put a call on its user's account, and on that of each budget it falls under."""
    usage = span.usage
    cost = priced.total if priced is not None else None
    if accounts.user_label is not None:
        labels = (delta.agentos, accounts.user_label(user))
        tokens = (usage.prompt, usage.completion) if priced is None else priced.classes
        if usage.known:
            delta.add("agentos_user_tokens_total", labels, sum(filter(None, tokens)))
        if cost is not None:
            delta.add("agentos_user_cost_usd_total", labels, cost)
    if cost:
        agentos, root, agent = base
        for charge in accounts.budgets.charges((agentos, root, agent), span.model, user, span.start):
            delta.spending[charge] = delta.spending.get(charge, 0) + cost


def _count_tool(delta: Delta, span: Span, base: Labels, trace_id: str) -> None:
    labels = (*base, span.name)
    delta.add("agentos_tool_calls_total", labels)
    if span.error_type is not None:
        delta.error("agentos_tool_call_errors_total", (*labels, span.error_type), trace_id, span.end)
    _time(delta, "agentos_tool_call_duration_seconds", (delta.agentos, span.name), span, trace_id)


def _count_run(delta: Delta, span: Span, trace_id: str) -> None:
    labels = (delta.agentos, str(span.kind), span.name)
    delta.add("agentos_runs_total", labels)
    if span.error_type is not None:
        delta.error("agentos_run_errors_total", (*labels, span.error_type), trace_id, span.end)
    _time(delta, "agentos_run_duration_seconds", labels, span, trace_id)


def _time(delta: Delta, metric: str, labels: Labels, span: Span, trace_id: str) -> None:
    duration = span.duration
    delta.observe(metric, labels, duration, Exemplar(trace_id, duration, span.end))


def settle(delta: Delta, runs: dict[int, RunRecord]) -> None:
    """Observe what only a settled run shows, and forget the run; its cost, and the run, may wait a little longer."""
    for span, run in list(runs.items()):
        if not run.settled:
            delta.observe("agentos_run_llm_calls", (delta.agentos, run.root_kind, run.root), run.llm_calls)
            run.settled = True
        if not run.waiting:
            observe_cost(delta, run)
            del runs[span]


def observe_cost(delta: Delta, run: RunRecord) -> None:
    """Observe the cost of a run, all of whose calls are priced as far as they ever will be."""
    if run.priced or not run.llm_calls:
        delta.observe("agentos_run_cost_usd", (delta.agentos, run.root_kind, run.root), run.cost)


def observe_session(delta: Delta, part: SessionPart) -> None:
    """Observe a session that has been idle for long enough."""
    labels = (delta.agentos,)
    if part.runs:  # none: only late calls of runs that were observed before
        delta.observe("agentos_session_runs", labels, part.runs)
        delta.observe("agentos_session_duration_seconds", labels, max(0, part.last - part.first))
    delta.observe("agentos_session_cost_usd", labels, part.cost)
