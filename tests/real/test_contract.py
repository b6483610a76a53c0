"""agno's own client and our decoder read the same AgentOS: what they say of its traces is the same."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from exporter.core.model import MICROSECONDS, RUN_KINDS, Clock, SpanKind, Trace
from exporter.core.span_names import component_name, http_method
from exporter.sources.api import wire
from exporter.sources.api.source import AgentOSSource, Target
from exporter.sources.position import Settings
from tests.harness import load
from tests.harness.agentos import RunningAgentOS

_KINDS = {"UNKNOWN": SpanKind.HTTP}
_NAMES = dict.fromkeys(RUN_KINDS, component_name) | {SpanKind.HTTP: http_method}
_PAGE = 100


@pytest.fixture
async def source(tmp_path):
    with RunningAgentOS(sys.executable, f"sqlite:{tmp_path}/agno.db") as agentos:
        await load.drive(agentos.base_url, runs=40, seed=12)
        await asyncio.to_thread(agentos.wait_until_quiet)
        settings = Settings(60 * MICROSECONDS, 3600 * MICROSECONDS, 3600 * MICROSECONDS, 0.05)
        source = AgentOSSource(Target("it", agentos.base_url, lambda: None), settings, Clock(time.time, time.monotonic))
        yield source
        await source.aclose()


async def test_search_reads_alike(source):
    theirs = (await source.client.search_traces(limit=_PAGE)).data
    answer = await source.api.post(
        "/traces/search", {}, {"group_by": "run", "page": 1, "limit": _PAGE}, endpoint="traces_search", timeout=30
    )
    page = wire.search_page(answer.body, "")
    assert page.malformed == []
    ours = {trace.id: trace for trace in page.traces}
    assert len(ours) >= 40
    assert set(ours) == {detail.trace_id for detail in theirs}
    for detail in theirs:
        trace = ours[detail.trace_id]
        assert (trace.total_spans, trace.start, trace.end) == (
            detail.total_spans,
            _micros(detail.start_time),
            _micros(detail.end_time),
        )
        assert _as_read_by_us(trace) == list(_as_read_by_agno(detail.tree, -1, iter(range(10**6))))


async def test_list_reads_alike(source):
    theirs = (await source.client.get_traces(limit=_PAGE)).data
    answer = await source.api.get("/traces", {"limit": _PAGE}, endpoint="traces_list", timeout=30)
    listing = wire.list_page(answer.body)
    assert {(row.id, row.total_spans, row.start, row.end, row.created) for row in listing.rows} == {
        (row.trace_id, row.total_spans, _micros(row.start_time), _micros(row.end_time), _micros(row.created_at))
        for row in theirs
    }


def _micros(moment):
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _as_read_by_us(trace: Trace):
    return [
        (
            span.parent,
            f"{span.id:016x}",
            str(span.kind),
            span.name,
            span.start,
            span.end,
            span.error_type is not None,
            span.model,
            span.usage.prompt,
            span.usage.completion,
            span.session_id,
        )
        for span in trace.spans
    ]


def _as_read_by_agno(nodes, parent, numbers):
    for node in nodes:
        index, metadata = next(numbers), node.metadata or {}
        kind = _KINDS.get(node.type, node.type.lower())
        is_llm = node.type == "LLM"
        yield (
            parent,
            node.id,
            str(kind),
            _NAMES.get(kind, str)(node.name),
            _micros(node.start_time),
            _micros(node.end_time),
            node.status == "ERROR",
            metadata.get("model", "") if is_llm else "",
            metadata.get("input_tokens") if is_llm else None,
            metadata.get("output_tokens") if is_llm else None,
            metadata.get("session_id"),
        )
        yield from _as_read_by_agno(node.spans or [], index, numbers)
