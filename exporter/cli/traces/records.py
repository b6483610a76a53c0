"""Results as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exporter.core.model import MICROSECONDS
from exporter.core.times import utc

if TYPE_CHECKING:
    from exporter.sources.api.views import SpanView, TraceView


@dataclass(slots=True)
class Session:
    """One session, from AgentOS's statistics or (`failed` is not None) from traces."""

    id: str
    user: str
    components: list[str]
    traces: int
    first: int
    last: int
    failed: int | None = None
    calls: list[SpanView] = field(default_factory=list)


def _iso(micros: int) -> str:
    return utc(micros).isoformat(timespec="microseconds")


def trace_record(trace: TraceView) -> dict[str, Any]:
    """A trace, without its spans."""
    root = trace.root
    return {
        "trace_id": trace.id,
        "db_id": trace.db or None,
        "start": _iso(trace.start),
        "end": _iso(trace.end),
        "duration_seconds": trace.duration / MICROSECONDS,
        "status": trace.status,
        "root": {"kind": root.kind.value, "name": root.name} if root is not None else None,
        "run_id": trace.first("run_id") or None,
        "session_id": trace.first("session_id") or None,
        "user_id": trace.first("user_id") or None,
        "span_counts": {
            "total": trace.total_spans,
            "visible": len(trace.spans),
            "hidden": trace.hidden,
            "failed": trace.failed,
        },
        "llm": _usage(trace.llm_calls),
    }


def _usage(calls: Sequence[SpanView]) -> dict[str, Any]:
    return {
        "calls": len(calls),
        "calls_without_tokens": sum(call.input_tokens is None for call in calls),
        "input_tokens": sum(call.input_tokens or 0 for call in calls),
        "output_tokens": sum(call.output_tokens or 0 for call in calls),
        "models": sorted({call.model for call in calls if call.model}),
    }


def span_record(trace: TraceView, span: SpanView, *, content: bool) -> dict[str, Any]:
    """A span of a trace, for JSON.

    Args:
        trace: The trace.
        span: The span.
        content: Whether to include prompt, answer and arguments.

    """
    record = {
        "span_id": span.id,
        "parent_span_id": trace.spans[span.parent].id if span.parent >= 0 else None,
        "depth": span.depth,
        "kind": span.kind.value,
        "name": span.name,
        "start": _iso(span.start),
        "end": _iso(span.end),
        "duration_seconds": span.duration / MICROSECONDS,
        "status": span.status,
        "error": span.error or None,
        "model": span.model or None,
        "input_tokens": span.input_tokens,
        "output_tokens": span.output_tokens,
        "same_call_as_parent": span.nested,
        "run_id": span.run_id or None,
        "session_id": span.session_id or None,
        "user_id": span.user_id or None,
    }
    if content:
        for key in ("input", "output", "arguments"):
            record[key] = getattr(span, key) or None
    return record


def session_record(session: Session) -> dict[str, Any]:
    """A session."""
    return {
        "session_id": session.id,
        "user_id": session.user or None,
        "components": session.components,
        "traces": session.traces,
        "first": _iso(session.first),
        "last": _iso(session.last),
        "failed_traces": session.failed,
        "llm": _usage(session.calls) if session.failed is not None else None,
    }
