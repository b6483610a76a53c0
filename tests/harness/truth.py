"""What the exporter ought to show, counted independently of it: straight from agno's own tables.

Nothing of the exporter is imported here, on purpose: each rule of the metric catalogue is written down a second time,
in the most literal form. `count` reads the tables, `scrape` reads an exposition, `difference` compares the two::

    truth = count("sqlite:/tmp/agno.db", "prod")
    assert difference(truth.totals, scrape(httpx.get(f"{exporter}/metrics").text)) == []

The numbers are those that AgentOS's HTTP API can give: no cache or reasoning tokens, a provider only through the name
of the model, and only spans that are visible, i.e. whose ancestors up to a root are all written. `sqltruth.py` gives
those that only the tables can give.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.harness.patience import HANG
from tests.harness.server import FAILURES

Sample = tuple[str, frozenset[tuple[str, str]]]
Totals = dict[Sample, float]

COVERED = frozenset(
    {
        "agentos_traces_total",
        "agentos_runs_total",
        "agentos_runs_continued_total",
        "agentos_run_errors_total",
        "agentos_run_duration_seconds_count",
        "agentos_run_duration_seconds_sum",
        "agentos_run_llm_calls_count",
        "agentos_run_llm_calls_sum",
        "agentos_llm_calls_total",
        "agentos_llm_call_errors_total",
        "agentos_llm_call_errors_by_class_total",
        "agentos_llm_calls_without_usage_total",
        "agentos_llm_tokens_total",
        "agentos_llm_call_duration_seconds_count",
        "agentos_llm_call_duration_seconds_sum",
        "agentos_llm_call_input_tokens_count",
        "agentos_llm_call_input_tokens_sum",
        "agentos_llm_call_output_tokens_count",
        "agentos_llm_call_output_tokens_sum",
        "agentos_tool_calls_total",
        "agentos_tool_call_errors_total",
        "agentos_tool_call_duration_seconds_count",
        "agentos_tool_call_duration_seconds_sum",
        "agentos_spans_total",
        "agentos_error_spans_total",
        "agentos_exporter_orphan_spans_total",
    }
)
"""Names of the samples that `count` knows; `difference` ignores all others."""

_NEEDED = (
    "openinference.span.kind",
    "agno.team.id",
    "team.id",
    "exception.message",
    "llm.model_name",
    "llm.provider",
    "llm.token_count.prompt",
    "llm.token_count.completion",
    "llm.token_count.total",
    "llm.token_count.prompt_details.cache_read",
    "llm.token_count.prompt_details.cache_write",
    "llm.token_count.completion_details.reasoning",
    "llm.cost.total",
    "session.id",
    "user.id",
)
_RUNS = ("AGENT", "TEAM", "WORKFLOW")
_NAMED = re.compile(r"^(.*)\.(?:a?run|a?continue_run|_?a?execute)(?:_stream)?$", re.DOTALL)
_LLM_NAMED = re.compile(r"^(.*)\.a?invoke(?:_stream)?$", re.DOTALL)
# What the scripted models say when they fail, word for word, and the class of each.
_ERROR_CLASSES = {f"ModelProviderError: {text}": name for name, (text, _) in FAILURES.items()}
_ERROR_TYPE = re.compile(r"^\w+(\.\w+)*(Error|Exception|Timeout|Interrupt|Exit|Warning)(?=:|$)")

# The names of agno's model classes that the test server uses, with the provider that each reports.
_PROVIDERS = {
    "OpenAIChat": "openai",
    "OpenAIResponses": "openai",
    "Claude": "anthropic",
    "Gemini": "google",
    "Groq": "groq",
    "MistralChat": "mistral",
    "Ollama": "ollama",
    "DeepSeek": "deepseek",
    "OpenRouter": "openrouter",
    "xAI": "xai",
}


@dataclass(frozen=True)
class Row:
    """One span as agno stored it."""

    span_id: str
    trace_id: str
    parent: str | None
    name: str
    status: str
    message: str | None
    start: float
    end: float
    microseconds: int
    attributes: Mapping[str, Any]

    @property
    def type(self) -> str:
        """Return the span's type, derived as AgentOS derives it for its API."""
        kind = str(self.attributes.get("openinference.span.kind", "UNKNOWN"))
        if kind == "CHAIN":
            return "WORKFLOW"
        if kind == "AGENT" and (self.attributes.get("agno.team.id") or self.attributes.get("team.id")):
            return "TEAM"
        return kind

    @property
    def label(self) -> str:
        """Return the span's name without the method that agno appends."""
        found = (_LLM_NAMED if self.type == "LLM" else _NAMED).match(self.name)
        return found[1] if found else self.name

    @property
    def error_type(self) -> str | None:
        """Return the type of the error, `other` where the text names none, or None without an error."""
        if self.status != "ERROR":
            return None
        found = _ERROR_TYPE.match(self.message or self.attributes.get("exception.message") or "")
        return found[0] if found and len(found[0]) <= 64 else "other"

    @property
    def error_class(self) -> str:
        """Return why a model call of the test server failed; `other` for texts that it does not have."""
        return _ERROR_CLASSES.get(self.message or self.attributes.get("exception.message") or "", "other")

    @property
    def input_tokens(self) -> int:
        """Return the prompt tokens, 0 where there is no count."""
        return int(self.attributes.get("llm.token_count.prompt") or 0)

    @property
    def output_tokens(self) -> int:
        """Return the completion tokens, 0 where there is no count."""
        return int(self.attributes.get("llm.token_count.completion") or 0)

    @property
    def model(self) -> str:
        """Return the id of the model."""
        return str(self.attributes.get("llm.model_name") or "")

    @property
    def tokens(self) -> Mapping[str, int]:
        """Return the tokens by class, as far as they can be told apart."""
        return {"input": self.input_tokens, "output": self.output_tokens}

    @property
    def provider(self) -> str:
        """Return the provider that the model's name stands for."""
        if self.label == "Claude" and "@" in self.model:
            return "vertexai"
        return _PROVIDERS.get(self.label, "")


@dataclass(frozen=True)
class Call:
    """One LLM call that counts, and where it stands."""

    row: Row
    run: str  # span id of its run, '' for none
    root: str
    agent: str


@dataclass
class Truth:
    """The expected samples, and what else there is to know about the tables."""

    totals: Totals = field(default_factory=dict)
    traces: int = 0
    spans: int = 0
    visible: set[str] = field(default_factory=set)  # span ids
    hidden: set[str] = field(default_factory=set)  # span ids with an ancestor that is not written
    empty_traces: set[str] = field(default_factory=set)  # trace ids without any span
    nested_llm: int = 0  # visible LLM spans inside LLM spans, counted nowhere
    kinds: Counter[str] = field(default_factory=Counter)  # visible spans by type, nested and UNKNOWN ones included
    error_kinds: Counter[str] = field(default_factory=Counter)
    sessions: set[str] = field(default_factory=set)  # ids that visible spans name
    users: set[str] = field(default_factory=set)
    calls: list[Call] = field(default_factory=list)
    runs: dict[str, Row] = field(default_factory=dict)  # by span id
    session_of: dict[str, str] = field(default_factory=dict)  # span id of a run → the session that it or a span names

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a sample over all series that have these labels."""
        wanted = set(labels.items())
        return sum(value for (sample, have), value in self.totals.items() if sample == name and wanted <= have)


def count(
    database: str | Sequence[str],
    agentos: str,
    *,
    own_prefix: str = "",
    span: type[Row] = Row,
    orphans: bool = False,
) -> Truth:
    """Count everything in agno's tables.

    Args:
        database: `sqlite:PATH`, `postgres:URL` or `mysql:URL`, with or without `async-` in front, as `server.py`
            takes it; or several of one AgentOS: what stands in more than one of them counts once.
        agentos: value of the `agentos` label.
        own_prefix: traces whose id starts with it are the exporter's own requests and left out.
        span: how a span is to be understood.
        orphans: count spans below one that is not written as if they stood at the top, instead of not at all, and
            traces by their spans instead of by their own row.

    """
    parts = [read(one, span) for one in ([database] if isinstance(database, str) else database)]
    if orphans:  # then spans are what is read, with or without the row of their trace
        parts = [([row.trace_id for row in rows], rows) for _, rows in parts]
    trace_ids = list(dict.fromkeys(trace_id for part, _ in parts for trace_id in part))
    rows = list({row.span_id: row for _, part in parts for row in part}.values())
    if own_prefix:
        trace_ids = [trace_id for trace_id in trace_ids if not trace_id.startswith(own_prefix)]
        rows = [row for row in rows if not row.trace_id.startswith(own_prefix)]
    by_trace: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_trace[row.trace_id].append(row)
    truth = Truth(traces=len(trace_ids), spans=len(rows))
    truth.empty_traces = {trace_id for trace_id in trace_ids if trace_id not in by_trace}
    for trace_id in trace_ids:
        _count_trace(truth, by_trace.get(trace_id, []), agentos, orphans=orphans)
    for sample in truth.totals:
        if sample[0].endswith("_seconds_sum"):
            truth.totals[sample] /= 1_000_000
    return truth


def _count_trace(truth: Truth, rows: list[Row], agentos: str, *, orphans: bool) -> None:
    by_id = {row.span_id: row for row in rows}

    def ancestors(row: Row) -> tuple[list[Row], bool]:
        """Return the ancestors, nearest first, and whether they lead up to a root."""
        found: list[Row] = []
        while row.parent:
            if row.parent not in by_id or len(found) > len(by_id):
                return found, False
            row = by_id[row.parent]
            found.append(row)
        return found, True

    lineage = {row.span_id: ancestors(row) for row in rows}
    truth.hidden.update(span_id for span_id, (_, whole) in lineage.items() if not whole)
    truth.visible.update(lineage.keys() - truth.hidden)
    visible = {span_id: above for span_id, (above, whole) in lineage.items() if whole or orphans}
    children: defaultdict[str, list[Row]] = defaultdict(list)
    for span_id in visible:
        if parent := by_id[span_id].parent:
            children[parent].append(by_id[span_id])

    def add(name: str, value: float = 1, **labels: str) -> None:
        key = (f"agentos_{name}", frozenset({"agentos": agentos, **labels}.items()))
        truth.totals[key] = truth.totals.get(key, 0) + value

    def observe(name: str, value: float, **labels: str) -> None:
        add(f"{name}_count", 1, **labels)
        add(f"{name}_sum", value, **labels)

    def agent_of(row: Row, above: list[Row]) -> str:
        if row.type in {"AGENT", "TEAM"}:
            return row.label
        nearest = next((span for span in above if span.type in _RUNS), None)
        if nearest is not None and nearest.type == "WORKFLOW" and row.type in {"LLM", "TOOL"}:
            # A streaming workflow writes its agent's calls beside the agent, under the step.
            beside = [child for child in children[nearest.span_id] if child.type in {"AGENT", "TEAM"}]
            if len(beside) == 1:
                return beside[0].label
        return next((span.label for span in above if span.type in {"AGENT", "TEAM"}), "")

    def ignored(row: Row, above: list[Row]) -> bool:
        kinds = ("LLM", "AGENT", "TEAM", "TOOL", "WORKFLOW")
        return row.type == "LLM" and next((span.type for span in above if span.type in kinds), "") == "LLM"

    runs: list[Row] = []
    llm_calls_of: Counter[str] = Counter()
    for span_id, above in visible.items():
        row = by_id[span_id]
        truth.kinds[row.type] += 1
        truth.error_kinds[row.type] += row.status == "ERROR"
        truth.sessions |= {row.attributes["session.id"]} if row.attributes.get("session.id") else set()
        truth.users |= {row.attributes["user.id"]} if row.attributes.get("user.id") else set()
        if ignored(row, above):
            truth.nested_llm += 1
            continue
        if row.type == "UNKNOWN":
            continue
        outermost = next((span for span in reversed([row, *above]) if span.type in _RUNS), None)
        if outermost and (session := row.attributes.get("session.id")):
            known = session if row is outermost else truth.session_of.get(outermost.span_id, session)
            truth.session_of[outermost.span_id] = known
        base = {"root": outermost.label if outermost else "", "agent": agent_of(row, above)}
        kind = row.type.lower() if row.type in {*_RUNS, "LLM", "TOOL"} else "other"
        add("spans_total", **base, span_kind=kind)
        if span_id in truth.hidden:
            add("exporter_orphan_spans_total")
        if row.error_type:
            add("error_spans_total", **base, span_kind=kind, error_type=row.error_type)

        if row is outermost:
            runs.append(row)
            truth.runs[row.span_id] = row
            run = {"root_kind": kind, "root": row.label}
            add("runs_total", **run)
            if "continue_run" in row.name.rpartition(".")[2]:
                add("runs_continued_total", **run)
            observe("run_duration_seconds", row.microseconds, **run)
            if row.error_type:
                add("run_errors_total", **run, error_type=row.error_type)
        elif row.type == "LLM":
            truth.calls.append(Call(row, outermost.span_id if outermost else "", **base))
            if outermost:
                llm_calls_of[outermost.span_id] += 1
            model = {"provider": row.provider, "model": row.model}
            add("llm_calls_total", **base, **model)
            observe("llm_call_duration_seconds", row.microseconds, **model)
            if row.error_type:
                add("llm_call_errors_total", **base, **model, error_type=row.error_type)
                add("llm_call_errors_by_class_total", **base, **model, error_class=row.error_class)
            if not row.input_tokens and not row.output_tokens:
                add("llm_calls_without_usage_total", **base, **model)
            for token_class, tokens in row.tokens.items():
                if tokens:
                    add("llm_tokens_total", tokens, **base, **model, token_class=token_class)
            if row.input_tokens:
                observe("llm_call_input_tokens", row.input_tokens, **model)
            if row.output_tokens:
                observe("llm_call_output_tokens", row.output_tokens, **model)
        elif row.type == "TOOL":
            add("tool_calls_total", **base, tool=row.label)
            observe("tool_call_duration_seconds", row.microseconds, tool=row.label)
            if row.error_type:
                add("tool_call_errors_total", **base, tool=row.label, error_type=row.error_type)

    for row in runs:
        observe("run_llm_calls", llm_calls_of[row.span_id], root_kind=row.type.lower(), root=row.label)
    first = min(runs, key=lambda row: row.start, default=None)
    whole = all(lineage[span_id][1] for span_id in visible)
    add("traces_total", root_kind=first.type.lower() if first else "http" if visible and whole else "unknown")


def read(database: str, span: type[Row] = Row) -> tuple[list[str], list[Row]]:
    """Read the ids of all traces, and all spans, in one snapshot; nothing where agno has made no tables yet.

    Raises:
        ValueError: for an unknown kind of database, or if several schemas hold agno's tables.

    """
    columns = "span_id, trace_id, parent_span_id, name, status_code, status_message, start_time, end_time, attributes"
    with snapshot(database) as (connection, schema):
        if schema is None:
            return [], []
        traces = connection.execute(f"SELECT trace_id FROM {schema}agno_traces").fetchall()
        rows = connection.execute(f"SELECT {columns} FROM {schema}agno_spans")
        return [trace[0] for trace in traces], [_row(span, *row) for row in rows]


class _MySQL:
    """A connection of PyMySQL that executes statements itself, as those of the other drivers do."""

    def __init__(self, url: str) -> None:
        import pymysql

        parts = urlsplit(url)
        self.database = parts.path.strip("/")
        self._connection = pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=self.database,
            autocommit=True,
        )

    def execute(self, statement: str) -> Any:
        """Run a statement and return its cursor."""
        cursor = self._connection.cursor()
        cursor.execute(statement)
        return cursor

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def snapshot(database: str) -> Iterator[tuple[Any, str | None]]:
    """Open a read-only transaction; with it comes the prefix of agno's tables, None where there are none."""
    kind, _, rest = database.removeprefix("async-").partition(":")
    if kind == "sqlite":
        connection: Any = sqlite3.connect(f"file:{rest}?mode=ro", uri=True, timeout=30, isolation_level=None)
        find = "SELECT '' FROM sqlite_master WHERE type = 'table' AND name = 'agno_spans'"
        begin = "BEGIN"
    elif kind == "postgres":
        import psycopg

        connection = psycopg.connect(re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", rest), autocommit=True)
        find = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'agno_spans'"
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    elif kind == "mysql":
        connection = _MySQL(rest)
        find = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'agno_spans'"
        find += f" AND table_schema = '{connection.database}'"
        begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
    else:
        raise ValueError(f"unknown kind of database: {database}")
    try:
        connection.execute(begin)
        schemas = [row[0] for row in connection.execute(find).fetchall()]
        if len(schemas) > 1:
            raise ValueError(f"agno's tables stand in several schemas: {schemas}")
        quote = "`" if kind == "mysql" else '"'
        yield connection, (schemas[0] and f"{quote}{schemas[0]}{quote}.") if schemas else None
    finally:
        connection.close()


def _row(
    kind: type[Row],
    span_id: str,
    trace_id: str,
    parent: str | None,
    name: str,
    status: str,
    message: str | None,
    start: str,
    end: str,
    attributes: Any,
) -> Row:
    if isinstance(attributes, str):  # SQLite and MariaDB keep JSON as text
        attributes = json.loads(attributes)
    attributes = {key: attributes[key] for key in _NEEDED if key in (attributes or {})}  # not the prompts
    first, last = datetime.fromisoformat(start), datetime.fromisoformat(end)
    duration = (last - first) // timedelta(microseconds=1)
    times = (first.timestamp(), last.timestamp(), duration)
    return kind(span_id, trace_id, parent or None, name, status, message, *times, attributes)


def wait_until(condition: Callable[[], bool], *, deadline: float = HANG, pause: float = 0.05) -> None:
    """Poll a condition, every `pause` seconds, until it holds.

    Raises:
        TimeoutError: if it does not at the deadline, in seconds from now.

    """
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not so within {deadline} s")
        time.sleep(pause)


def scrape(text: str) -> Totals:
    """Parse an exposition, Prometheus text or OpenMetrics, into samples."""
    if text.rstrip().endswith("# EOF"):
        from prometheus_client.openmetrics.parser import text_string_to_metric_families

        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    # Neither timestamps nor exemplars: a line is a series and its value. Who waits reads the same series all the time.
    lines = (line.rpartition(" ") for line in text.split("\n") if line and not line.startswith("#"))
    return {_series(series): float(value) for series, _, value in lines}


@lru_cache(1 << 16)
def _series(text: str) -> Sample:
    """Parse the name and the labels of a series."""
    from prometheus_client.parser import text_string_to_metric_families

    (family,) = text_string_to_metric_families(f"{text} 0\n")
    (sample,) = family.samples
    return sample.name, frozenset(sample.labels.items())


def difference(expected: Mapping[Sample, float], got: Mapping[Sample, float]) -> list[str]:
    """Describe each sample that differs, one line each, sorted; empty where all is well.

    A series at 0 equals one that is absent. Everything is exact: durations are summed up in whole microseconds.
    """
    lines = []
    for key in sorted(_covered(expected) | _covered(got), key=_text):
        want, have = expected.get(key, 0), got.get(key, 0)
        if want != have:
            absent = "" if key in got else " (absent)"
            lines.append(f"{_text(key)}: expected {want:.16g}, got {have:.16g}{absent}")
    return lines


def _covered(samples: Iterable[Sample]) -> set[Sample]:
    cost, reported = "agentos_llm_cost_usd_total", ("cost_source", "reported")  # other costs need prices
    return {sample for sample in samples if sample[0] in COVERED or (sample[0] == cost and reported in sample[1])}


def _text(sample: Sample) -> str:
    name, labels = sample
    return f"{name}{{{', '.join(f'{key}={value!r}' for key, value in sorted(labels))}}}"
