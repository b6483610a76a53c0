"""query-exporter (5.0.2) on agno's tables: one SQL statement that gives a part of what the exporter counts.

The exact form counts all spans anew at each poll. The windowed one counts those that were written within the last
seconds, and adds: what is committed late is lost, and what two windows see is doubled. Both give spans, errors, tokens
and durations by root, agent, kind, provider and model; no runs, no tools, no histogram, no cost, no orphan.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.harness import truth, venvs
from tests.harness.agentos import free_port

_ATTRIBUTES = (
    "openinference.span.kind",
    "llm.provider",
    "llm.model_name",
    "llm.token_count.prompt",
    "llm.token_count.completion",
    "llm.token_count.prompt_details.cache_read",
)
_SHORT = ("kind", "provider", "model", "prompt", "completion", "cached")
_LABELS = ("root", "agent", "kind", "provider", "model")
_METRICS = ("spans", "errors", "seconds", "prompt", "completion", "cached")

# Attributes are parsed once, in one pass over the table, and the tree is walked in memory: on SQLite, walking it by the
# index on parents took a third longer (80,000 spans).
_TREE = """
tree AS (
  SELECT span_id, status_code, seconds, kind, provider, model, prompt, completion, cached,
    CASE WHEN kind IN ('AGENT', 'CHAIN') THEN label ELSE '' END AS root,
    CASE WHEN kind = 'AGENT' THEN label ELSE '' END AS agent
  FROM s WHERE parent_span_id IS NULL
  UNION ALL
  SELECT c.span_id, c.status_code, c.seconds, c.kind, c.provider, c.model, c.prompt, c.completion, c.cached,
    CASE WHEN t.root <> '' THEN t.root WHEN c.kind IN ('AGENT', 'CHAIN') THEN c.label ELSE '' END,
    CASE WHEN c.kind = 'AGENT' THEN c.label ELSE t.agent END
  FROM tree t JOIN s c ON c.parent_span_id = t.span_id
)
SELECT root, agent, kind, coalesce(provider, '') AS provider, coalesce(model, '') AS model, count(*) AS spans,
  sum(CASE WHEN status_code = 'ERROR' THEN 1 ELSE 0 END) AS errors, sum(seconds) AS seconds,
  coalesce(sum(prompt), 0) AS prompt, coalesce(sum(completion), 0) AS completion, coalesce(sum(cached), 0) AS cached
FROM tree WHERE kind IS NOT NULL GROUP BY root, agent, kind, provider, model
"""
_PATHS = ", ".join(f"'$.\"{name}\"'" for name in _ATTRIBUTES)
_SQLITE = f"""
WITH RECURSIVE f AS MATERIALIZED (
  SELECT span_id, parent_span_id, name, status_code, start_time, end_time,
    json_extract(attributes, {_PATHS}) AS facts
  FROM agno_spans {{where}}
), s AS MATERIALIZED (
  SELECT span_id, parent_span_id, status_code, (julianday(end_time) - julianday(start_time)) * 86400 AS seconds,
    CASE WHEN name LIKE '%.arun' THEN substr(name, 1, length(name) - 5) ELSE name END AS label,
    facts ->> 0 AS kind, facts ->> 1 AS provider, facts ->> 2 AS model,
    facts ->> 3 AS prompt, facts ->> 4 AS completion, facts ->> 5 AS cached
  FROM f
), {_TREE}
"""
_NAMED = ", ".join(f'a."{name}" AS {short}' for name, short in zip(_ATTRIBUTES, _SHORT, strict=True))
_TYPED = ", ".join(f'"{name}" {"bigint" if "token" in name else "text"}' for name in _ATTRIBUTES)
_POSTGRES = f"""
WITH RECURSIVE s AS MATERIALIZED (
  SELECT span_id, parent_span_id, status_code, regexp_replace(name, '\\.arun$', '') AS label,
    extract(epoch FROM end_time\\:\\:timestamptz - start_time\\:\\:timestamptz) AS seconds,
    {_NAMED}
  FROM ai.agno_spans LEFT JOIN LATERAL jsonb_to_record(attributes) AS a({_TYPED}) ON true {{where}}
), {_TREE}
"""
_WINDOW = {
    "sqlite": "WHERE created_at >= strftime('%Y-%m-%dT%H\\:%M\\:%f', 'now', '-{} seconds')",
    "postgres": "WHERE created_at >= to_char(now() AT TIME ZONE 'UTC' - interval '{} seconds', "
    "'YYYY-MM-DD\"T\"HH24\\:MI\\:SS.US')",
}


def statement(database: str, window: int | None = None) -> str:
    """The SQL for a database, as query-exporter wants it (a colon begins a parameter); `window` is in seconds."""
    engine = database.partition(":")[0]
    where = "" if window is None else _WINDOW[engine].format(window)
    return {"sqlite": _SQLITE, "postgres": _POSTGRES}[engine].format(where=where)


class QueryExporter:
    """query-exporter in a process of its own, one query at each scrape; a context manager.

    Attributes:
        failed: how many of its queries failed, by its own count.

    """

    def __init__(self, database: str, window: int | None = None) -> None:
        self.failed = 0.0
        self._port = free_port()
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[bytes] | None = None
        kind, _, rest = database.partition(":")
        dsn = f"sqlite:///{rest}" if kind == "sqlite" else f"postgresql+psycopg://{rest.partition('://')[2]}"
        counter = {"type": "counter", "labels": list(_LABELS), "increment": window is not None}
        config = {
            "databases": {"agno": {"dsn": dsn}},
            "metrics": dict.fromkeys(_METRICS, counter),
            # Without an interval it runs at each scrape: what a scrape takes is what a poll takes.
            "queries": {"all": {"databases": ["agno"], "metrics": list(_METRICS), "sql": statement(database, window)}},
        }
        (Path(self._folder.name) / "config.yaml").write_text(json.dumps(config), encoding="utf-8")

    def __enter__(self) -> Self:
        program = venvs.python("query-exporter").with_name("query-exporter")
        command = [str(program), "--port", str(self._port), "--config", "config.yaml", "--log-level", "error"]
        self._process = subprocess.Popen(command, cwd=self._folder.name, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self._port}/", timeout=60, trust_env=False).raise_for_status()
            except httpx.TransportError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise
                time.sleep(0.1)
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self._folder.cleanup()

    def scrape(self) -> tuple[float, truth.Totals]:
        """Seconds that one query and its processing took, and what is shown then."""
        began = time.perf_counter()
        answer = httpx.get(f"http://127.0.0.1:{self._port}/metrics", timeout=600, trust_env=False).raise_for_status()
        took = time.perf_counter() - began
        samples = truth.scrape(answer.text)
        queries = {labels: value for (name, labels), value in samples.items() if name == "queries_total"}
        if any(value for labels, value in queries.items() if ("status", "success") not in labels) or not any(
            name == "spans_total" for name, _ in samples
        ):
            raise RuntimeError(f"its query failed:\n{answer.text[:2000]}")
        return took, samples
