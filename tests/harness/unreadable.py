"""Traces that AgentOS stores but cannot serve, and what is to become of all others."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.harness import load, truth
from tests.harness.driven import Driven, World
from tests.harness.inprocess import Shown
from tests.harness.seed import seed

TOOLS = load.Run("agents", "tools")
IGNORED = "agentos_exporter_ignored_traces_total"
HEALTHY = 60

Spoil = Callable[[dict[str, Any]], object]


def put(name: str, value: object) -> Spoil:
    """Set an attribute of a span, as JSON allows it and agno does not write it."""

    def spoil(attributes: dict[str, Any]) -> object:
        return {**attributes, name: value}

    return spoil


KINDS: dict[str, tuple[str, Spoil]] = {
    "half a surrogate in a prompt": ("LLM", put("input.value", "report\udcff.pdf")),
    "half a surrogate in a tool's answer": ("TOOL", put("output.value", "\ud83d")),
    "tokens as a text": ("LLM", put("llm.token_count.prompt", "many")),
    "tokens as a list": ("LLM", put("llm.token_count.completion", [1, 2])),
    "tokens as an object": ("LLM", put("llm.token_count.prompt", {"a": 1})),
    "a prompt that is a number": ("LLM", put("input.value", 7)),
    "an answer that is an object": ("AGENT", put("output.value", {"a": 1})),
    "a kind that is a number": ("TOOL", put("openinference.span.kind", 7)),
    "attributes that are null": ("LLM", lambda _: None),
    "attributes that are a list": ("LLM", lambda _: [1]),
}
"""The kind of span that is spoilt, and how."""


def spoil(path: Path, kind: str, how: Spoil) -> str:
    """Spoil a span of the newest trace of an SQLite database, and return the trace's id."""
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        (trace,) = connection.execute("SELECT trace_id FROM agno_traces ORDER BY end_time DESC LIMIT 1").fetchone()
        rows = connection.execute("SELECT span_id, attributes FROM agno_spans WHERE trace_id = ?", (trace,)).fetchall()
        span, attributes = next((s, json.loads(a)) for s, a in rows if f'"{kind}"' in a)
        text = json.dumps(how(attributes))
        connection.execute("UPDATE agno_spans SET attributes = ? WHERE span_id = ?", (text, span))
    return str(trace)


def nest(world: World, depth: int) -> str:
    """Put many spans into the newest trace, each inside the one before."""
    with world.sql() as connection:
        (trace,) = connection.execute("SELECT trace_id FROM agno_traces ORDER BY end_time DESC LIMIT 1").fetchone()
        columns = [row[1] for row in connection.execute("PRAGMA table_info(agno_spans)")]
        query = f"SELECT {', '.join(columns)} FROM agno_spans WHERE trace_id = ? ORDER BY start_time DESC LIMIT 1"
        span = dict(zip(columns, connection.execute(query, (trace,)).fetchone(), strict=True))
        insert = f"INSERT INTO agno_spans ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        for number in range(depth):
            span |= {"parent_span_id": span["span_id"], "span_id": f"{number:016x}"}
            connection.execute(insert, list(span.values()))
    return str(trace)


def healthy(world: World, number: int = 1) -> None:
    until = datetime.fromtimestamp(world.clock.now(), UTC) - timedelta(seconds=1)
    seed(world.database, HEALTHY, until=until, spread=timedelta(seconds=9), prompt_bytes=(50, 80), number=number)


def of_others(totals: truth.Totals) -> truth.Totals:
    """Leave out what the spoilt trace brings where it can be read in part, its root perhaps not."""
    return {key: value for key, value in totals.items() if dict(key[1]).get("root", "") not in {"", "Tool_User"}}


def polls(shown: Shown, agentos: str, outcome: str) -> float:
    return shown("agentos_exporter_polls_total", agentos=agentos, outcome=outcome)


def refused(shown: Shown) -> float:
    requests = "agentos_exporter_api_requests_total"
    return shown(requests, agentos="api") - shown(requests, agentos="api", code="200")


async def counted_but_for(world: World, exporter: Driven, trace: str, totals: truth.Totals) -> None:
    """Three polls later all others are counted, and the trace is said to be unreadable, once."""
    shown = await exporter.forward(45)
    runs = sum(value for key, value in totals.items() if key[0] == "agentos_runs_total")
    assert shown("agentos_runs_total", agentos="api") == runs, exporter.own()
    assert shown("agentos_up", agentos="api") == 1
    assert polls(shown, "api", "ok") == shown("agentos_exporter_polls_total", agentos="api")
    await exporter.agree(totals, "api")
    shown = exporter.scrapes[-1]
    assert shown(IGNORED, agentos="api", reason="unreadable") == 1
    (said,) = exporter.logged("trace_unreadable")
    assert said["trace_id"] == trace
