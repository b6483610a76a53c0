"""The database source, on SQLite files whose rows and times the test makes."""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from agno.db.sqlite import SqliteDb
from agno.db.sqlite.schemas import get_table_schema_definition
from agno.os.routers.traces.schemas import TraceDetail

from exporter.bookkeeping.intake import Intake
from exporter.bookkeeping.shared import Shared
from exporter.cli import main as cli
from exporter.core.errors import BadAnswer, ServerFailed, SourceError, SourceTimeout, StateError, Unreachable
from exporter.core.model import MICROSECONDS as S
from exporter.core.model import Clock, SpanKind, TokenUsage, TraceState
from exporter.ledger.store import Ledger
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from exporter.service.poller import View
from exporter.sources import handover
from exporter.sources.api import wire
from exporter.sources.api.http import OWN_TRACE_PREFIX
from exporter.sources.api.search import SearchReader
from exporter.sources.database import feed as feeding
from exporter.sources.database import past as past_feed
from exporter.sources.database import rows
from exporter.sources.database import sql as tables
from exporter.sources.database.location import Engine, Location, Tables, parse
from exporter.sources.database.source import DatabaseSource, DatabaseTarget
from exporter.sources.database.sql import Sql
from exporter.sources.database.sqlite import SqliteConnection
from exporter.sources.position import DAY, Position, Settings
from exporter.sources.protocol import PollStats
from tests.harness import seed

T0 = 1_800_000_000
OVERLAP, HORIZON, LOOKBACK = 60, 3600, 3600
DDL = """
CREATE TABLE agno_traces (trace_id VARCHAR PRIMARY KEY, name VARCHAR, session_id VARCHAR, created_at VARCHAR NOT NULL);
CREATE INDEX traces_created ON agno_traces (created_at);
CREATE TABLE agno_spans (
  span_id VARCHAR NOT NULL PRIMARY KEY, trace_id VARCHAR NOT NULL, parent_span_id VARCHAR, name VARCHAR NOT NULL,
  span_kind VARCHAR NOT NULL, status_code VARCHAR NOT NULL, status_message VARCHAR, start_time VARCHAR NOT NULL,
  end_time VARCHAR NOT NULL, duration_ms BIGINT NOT NULL, attributes JSON, created_at VARCHAR NOT NULL);
CREATE INDEX spans_trace ON agno_spans (trace_id);
CREATE INDEX spans_created ON agno_spans (created_at);
CREATE TABLE agno_sessions (session_id VARCHAR PRIMARY KEY, created_at BIGINT NOT NULL);
CREATE INDEX sessions_created ON agno_sessions (created_at);
CREATE TABLE agno_components (
  component_id VARCHAR PRIMARY KEY, component_type VARCHAR NOT NULL, name VARCHAR, deleted_at BIGINT);
"""
LLM = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "gpt-5.4-mini",
    "llm.provider": "OpenAI Chat",
    "llm.token_count.prompt": 100,
    "llm.token_count.completion": 10,
    "input.value": "SECRET PROMPT",
}
AGENT = {"openinference.span.kind": "AGENT", "agno.agent.id": "a", "session.id": "s1", "user.id": "u1"}
INDEXED = ("created_at", "trace_id", "session_id")


def at(seconds: float) -> str:
    return (datetime.fromtimestamp(T0, UTC) + timedelta(seconds=seconds)).isoformat()


class Home:
    """A database, a state and a source, with a clock that only the test moves (seconds since T0)."""

    def __init__(self, folder: Path, *, files: tuple[str, ...] = ("agno.db",), ledger: Ledger | None = None) -> None:
        self.paths = [folder / name for name in files]
        for path in self.paths:
            self.create(path)
        self.now = 0.0
        self.lag = 0.0
        """how far AgentOS's clock is behind"""
        self.ledger = ledger or Ledger(None)
        self.totals = Totals(Limits(), zero_hold=0)
        self.restart()

    @staticmethod
    def create(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.executescript(DDL)
            connection.execute("PRAGMA journal_mode = WAL")

    def restart(self) -> None:
        """As after kill -9: what is not in the ledger is forgotten."""
        self.totals.restore(*self.ledger.load())
        self.clock = Clock(lambda: T0 + self.now, lambda: self.now)
        self.settings = Settings(OVERLAP * S, LOOKBACK * S, HORIZON * S, 0.05)
        targets = [DatabaseTarget(Location(Engine.SQLITE, str(path)), lambda: None) for path in self.paths]
        self.source = DatabaseSource("os", targets, self.settings, self.clock)
        self.view = View(self.ledger, "os")
        self.intake = Intake("os", Shared(self.ledger, self.totals, self.clock), overlap=OVERLAP, horizon=HORIZON)
        self.queries: list[tuple[str, tuple[object, ...]]] = []
        for feed in self.source.feeds:
            feed.connection.on_query = lambda sql, params: self.queries.append((sql, tuple(params)))

    @property
    def feed(self) -> feeding.Feed:
        return self.source.feeds[0]

    def remove(self) -> None:
        for end in ("", "-wal", "-shm"):
            Path(f"{self.paths[0]}{end}").unlink(missing_ok=True)

    def execute(self, sql: str, *params: object, path: Path | None = None) -> None:
        connection = sqlite3.connect(path or self.paths[0])
        with connection:
            connection.execute(sql, params)
        connection.close()

    def write(
        self,
        trace: str,
        span: str,
        parent: str | None = None,
        attributes: object = None,
        *,
        name: str = "Agent.arun",
        status: str = "OK",
        message: str | None = None,
        end: float | None = None,
        written: float | None = None,
        path: Path | None = None,
    ) -> None:
        """One span; it ended `end` seconds after T0, by default just now, and took a second."""
        end = self.now - self.lag if end is None else end
        raw = attributes if isinstance(attributes, (str, bytes, type(None))) else json.dumps(attributes)
        self.execute(
            f"INSERT INTO agno_spans VALUES ({', '.join('?' * 12)})",
            *(span, trace, parent, name, "INTERNAL", status, message, at(end - 1), at(end), 1000, raw),
            at(end if written is None else written),
            path=path,
        )

    def run(self, trace: str, *, calls: int = 1, path: Path | None = None, **more: object) -> None:
        """An agent's run with model calls."""
        for number in range(calls):
            self.write(trace, f"{trace}.{number}", trace, LLM, name="OpenAIChat.ainvoke", path=path, **more)
        self.write(trace, trace, None, AGENT, path=path, **more)

    async def poll(self, after: float = 0, deadline: float = 60, *, stop_after: int | None = None) -> list:
        """Poll as the daemon does; `stop_after` so many batches it dies before the next is committed."""
        self.now += after
        batches = []
        async with aclosing(self.source.read(self.view, deadline=self.now + deadline)) as found:
            async for batch in found:
                if stop_after is not None and len(batches) == stop_after:
                    break
                self.intake.absorb(batch)
                batches.append(batch)
        for db, floor in self.source.floors.items():
            self.intake.prune(db, created_before=floor)
        return batches

    def value(self, metric: str, *labels: str) -> int:
        return self.totals.value(metric, ("os", *labels)) or 0

    def total(self, metric: str) -> int:
        return sum(series.value for series in self.totals.stored() if series.metric == metric)

    @property
    def calls(self) -> int:
        return self.total("agentos_llm_calls_total")

    def record(self, trace: str, db: str | None = None):
        found = self.ledger.records("os", [trace])[trace]
        return next(one for one in found if db is None or one.db == db)


@pytest.fixture
async def home(tmp_path: Path):
    home = Home(tmp_path)
    yield home
    await home.source.aclose()


# What rows become


def test_agno_s_tables_have_the_columns_and_indexes_that_are_read() -> None:
    spans, traces = (get_table_schema_definition(name, "agno_traces") for name in ("spans", "traces"))
    assert set(tables.SPAN_COLUMNS) <= set(spans)
    assert set(tables.TRACE_COLUMNS) <= set(traces)
    sessions = get_table_schema_definition("sessions")
    for table, column in ((spans, "created_at"), (spans, "trace_id"), (traces, "created_at"), (sessions, "created_at")):
        assert table[column]["index"]
    assert set(tables.COMPONENT_COLUMNS) <= set(get_table_schema_definition("components"))


@pytest.mark.parametrize("http_roots", [True, False])
def test_spans_are_what_the_api_makes_of_the_same_rows(tmp_path: Path, *, http_roots: bool) -> None:
    path = tmp_path / "agno.db"
    seed.seed(f"sqlite:{path}", 60, prompt_bytes=(10, 100), http_roots=http_roots, errors=0.3)
    db = SqliteDb(db_file=str(path), id="x")
    traces, _ = db.get_traces(limit=100)
    details = [TraceDetail.from_trace_and_spans(one, db.get_spans(one.trace_id)) for one in traces]
    data = [json.loads(detail.model_dump_json()) for detail in details]
    page = wire.search_page(msgspec.json.encode({"data": data, "meta": {"total_count": 60}}), "db")
    db.db_engine.dispose()
    location = Location(Engine.SQLITE, str(path))
    connection = sqlite3.connect(path)
    ids = [one.trace_id for one in traces]
    ((gathered,),) = connection.execute(Sql(location).spans(60), ids).fetchall()
    one_by_one = connection.execute(Sql(location).spans(60, gathered=False), ids).fetchall()
    connection.close()
    reading = rows.read(rows.rows_of(gathered), "db")
    assert reading == rows.read([rows.Row(*row[:9], rows.attributes_of(row[9])) for row in one_by_one], "db")
    assert not reading.malformed
    assert not page.malformed
    mine = {one.id: one for one in reading.traces}
    assert len(mine) == len(page.traces) == 60
    failed = 0
    for theirs in page.traces:
        trace = mine[theirs.id]
        assert (trace.total_spans, trace.start, trace.end, trace.open) == (8, theirs.start, theirs.end, False)
        assert len(trace.spans) == len(theirs.spans) == 8
        for span, other in zip(trace.spans, theirs.spans, strict=True):
            assert (span.id, span.parent, span.kind, span.end) == (other.id, other.parent, other.kind, other.end)
            if span.kind is SpanKind.HTTP:
                continue
            failed += span.error_type is not None
            assert (span.name, span.error_type, span.error_class, span.model, span.provider) == (
                *(other.name, other.error_type, other.error_class, other.model, other.provider),
            )
            assert (span.session_id, span.user_id) == (other.session_id, other.user_id)
            assert (span.usage.prompt, span.usage.completion) == (other.usage.prompt, other.usage.completion)
            assert span.usage.detailed is (span.kind is SpanKind.LLM)
    assert failed > 10


def reading(*some, given_up=()):
    return rows.read(
        [
            rows.Row("t", one[0], one[1], one[2], one[3], None, at(0), at(1), at(1), rows.attributes_of(one[4]))
            for one in some
        ],
        "db",
        given_up=given_up,
    )


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"openinference.span.kind": "LLM"}, "rate_limit"),
        ({"openinference.span.kind": "AGENT"}, "other"),
        ({"openinference.span.kind": "TOOL"}, "other"),
    ],
)
@pytest.mark.parametrize("status", ["ERROR", "OK"])
@pytest.mark.parametrize("in_attributes", [True, False])
def test_why_a_call_failed(attributes, expected, status, *, in_attributes) -> None:
    text = "ModelProviderError: Rate limit reached for gpt-5"
    known = rows.attributes_of(json.dumps(attributes | ({"exception.message": text} if in_attributes else {})))
    row = rows.Row("t", "a1", None, "M.invoke", status, None if in_attributes else text, at(0), at(1), at(1), known)
    ((span,),) = (trace.spans for trace in rows.read([row], "db").traces)
    assert span.error_class == (expected if status == "ERROR" else "other")
    assert "Rate limit" not in repr(span)


def test_attributes_of_a_call() -> None:
    attributes = json.dumps(
        LLM
        | {
            "llm.token_count.total": 115,
            "llm.token_count.prompt_details.cache_read": 60,
            "llm.token_count.prompt_details.cache_write": 5,
            "llm.token_count.completion_details.reasoning": 7,
            "llm.cost.total": 0.0123,
        }
    )
    (trace,) = reading(("1" * 16, None, "OpenAIChat.ainvoke_stream", "OK", attributes)).traces
    (span,) = trace.spans
    assert span.usage == TokenUsage(100, 10, 60, 5, 7, 115, detailed=True)
    assert (span.provider, span.model, span.model_class) == ("openai", "gpt-5.4-mini", "OpenAIChat")
    assert (span.reported_cost, span.id) == (0.0123, 0x1111111111111111)


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"openinference.span.kind": "AGENT"}, SpanKind.AGENT),
        ({"openinference.span.kind": "AGENT", "agno.team.id": "t"}, SpanKind.TEAM),
        ({"openinference.span.kind": "AGENT", "team.id": "t"}, SpanKind.TEAM),
        ({"openinference.span.kind": "CHAIN"}, SpanKind.WORKFLOW),
        ({"openinference.span.kind": "TOOL"}, SpanKind.TOOL),
        ({"openinference.span.kind": "RETRIEVER"}, SpanKind.OTHER),
        ({"openinference.span.kind": 5}, SpanKind.OTHER),
        ({"openinference.span.kind": "UNKNOWN"}, SpanKind.HTTP),
        ({}, SpanKind.HTTP),
    ],
)
def test_kinds(attributes: dict[str, object], kind: SpanKind) -> None:
    (trace,) = reading(("a", None, "x", "OK", json.dumps(attributes))).traces
    assert trace.spans[0].kind is kind


@pytest.mark.parametrize(
    ("raw", "prompt"),
    [
        (json.dumps(LLM), 100),
        (json.dumps(LLM).encode(), 100),
        (json.dumps(json.dumps(LLM)), 100),
        (json.dumps(LLM | {"x": float("nan")}), 100),
        (json.dumps(LLM | {"x": "\ud800"}), 100),
        (json.dumps(LLM | {"llm.token_count.prompt": "100"}), None),
        (json.dumps(LLM | {"llm.token_count.prompt": -1}), None),
        (json.dumps(LLM | {"llm.token_count.prompt": True}), None),
        (json.dumps(LLM | {"llm.token_count.prompt": 1e300}), None),
        (json.dumps(LLM | {"llm.token_count.prompt": [1]}), None),
        (json.dumps(LLM | {"llm.cost.total": "cheap", "llm.provider": ["x"], "llm.model_name": 7}), 100),
    ],
)
def test_whatever_a_user_puts_into_attributes(raw: str | bytes, prompt: int | None) -> None:
    (trace,) = reading(("a", None, "OpenAIChat.ainvoke", "OK", raw)).traces
    assert trace.spans[0].usage.prompt == prompt


@pytest.mark.parametrize("raw", ["{", "[]", "5", '"x"', b"\xff{}", "[" * 100_000])
def test_attributes_that_are_none_cost_their_trace_alone(raw: str | bytes) -> None:
    whole = rows.read(
        [
            rows.Row(trace, trace, None, "x", "OK", None, at(0), at(1), at(1), rows.attributes_of(one))
            for trace, one in (("bad", raw), ("good", None))
        ],
        "db",
    )
    assert [one.id for one in whole.traces] == ["good"]
    assert whole.malformed == ["bad"]
    assert set(whole.inserted) == {"bad", "good"}


def test_numbers_that_postgresql_extracted_are_json() -> None:
    values = dict.fromkeys(rows.ATTRIBUTES) | {
        "openinference.span.kind": "LLM",
        "llm.token_count.prompt": "100",
        "llm.token_count.completion": '"10"',
        "llm.cost.total": "0.5",
    }
    found = rows.extracted([values[name] for name in rows.ATTRIBUTES])
    assert (found.prompt, found.completion, found.cost, found.total) == (100, "10", 0.5, None)
    assert rows.extracted([None] * len(rows.ATTRIBUTES)) == rows.attributes_of(None)


@pytest.mark.parametrize(
    ("value", "micros"),
    [
        ("2027-01-15T08:00:00.123456+00:00", T0 * S + 123456),
        ("2027-01-15T08:00:00+00:00", T0 * S),
        ("2027-01-15T08:00:00.123456Z", T0 * S + 123456),
        ("2027-01-15T09:00:00.5+01:00", T0 * S + 500_000),
        ("2027-01-15 08:00:00", T0 * S),
        (datetime.fromtimestamp(T0, UTC), T0 * S),
        (T0, T0 * S),
        (T0 * 10**9 + 1_000, T0 * S + 1),
    ],
)
def test_times_in_every_form(value: object, micros: int) -> None:
    assert rows.moment_of(value) == rows.moment_of(value) == micros


@pytest.mark.parametrize("value", [None, "", "yesterday", "2027-01-15T08:00:00.12345x+00:00", 1.5, True])
def test_what_is_no_time(value: object) -> None:
    with pytest.raises(ValueError, match=r"time|format|literal"):
        rows.moment_of(value)


def test_a_stamp_sorts_as_agno_s_times_do() -> None:
    moments = [T0 * S, T0 * S + 1, T0 * S + 10, T0 * S + 999_999, (T0 + 1) * S]
    assert [rows.moment_of(feeding.stamp(moment)) for moment in moments] == moments
    assert sorted(map(feeding.stamp, moments)) == [feeding.stamp(moment) for moment in moments]
    assert feeding.stamp(-5) < feeding.stamp(2**70)


def test_spans_hide_until_all_their_ancestors_are_there_unless_given_up() -> None:
    agent, call = json.dumps(AGENT), json.dumps(LLM)
    some = [
        ("call", "agent", "OpenAIChat.ainvoke", "OK", call),
        ("agent", "gone", "A.arun", "OK", agent),
        ("root", None, "R.arun", "OK", agent),
        ("loop1", "loop2", "x", "OK", agent),
        ("loop2", "loop1", "x", "OK", agent),
    ]
    (trace,) = reading(*some).traces
    assert (trace.nodes, trace.total_spans, trace.orphans, trace.open) == (1, 5, frozenset(), True)
    (trace,) = reading(*some, given_up={"t"}).traces
    assert (trace.nodes, trace.total_spans, trace.open) == (5, 5, False)
    assert [(span.kind, span.parent) for span in trace.spans[:3]] == [
        (SpanKind.AGENT, -1),
        (SpanKind.AGENT, -1),
        (SpanKind.LLM, 1),
    ]
    assert trace.orphans == {1, 2, 3, 4}


# Following


async def test_each_span_counts_once_however_often_it_is_read(home: Home) -> None:
    home.run("a", calls=3)
    home.run("b")
    await home.poll(after=1)
    assert (home.calls, home.total("agentos_runs_total")) == (4, 2)
    assert home.value("agentos_llm_tokens_total", "Agent", "Agent", "openai", "gpt-5.4-mini", "input") == 400
    home.queries.clear()
    assert await home.poll(after=1) == []
    ((sql, _),) = home.queries  # what was read is listed again, and no trace of it
    assert sql == home.feed.connection.sql.inserted(after=False)
    home.restart()
    await home.poll(after=1)
    assert home.calls == 4
    await home.source.aclose()


def failing(*_: object, **__: object) -> None:
    raise StateError("the disk is full")


async def test_what_cannot_be_committed_is_read_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.run("before")
    await home.poll(after=1)
    for number in range(10):  # longer than an overlap, while nobody polls
        home.now += OVERLAP / 2
        home.run(f"t{number}")
    with monkeypatch.context() as broken:
        broken.setattr(home.ledger, "commit", failing)
        for _ in range(2):
            with pytest.raises(StateError):
                await home.poll(after=1)
    assert home.calls == 1
    await home.poll(after=1)
    assert home.calls == 11


@pytest.mark.parametrize("method", ["unsettled", "open_due", "records", "commit"])
async def test_a_ledger_that_fails_in_the_middle_ends_the_poll(
    home: Home, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(feeding, "CHUNK", 2)
    home.feed._chunk = 2
    home.run("before")
    await home.poll(after=1)
    home.now += OVERLAP + 1
    for number in range(5):
        home.run(f"t{number}")
    with monkeypatch.context() as broken:
        broken.setattr(home.ledger, method, failing)
        with pytest.raises(StateError):
            await home.poll()
    # The settled ones are asked for once all is listed: two chunks are committed by then.
    assert home.calls == (1 if method in {"records", "commit"} else 5)
    batches = await home.poll(after=1)
    left = [2, 2, 1] if method in {"records", "commit"} else [1]
    assert [len(batch.traces) for batch in batches] == left
    assert ([list(batch.settled) for batch in batches][-1], batches[-1].cursor is not None) == (["before"], True)
    assert home.calls == 6


@pytest.mark.parametrize("number", [1, feeding.CHUNK + 40])
async def test_news_are_read_on_where_they_were_found(home: Home, number: int) -> None:
    home.run("before")
    await home.poll(after=1)
    home.write(OWN_TRACE_PREFIX + "0" * 16, "own", None, LLM)
    home.write("odd", "odd", None, "no object")
    for one in range(number):
        home.run(f"t{one}")
    home.queries.clear()
    await home.poll(after=1)
    assert home.calls == number + 1
    ignored = {reason: home.value("agentos_exporter_ignored_traces_total", reason) for reason in ("own", "malformed")}
    assert ignored == {"own": 1, "malformed": 1}
    asked = Counter(trace for sql, traces in home.queries if "attributes" in sql for trace in traces)
    assert asked == Counter({"odd": 1, **{f"t{one}": 1 for one in range(number)}})
    home.queries.clear()
    assert await home.poll(after=1) == []
    assert len(home.queries) == 1


async def test_a_span_that_is_listed_before_it_can_be_read_is_counted_once_it_can(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler, whose replicas do not all have it yet."""
    home.run("before")
    await home.poll(after=1)
    home.run("late")
    with monkeypatch.context() as lagging:
        lagging.setattr(SqliteConnection, "_spans_of", lambda *_: [])
        await home.poll(after=1)
    assert home.calls == 1
    await home.poll(after=1)
    assert home.calls == 2
    home.queries.clear()
    assert await home.poll(after=1) == []
    assert len(home.queries) == 1


NO_TEXT = b"\xff\x00"


@pytest.mark.parametrize("where", ["trace_id", "span_id", "parent_span_id", "name", "status_message", "start_time"])
@pytest.mark.parametrize("kind", ["BLOB", "TEXT"])
async def test_rows_of_other_hands_cost_their_own_trace_alone(home: Home, where: str, kind: str) -> None:
    home.run("before")
    await home.poll(after=1)
    home.write("odd", "o", None, AGENT, status="ERROR", message="x")
    home.execute(f"UPDATE agno_spans SET {where} = CAST(? AS {kind}) WHERE span_id = 'o'", NO_TEXT)
    home.run("after")
    await home.poll(after=1)
    assert home.calls == 2
    assert await home.poll(after=1) == []
    home.run("later")
    await home.poll(after=1)
    assert home.calls == 3
    harmless = where in {"parent_span_id", "status_message"}
    assert home.value("agentos_exporter_ignored_traces_total", "malformed") == (0 if harmless else 1)
    home.restart()
    await home.poll(after=1)
    assert (home.calls, home.value("agentos_exporter_ignored_traces_total", "malformed")) == (3, 0 if harmless else 1)


@pytest.mark.parametrize("where", ["created_at", "span_id", "trace_id"])
@pytest.mark.parametrize("kind", ["BLOB", "TEXT"])
@pytest.mark.parametrize("place", range(4))
async def test_pages_go_on_after_rows_of_other_hands(
    home: Home, monkeypatch: pytest.MonkeyPatch, where: str, kind: str, place: int
) -> None:
    monkeypatch.setattr(feeding, "PAGE", 4)
    home.now = 3 * OVERLAP  # a backlog
    for number in range(12):
        home.run(f"t{number:02}", end=number // 2)
        if number == place:
            home.write("odd", "t99", None, AGENT, end=number // 2)
    value = b"t99\xff" if where != "created_at" else at(place // 2).encode()[:-6] + b"\xff"
    home.execute(f"UPDATE agno_spans SET {where} = CAST(? AS {kind}) WHERE span_id = 't99'", value)
    await home.poll()
    await home.poll(after=1)
    assert home.calls == 12
    assert home.feed.position.cutoff <= (T0 + 6 + OVERLAP) * S


async def test_rows_that_all_are_of_other_hands_fail_aloud(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "PAGE", 2)
    for number in range(3):
        home.write(f"t{number}", f"s{number}", None, AGENT)
    home.execute("UPDATE agno_spans SET span_id = CAST(span_id AS BLOB)")
    with pytest.raises(BadAnswer, match="2 rows of spans whose ids or times are no text"):
        await home.poll(after=1)


async def test_no_witness_is_a_row_of_other_hands(home: Home) -> None:
    home.run("before")
    await home.poll(after=1)
    home.execute("DELETE FROM agno_spans")
    for number in range(8):
        home.run(f"t{number}")
        for odd in range(3):
            home.write(f"odd{number}.{odd}", f"o{number}.{odd}", None, AGENT)
        home.execute("UPDATE agno_spans SET trace_id = CAST(trace_id AS BLOB) WHERE trace_id LIKE 'odd%'")
        await home.poll(after=OVERLAP)
    assert home.value("agentos_exporter_source_resets_total") == 1
    assert home.calls == 9


async def test_bytes_are_no_span_id(home: Home) -> None:
    home.write("t", "00000000000000ff", None, AGENT)
    home.write("t", "x", "00000000000000ff", LLM)
    home.execute("UPDATE agno_spans SET span_id = CAST(span_id AS BLOB) WHERE span_id <> 'x'")
    await home.poll(after=1)
    assert home.value("agentos_exporter_ignored_traces_total", "malformed") == 1


def test_only_short_texts_are_remembered() -> None:
    kept = rows._identifier.cache_info().currsize, rows._what.cache_info().currsize
    long = "x" * 100_000
    found = rows.Attributes("LLM", session=long, user=long, run=long, model=long, provider=long)
    row = rows.Row("t", "s", None, long, "OK", None, at(0), at(1), at(1), found)
    (trace,) = rows.read([row], "db").traces
    span = trace.spans[0]
    assert {len(text) for text in (span.name, span.model, span.provider)} == {1024}
    assert {len(text) for text in (span.session_id, span.user_id)} == {256}
    assert (rows._identifier.cache_info().currsize, rows._what.cache_info().currsize) == kept


async def test_a_database_that_is_gone_and_one_that_hangs_starve_no_third(tmp_path: Path) -> None:
    home = Home(tmp_path, files=("a.db", "b.db", "c.db"))
    home.run("c", path=home.paths[2])
    home.remove()

    def hang(_sql: str, _params: Sequence[object]) -> None:
        home.now += 10

    home.source.feeds[1].connection.on_query = hang
    for _ in range(3):  # the first is gone, then the second takes all the time
        with pytest.raises(SourceError):
            await home.poll(after=1, deadline=3)
    assert home.calls == 1


async def test_no_backlog_of_one_database_starves_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path, files=("a.db", "b.db"))
    monkeypatch.setattr(feeding, "PAGE", 8)
    home.now = 40 * OVERLAP
    for number in range(40):
        home.run(f"a{number}", end=number * OVERLAP)
    home.run("b", path=home.paths[1])

    def slowly(_sql: str, _params: Sequence[object]) -> None:
        home.now += 2

    home.feed.connection.on_query = slowly
    with pytest.raises(SourceTimeout):
        await home.poll(after=1, deadline=3)
    assert 0 < home.calls < 40
    assert not home.ledger.known_traces("os", home.source.feeds[1].db, ["b"])
    with contextlib.suppress(SourceTimeout):
        await home.poll(after=1, deadline=3)
    assert home.ledger.known_traces("os", home.source.feeds[1].db, ["b"])
    assert home.calls < 41
    for _ in range(40):
        with contextlib.suppress(SourceTimeout):
            await home.poll(after=1, deadline=3)
    assert home.calls == 41


async def test_a_statement_that_takes_too_long_is_followed_by_smaller_ones(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        home.run(f"t{number:02}")
    asked, rows_of = [], SqliteConnection._spans_of

    def hang(self: SqliteConnection, sql: str, traces: Sequence[str]) -> list[rows.Row]:
        asked.append(len(traces))
        if len(traces) > 5:
            raise SourceTimeout("too slow")
        return rows_of(self, sql, traces)

    monkeypatch.setattr(feeding, "CHUNK", 20)
    home.feed._chunk = 20
    monkeypatch.setattr(SqliteConnection, "_spans_of", hang)
    for _ in range(10):
        with contextlib.suppress(SourceTimeout):
            await home.poll(after=1)
    assert home.calls == 20
    assert asked[:2] == [20, 5]
    assert len(asked) < 12


async def test_a_database_that_fails_between_two_chunks_loses_none(home: Home) -> None:
    home.run("before")
    await home.poll(after=1)
    for number in range(2 * feeding.CHUNK):
        home.run(f"t{number}")

    chunks: list[str] = []

    def break_off(sql: str, params: Sequence[object]) -> None:
        chunks.extend([sql] if len(params) == feeding.CHUNK else [])
        if len(chunks) == 2:
            raise ServerFailed("no")

    home.feed.connection.on_query = break_off
    with pytest.raises(ServerFailed):
        await home.poll(after=1)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert home.calls == 1 + feeding.CHUNK
    home.feed.connection.on_query = lambda sql, params: None
    await home.poll(after=1)
    assert home.calls == 2 * feeding.CHUNK + 1


async def test_the_overlap_is_listed_again_where_a_row_came_late(home: Home) -> None:
    for number in range(5):
        home.now += 2
        home.run(f"t{number}", calls=2)
        await home.poll(after=1)
    home.run("late", written=7.5, end=7)
    await home.poll(after=1)
    assert (home.calls, home.total("agentos_runs_total")) == (11, 6)
    # As many as came late are gone: the number of rows is the same.
    home.execute("DELETE FROM agno_spans WHERE trace_id = 't3'")
    home.run("later", calls=2, written=9.25, end=9)
    await home.poll(after=1)
    assert (home.calls, home.total("agentos_runs_total")) == (13, 7)


@pytest.mark.parametrize("odd", ["2027-01-15T08:00:00.5+00:00", "2027-01-15T08:00:00+00:00"])
async def test_times_of_another_form_only_take_longer(home: Home, odd: str) -> None:
    for number in range(3):
        home.run(f"t{number}")
        home.execute("UPDATE agno_spans SET created_at = ? WHERE trace_id = 't0'", odd)
        await home.poll(after=1)
    home.run("late", written=0.25, end=0)
    await home.poll(after=1)
    assert (home.calls, home.total("agentos_runs_total")) == (4, 4)


async def test_ties_and_page_borders_lose_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "PAGE", 7)
    monkeypatch.setattr(feeding, "CHUNK", 2)
    for number in range(20):
        home.run(f"t{number:02}", calls=2, written=0 if number < 10 else number)
    await home.poll(after=30)
    assert (home.calls, home.total("agentos_runs_total")) == (40, 20)


async def test_what_is_committed_late_counts_if_within_the_overlap(home: Home) -> None:
    home.run("first")
    await home.poll(after=1)
    for _ in range(10):
        await home.poll(after=5)
    home.run("late", written=home.now - OVERLAP + 5, end=home.now - OVERLAP + 4)
    await home.poll(after=1)
    assert home.calls == 2
    home.run("too late", written=home.now - 3 * OVERLAP, end=home.now - 3 * OVERLAP)
    await home.poll(after=1)
    assert home.calls == 2  # overlap is documented as the bound of this


@pytest.mark.parametrize("lag", [0, 300, -300])
async def test_clocks_that_differ_from_the_database_s(home: Home, lag: float) -> None:
    home.lag = lag
    counted = 0
    for number in range(40):
        if number % 3 == 0 or number > 30:
            home.run(f"t{number}")
            counted += 1
        await home.poll(after=15)
        assert home.calls == counted


async def test_a_row_from_the_future_hides_nothing(home: Home) -> None:
    home.run("future", end=4000)
    for number in range(20):
        home.run(f"t{number}")
        await home.poll(after=15)
        assert home.calls == number + 2
    assert home.feed.loaded_position.cutoff <= (T0 + home.now) * S


async def test_idle_time_moves_the_watermark(home: Home) -> None:
    await home.poll(after=5)
    assert home.source.watermark is None
    home.run("a")
    await home.poll(after=1)
    before = home.source.watermark
    for _ in range(20):
        await home.poll(after=15)
    assert before is not None
    assert home.source.watermark is not None
    assert home.source.watermark - before == pytest.approx(300 * S, abs=S)


async def test_spans_of_a_long_run_count_as_they_come(home: Home) -> None:
    for number in range(5):
        home.write("t", f"c{number}", "t", LLM, name="OpenAIChat.ainvoke")
        await home.poll(after=600)
        assert home.calls == 0
        assert home.record("t").state is TraceState.OPEN
    home.write("t", "t", None, AGENT)
    await home.poll(after=1)
    assert home.calls == 5
    assert home.value("agentos_exporter_orphan_spans_total") == 0


async def test_open_traces_are_not_asked_for_before_the_horizon(home: Home) -> None:
    home.write("t", "c1", "t", LLM, name="OpenAIChat.ainvoke")
    await home.poll(after=1)
    home.queries.clear()
    for _ in range(30):
        await home.poll(after=100)
    assert not [sql for sql, _ in home.queries if "attributes" in sql]
    await home.poll(after=HORIZON)
    assert len([sql for sql, _ in home.queries if "attributes" in sql]) == 1


async def test_what_settles_waits_for_all_pages(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in the background went on while nobody looked: its agent stands pages behind what is due to settle."""
    monkeypatch.setattr(feeding, "PAGE", 4)
    home.write("t", "t.request", None, {}, name="POST /agents/{agent_id}/runs")
    await home.poll()
    for number in range(5):
        home.run(f"u{number}", end=100 + number)
    home.write("t", "t.agent", "t.request", AGENT, end=200)
    await home.poll(HORIZON + 10)
    await home.poll(OVERLAP)
    assert home.record("t").state is TraceState.SETTLED
    traces = {kind: home.value("agentos_traces_total", kind) for kind in ("agent", "http")}
    assert traces == {"agent": 6, "http": 0}


async def test_a_killed_run_is_billed_after_the_horizon_and_marked(home: Home) -> None:
    home.write("t", "c1", "never", LLM, name="OpenAIChat.ainvoke")
    home.write("t", "c2", "never", LLM, name="OpenAIChat.ainvoke")
    await home.poll(after=1)
    for _ in range(12):
        await home.poll(after=HORIZON / 12 - 1)
    assert home.calls == 0
    await home.poll(after=60)
    assert home.calls == 2
    assert home.value("agentos_llm_tokens_total", "", "", "openai", "gpt-5.4-mini", "input") == 200
    assert home.value("agentos_exporter_orphan_spans_total") == 2
    assert home.value("agentos_exporter_hidden_spans_total") == 0
    await home.poll(after=OVERLAP + 1)
    assert home.record("t").state is TraceState.SETTLED
    assert home.value("agentos_traces_total", "unknown") == 1
    home.write("t", "never", None, AGENT)  # it was only slow
    await home.poll(after=1)
    assert (home.calls, home.total("agentos_runs_total")) == (2, 1)
    assert home.value("agentos_traces_total", "unknown") == 1


async def test_a_remote_parent_keeps_the_names_of_the_run(home: Home) -> None:
    home.write("t", "c", "t", LLM, name="OpenAIChat.ainvoke")
    home.write("t", "t", "http", AGENT)
    home.write("t", "http", "elsewhere", {}, name="POST /agents")
    await home.poll(after=1)
    await home.poll(after=HORIZON + 1)
    assert home.value("agentos_llm_calls_total", "Agent", "Agent", "openai", "gpt-5.4-mini") == 1
    assert home.value("agentos_exporter_orphan_spans_total") == 2
    await home.poll(after=OVERLAP + 1)
    assert home.value("agentos_traces_total", "agent") == 1


async def test_complete_traces_settle_without_being_read_again(home: Home) -> None:
    home.run("t")
    await home.poll(after=1)
    assert home.record("t").state is TraceState.COMPLETE
    home.queries.clear()
    await home.poll(after=OVERLAP)
    await home.poll(after=1)
    assert home.record("t").state is TraceState.SETTLED
    assert home.value("agentos_traces_total", "agent") == 1
    assert not [sql for sql, _ in home.queries if "attributes" in sql]


async def test_a_trace_that_is_deleted_while_open_is_gone(home: Home) -> None:
    home.write("t", "c1", "never", LLM, name="OpenAIChat.ainvoke")
    await home.poll(after=1)
    home.execute("DELETE FROM agno_spans")
    for _ in range(8):
        await home.poll(after=HORIZON / 4)
    assert home.record("t").state is TraceState.EXPIRED
    assert home.value("agentos_exporter_hidden_spans_total") == 1


async def test_what_ended_before_the_lookback_never_counts(home: Home) -> None:
    home.run("old", end=-LOOKBACK - 10)
    home.run("young", end=-LOOKBACK + 10)
    batches = await home.poll()
    assert home.calls == 1
    assert all(batch.first for batch in batches if batch.traces)
    home.run("news")
    batches = await home.poll(after=1)
    assert home.calls == 2
    assert not any(batch.first for batch in batches)


@pytest.mark.parametrize(
    "attributes",
    [
        json.dumps(json.dumps(LLM)),
        json.dumps(LLM | {"x": float("nan")}),
        json.dumps(LLM | {"llm.provider": "\ud800"}),
        json.dumps(LLM).encode(),
        json.dumps(LLM | {"llm.model_name": "gpt-5.4-mini"} | {"x": "\0"}),
        " " + json.dumps(LLM),
    ],
)
async def test_what_sqlite_cannot_gather_is_read_row_by_row(home: Home, attributes: str | bytes) -> None:
    home.run("good", calls=2)
    home.write("odd", "odd.0", "odd", attributes, name="OpenAIChat.ainvoke")
    home.write("odd", "odd", None, AGENT)
    home.write("bad", "bad", None, "[]")
    await home.poll(after=1)
    assert (home.calls, home.total("agentos_runs_total")) == (3, 2)
    assert home.total("agentos_llm_tokens_total") == 3 * 110
    assert home.value("agentos_exporter_ignored_traces_total", "malformed") == 1


async def test_what_was_written_at_no_text_is_listed_row_by_row(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "PAGE", 3)
    home.execute("CREATE TABLE other AS SELECT * FROM agno_spans")  # without types, which would make texts of numbers
    home.execute("DROP TABLE agno_spans")
    home.execute("ALTER TABLE other RENAME TO agno_spans")
    for number in range(10):
        home.run(f"t{number}")
    home.execute("UPDATE agno_spans SET created_at = CAST(created_at AS BLOB) WHERE trace_id = 't5'")
    await home.poll(after=1)
    assert home.calls == 9
    assert home.value("agentos_exporter_ignored_traces_total", "malformed") == 1


async def test_a_trace_that_is_dated_long_before_it_was_written_is_not_counted_and_said_once(home: Home) -> None:
    home.run("good")
    home.run("epoch")
    home.run("history")
    for column in ("start_time", "end_time"):
        home.execute(f"UPDATE agno_spans SET {column} = '1970-01-01T00:00:00+00:00' WHERE trace_id = 'epoch'")
        home.execute(f"UPDATE agno_spans SET {column} = '{at(-5 * 3600)}' WHERE trace_id = 'history'")
    for _ in range(3):
        await home.poll(after=5)
    assert home.total("agentos_runs_total") == 1
    assert home.value("agentos_exporter_ignored_traces_total", "too_old") == 1


async def test_our_own_requests_and_malformed_traces_count_as_ignored_once(home: Home) -> None:
    home.write(OWN_TRACE_PREFIX + "0" * 16, "own1", None, {})
    home.write(OWN_TRACE_PREFIX + "0" * 16, "own2", "own1", {})
    home.write("bad", "bad", None, "{")
    home.write("odd", "odd", None, AGENT, status="FINE")
    home.run("good")
    for _ in range(5):
        await home.poll(after=5)
    home.restart()
    await home.poll(after=5)
    ignored = {reason: home.value("agentos_exporter_ignored_traces_total", reason) for reason in ("own", "malformed")}
    assert ignored == {"own": 1, "malformed": 2}
    assert home.calls == 1


async def test_a_trace_older_than_the_ledger_remembers_is_not_counted_again(home: Home) -> None:
    home.run("t")
    await home.poll(after=1)
    await home.poll(after=OVERLAP + 1)
    for _ in range(30):
        home.run(f"keeps going {home.now}")
        await home.poll(after=3600)
    assert "t" not in home.ledger.records("os", ["t"])
    before = home.calls
    home.write("t", "late child", "t", LLM, name="OpenAIChat.ainvoke")
    await home.poll(after=1)
    assert home.calls == before
    assert home.value("agentos_exporter_ignored_traces_total", "too_old") == 1


async def test_a_backlog_is_read_in_pieces_and_survives_being_killed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "PAGE", 20)
    monkeypatch.setattr(feeding, "CHUNK", 5)
    for number in range(100):
        home.run(f"t{number:03}", end=-3000 + number * 20)
    for killed in range(12):
        await home.poll(stop_after=killed % 4)
        await home.source.aclose()
        home.restart()
    batches = await home.poll()
    assert batches
    assert home.calls == 100
    assert not home.source.catching_up


async def test_a_deadline_ends_a_poll_between_pages_and_the_next_goes_on(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "PAGE", 20)
    for number in range(100):
        home.run(f"t{number:03}", end=-3000 + number * 20)

    def slow(sql: str, _: object) -> None:
        home.now += 5 if "SELECT created_at" in sql else 0

    home.feed.connection.on_query = slow
    polls = 0
    while home.calls < 100:
        polls += 1
        await home.poll(deadline=20)
        assert polls < 30
        assert home.source.catching_up or home.calls == 100
    assert polls > 1
    await home.poll(after=1)
    assert not home.source.catching_up


# Several databases, and switching


async def test_two_databases_that_hold_the_same_trace(tmp_path: Path) -> None:
    home = Home(tmp_path, files=("one.db", "two.db"))
    for path in home.paths:
        home.run("t", path=path)
    home.run("only here", path=home.paths[1])
    await home.poll(after=1)
    assert (home.calls, home.total("agentos_runs_total")) == (2, 2)
    await home.poll(after=OVERLAP + 1)
    await home.poll(after=1)
    assert home.value("agentos_traces_total", "agent") == 2
    await home.source.aclose()


async def test_what_a_database_that_was_away_still_holds_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path, files=("a.db", "b.db"))
    near, far = home.paths
    home.now = 100
    home.run("x", path=near)
    home.run("y", path=far)
    await home.poll(after=10)
    with monkeypatch.context() as broken:
        broken.setattr(home.source.feeds[1].connection, "open", away)
        home.now = 300
        for number in range(4):
            home.run(f"z{number}", path=far, end=200 + number)
        home.run("both", path=near)
        home.run("both", path=far)
        for number in range(27):
            home.now += 3600
            home.run(f"k{number}", path=near)
            with pytest.raises(Unreachable):
                await home.poll(after=1)
    monkeypatch.setattr(feeding, "PAGE", 2)
    for _ in range(12):  # page by page
        await home.poll(after=15, deadline=0.09)
    monkeypatch.undo()
    await home.poll(after=15)
    await home.poll(after=100)
    assert (home.calls, home.total("agentos_traces_total")) == (34, 34)
    await home.source.aclose()


async def away(_: float) -> None:
    raise Unreachable("nobody is there")


def test_the_database_that_is_furthest_behind_decides_what_is_forgotten() -> None:
    def stand(cutoff: int, *, seen: bool = True) -> Position:
        return Position(cutoff=cutoff, floor=0, seen=seen)

    assert handover.floors({}, ["x"]) == {}
    assert handover.floors({"a": stand(5 * DAY), "b": None}, ["x"]) == {}
    assert handover.floors({"a": stand(5 * DAY), "b": stand(3 * DAY)}, ["x"]) == dict.fromkeys("abx", 2 * DAY)
    never = {"a": stand(5 * DAY), "b": stand(3 * DAY, seen=False)}
    assert handover.floors(never, []) == dict.fromkeys("ab", 4 * DAY)


async def test_a_database_that_fails_keeps_no_other_from_being_read(tmp_path: Path) -> None:
    home = Home(tmp_path, files=("one.db", "two.db"))
    home.run("t", path=home.paths[1])
    home.paths[0].unlink()
    with pytest.raises(Unreachable, match=r"one\.db: there is no such file"):
        await home.poll(after=1)
    assert home.calls == 1
    await home.source.aclose()


def commit_api_cursor(ledger: Ledger, cutoff: int, db: str = "main") -> None:
    from dataclasses import asdict

    from exporter.ledger.records import Changes

    ledger.commit(Changes("os", cursor=(db, asdict(Position(cutoff=cutoff, floor=cutoff - DAY, seen=True)))))


@pytest.mark.parametrize("key", ["main", ""])  # '': an API that does not name its database
async def test_a_switch_from_the_api_keeps_totals_and_finishes_what_it_left_open(home: Home, key: str) -> None:
    """What the API counted counts no more; what it hid counts now."""
    from exporter.core.model import Span, Trace
    from exporter.sources.protocol import Batch

    home.now = 7200
    home.run("t", calls=2)
    home.write("killed", "c1", "never", LLM, name="OpenAIChat.ainvoke")
    usage = TokenUsage(100, 10)
    spans = (
        Span(rows.span_id("t"), -1, SpanKind.AGENT, "Agent", 0, 1),
        *(
            Span(rows.span_id(f"t.{n}"), 0, SpanKind.LLM, "x", 0, 1, None, "openai", "gpt", "OpenAIChat", usage)
            for n in range(2)
        ),
    )
    now = (T0 + 7200) * S
    home.intake.absorb(
        Batch(key, [Trace("t", key, now, now, now, 3, spans), Trace("killed", key, now, now, now, 1, ())])
    )
    assert home.calls == 2
    commit_api_cursor(home.ledger, now - OVERLAP * S, key)
    await home.poll(after=1)
    assert (home.calls, home.total("agentos_runs_total")) == (2, 1)
    for _ in range(14):
        await home.poll(after=HORIZON / 12)
    assert home.calls == 3
    assert home.value("agentos_exporter_orphan_spans_total") == 1
    assert home.value("agentos_traces_total", "agent") == 1
    assert home.ledger.count_open() == {}
    await home.poll(after=DAY / S + HORIZON)
    assert home.ledger.records("os", ["t", "killed"]) == {}


def test_where_a_database_begins_that_others_read_before() -> None:
    hour, overlap, now = 3600 * S, OVERLAP * S, T0 * S
    assert handover.begin([], now - hour, overlap) == now - hour
    assert handover.begin([now - overlap], now - hour, overlap) == now - hour
    # There was a gap between the two.
    assert handover.begin([now - 5 * hour], now - hour, overlap) == now - 5 * hour - overlap
    # A long lookback reaches no further than the ledger does.
    assert handover.begin([now], now - 7 * DAY, overlap) == now - 23 * hour
    assert handover.begin([now], now - hour, overlap, own=now - 3 * DAY) == now - 23 * hour
    assert handover.begin([now - 3 * DAY], now - hour, overlap, own=now - hour) == now - hour
    assert handover.cutoffs([{"cutoff": now}, {"cutoff": now - 2 * DAY}, {}, {"cutoff": now - hour}]) == [
        now - hour,
        now,
    ]
    assert handover.forgotten([now, now - hour]) == now - DAY
    assert handover.forgotten([]) == 0


async def test_where_the_api_begins_whose_databases_were_read(home: Home) -> None:
    """It sees nothing that they did not show, and must not count what the ledger has forgotten."""
    home.now = 10 * DAY / S
    home.run("t")
    await home.poll()
    for _ in range(20):
        await home.poll(after=15)
    cutoff = home.ledger.cursors("os")[home.feed.db]["cutoff"]
    for stored, expected in ((None, cutoff - OVERLAP * S), (cutoff - 5 * DAY, cutoff - OVERLAP * S), (cutoff, cutoff)):
        if stored is not None:
            commit_api_cursor(home.ledger, stored)
        reader = SearchReader(None, "main", home.settings, home.clock, PollStats())
        await reader._load(home.view)
        assert reader.loaded_position.cutoff == expected


async def test_a_cursor_of_the_api_under_another_key_is_never_misread(home: Home) -> None:
    home.now = 7200
    commit_api_cursor(home.ledger, (T0 + 3600) * S)
    home.run("between", end=3700)
    home.run("before", end=-1000)
    await home.poll()
    assert home.calls == 1
    stored = home.ledger.cursors("os")
    assert set(stored) == {"main", home.feed.db}
    assert stored[home.feed.db]["source"] == "database"
    assert "source" not in stored["main"]


# What is wrong with a database


async def test_tables_that_are_not_there_yet_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = Home(tmp_path)
    home.execute("DROP TABLE agno_spans")
    for _ in range(3):
        assert await home.poll(after=15) == []
    home.create_again = [line for line in DDL.split(";") if "agno_spans" in line]
    for line in home.create_again:
        home.execute(line)
    home.run("t")
    await home.poll(after=15)
    assert home.calls == 1
    await home.source.aclose()


async def test_a_table_that_was_there_and_is_gone(home: Home) -> None:
    home.run("t")
    await home.poll(after=1)
    home.execute("DROP TABLE agno_spans")
    for _ in range(2):
        with pytest.raises(BadAnswer, match=r"no such table: agno_spans|table agno_spans was there and is gone"):
            await home.poll(after=15)
    for line in [line for line in DDL.split(";") if "agno_spans" in line]:
        home.execute(line)
    for number in range(4):
        home.run(f"new{number}")
        await home.poll(after=15)
    assert home.calls == 5
    assert home.value("agentos_exporter_source_resets_total") == 1


async def test_a_column_that_is_missing(home: Home) -> None:
    home.execute("ALTER TABLE agno_spans RENAME COLUMN status_message TO message")
    with pytest.raises(BadAnswer, match=r"table agno_spans has no column status_message: not agno's table"):
        await home.poll(after=1)
    home.execute("ALTER TABLE agno_spans RENAME COLUMN message TO status_message")
    home.run("t")
    await home.poll(after=15)
    assert home.calls == 1


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.remove()
    tmp_path.joinpath("agno.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(BadAnswer, match=r"file is not a database"):
        await home.poll(after=1)
    await home.source.aclose()


async def test_a_database_that_is_replaced_is_a_reset_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.run("t")
    await home.poll(after=1)
    await home.poll(after=15)
    home.remove()
    with pytest.raises(Unreachable):
        await home.poll(after=15)
    home.create(home.paths[0])
    for number in range(10):
        home.run(f"n{number}")
        await home.poll(after=15)
    assert home.calls == 11
    assert home.value("agentos_exporter_source_resets_total") == 1
    await home.source.aclose()


async def test_retention_is_no_reset(home: Home) -> None:
    for number in range(100):
        home.run(f"t{number}")
        home.execute("DELETE FROM agno_spans WHERE created_at < ?", at(home.now - 600))
        await home.poll(after=30)
    assert home.calls == 100
    assert home.value("agentos_exporter_source_resets_total") == 0


async def test_a_statement_that_is_not_wanted_any_more_is_broken_off(home: Home) -> None:
    await home.poll(after=1)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    began = time.monotonic()
    with pytest.raises(SourceTimeout, match=r"broken off"):
        await home.feed.connection.rows(endless, wait=0.2)
    assert not home.feed.connection.is_open
    await home.poll(after=1)
    waiting = asyncio.create_task(home.feed.connection.rows(endless, wait=60))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert time.monotonic() - began < 5
    home.run("t")
    await home.poll(after=1)
    assert home.calls == 1


async def test_polls_and_the_look_at_sessions_take_turns(home: Home) -> None:
    home.run("t")
    await home.poll(after=1)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    first = asyncio.create_task(home.feed.connection.rows(endless, wait=0.5))
    await asyncio.sleep(0)
    with pytest.raises(SourceTimeout, match=r"the connection was busy for 0\.1 s"):
        await home.feed.connection.rows("SELECT 1", wait=0.1)
    with pytest.raises(SourceError, match=r"closed meanwhile"):
        await home.feed.connection.rows("SELECT 1", wait=5)
    with pytest.raises(SourceTimeout, match=r"broken off"):
        await first
    await asyncio.gather(*(home.source.describe(home.view) for _ in range(5)), home.poll(after=1))


async def test_nothing_can_be_written(home: Home) -> None:
    await home.poll(after=1)
    with pytest.raises(SourceError, match=r"readonly|read-only"):
        await home.feed.connection.rows("DELETE FROM agno_spans", wait=5)


# Sessions, components


async def test_sessions_and_components_come_from_their_tables(home: Home) -> None:
    home.now = 100_000
    for number in range(5):
        home.execute("INSERT INTO agno_sessions VALUES (?, ?)", f"s{number}", T0 + number)
    for number, session in enumerate(["a", "a", "b", None]):
        home.execute(
            "INSERT INTO agno_traces VALUES (?, '', ?, ?)", f"t{number}", session, at(home.now - 10 - 3000 * number)
        )
    for row in (("a b", "agent", "My-Agent 1", None), ("old", "team", "Old", 5), ("w", "workflow", None, None)):
        home.execute("INSERT INTO agno_components VALUES (?, ?, ?, ?)", *row)
    await home.poll()
    found = await home.source.describe(home.view)
    assert (found.os_id, found.version, found.sessions) == ("", "", 5)
    assert {window.window: (window.sessions, window.traces) for window in found.windows} == {
        "1h": (1, 2),
        "24h": (2, 3),
    }
    assert [(component.kind, component.id, component.name, component.span_name) for component in found.components] == [
        ("agent", "a b", "My-Agent 1", "My_Agent_1"),
        ("workflow", "w", "w", "w"),
    ]


async def test_session_figures_cost_one_part_in_five_hundred_also_where_they_fail(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home.poll()
    await home.source.describe(home.view)
    spent = home.feed.connection.seconds
    home.now += 1000
    home.feed.connection.seconds = 0.0

    async def slow(sql: str, params: object = (), *, wait: float) -> list[tuple[int, ...]]:
        asked.append(sql)
        home.feed.connection.seconds += 10
        raise SourceTimeout("took long")

    asked: list[str] = []
    monkeypatch.setattr(home.feed.connection, "rows", slow)
    home.execute("DROP TABLE agno_components")
    home.feed.connection.sql.layout.pop("agno_components")
    for _ in range(3):
        with pytest.raises(SourceTimeout):
            await home.source.describe(home.view)
        home.now += 4000
        await home.source.describe(home.view)
        home.now += 1001
    assert len(asked) == 3
    assert spent < 1


async def test_what_tables_do_not_tell_is_absent_not_zero(home: Home) -> None:
    home.execute("INSERT INTO agno_traces VALUES ('t', '', NULL, ?)", at(-5))
    home.execute("DROP TABLE agno_sessions")
    home.execute("DROP TABLE agno_components")
    found = await home.source.describe(home.view)
    assert (found.sessions, found.windows, found.components) == (None, (), ())


# Where


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("sqlite:///agno.db", "database:sqlite:////base/agno.db"),
        ("sqlite+aiosqlite:////abs/agno.db", "database:sqlite:////abs/agno.db"),
        ("postgresql://me@db/agno", "database:postgresql://db/agno schema=ai"),
        ("postgresql+asyncpg://other@db/agno", "database:postgresql://db/agno schema=ai"),
        ("mysql+pymysql://me@db:3307/", "database:mysql://db:3307/ schema=ai"),
        ("postgresql://me@/agno?host=a:1&host=b:2", "database:postgresql://a:1,b:2/agno schema=ai"),
        ("postgresql://me@/agno?host=/run/postgresql", "database:postgresql:///run/postgresql/agno schema=ai"),
        ("postgresql:///agno", "database:postgresql://localhost/agno schema=ai"),
    ],
)
def test_the_key_of_a_database_names_neither_user_nor_driver(url: str, key: str) -> None:
    location = parse(url, Path("/base"))
    assert location.key == key
    assert "me" not in str(location)


def test_other_tables_are_another_database() -> None:
    url = "postgresql://db/agno"
    one, other = parse(url, Path(), "a"), parse(url, Path(), "a", Tables(spans_table="x"))
    assert len({parse(url, Path()).key, one.key, other.key}) == 3


@pytest.mark.parametrize("engine", list(Engine))
def test_no_statement_asks_for_prompts_or_for_more_than_it_names(engine: Engine) -> None:
    sql = Sql(Location(engine, "agno", schema="" if engine is Engine.SQLITE else "ai"))
    statements = [sql.inserted(after=False), sql.inserted(after=True), sql.spans(3), sql.alive(3), sql.components()]
    for statement in statements:
        assert "*" not in statement
        assert "input.value" not in statement
        assert "OFFSET" not in statement
        assert "LIMIT" in statement or "trace_id" in statement.partition("WHERE")[2]


def test_the_command_line_tells_where_and_no_password(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READER_PASSWORD", "hunter2secret")
    file = tmp_path / "c.yml"
    file.write_text(
        "agentos:\n"
        "  - {name: a, database: 'postgresql://reader@db/agno', password_env: READER_PASSWORD}\n"
        "  - {name: b, database: 'sqlite:///agno.db'}\n"
    )
    assert cli.main(["check-config", "--config.file", str(file)]) == 0
    said = capsys.readouterr().out
    assert "postgresql://db/agno, schema ai" in said
    assert "from the environment variable READER_PASSWORD" in said
    assert f"sqlite:///{tmp_path}/agno.db" in said
    assert "hunter2secret" not in said
    assert cli.main(["traces", "list", "--config.file", str(file), "--agentos", "b"]) != 0
    assert "agentos b: is read from its database; name its API with --url" in capsys.readouterr().err


# The past


async def past(home: Home, since: float, until: float, reached: dict[str, int]) -> dict[str, tuple[int, int]]:
    """By trace: how many spans are shown, and how many of them below one that is not there."""
    found = {}
    async with aclosing(home.source.past(round((T0 + since) * S), round((T0 + until) * S), reached)) as batches:
        async for batch in batches:
            found |= {trace.id: (len(trace.spans), len(trace.orphans)) for trace in batch.traces}
            if batch.cursor is not None:
                reached[batch.db] = batch.cursor["reached"]
    return found


async def test_the_past_is_what_ended_then_with_what_lost_its_ancestors(tmp_path, monkeypatch):
    monkeypatch.setattr(past_feed, "PAGE", 4)
    home = Home(tmp_path)
    for place in range(12):
        trace, end = f"t{place:02}", 100.0 * place
        if place != 5:
            home.write(trace, f"{place:016x}", None, AGENT, end=end, written=end + 2)
        for call in range(3):
            home.write(
                trace, f"{100 * place + call + 500:016x}", f"{place:016x}", LLM, end=end - 5 + call, written=end + 1
            )
    # Begun long before, and ended then; and begun then, and ended after.
    home.write("early", f"{9001:016x}", None, AGENT, end=600, written=601)
    home.write("early", f"{9002:016x}", f"{9001:016x}", LLM, end=-3000, written=-2999)
    home.write("late", f"{9003:016x}", None, AGENT, end=5000, written=5001)
    home.write("late", f"{9004:016x}", f"{9003:016x}", LLM, end=550, written=551)
    home.now = 20_000.0
    whole = {f"t{place:02}": (4, 0) for place in range(3, 9)} | {"t05": (3, 3), "early": (2, 0)}
    reached: dict[str, int] = {}
    assert await past(home, 300, 900, reached) == whole
    assert await past(home, 300, 900, reached) == {}
    assert home.source.stats.traces == 0


async def test_a_past_that_was_broken_off_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(past_feed, "PAGE", 4)
    home = Home(tmp_path)
    for place in range(40):
        home.write(f"t{place:02}", f"{place + 1:016x}", None, AGENT, end=10.0 * place, written=10.0 * place + 1)
    home.now = 20_000.0
    found: set[str] = set()
    reached: dict[str, int] = {}
    rounds = 0
    while len(found) < 40:
        rounds += 1
        async with aclosing(home.source.past(T0 * S, (T0 + 400) * S, dict(reached))) as batches:
            async for batch in batches:
                found |= {trace.id for trace in batch.traces}
                if batch.cursor is not None:
                    reached[batch.db] = batch.cursor["reached"]
                    break
        home.restart()
        assert rounds < 40
    assert rounds > 5
