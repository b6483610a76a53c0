"""Increments from the detail of a run: its first token, and the models beside the main one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from exporter.core.model import Span, SpanKind, TokenUsage
from exporter.counting.delta import digest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from exporter.counting.cashier import Cashier
    from exporter.counting.delta import Delta
    from exporter.counting.waiting import ModelUse, RunDetail


BLOCKED: Final = "blocked_run"
"""activity: runs that are counted as blocked by a guardrail"""


class TimedCall(NamedTuple):
    """An LLM call of a run: times in microseconds, `output` tokens as far as known."""

    start: int
    end: int
    provider: str
    model: str
    output: int | None
    streamed: bool


class DetailedRun(NamedTuple):
    """A run whose detail is known: `root` is the name of its outermost run, `start` in microseconds."""

    root: str
    start: int
    calls: Sequence[TimedCall]


def count_blocks(
    delta: Delta, roots: Mapping[str, str], details: Mapping[str, RunDetail], already_counted: Collection[int], now: int
) -> None:
    """Count the runs that a guardrail blocked, each once.

    Args:
        delta: What the transaction adds up to; it notes the runs that are counted, too.
        roots: By id of a run of an agent or team, the name of its outermost run.
        details: By run id, as far as they are known.
        already_counted: Digests of the ids of runs that are counted as blocked already.
        now: When they are counted, in microseconds.

    """
    for run_id, root in roots.items():
        detail = details.get(run_id)
        counted = digest(run_id) in already_counted or (BLOCKED, digest(run_id)) in delta.activity
        if detail is not None and detail.guardrail and not counted:
            delta.add("agentos_guardrail_blocks_total", (delta.agentos, root, detail.guardrail))
            delta.see(BLOCKED, run_id, now)


def count_detail(delta: Delta, detail: RunDetail, run: DetailedRun, cashier: Cashier) -> None:
    """Count what the detail of a run tells. Call it once for each run.

    Args:
        delta: What the transaction adds up to.
        detail: The detail.
        run: The run as its spans show it.
        cashier: Prices tokens.

    """
    if detail.first_token is not None and run.calls:
        _count_first_token(delta, detail, detail.first_token, run)
    for use in detail.uses:
        if use.role:
            _count_overhead(delta, use, run, cashier)


def _count_first_token(delta: Delta, detail: RunDetail, first_token: int, run: DetailedRun) -> None:
    """`first_token` is in microseconds since the run began."""
    main = detail.uses[0].model if detail.uses else ""
    ordered = sorted(run.calls)
    call = next((call for call in ordered if call.model == main), ordered[0])
    labels = (delta.agentos, call.provider, call.model)
    delta.observe("agentos_llm_time_to_first_token_seconds", labels, first_token)
    came = run.start + first_token
    if call.streamed and call.start <= came <= call.end and (call.output or 0) > 1:
        later_tokens = (call.output or 0) - 1
        delta.observe("agentos_llm_time_per_output_token_seconds", labels, (call.end - came) // later_tokens)


def _count_overhead(delta: Delta, use: ModelUse, run: DetailedRun, cashier: Cashier) -> None:
    """Count tokens and cost of a model that is not the main one of its run."""
    usage = TokenUsage(
        use.prompt, use.completion, use.cache_read, use.cache_write, use.reasoning, use.total or None, detailed=True
    )
    call = Span(
        0,
        -1,
        SpanKind.LLM,
        "",
        run.start,
        run.start,
        provider=use.provider,
        model=use.model,
        usage=usage,
        reported_cost=use.cost,
    )
    priced = cashier.price(call)
    labels = (delta.agentos, run.root, use.model, use.role)
    tokens = use.prompt + use.completion if priced is None else priced.classes.total
    delta.add("agentos_run_overhead_tokens_total", labels, tokens)
    if priced is not None and priced.total is not None:
        delta.add("agentos_run_overhead_cost_usd_total", labels, priced.total)
