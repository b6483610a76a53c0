"""History in bulk: finished traces, written straight into agno's tables in the form that agno itself writes them.

    seed("sqlite:/tmp/agno.db", 10_000, until=now, spread=timedelta(days=1))
    python tests/harness/seed.py --db sqlite:/tmp/agno.db --traces 100000 --prompt 200 600 --spread 86400

Each trace is one agent run of 8 spans. Where the tables do not exist yet they are made by agno, which then has to be
importable.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

_TRACE_COLUMNS = (
    "trace_id, name, status, start_time, end_time, duration_ms, run_id, session_id, user_id, agent_id, team_id, "
    "workflow_id, created_at"
)
_SPAN_COLUMNS = (
    "span_id, trace_id, parent_span_id, name, span_kind, status_code, status_message, start_time, end_time, "
    "duration_ms, attributes, created_at"
)
_AGENTS = ("Support Desk", "Researcher", "Code-Review", "Planner v2.1", "Translator")
_MODELS = (
    ("OpenAIChat", "OpenAI", "gpt-5.4-mini", "openai"),
    ("Claude", "Anthropic", "claude-sonnet-5-5", "anthropic"),
    ("Gemini", "Google", "gemini-3.7-flash", "google"),
)
_TOOLS = ("search", "weather", "calculator")
_BATCH = 500  # traces a transaction; with prompts of 30 kB some 60 MB

_TraceRow = tuple[Any, ...]
_SpanRow = tuple[Any, ...]


def seed(
    database: str,
    traces: int,
    *,
    until: datetime | None = None,
    spread: timedelta = timedelta(hours=1),
    prompt_bytes: tuple[int, int] = (8_000, 30_000),
    http_roots: bool = True,
    errors: float = 0.02,
    number: int = 0,
    written: datetime | None = None,
    rootless: bool = False,
) -> int:
    """Write finished traces and return the number of their spans.

    Args:
        database: as `server.py` takes it.
        traces: how many.
        until: when the last one ends; now by default. Ends are spread evenly over the `spread` before it.
        spread: 0 lets all end at the same moment.
        prompt_bytes: smallest and largest prompt. An LLM span carries its prompt twice, as in agno.
        http_roots: whether FastAPI's request spans stand above the agent's.
        errors: share of traces whose tool fails, and share whose last model call fails.
        number: of the seeding: ids repeat for equal numbers and collide in one database.
        written: when spans were inserted; each at its own end by default.
        rootless: leave the roots out, as a process does that is killed before the runs end.

    Raises:
        ValueError: for an unknown kind of database.

    """
    until = until or datetime.now(UTC)
    rows = _traces(traces, until, spread, prompt_bytes, http_roots=http_roots, errors=errors, number=number)
    if written is not None:
        rows = _restamped(rows, written.isoformat())
    if rootless:
        rows = ((trace, [span for span in spans if span[2] is not None]) for trace, spans in rows)
    kind, _, rest = database.removeprefix("async-").partition(":")
    if kind == "sqlite":
        return _into_sqlite(database, rest, rows)
    if kind == "postgres":
        return _into_postgres(database, re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", rest), rows)
    if kind == "mysql":
        return _into_mysql(database, rest, rows)
    raise ValueError(f"unknown kind of database: {database}")


def _into_sqlite(database: str, path: str, rows: Iterator[tuple[_TraceRow, list[_SpanRow]]]) -> int:
    find = "SELECT 1 FROM sqlite_master WHERE name = 'agno_spans'"
    connection = sqlite3.connect(path, timeout=60)
    if not connection.execute(find).fetchone():
        connection.close()
        _create_tables(database)
        connection = sqlite3.connect(path, timeout=60)
    spans = 0
    connection.execute("PRAGMA synchronous = OFF")
    while batch := list(islice(rows, _BATCH)):
        with connection:
            some = [trace for trace, _ in batch]
            connection.executemany(f"INSERT INTO agno_traces ({_TRACE_COLUMNS}) VALUES ({_marks(some)})", some)
            some = [span for _, each in batch for span in each]
            connection.executemany(f"INSERT INTO agno_spans ({_SPAN_COLUMNS}) VALUES ({_marks(some)})", some)
            spans += len(some)
    connection.close()
    return spans


def _into_postgres(database: str, url: str, rows: Iterator[tuple[_TraceRow, list[_SpanRow]]]) -> int:
    import psycopg

    find = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'agno_spans'"
    spans = 0
    with psycopg.connect(url, autocommit=True) as connection:
        if not connection.execute(find).fetchone():
            _create_tables(database)
        (schema,) = connection.execute(find).fetchone() or ("",)
        while batch := list(islice(rows, _BATCH)):
            with connection.transaction(), connection.cursor() as cursor:
                for table, columns, some in (
                    ("agno_traces", _TRACE_COLUMNS, [trace for trace, _ in batch]),
                    ("agno_spans", _SPAN_COLUMNS, [span for _, each in batch for span in each]),
                ):
                    with cursor.copy(f'COPY "{schema}".{table} ({columns}) FROM STDIN') as copy:
                        for row in some:
                            copy.write_row(row)
                spans += sum(len(each) for _, each in batch)
        connection.execute(f'ANALYZE "{schema}".agno_traces, "{schema}".agno_spans')
    return spans


def _into_mysql(database: str, url: str, rows: Iterator[tuple[_TraceRow, list[_SpanRow]]]) -> int:
    import pymysql

    parts = urlsplit(url)
    schema = parts.path.strip("/")
    where = {"host": parts.hostname, "port": parts.port or 3306, "user": parts.username, "database": schema}
    connection = pymysql.connect(**where)
    cursor = connection.cursor()
    find = "SELECT 1 FROM information_schema.tables WHERE table_name = 'agno_spans' AND table_schema = %s"
    if not cursor.execute(find, (schema,)):
        _create_tables(database)
    # In bulk: what agno guarantees is not checked again for each row.
    cursor.execute("SET unique_checks = 0, foreign_key_checks = 0")
    spans = 0
    while batch := list(islice(rows, _BATCH)):
        for table, columns, some in (
            ("agno_traces", _TRACE_COLUMNS, [trace for trace, _ in batch]),
            ("agno_spans", _SPAN_COLUMNS, [span for _, each in batch for span in each]),
        ):
            marks = _marks(some).replace("?", "%s")
            cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", some)
        connection.commit()
        spans += sum(len(each) for _, each in batch)
    cursor.execute("ANALYZE TABLE agno_traces, agno_spans")
    connection.close()
    return spans


def _marks(rows: list[tuple[Any, ...]]) -> str:
    return ", ".join("?" * len(rows[0]))


def _create_tables(database: str) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        from server import create_tables, open_database
    finally:
        sys.path.pop(0)

    async def create() -> None:
        db = open_database(database, "seed")
        try:
            await create_tables(db)
        finally:
            disposing = db.db_engine.dispose()
            if disposing is not None:
                await disposing

    asyncio.run(create())


def _traces(
    traces: int,
    until: datetime,
    spread: timedelta,
    prompt_bytes: tuple[int, int],
    *,
    http_roots: bool,
    errors: float,
    number: int,
) -> Iterator[tuple[_TraceRow, list[_SpanRow]]]:
    random = Random(f"seed {number}")
    words = " ".join(f"word{random.randrange(10_000)}" for _ in range(prompt_bytes[1] // 4 + 10))
    for index in range(traces):
        end = until - spread * ((traces - 1 - index) / traces)
        yield _trace(random, end, words, random.randint(*prompt_bytes), http_roots=http_roots, errors=errors)


def _restamped(
    rows: Iterator[tuple[_TraceRow, list[_SpanRow]]], written: str
) -> Iterator[tuple[_TraceRow, list[_SpanRow]]]:
    for trace, spans in rows:
        yield trace, [(*span[:-1], written) for span in spans]


def _trace(
    random: Random, end: datetime, words: str, size: int, *, http_roots: bool, errors: float
) -> tuple[_TraceRow, list[_SpanRow]]:
    """Make one run: model, tool, model, and around it the request, or else two more rounds."""
    trace_id = f"{random.getrandbits(128):032x}"
    agent = random.choice(_AGENTS)
    agent_id = re.sub(r"[^a-z0-9]+", "-", agent.lower())
    run_id = f"{random.getrandbits(128):032x}"
    user, session = f"user-{random.randrange(200)}", f"session-{random.randrange(5_000)}"
    name, provider, model, system = random.choice(_MODELS)
    fails_tool, fails_model = random.random() < errors, random.random() < errors
    offset = random.randrange(max(1, len(words) - size))
    prompt = words[offset : offset + size]
    seconds = random.uniform(0.8, 8.0)
    start = end - timedelta(seconds=seconds)
    spans: list[_SpanRow] = []

    def span(
        parent: str | None,
        label: str,
        begins: float,
        ends: float,
        attributes: dict[str, Any],
        *,
        kind: str = "INTERNAL",
        status: str = "OK",
        message: str | None = None,
    ) -> str:
        """Add a span that lasts from one share of the trace's time to another."""
        span_id = f"{random.getrandbits(64):016x}"
        first, last = start + timedelta(seconds=seconds * begins), start + timedelta(seconds=seconds * ends)
        last = end if ends == 1 else last
        milliseconds = int((last - first) / timedelta(milliseconds=1))
        written = (last + timedelta(microseconds=300)).isoformat()
        times = (first.isoformat(), last.isoformat(), milliseconds, json.dumps(attributes), written)
        spans.append((span_id, trace_id, parent, label, kind, status, message, *times))
        return span_id

    def model_call(parent: str, begins: float, ends: float, *, fails: bool = False) -> None:
        size = 20 + len(prompt) // 4
        message = {"id": f"{random.getrandbits(128):032x}", "content": prompt, "from_history": False, "role": "user"}
        attributes = {
            "input.mime_type": "application/json",
            "input.value": json.dumps({"messages": [message]}),
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.content": prompt,
            "llm.model_name": model,
            "llm.provider": provider,
            "llm.system": system,
        }
        if fails:
            error = {"status": "ERROR", "message": "ModelProviderError: the provider is overloaded"}
            span(parent, f"{name}.ainvoke", begins, ends, attributes | {"openinference.span.kind": "LLM"}, **error)  # type: ignore[arg-type]
            return
        output = random.randrange(20, 900)
        attributes |= {
            "llm.token_count.prompt": size,
            "llm.token_count.completion": output,
            "llm.token_count.total": size + output,
            "llm.token_count.prompt_details.cache_read": size // 2,
            "output.mime_type": "application/json",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": prompt[:200],
            "output.value": json.dumps([{"role": "assistant", "content": prompt[:200]}]),
            "openinference.span.kind": "LLM",
        }
        span(parent, f"{name}.ainvoke", begins, ends, attributes)

    def tool_call(parent: str, begins: float, ends: float, *, fails: bool = False) -> None:
        tool = random.choice(_TOOLS)
        attributes = {
            "input.mime_type": "application/json",
            "input.value": '{"query": "agents"}',
            "tool.name": tool,
            "tool.description": "A tool.",
            "tool.parameters": '{"query": "agents"}',
            "output.value": "alice: not found" if fails else prompt[:500],
            "output.mime_type": "text/plain",
            "openinference.span.kind": "TOOL",
        }
        error = {"status": "ERROR", "message": "alice: not found"} if fails else {}
        span(parent, tool, begins, ends, attributes, **error)  # type: ignore[arg-type]

    function = {"code.function.name": "agno.os.routers.agents.router.get_agent_router.<locals>.create_agent_run"}
    parent = None
    if http_roots:
        request = {
            "server.address": "127.0.0.1",
            "server.port": 7777,
            "url.path": f"/agents/{agent_id}/runs",
            "url.scheme": "http",
            "http.request.method": "POST",
            "network.protocol.version": "1.1",
            "http.route": "/agents/{agent_id}/runs",
            "http.response.status_code": 200,
        }
        root = span(None, "POST /agents/{agent_id}/runs", 0, 1, request, kind="SERVER", status="UNSET")
        span(root, "fastapi.dependencies", 0.001, 0.002, function, status="UNSET")
        parent = span(root, "fastapi.endpoint", 0.003, 0.99, function, status="UNSET")
        span(root, "fastapi.serialization", 0.991, 0.995, function, status="UNSET")
    attributes = {
        "graph.node.id": f"{random.getrandbits(64):016x}",
        "input.value": prompt,
        "graph.node.name": agent,
        "agent.name": agent,
        "agno.agent.id": agent_id,
        "agno.agent": agent,
        "agno.tools": list(_TOOLS),
        "session.id": session,
        "user.id": user,
        "output.value": prompt[:200],
        "output.mime_type": "application/json",
        "agno.run.id": run_id,
        "openinference.span.kind": "AGENT",
    }
    ends = 0.985 if http_roots else 1
    status = {"status": "ERROR", "message": "run status: error"} if fails_model else {}
    label = f"{agent.replace(' ', '_').replace('-', '_')}.arun"
    run = span(parent, label, 0.004 if http_roots else 0, ends, attributes, **status)  # type: ignore[arg-type]
    model_call(run, 0.01, 0.4)
    tool_call(run, 0.41, 0.5, fails=fails_tool)
    if not http_roots:
        model_call(run, 0.51, 0.6)
        tool_call(run, 0.61, 0.62)
        tool_call(run, 0.61, 0.63)
        tool_call(run, 0.61, 0.64)
    model_call(run, 0.65, 0.98, fails=fails_model)

    if http_roots:
        head = ("fastapi.dependencies", "OK")
        ids = (None, None, None, None, None, None)
    else:
        head = (label, "ERROR" if fails_model else "OK")
        ids = (run_id, session, user, agent_id, None, None)
    made = (start + timedelta(seconds=seconds * 0.003)).isoformat()
    return (trace_id, *head, start.isoformat(), end.isoformat(), int(seconds * 1000), *ids, made), spans


def main() -> None:
    """Seed a database from the command line."""
    parser = argparse.ArgumentParser(description="Write finished traces into agno's tables")
    parser.add_argument("--db", required=True)
    parser.add_argument("--traces", type=int, required=True)
    parser.add_argument("--spread", type=float, default=3600.0, metavar="SECONDS")
    parser.add_argument("--prompt", type=int, nargs=2, default=(8_000, 30_000), metavar=("LEAST", "MOST"))
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--no-http-roots", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    spans = seed(
        options.db,
        options.traces,
        spread=timedelta(seconds=options.spread),
        prompt_bytes=tuple(options.prompt),
        http_roots=not options.no_http_roots,
        number=options.number,
    )
    print(f"{spans} spans in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
