"""The reading algorithm against an AgentOS in memory, on a clock that only requests and the test move.

`FakeAgentOS` answers as the protocol was measured: rows appear when their first span is committed and grow with the
others, trees hide what has no visible parent, pages are sorted by start time with ties in random order, and a failing
database is an empty 200. `World` polls it with the real readers, intake, ledger and totals. Whatever happened: once
things are quiet, every span that the fake shows was counted exactly once.
"""

import asyncio
import contextlib
import json
import random
from bisect import bisect_right
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import pytest

from exporter.bookkeeping.intake import Intake
from exporter.bookkeeping.shared import Shared
from exporter.core.errors import SilentEmpty, SourceError, SourceTimeout, StateError
from exporter.core.model import MICROSECONDS, Clock, TraceState
from exporter.ledger.store import Ledger
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from exporter.service.poller import View
from exporter.sources.api.http import OWN_TRACE_PREFIX, Answer, TooLarge, UnknownRoute
from exporter.sources.api.listing import ListReader
from exporter.sources.api.past import PastReader
from exporter.sources.api.reader import Reader
from exporter.sources.api.search import SearchReader
from exporter.sources.position import Settings
from exporter.sources.protocol import Batch, PollStats

T0 = 1_790_000_000.0
OVERLAP = 60.0
POLL = 15.0
HORIZON = 900.0
MOST_REQUESTS = 400
"""A poll that sends more runs in circles."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso(micros: int) -> str:
    return (EPOCH + timedelta(microseconds=micros)).isoformat()


def us(seconds: float) -> int:
    return round(seconds * MICROSECONDS)


def parsed(text: str) -> int:
    assert text.endswith("+00:00"), text
    assert not text.endswith(".000000+00:00"), text
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


@dataclass
class Row:
    """A span row: written once, at `commit` (true seconds)."""

    id: str
    parent: str | None
    type: str
    name: str
    start: int
    end: int
    commit: float


@dataclass
class Stored:
    """A trace and when its spans are written. `row` is what its trace row says at the moment."""

    id: str
    rows: list[Row]
    created: int
    status: str = "OK"
    broken: bool = False
    """total_spans stays 0 and no span is shown"""
    commits: list[float] = field(default_factory=list)
    latest: int = 0
    """the end of the span that ends last, written or not"""
    shown: int = 0
    body: dict[bool, bytes] = field(default_factory=dict)
    start: int = 0
    end: int = 0

    def __post_init__(self) -> None:
        self.rows.sort(key=lambda row: row.commit)
        self.commits = [row.commit for row in self.rows]
        self.latest = max(row.end for row in self.rows)

    def at(self, now: float) -> bool:
        """Bring the row up to `now`; whether there is one."""
        shown = bisect_right(self.commits, now)
        if shown != self.shown:
            self.shown, self.body = shown, {}
            self.start = min(row.start for row in self.rows[:shown])
            self.end = max(row.end for row in self.rows[:shown])
        return shown > 0

    @property
    def total(self) -> int:
        return 0 if self.broken else self.shown

    def visible(self) -> list[Row]:
        if self.broken:
            return []
        written = {row.id: row for row in self.rows[: self.shown]}

        def rooted(row: Row) -> bool:
            return row.parent is None or (row.parent in written and rooted(written[row.parent]))

        return [row for row in written.values() if rooted(row)]

    def json(self, *, tree: bool) -> bytes:
        if tree not in self.body:
            said = {
                "trace_id": self.id,
                "start_time": iso(self.start),
                "end_time": iso(self.end),
                "created_at": iso(self.created),
                "total_spans": self.total,
                "status": self.status,
            }
            if tree:
                said["tree"] = self._nodes(self.visible(), None)
            self.body[tree] = json.dumps(said).encode()
        return self.body[tree]

    def _nodes(self, visible: list[Row], parent: str | None) -> list[dict[str, object]]:
        return [
            {
                "id": row.id,
                "name": row.name,
                "type": row.type,
                "start_time": iso(row.start),
                "end_time": iso(row.end),
                "status": "OK",
                "metadata": {"model": "gpt", "input_tokens": 3, "output_tokens": 4} if row.type == "LLM" else {},
                "spans": self._nodes(visible, row.id),
            }
            for row in visible
            if row.parent == parent
        ]


class FakeAgentOS:
    """`exporter.sources.api.http.Api` as far as readers use it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = T0
        self.traces: dict[str, Stored] = {}
        self.skews = [0.0]
        """of the replicas' clocks, in seconds"""
        self.blind: Callable[[int], bool] = lambda request: False
        """whether the database fails under this request"""
        self.on_request: Callable[[int], None] = lambda request: None
        self.per_row = 0.001
        self.per_request = 0.005
        self.date = True
        self.limit_bytes = 1 << 30
        self.requests = 0
        self.bodies = 0

    # What readers call

    async def post(self, path: str, params: dict, body: dict, *, endpoint: str, timeout: float) -> Answer:  # noqa: ASYNC109 - as Api has it
        assert path == "/traces/search"
        assert 1 <= body["limit"] <= 100
        assert body["page"] >= 1
        assert len(json.dumps(body)) < 400_000
        conditions = body["filter"]["conditions"] if body["filter"]["op"] == "AND" else [body["filter"]]
        tests = [self._test(condition) for condition in conditions]
        since = max(
            (parsed(one["value"]) for one in conditions if one["op"] == "GTE" and one["key"] == "end_time"), default=0
        )
        return self._page(
            body["limit"], body["page"], since, lambda one: all(t(one) for t in tests), timeout, tree=True
        )

    async def get(self, path: str, params: dict, *, endpoint: str, timeout: float) -> Answer:  # noqa: ASYNC109 - as Api has it
        if path == "/traces":
            since = parsed(params["start_time"])
            until = parsed(params["end_time"]) if "end_time" in params else None
            status = params.get("status")

            def fits(one: Stored) -> bool:
                return (
                    one.start >= since
                    and (until is None or one.end <= until)
                    and (status is None or one.status == status)
                )

            return self._page(params["limit"], params["page"], since, fits, timeout, tree=False)
        trace_id = unquote(path.removeprefix("/traces/"))
        blind = self._begin(timeout, 1)
        one = self.traces.get(trace_id)
        if blind or one is None or not one.at(self.now):
            raise UnknownRoute("404", 404)
        if "span_id" in params:
            row = next(row for row in one.rows if row.id == params["span_id"])
            return self._answer(json.dumps(one._nodes([row], row.parent)[0]).encode())
        return self._answer(one.json(tree=True))

    # How it works

    def _begin(self, timeout: float, rows: float) -> bool:
        self.requests += 1
        self.on_request(self.requests)
        takes = self.per_request + self.per_row * rows
        if takes > timeout:
            self.now += timeout
            raise SourceTimeout("too slow")
        self.now += takes
        return self.blind(self.requests)

    def _page(
        self, limit: int, page: int, since: int, fits: Callable[[Stored], bool], timeout: float, *, tree: bool
    ) -> Answer:
        """A page of the traces that fit. None of those fits that were over before `since`, which saves most looks."""
        found = [
            trace for trace in self.traces.values() if trace.latest >= since and trace.at(self.now) and fits(trace)
        ]
        self.rng.shuffle(found)
        found.sort(key=lambda one: -one.start)
        rows = found[(page - 1) * limit : page * limit]
        if self._begin(timeout, len(rows) * (1 if tree else 0.001)):
            found, rows = [], []
        parts = b",".join(row.json(tree=tree) for row in rows)
        if len(parts) > self.limit_bytes:
            raise TooLarge("too large")
        meta = b'],"meta":{"total_count":%d,"search_time_ms":1.0}}' % len(found)
        return self._answer(b'{"data":[' + parts + meta, len(rows))

    def _answer(self, body: bytes, rows: int = 1) -> Answer:
        self.bodies += len(body)
        date = float(int(self.now + self.rng.choice(self.skews))) if self.date else None
        return Answer(body, date, self.per_request + self.per_row * rows)

    def _test(self, condition: dict) -> Callable[[Stored], bool]:
        op = condition["op"]
        if op == "NOT":
            inner = self._test(condition["condition"])
            return lambda one: not inner(one)
        if op == "AND":
            inners = [self._test(each) for each in condition["conditions"]]
            return lambda one: all(test(one) for test in inners)
        key = condition["key"]
        assert key in {"end_time", "created_at", "status", "trace_id"}

        def value(one: Stored) -> object:
            return {"end_time": one.end, "created_at": one.created, "status": one.status, "trace_id": one.id}[key]

        if op == "IN":
            values = frozenset(condition["values"])
            assert len(values) <= 5_000
            return lambda one: value(one) in values
        if op == "STARTSWITH":
            return lambda one: one.id.startswith(condition["value"])
        bound = parsed(condition["value"])
        if op == "GTE":
            return (lambda one: one.end >= bound) if key == "end_time" else (lambda one: one.created >= bound)
        assert (op, key) in {("LT", "end_time"), ("LTE", "end_time")}
        return (lambda one: one.end < bound) if op == "LT" else (lambda one: one.end <= bound)

    # What users of it do

    def add(
        self,
        start: float,
        shape: str = "agent",
        *,
        length: float = 2.0,
        lag: Callable[[], float] = lambda: 0.05,
        skew: float = 0.0,
        in_order: bool = True,
        steps: int = 2,
        **more: object,
    ) -> Stored:
        """A run that starts at true time `start`; `lag` seconds lie between a span's end and its commit."""
        rng, rows = self.rng, list[Row]()

        def span(parent: str | None, kind: str, name: str, lo: float, hi: float) -> str:
            span_id = f"{rng.getrandbits(64):016x}"
            rows.append(Row(span_id, parent, kind, name, us(lo + skew), us(hi + skew), hi + lag()))
            return span_id

        end = start + length
        top, name = None, "Clerk.arun"
        if shape == "http":
            top = span(None, "UNKNOWN", "POST /agents/{agent_id}/runs", start, end)
        if shape == "background":
            # The root ends, and is written, before what it started.
            top = span(None, "AGENT", name, start, start + length / 3)
        elif shape == "workflow":
            top = span(top, "WORKFLOW", "Flow.arun", start, end)
            top = span(top, "WORKFLOW", "Step.aexecute_stream", start, end)
            span(top, "AGENT", name, start, end)
        else:
            top = span(top, "AGENT", name, start, end)
        for step in range(steps):
            lo, hi = start + length * step / steps, start + length * (step + 1) / steps
            span(top, "LLM", "OpenAIChat.ainvoke", lo + length * 0.01, hi - length * 0.01)
            if rng.random() < 0.5:
                span(top, "TOOL", "search", lo + length * 0.02, hi - length * 0.02)
        if in_order:
            latest = 0.0
            for row in sorted(rows, key=lambda row: row.end):
                row.commit = latest = max(row.commit, latest)
        first = min(row.commit for row in rows)
        stored = Stored(f"{rng.getrandbits(128):032x}", rows, us(first + skew), **more)
        self.traces[stored.id] = stored
        return stored


class World:
    """A reader of either kind on a fake AgentOS, and all that makes its batches durable."""

    def __init__(
        self, seed: int, kind: type[Reader] = SearchReader, *, deadline: float = 60, lookback: float = 3600
    ) -> None:
        self.rng = random.Random(seed)
        self.os = FakeAgentOS(self.rng)
        self.kind = kind
        self.deadline = deadline
        self.clock_error = 0.0
        self.settings = Settings(us(OVERLAP), us(lookback), us(HORIZON), 0.05)
        self.ledger = Ledger(None)
        self.outcomes: list[str] = []
        self.polls: list[tuple[int, str]] = []
        self.die: Callable[[Batch], bool] = lambda batch: False
        self.resets = 0
        self.start()

    def start(self) -> None:
        """A new process on the same state."""
        self.clock = Clock(lambda: self.os.now + self.clock_error, lambda: self.os.now - T0)
        self.reader = self.kind(self.os, "main", self.settings, self.clock, PollStats())
        self.reader.clean_ids = True
        self.totals = Totals(Limits(), zero_hold=60)
        self.totals.restore(*self.ledger.load())
        self.intake = Intake("os", Shared(self.ledger, self.totals, self.clock), overlap=OVERLAP, horizon=HORIZON)
        self.view = View(self.ledger, "os")

    async def poll(self) -> str:
        before = self.ledger.cursors("os").get("main", {}).get("cutoff", 0)
        requests, outcome, died = self.os.requests, "ok", False
        most = len(self.os.traces) if self.kind is ListReader else 0
        try:
            async with aclosing(
                self.reader.poll(self.view, deadline=self.clock.monotonic() + self.deadline)
            ) as batches:
                async for batch in batches:
                    self.resets += batch.reset
                    self.intake.absorb(batch)
                    if self.die(batch):
                        died = True
                        break
        except SourceError as error:
            outcome = error.outcome
        if died:
            self.start()
        after = self.ledger.cursors("os").get("main", {}).get("cutoff", 0)
        assert after >= before, "the cutoff fell"
        assert after <= us(self.os.now + max(self.os.skews) - OVERLAP + 1) or not before, "the cutoff ran ahead"
        assert self.os.requests - requests <= MOST_REQUESTS + 2 * most, "a poll runs in circles"
        self.outcomes.append(outcome)
        return outcome

    async def run(self, seconds: float, *, backoff: bool = False, each: Callable[[], None] = lambda: None) -> None:
        until, failures = self.os.now + seconds, 0
        while self.os.now < until:
            each()
            started = self.os.now
            outcome = await self.poll()
            failures = 0 if outcome == "ok" else failures + 1
            pause = min(300, POLL * 2 ** min(failures - 1, 10)) if backoff and failures else POLL
            self.os.now = max(started + pause, self.os.now)

    async def settle(self) -> None:
        """Wait until all is written, and then for as long as an open trace is waited for."""
        last = max((row.commit for trace in self.os.traces.values() for row in trace.rows), default=0.0)
        self.os.blind = lambda request: False
        self.die = lambda batch: False
        if last > self.os.now:
            await self.run(last - self.os.now)
        await self.run(HORIZON + 3 * OVERLAP)

    def shown(self, one: Stored) -> set[int]:
        one.at(self.os.now)
        return {int(row.id, 16) for row in one.visible() if row.type != "UNKNOWN"}

    def check(self, *, only: Callable[[Stored], bool] = lambda one: True, gone: int = 0) -> None:
        """Everything shown is counted, once, and nothing else but `gone` spans of what was deleted."""
        records = self.ledger.records("os", self.os.traces)
        for trace in self.os.traces.values():
            if only(trace):
                counted = set().union(*(record.spans for record in records.get(trace.id, ())))
                missing = self.shown(trace) - counted
                age = self.os.now - trace.end / MICROSECONDS
                assert not missing, (
                    f"{len(missing)} of {trace.shown} spans of {trace.id} (ended {age:.0f} s ago) are missing"
                )
        counted = sum(series.value for series in self.totals.stored() if series.metric == "agentos_spans_total")
        expected = sum(len(self.shown(trace)) for trace in self.os.traces.values() if only(trace))
        assert counted - gone == expected

    def traffic(self, seconds: float, every: float, **more: object) -> None:
        """Runs from now on, in all shapes."""
        rng, at = self.rng, self.os.now
        end = at + seconds
        while at < end:
            shape = rng.choice(["agent", "agent", "http", "background", "workflow"])
            length = rng.choice([0.2, 2, 2, 10, 40])
            self.os.add(at, shape, length=length, **{"skew": rng.choice(self.os.skews), **more})
            at += rng.expovariate(1 / every)


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(function: Callable, *arguments: object, **named: object) -> object:
        return function(*arguments, **named)

    monkeypatch.setattr(asyncio, "to_thread", at_once)


both = pytest.mark.parametrize("kind", [SearchReader, ListReader])


def seeds(count: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("seed", range(count))


@both
@seeds(1)
async def test_steady_traffic(kind, seed):
    world = World(seed, kind)
    world.traffic(600, 4)
    await world.run(600)
    await world.settle()
    world.check()
    assert set(world.outcomes) == {"ok"}
    assert world.resets == 0


@both
@seeds(3)
async def test_spans_are_committed_late_and_out_of_order(kind, seed):
    world = World(seed, kind)
    rng = world.rng
    world.traffic(600, 5, in_order=False, lag=lambda: rng.uniform(0, 1.4 * OVERLAP) if rng.random() < 0.3 else 0.1)
    await world.run(600)
    await world.settle()
    world.check()


@both
@seeds(2)
async def test_whole_traces_are_committed_late(kind, seed):
    """Longer than their row may be behind by, no short run is lost."""
    world = World(seed, kind)
    rng = world.rng
    at = T0
    while at < T0 + 600:
        lag = rng.choice([0.1, 0.1, 0.5, 1.0, 1.4]) * OVERLAP
        world.os.add(at, length=1, lag=lambda lag=lag: lag)
        at += rng.expovariate(1 / 5)
    await world.run(600)
    await world.settle()
    world.check()


@both
@seeds(3)
async def test_clocks_of_replicas_differ(kind, seed):
    world = World(seed, kind)
    world.os.skews = [0.0, *(world.rng.uniform(-OVERLAP, OVERLAP) * 0.5 for _ in range(2))]
    world.clock_error = world.rng.uniform(-OVERLAP, OVERLAP)
    world.traffic(600, 5)
    await world.run(600)
    await world.settle()
    world.check()


@both
@seeds(2)
async def test_traces_from_the_future(kind, seed):
    world = World(seed, kind)
    rng = world.rng
    for _ in range(20):
        world.os.add(T0 + rng.uniform(0, 500), skew=rng.choice([240.0, 240.0, 3600.0]))
    world.traffic(600, 8)
    await world.run(600)
    await world.settle()
    world.check()


@both
@seeds(1)
async def test_ties_in_start_time(kind, seed):
    world = World(seed, kind)
    for burst in range(3):
        for _ in range(130):
            world.os.add(T0 + 100 * burst, length=world.rng.choice([1, 2]))
    world.os.add(T0 + 30)
    await world.run(500)
    await world.settle()
    world.check()


@both
@seeds(2)
async def test_deletions_during_a_pass(kind, seed):
    world = World(seed, kind)
    world.traffic(600, 3)
    doomed: set[str] = set()

    def delete(_: int) -> None:
        if world.rng.random() < 0.1:
            here = [trace for trace in world.os.traces.values() if trace.at(world.os.now) and trace.id not in doomed]
            for one in world.rng.sample(here, min(3, len(here))):
                doomed.add(one.id)
                gone.append(world.os.traces.pop(one.id))

    gone: list[Stored] = []
    world.os.on_request = delete
    await world.run(600)
    world.os.on_request = lambda request: None
    await world.settle()
    records = world.ledger.records("os", [one.id for one in gone])
    of_gone = sum(len(record.spans) for found in records.values() for record in found)
    world.check(gone=of_gone)


@both
@seeds(2)
async def test_all_that_was_known_is_deleted_or_the_database_replaced(kind, seed):
    world = World(seed, kind)
    world.traffic(300, 4)
    await world.run(330)
    gone = list(world.os.traces)
    old = dict(world.os.traces)
    world.os.traces.clear()
    if seed % 2:
        assert await world.poll() == "silent_empty"
    world.traffic(400, 4)
    await world.run(400)
    await world.settle()
    assert world.resets == 1
    assert world.outcomes[-1] == "ok"
    records = world.ledger.records("os", gone)
    world.check(gone=sum(len(record.spans) for found in records.values() for record in found))
    assert old


async def test_empty_answers_are_not_believed_while_traces_are_known():
    world = World(1)
    world.traffic(200, 5)
    await world.run(220)
    cursor = world.ledger.cursors("os")["main"]["cutoff"]
    world.os.blind = lambda request: True
    await world.run(300)
    assert set(world.outcomes[-15:]) == {"silent_empty"}
    assert world.ledger.cursors("os")["main"]["cutoff"] == cursor
    world.traffic(1, 5)
    world.os.blind = lambda request: False
    assert await world.poll() == "ok"
    await world.settle()
    world.check()


@both
async def test_an_agentos_without_traces_is_fine(kind):
    world = World(1, kind)
    await world.run(300)
    assert set(world.outcomes) == {"ok"}
    assert not world.reader.loaded_position.seen
    world.os.add(world.os.now)
    await world.settle()
    world.check()


@both
@seeds(5)
async def test_the_database_fails_for_a_while_now_and_then(kind, seed):
    """Outages begin and end between any two requests, also within a poll."""
    world = World(seed, kind)
    rng = world.rng
    state = {"until": 0}

    def blind(request: int) -> bool:
        if request > state["until"] and rng.random() < 0.05:
            state["until"] = request + rng.choice([0, 1, 2, 3, 5, 12])
        return request <= state["until"]

    world.os.blind = blind
    world.traffic(600, 4)
    await world.run(600)
    await world.settle()
    world.check()


@pytest.mark.parametrize("seed", [0, 1, 2, 5008, 5011])
async def test_a_backlog_in_windows(seed):
    """3,000 traces, read oldest first; the daemon is killed and the database fails in between."""
    world = World(seed, lookback=7200)
    rng = world.rng
    for _ in range(3000):
        world.os.add(T0 - rng.uniform(60, 3600), length=rng.choice([0.1, 5]), steps=1)
    if seed % 3 == 1:
        state = {"until": 0}

        def blind(request: int) -> bool:
            if request > state["until"] and rng.random() < 0.05:
                state["until"] = request + rng.choice([0, 1, 2, 3, 5])
            return request <= state["until"]

        world.os.blind = blind
    if seed % 3 == 2:
        world.die = lambda batch: rng.random() < 0.03
    world.traffic(300, 5)
    await world.run(300)
    await world.settle()
    world.check()


@seeds(2)
async def test_the_daemon_was_down_for_a_week(seed):
    world = World(seed)
    world.traffic(300, 5)
    await world.run(310)
    world.os.now += 7 * 86400
    for _ in range(1200):
        world.os.add(world.os.now - world.rng.uniform(0, 7 * 86400), steps=1)
    if seed % 2:
        world.start()
    await world.run(120)
    await world.settle()
    world.check()


@both
@pytest.mark.parametrize(("slow", "deadline", "traces"), [(0.05, 5, 300), (0.05, 40, 900), (0.3, 5, 300), (2, 40, 100)])
async def test_a_deadline_too_short_for_the_backlog_starves_nothing(kind, slow, deadline, traces):
    """Even where polls pause for minutes after each timeout, until what was read is no longer excluded."""
    world = World(5, kind, deadline=deadline)
    for _ in range(traces):
        world.os.add(T0 - world.rng.uniform(60, 3500), steps=1)
    world.os.per_row = slow
    for _ in range(48):
        await world.run(900, backoff=True)
        if not world.reader.catching_up and world.outcomes[-1] == "ok":
            break
    world.check()


@both
@seeds(2)
async def test_the_daemon_is_killed_at_any_point(kind, seed):
    world = World(seed, kind)
    rng = world.rng
    world.die = lambda batch: rng.random() < 0.1
    world.traffic(600, 4, in_order=False, lag=lambda: rng.uniform(0, 20))
    await world.run(600)
    await world.settle()
    world.check()


@seeds(2)
@pytest.mark.parametrize(("kind", "length"), [(SearchReader, 2 * HORIZON), (ListReader, 0.9 * HORIZON)])
async def test_long_runs(kind, length, seed):
    """A list filters by the start of a trace alone: it sees runs that began within the horizon."""
    world = World(seed, kind)
    for _ in range(6):
        shape = world.rng.choice(["agent", "background", "http", "workflow"])
        world.os.add(T0 + world.rng.uniform(0, 60), shape, length=length, steps=world.rng.choice([1, 3, 20]))
    world.traffic(length, 20)
    await world.run(length + 120)
    await world.settle()
    world.check()


@both
async def test_a_trace_that_never_shows_a_span_expires(kind):
    world = World(3, kind)
    stuck = [world.os.add(T0, broken=True) for _ in range(3)]
    world.traffic(60, 5)
    await world.run(60)
    await world.settle()
    world.check()
    records = world.ledger.records("os", [one.id for one in stuck])
    assert {record.state for found in records.values() for record in found} == {TraceState.EXPIRED}
    assert world.totals.value("agentos_traces_total", ("os", "unknown")) == 3
    requests = world.os.requests
    assert await world.poll() == "ok"
    assert world.os.requests - requests <= 6


@both
async def test_our_own_requests_are_left_out(kind):
    world = World(4, kind)
    world.traffic(200, 10)
    for at in range(0, 200, 5):
        own = world.os.add(T0 + at, "http")
        del world.os.traces[own.id]
        own.id = OWN_TRACE_PREFIX + own.id[16:]
        world.os.traces[own.id] = own
    await world.run(200)
    await world.settle()
    world.check(only=lambda one: not one.id.startswith(OWN_TRACE_PREFIX))
    assert 38 <= world.totals.value("agentos_exporter_ignored_traces_total", ("os", "own")) <= 40


async def test_without_a_date_header_our_own_clock_serves():
    world = World(5)
    world.os.date = False
    world.traffic(400, 5)
    await world.run(400)
    await world.settle()
    world.check()


@both
async def test_what_ended_before_the_first_look_back_is_history(kind):
    world = World(6, kind, lookback=600)
    old = [world.os.add(T0 - 700), world.os.add(T0 - 3600)]
    new = world.os.add(T0 - 500)
    await world.run(30)
    await world.settle()
    world.check(only=lambda one: one not in old)
    assert new.shown


async def test_answers_too_large_are_asked_for_in_smaller_pages():
    world = World(7)
    for _ in range(120):
        world.os.add(T0 - world.rng.uniform(10, 600))
    world.os.limit_bytes = 8_000
    await world.run(120)
    await world.settle()
    world.check()


async def test_a_poll_costs_few_requests_and_reads_little_twice():
    world = World(8)
    world.traffic(1200, 2)
    await world.run(1200)
    once = sum(len(trace.json(tree=True)) for trace in world.os.traces.values() if trace.at(world.os.now))
    polls = len(world.outcomes)
    assert world.os.requests / polls < 8
    assert world.os.bodies < 1.6 * once


# --- What fails between reading and committing ------------------------------------------------------------------------


async def refused(world, when=lambda changes: True):
    """A poll whose first commit of this kind fails."""
    real = world.ledger.commit

    def commit(changes):
        if when(changes):
            raise StateError("the disk is full")
        real(changes)

    world.ledger.commit = commit
    with pytest.raises(StateError):
        await world.poll()
    world.ledger.commit = real
    world.os.now += 15


async def test_a_list_looks_back_until_what_it_showed_is_committed():
    world = World(1, ListReader)
    world.os.add(T0 + 10)
    await world.run(300)
    world.os.add(T0 + 60, length=500, steps=1)
    await world.run(15)
    world.os.now = T0 + 4 * HORIZON  # nobody polled
    for number in range(5):
        world.os.add(world.os.now - 100 + number)
    world.start()
    await refused(world)
    await world.run(120)
    await world.settle()
    world.check()


async def test_a_list_looks_back_until_a_backlog_is_read():
    world = World(1, ListReader, lookback=4 * 3600, deadline=12)
    world.os.per_row = 0.02
    for number in range(800):
        world.os.add(T0 - 4 * 3600 + 100 + number * 3)
    world.os.add(T0 - 4 * 3600 + 700, length=800, steps=1)
    world.os.add(T0 - 100)
    for _ in range(6):
        began = world.os.now
        await world.poll()
        world.os.now = max(began + 15, world.os.now)
    await world.settle()
    world.check()


@pytest.mark.parametrize("kind", [SearchReader, ListReader])
async def test_nothing_is_forgotten_before_the_cursor_that_allows_it_is_committed(kind):
    world = World(1, kind, lookback=3 * 86_400)
    for number in range(90):
        world.os.add(T0 - 3 * 86_400 + 60 + number * 2_870)
    await refused(world, lambda changes: changes.cursor is not None)
    assert world.intake.prune("main", created_before=world.reader.oldest) == 0
    world.start()
    await world.run(300)
    await world.settle()
    world.check()


# The past


class Past:
    """What a reading of the past hands over, by trace."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.reader = PastReader(world.os, "main", world.settings, world.clock, PollStats())
        self.found: dict[str, int] = {}
        self.reached: list[int] = []

    async def read(self, since: float, until: float) -> None:
        async with aclosing(self.reader.past(us(since), us(until))) as batches:
            async for batch in batches:
                for trace in batch.traces:
                    self.found[trace.id] = max(len(trace.spans), self.found.get(trace.id, 0))
                if batch.cursor is not None:
                    self.reached.append(batch.cursor["reached"])

    def expected(self, since: float, until: float) -> dict[str, int]:
        world = self.world
        known = [trace for trace in world.os.traces.values() if trace.at(world.os.now)]
        return {one.id: len(one.visible()) for one in known if us(since) <= one.end < us(until)}


async def test_the_past_is_read_whole_in_windows_and_no_further() -> None:
    world = World(41)
    world.traffic(6 * 3600, 12)
    world.os.now += 12 * 3600
    past = Past(world)
    since, until = T0 + 1800.5, T0 + 5 * 3600
    await past.read(since, until)
    assert past.found == past.expected(since, until)
    assert len(past.found) > 1000
    assert past.reached == sorted(past.reached)
    assert len(past.reached) >= 3
    assert past.reached[-1] == us(until)


async def test_a_database_that_fails_in_the_past_is_no_empty_past() -> None:
    world = World(42)
    world.traffic(3 * 3600, 8)
    world.os.now += 12 * 3600
    since, until = T0, T0 + 3 * 3600
    for first in range(1, 40):
        past = Past(world)
        began = world.os.requests
        world.os.blind = lambda request, began=began, first=first: first <= request - began < first + 5
        with contextlib.suppress(SourceError):
            await past.read(since, until)
            assert past.found == past.expected(since, until)
            continue
        # It goes on where it was told to have come; an outage hides nothing before that.
        world.os.blind = lambda request: False
        await past.read((past.reached[-1] if past.reached else us(since)) / MICROSECONDS, until)
        assert past.found == past.expected(since, until)


async def test_a_past_without_traces_is_believed_if_later_ones_are_shown() -> None:
    world = World(43)
    world.os.add(T0 + 7200)
    world.os.now += 12 * 3600
    past = Past(world)
    await past.read(T0, T0 + 3600)
    assert (past.found, past.reached) == ({}, [us(T0 + 3600)])
    with pytest.raises(SilentEmpty, match="shows no trace since then"):
        await Past(World(44)).read(T0, T0 + 3600)
