"""Spans → increments. Pure arithmetic on integers: no clock, no network, no Prometheus.

Which span counts where follows the shape of AgentOS's trees: see `exporter.counting.tree`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.core.model import RUN_KINDS, Span, SpanKind, Trace
from exporter.core.times import day_of
from exporter.counting.attempts import Attempt, Call, attempts
from exporter.counting.cashier import Cashier
from exporter.counting.delta import SESSION, USER, CallTally, Delta, SessionPart, digest
from exporter.counting.dimensions import Origin
from exporter.counting.run_details import DetailedRun, TimedCall, count_detail
from exporter.counting.runs import RunCall, RunRecord, count_call
from exporter.counting.tree import AGENTS, BESIDE_THEIR_AGENT, LATER, NONE, NOWHERE, Tree
from exporter.counting.waiting import WaitingCall, check
from exporter.metrics.increments import Labels

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from exporter.counting.dimensions import Dimensions
    from exporter.counting.waiting import RunDetail

# Looking up a member of an enum is slow, so it is done once.
_HTTP, _LLM, _TOOL, _WORKFLOW = SpanKind.HTTP, SpanKind.LLM, SpanKind.TOOL, SpanKind.WORKFLOW


def root_kind(trace: Trace) -> str:
    """Kind of the outermost AGENT, TEAM or WORKFLOW span; `http` if none is shown, `unknown` if nothing is.

    It is unknown, too, where none is shown and ancestors are missing.
    """
    if not trace.spans:
        return "unknown"
    none = "unknown" if trace.orphans else "http"
    return next((str(span.kind) for span in trace.spans if span.kind in RUN_KINDS), none)


def awaits_run(trace: Trace) -> bool:
    """Whether a run may still appear: there is none yet, but a request that can start one and answer before its end."""
    return root_kind(trace) == "http" and any(span.name == "POST" for span in trace.spans if span.kind is _HTTP)


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
    """Count the new spans of one reading of a trace, and return their ids.

    Args:
        delta: What the transaction adds up to.
        trace: The reading.
        counted: Ids of the spans that are counted already.
        runs: The unsettled runs of the trace, by id of their outermost span; changed in place.
        now: When the spans are counted, in microseconds.
        final: Whether no later reading is waited for. Otherwise spans whose agent may appear add to `delta.deferred`.
        cashier: Prices and charges LLM calls; without it there is no cost.
        enrich: Whether tokens and cost of calls wait, in `delta.waiting`, for the detail of their run.

    """
    tree = Tree(trace)
    spans, trace_id = trace.spans, trace.id
    fresh: list[Span] = []
    cashier = cashier or Cashier()
    orphans = 0
    for index, span in enumerate(spans):
        kind = span.kind
        if kind is _HTTP or span.id in counted:
            continue
        agent = tree.agent_for(index, final=final) if kind in BESIDE_THEIR_AGENT else tree.agent[index]
        if agent < NONE:
            delta.deferred += agent == LATER
            continue
        root = tree.root[index]
        root_name = spans[root].name if root >= 0 else ""
        agent_name = spans[agent].name if agent >= 0 else ""
        fresh.append(span)
        orphans += index in trace.orphans
        _count_problems(delta, span, (delta.agentos, root_name, agent_name), trace_id)
        if kind is _LLM:
            tally = delta.calls(root_name, agent_name, span)
            tally.count(span, trace_id)
            waiting = _waiting(trace, tree, index, tally, now, cashier.dimensions) if enrich else None
            _bill(delta, tree, index, tally, runs, waiting, cashier)
        elif kind is _TOOL:
            delta.tools(root_name, agent_name, span).count(span, trace_id)
        else:
            delta.add("agentos_spans_total", (delta.agentos, root_name, agent_name, str(kind)))
            if root == index:
                _count_run(delta, tree, index, trace_id)
                runs[span.id] = _run_record(span, cashier)
            delta.waiting += _checks(trace, tree, index, runs, now, cashier.dimensions) if enrich else ()
    if fresh:
        _count_reading(delta, fresh, orphans, now)
        _note_attempts(tree, runs)
    return [span.id for span in fresh]


def _note_attempts(tree: Tree, runs: dict[int, RunRecord]) -> None:
    """Note, in each run, the retries and fallbacks after its failed LLM calls, as far as this reading shows them."""
    if all(span.error_type is None for span in tree.spans):
        return
    siblings: dict[int, list[Call]] = {}
    for index, span in enumerate(tree.spans):
        if span.kind is _LLM and (agent := tree.agent_for(index, final=True)) != NOWHERE:
            name = tree.spans[agent].name if agent >= 0 else ""
            siblings.setdefault(span.parent, []).append(Call(span, name))
    by_root: dict[int, list[Attempt]] = {}
    for parent, calls in siblings.items():
        if parent >= 0 and tree.root[parent] >= 0:
            by_root.setdefault(tree.spans[tree.root[parent]].id, []).extend(attempts(calls))
    for root, noted in by_root.items():
        if root in runs and not runs[root].settled:
            runs[root].attempts = noted


def note_values(
    trace: Trace,
    runs: dict[int, RunRecord],
    dimensions: Dimensions,
    *,
    details: Mapping[str, RunDetail],
    tags: Sequence[str],
) -> None:
    """Note the values of dimensions in each unsettled run, as far as this reading of its trace tells them.

    The detail of the outermost run comes before the details of runs inside it.

    Args:
        trace: The reading.
        runs: The unsettled runs, by id of their outermost span; changed in place.
        dimensions: The configured dimensions.
        details: Details of runs, by run id.
        tags: Tags of the spans of the trace.

    """
    tree = Tree(trace)
    of_tags = dimensions.of_tags(tags)
    for index, span in enumerate(tree.spans):
        run = runs.get(tree.spans[tree.root[index]].id) if tree.root[index] >= 0 else None
        if run is None:
            continue
        detail = details.get(span.run_id or "")
        metadata_values = dimensions.of_metadata(detail.metadata) if detail is not None else {}
        if tree.root[index] == index:
            run.values |= {**of_tags, **_values(tree, index, dimensions), **metadata_values}
        else:
            run.values = metadata_values | run.values


def _values(tree: Tree, index: int, dimensions: Dimensions) -> dict[str, str]:
    """Values of dimensions from the ids of the user and the session of a span."""
    if not (dimensions.needs(Origin.USER) or dimensions.needs(Origin.SESSION)):
        return {}
    root = tree.root[index]
    session = tree.session_of(root) if root >= 0 else tree.spans[index].session_id
    return dimensions.of_ids(tree.user_of(index), session)


def count_details(
    delta: Delta, trace: Trace, counted: Collection[int], details: Mapping[str, RunDetail], cashier: Cashier
) -> None:
    """Count the details of the runs that are new in this reading.

    The detail of a run that continues after a pause was counted with the run's first part.

    Args:
        delta: What the transaction adds up to.
        trace: The reading.
        counted: Ids of the spans that are counted just now.
        details: Details of runs, by run id.
        cashier: Prices tokens.

    """
    tree = Tree(trace)
    calls: dict[int, list[TimedCall]] = {}
    for index, span in enumerate(tree.spans):
        # The metrics of a run leave out calls that failed.
        if span.kind is _LLM and span.error_type is None and (agent := tree.agent_for(index, final=True)) >= 0:
            call = TimedCall(span.start, span.end, span.provider, span.model, span.usage.completion, span.streamed)
            calls.setdefault(agent, []).append(call)
    for index, span in enumerate(tree.spans):
        detail = details.get(span.run_id or "") if span.kind in RUN_KINDS and not span.continued else None
        if detail is not None and span.id in counted:
            run = DetailedRun(tree.spans[tree.root[index]].name, span.start, calls.get(index, ()))
            count_detail(delta, detail, run, cashier)


def roots_of(trace: Trace, counted: Collection[int], runs: Collection[str]) -> dict[str, str]:
    """Names of the outermost runs of some runs.

    Args:
        trace: The reading.
        counted: Ids of the spans that are counted just now.
        runs: Ids of runs.

    Returns:
        The name of the outermost run, by run id: of those `runs` whose agent or team span is counted just now.

    """
    if not runs:
        return {}
    tree = Tree(trace)
    return {
        span.run_id: tree.spans[tree.root[index]].name
        for index, span in enumerate(tree.spans)
        if span.run_id and span.run_id in runs and span.kind in AGENTS and span.id in counted
    }


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


def _run_record(span: Span, cashier: Cashier) -> RunRecord:
    """The record of a run with this outermost span, without calls yet."""
    failed, divided = span.error_type is not None, bool(cashier.dimensions)
    return RunRecord(str(span.kind), span.name, failed=failed, divided=divided, start=span.start)


def _count_problems(delta: Delta, span: Span, base: Labels, trace_id: str) -> None:
    """Count the error of a span, and its values that are not believed; `base` are the labels agentos, root, agent."""
    if span.error_type is not None:
        _count_error(delta, span, base, span.error_type, trace_id)
    for field_name in span.not_believed:
        delta.add("agentos_exporter_ignored_values_total", (delta.agentos, field_name))


def _count_error(delta: Delta, span: Span, base: Labels, error_type: str, trace_id: str) -> None:
    """Count an error of a span; `base` are the labels agentos, root, agent."""
    kind, at = span.kind, span.end
    delta.error("agentos_error_spans_total", (*base, str(kind), error_type), trace_id, at)
    if kind is _LLM:
        labels = (*base, span.provider, span.model, error_type)
        delta.error_on(day_of(span.start), "agentos_llm_call_errors_total", labels, trace_id, at)
        by_class = (*base, span.provider, span.model, span.error_class)
        delta.error("agentos_llm_call_errors_by_class_total", by_class, trace_id, at)
    elif kind is _TOOL:
        delta.error("agentos_tool_call_errors_total", (*base, span.name, error_type), trace_id, at)


def _waiting(
    trace: Trace, tree: Tree, index: int, tally: CallTally, now: int, dimensions: Dimensions
) -> WaitingCall | None:
    """The call as a row that waits for the detail of its run; None if the detail would add nothing."""
    span, agent = tree.spans[index], tree.agent_of(index)
    if agent < 0 or span.usage.detailed:
        return None
    # The metrics of a run leave out failed calls. Its metadata has their dimensions, too.
    if not span.usage.reported and not dimensions.needs(Origin.METADATA):
        return None
    if span.usage.reported and span.error_type is not None:
        return None
    if span.reported_cost is not None and not span.usage.reported:
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
        run_start=own.start,
        streamed=span.streamed,
        outermost=agent == tree.root[index],
    )


def _checks(
    trace: Trace, tree: Tree, index: int, runs: Mapping[int, RunRecord], now: int, dimensions: Dimensions
) -> Sequence[WaitingCall]:
    """The span as a row that waits for its detail, if a guardrail may have blocked its run.

    That is a run that failed although no model call did, or that made no model call. A run that streams is OK even if
    it was blocked; if its answer was blocked, its model calls wait for the detail anyway. If the detail also has
    dimensions, the outermost run waits for it as well, and so does a run with a failed call, which may not wait itself.
    """
    span = tree.spans[index]
    if span.kind not in AGENTS or not span.run_id or not span.session_id:
        return ()
    failed_call = tree.model_calls().get(index)
    may_be_blocked = failed_call is None or (span.error_type is not None and not failed_call)
    needs_metadata = dimensions.needs(Origin.METADATA)
    if not (may_be_blocked or (needs_metadata and failed_call)):
        return ()
    root = tree.spans[tree.root[index]]
    run = runs.get(root.id) if needs_metadata else None
    if run is None or run.settled:
        return (check(trace, span, root, now, held=False),)
    run.waiting += 1
    return (check(trace, span, root, now, held=True),)


def _bill(
    delta: Delta,
    tree: Tree,
    index: int,
    tally: CallTally,
    runs: Mapping[int, RunRecord],
    waiting: WaitingCall | None,
    cashier: Cashier,
) -> None:
    """Add tokens and cost of a call, to its run and session too; or leave that for later."""
    root = tree.root[index]
    run = runs.get(tree.spans[root].id) if root >= 0 else None
    if run is not None and run.settled:
        run = None  # its cost has only the calls from before it settled
    if run is not None:
        run.llm_calls += 1
        run.waiting += waiting is not None
    if waiting is not None:
        delta.waiting.append(waiting if run is not None else replace(waiting, root=0))
        return
    span = tree.spans[index]
    tokens, cost = cashier.charge(delta, tally, span, tree.user_of(index) if cashier.charges else "")
    if run is not None:
        run.add_cost(cost)
    if cashier.dimensions:
        call = RunCall(tally.labels[2], span.model, span.start, tokens, cost)
        if run is not None and run.divided:
            run.calls.append(call)
        elif run is None:
            count_call(delta, call, tally.labels[1], _values(tree, index, cashier.dimensions), cashier)
    if cost:
        delta.take_part(tree.session_of(tree.root[index]), SessionPart(span.start, span.end, cost=cost))


def _count_run(delta: Delta, tree: Tree, index: int, trace_id: str) -> None:
    """Count the run whose outermost span this is, for its session too."""
    span = tree.spans[index]
    delta.take_part(tree.session_of(index), SessionPart(span.start, span.end, runs=1))
    labels = (delta.agentos, str(span.kind), span.name)
    day = day_of(span.start)
    delta.add_on(day, "agentos_runs_total", labels)
    if span.continued:
        delta.add("agentos_runs_continued_total", labels)
    if span.error_type is not None:
        delta.error_on(day, "agentos_run_errors_total", (*labels, span.error_type), trace_id, span.end)
    delta.histogram("agentos_run_duration_seconds", labels).time(span.duration, trace_id, span.end)


def observe_session(delta: Delta, part: SessionPart) -> None:
    """Observe a session that has been idle for long enough."""
    labels = (delta.agentos,)
    if part.runs:  # none: only late calls of runs that were observed before
        delta.observe("agentos_session_runs", labels, part.runs)
        delta.observe("agentos_session_duration_seconds", labels, max(0, part.last - part.first))
    delta.observe("agentos_session_cost_usd", labels, part.cost)
