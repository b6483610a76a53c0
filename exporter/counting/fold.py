"""Spans → increments. Pure arithmetic on integers: no clock, no network, no Prometheus.

Which span counts where follows the shape of AgentOS's trees:

- `root` is the outermost AGENT, TEAM or WORKFLOW span, `agent` the nearest AGENT or TEAM at or above.
- In streaming workflows LLM and TOOL spans are siblings of their agent: under a WORKFLOW with exactly one AGENT or TEAM
  child, that child is their agent. Such spans wait until their trace is complete, and for a while after where no
  sibling shows: it may be written last.
- An LLM span whose nearest typed ancestor is an LLM span is a vendor's view of the same call: it counts nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from exporter.core.model import RUN_KINDS, Span, SpanKind, Trace
from exporter.counting.cashier import Cashier
from exporter.counting.delta import SESSION, USER, CallTally, Delta, SessionPart, digest
from exporter.counting.waiting import WaitingCall, check
from exporter.metrics.increments import Labels

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

# Looking a member up in its enum takes as long as the rest of a test for it.
_HTTP, _LLM, _TOOL, _WORKFLOW = SpanKind.HTTP, SpanKind.LLM, SpanKind.TOOL, SpanKind.WORKFLOW
_AGENTS: Final = frozenset({SpanKind.AGENT, SpanKind.TEAM})
_UNTYPED: Final = frozenset({_HTTP, SpanKind.OTHER})
_BESIDE_THEIR_AGENT: Final = frozenset({_LLM, _TOOL})

_NONE: Final = -1
"""the place of a span that is not there"""
_NOWHERE: Final = -2
"""in place of an agent: the span is not to be counted at all"""
_LATER: Final = -3
"""in place of an agent: the span is not to be counted yet, as a later reading may show its agent"""


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


def root_kind(trace: Trace) -> str:
    """Kind of the outermost AGENT, TEAM or WORKFLOW span; `http` if none is shown, `unknown` if nothing is.

    It is unknown, too, where none is shown and ancestors are missing.
    """
    if not trace.spans:
        return "unknown"
    none = "unknown" if trace.orphans else "http"
    return next((str(span.kind) for span in trace.spans if span.kind in RUN_KINDS), none)


def awaits_run(trace: Trace) -> bool:
    """Whether a run may yet show: there is none so far, but a request that can start one, and answer before it ends."""
    return root_kind(trace) == "http" and any(span.name == "POST" for span in trace.spans if span.kind is _HTTP)


class _Tree:
    """Where each span of a trace stands. All lists are parallel to `trace.spans`; -1 stands for none."""

    def __init__(self, trace: Trace) -> None:
        self.spans = trace.spans
        self.still_open = trace.open
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
        self._model_calls: dict[int, bool] | None = None
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

    def model_calls(self) -> dict[int, bool]:
        """AGENT or TEAM that called a model → whether one of its calls failed."""
        if self._model_calls is None:
            self._model_calls = calls = dict[int, bool]()
            for index, span in enumerate(self.spans):
                if span.kind is _LLM:
                    agent = self.agent_of(index)
                    calls[agent] = calls.get(agent, False) or span.error_type is not None
        return self._model_calls

    def beside_agent(self, index: int) -> bool:
        """Whether the span stands under a workflow step without an agent between: its agent may be a sibling."""
        owner = self.owner[index]
        return self.spans[index].kind in _BESIDE_THEIR_AGENT and owner >= 0 and self.spans[owner].kind is _WORKFLOW

    def agent_for(self, index: int, *, final: bool) -> int:
        """`agent_of` an LLM or TOOL span that is to be counted; `_NOWHERE` or `_LATER` where it is not, or not yet.

        A vendor's view of the LLM call above it counts nowhere.
        """
        above = self.above[index]
        if above >= 0 and self.spans[above].kind is _LLM and self.spans[index].kind is _LLM:
            return _NOWHERE
        if not final and self.beside_agent(index) and (self.still_open or not self.agents_below.get(self.owner[index])):
            return _LATER
        return self.agent_of(index)

    def agent_of(self, index: int) -> int:
        """The agent that a span belongs to, -1 for none."""
        siblings = self.agents_below.get(self.owner[index], ()) if self.beside_agent(index) else ()
        return siblings[0] if len(siblings) == 1 else self.agent[index]


def fold(
    delta: Delta,
    trace: Trace,
    counted: Collection[int],
    runs: dict[int, RunRecord],
    *,
    now: int,
    final: bool,
    cashier: Cashier | None = None,
    enrich: bool = False,
) -> list[int]:
    """Add to `delta` what the spans of `trace` that are not in `counted` bring; return their ids.

    `runs` gathers, by id of their outermost span, the runs that are not settled; it is changed in place. `now` is the
    time of counting in microseconds. Unless `final`, spans whose agent a later reading may show wait for it: they are
    counted in `delta.lacking` alone. `cashier` tells what LLM spans cost and charges them; without it there is no cost
    at all. With `enrich`, tokens and cost of calls whose run AgentOS can tell more of are left to `delta.waiting`.
    """
    tree = _Tree(trace)
    spans, trace_id = trace.spans, trace.id
    fresh: list[Span] = []
    cashier = cashier or Cashier()
    orphans = 0
    for index, span in enumerate(spans):
        kind = span.kind
        if kind is _HTTP or span.id in counted:
            continue
        agent = tree.agent_for(index, final=final) if kind in _BESIDE_THEIR_AGENT else tree.agent[index]
        if agent < _NONE:
            delta.lacking += agent == _LATER
            continue
        root = tree.root[index]
        root_name = spans[root].name if root >= 0 else ""
        agent_name = spans[agent].name if agent >= 0 else ""
        fresh.append(span)
        orphans += index in trace.orphans
        if span.error_type is not None:
            _count_error(delta, span, (delta.agentos, root_name, agent_name), span.error_type, trace_id)
        for field_name in span.not_believed:
            delta.add("agentos_exporter_ignored_values_total", (delta.agentos, field_name))
        if kind is _LLM:
            tally = delta.calls(root_name, agent_name, span.provider, span.model)
            tally.count(span, trace_id)
            run = runs.get(spans[root].id) if root >= 0 else None
            waiting = _waiting(trace, tree, index, tally, now) if enrich else None
            _bill(delta, tree, index, tally, run, waiting, cashier)
        elif kind is _TOOL:
            delta.tools(root_name, agent_name, span.name).count(span, trace_id)
        else:
            delta.add("agentos_spans_total", (delta.agentos, root_name, agent_name, str(kind)))
            delta.waiting += _checks(trace, tree, index, now) if enrich else ()
            if root == index:
                _count_run(delta, span, trace_id)
                delta.take_part(tree.session_of(index), SessionPart(span.start, span.end, runs=1))
                runs[span.id] = RunRecord(str(kind), span.name)
    if fresh:
        _count_reading(delta, fresh, orphans, now)
    return [span.id for span in fresh]


def _count_reading(delta: Delta, fresh: Sequence[Span], orphans: int, now: int) -> None:
    """Count the spans of one reading once more, as ours; and note who was active."""
    delays = delta.histogram("agentos_exporter_span_ingest_delay_seconds", (delta.agentos,))
    delays.observe_all([max(0, now - span.end) for span in fresh])
    if orphans:
        delta.add("agentos_exporter_orphan_spans_total", (delta.agentos,), orphans)
    delta.spans += len(fresh)
    sessions: dict[str, int] = {}
    users: dict[str, int] = {}
    for span in fresh:
        end, session, user = span.end, span.session_id, span.user_id
        if session and sessions.get(session, end) <= end:
            sessions[session] = end
        if user and users.get(user, end) <= end:
            users[user] = end
    for session, end in sessions.items():
        delta.see(SESSION, session, end)
    for user, end in users.items():
        delta.see(USER, user, end)


def _count_error(delta: Delta, span: Span, base: Labels, error_type: str, trace_id: str) -> None:
    """Count an error of a span; `base` are the labels agentos, root, agent."""
    kind, at = span.kind, span.end
    delta.error("agentos_error_spans_total", (*base, str(kind), error_type), trace_id, at)
    if kind is _LLM:
        labels = (*base, span.provider, span.model, error_type)
        delta.error("agentos_llm_call_errors_total", labels, trace_id, at)
        by_class = (*base, span.provider, span.model, span.error_class)
        delta.error("agentos_llm_call_errors_by_class_total", by_class, trace_id, at)
    elif kind is _TOOL:
        delta.error("agentos_tool_call_errors_total", (*base, span.name, error_type), trace_id, at)


def _waiting(trace: Trace, tree: _Tree, index: int, tally: CallTally, now: int) -> WaitingCall | None:
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
        tally.labels[1],
        tally.labels[2],
        span.provider,
        span.model,
        span.model_class,
        span.usage.prompt,
        span.usage.completion,
        span.start,
        span.end,
        now,
    )


def _checks(trace: Trace, tree: _Tree, index: int, now: int) -> Sequence[WaitingCall]:
    """The span, if it is of a run that a guardrail may have blocked: it failed and no model call did, or it made none.

    A run that streams is OK even if it was blocked. Where its answer was, its model calls wait for the detail anyway.
    """
    span = tree.spans[index]
    if span.kind not in _AGENTS or not span.run_id or not span.session_id:
        return ()
    failed_call = tree.model_calls().get(index)
    may_be_blocked = failed_call is None or (span.error_type is not None and not failed_call)
    return (check(trace, span, tree.spans[tree.root[index]].name, now),) if may_be_blocked else ()


def _bill(
    delta: Delta,
    tree: _Tree,
    index: int,
    tally: CallTally,
    run: RunRecord | None,
    waiting: WaitingCall | None,
    cashier: Cashier,
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
    cost = cashier.charge(delta, tally, span, tree.user_of(index) if cashier.charges else "")
    if run is not None:
        run.add_cost(cost)
    if cost:
        delta.take_part(tree.session_of(tree.root[index]), SessionPart(span.start, span.end, cost=cost))


def _count_run(delta: Delta, span: Span, trace_id: str) -> None:
    labels = (delta.agentos, str(span.kind), span.name)
    delta.add("agentos_runs_total", labels)
    if span.continued:
        delta.add("agentos_runs_continued_total", labels)
    if span.error_type is not None:
        delta.error("agentos_run_errors_total", (*labels, span.error_type), trace_id, span.end)
    delta.histogram("agentos_run_duration_seconds", labels).time(span.duration, trace_id, span.end)


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
