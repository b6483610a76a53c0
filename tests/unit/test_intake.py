"""One batch, one transaction: the life of a trace on a driven clock, and what no order, repeat or crash changes."""

import random
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from exporter.bookkeeping.intake import SESSION_IDLE, Intake
from exporter.bookkeeping.shared import Shared
from exporter.core.errors import StateError
from exporter.core.model import RUN_KINDS, Clock, Span, SpanKind, TokenUsage, Trace, TraceState
from exporter.counting.dimensions import Dimension, Dimensions, Origin
from exporter.ledger.records import Changes
from exporter.ledger.store import Ledger
from exporter.metrics.catalog import METRICS, Kind, Life
from exporter.metrics.reference import group
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from exporter.pricing.prices import Priced
from exporter.pricing.tokens import Classes
from exporter.sources.protocol import Batch
from tests.harness.cashiers import FixedPrices
from tests.harness.examples import examples

S = 1_000_000
T0 = 1_790_000_000
OVERLAP, HORIZON = 60, 3600
TENANT = Dimension("tenant", Origin.USER)
DELAY = "agentos_exporter_span_ingest_delay_seconds"


def price(span):
    """Every third model has no price; the others cost amounts that no other sum of calls adds up to."""
    classes = Classes(span.usage.prompt, None, None, span.usage.completion, None)
    known = span.model != "free of price"
    usd = {"input": 10**15 + 2**span.id % 10**9, "output": 7} if known else None
    return Priced(classes, usd, "listed", "", span.usage.cache_read)


class Home:
    """Ledger, totals and intake of one AgentOS, with a clock that only the test moves."""

    def __init__(self, ledger=None, now=T0, cashier=None) -> None:
        self.now = float(now)
        self.cashier = cashier or FixedPrices(price, user_label=str, dimensions=Dimensions([TENANT]))
        self.ledger = ledger or Ledger(None)
        self.seen = {}
        self.open()

    def open(self) -> None:
        self.totals = Totals(Limits(), zero_hold=60)
        self.totals.restore(*self.ledger.load())
        clock = Clock(lambda: self.now, lambda: self.now)
        self.intake = Intake(
            "os",
            Shared(self.ledger, self.totals, clock),
            overlap=OVERLAP,
            horizon=HORIZON,
            cashier=self.cashier,
        )

    def read(self, *traces, at=None, **more):
        if at is not None:
            self.now = T0 + at
        return self.intake.absorb(Batch("db", traces, as_of=int(self.now * S), **more))

    def record(self, trace_id="t", db="db"):
        return next(record for record in self.ledger.records("os", [trace_id])[trace_id] if record.db == db)

    def value(self, metric, *labels):
        return self.totals.value(metric, ("os", *labels)) or 0

    def observed(self, metric):
        """(observations, their sum) over all series of a histogram."""
        found = [series for series in self.totals.stored() if series.metric == metric]
        return sum(sum(one.counts) for one in found), sum(one.total for one in found)

    def publish(self) -> None:
        """As the publisher does, with a scraper that checks that nothing falls."""
        due = self.totals.due(self.now)
        self.ledger.expose(self.totals.durable(due))
        self.totals.show(due)
        version, families = self.totals.families()
        for family in families:
            if family.metric.life is Life.DURABLE:
                for sample in family.samples:
                    key = (family.metric.name, sample.labels)
                    value = (sample.value, *sample.counts, sample.total)
                    before = self.seen.get(key, value)
                    assert all(new >= old for new, old in zip(value, before, strict=True)), key
                    self.seen[key] = value
        self.totals.scraped(version, self.now)

    def durable(self):
        """All durable totals but the delay, which tells when things were counted."""
        return {
            (series.metric, series.labels): (series.value, series.counts, series.total)
            for series in self.totals.stored()
            if series.metric != DELAY and (series.value or series.total or any(series.counts))
        }


def span(number, parent=-1, kind=SpanKind.LLM, **more):
    fields = {"model": "gpt", "usage": TokenUsage(prompt=1, completion=1)} if kind is SpanKind.LLM else {}
    return Span(number, parent, kind, f"{kind}{number % 3}", T0 * S, (T0 + 1) * S, **{**fields, **more})


def trace(nodes, total=None, *, trace_id="t", end=1, db="db"):
    """An agent with `nodes` - 1 calls below it."""
    spans = tuple(
        span(place + 1, 0 if place else -1, SpanKind.LLM if place else SpanKind.AGENT) for place in range(nodes)
    )
    return Trace(trace_id, db, T0 * S, (T0 + end) * S, T0 * S, nodes if total is None else total, spans)


def request(*names, end=1, trace_id="t"):
    """A trace of HTTP spans alone, as far as it is written."""
    spans = tuple(replace(span(place + 1, place - 1, SpanKind.HTTP), name=name) for place, name in enumerate(names))
    return Trace(trace_id, "db", T0 * S, (T0 + end) * S, T0 * S, len(spans), spans)


# The life of a trace


def test_late_is_what_ended_long_before_it_was_first_read():
    home = Home(now=T0 + 700)
    both = home.read(trace(3, end=99), trace(4, trace_id="u", end=101))
    assert (both.spans, both.late) == (7, 3)
    assert home.read(trace(3, end=99)).late == 0, "counted before"


def test_an_open_trace_is_asked_for_less_and_less_often_and_expires_at_the_horizon():
    home = Home()
    home.read(trace(2, 5))
    asked = []
    while home.record().state is TraceState.OPEN:
        due = home.record().next_ask
        asked.append(due // S - T0)
        assert not home.ledger.open_due("os", "db", due - 1, 9)
        assert [one.id for one in home.ledger.open_due("os", "db", due, 9)] == ["t"]
        home.now = due / S
        home.read(trace(2, 5))
    assert asked == [15, 45, 105, 225, 465, 945, 1905, 3600]
    assert home.record().state is TraceState.EXPIRED
    assert home.value("agentos_exporter_hidden_spans_total") == 3
    assert home.value("agentos_traces_total", "agent") == 1
    assert home.ledger.open_due("os", "db", 2**62, 9) == []


def beside(*kinds, trace_id="t"):
    """A workflow step with these spans directly below it."""
    spans = [span(1, -1, SpanKind.WORKFLOW)] + [span(place, 0, kind) for place, kind in enumerate(kinds, 2)]
    return Trace(trace_id, "db", T0 * S, (T0 + 1) * S, T0 * S, len(spans), tuple(spans))


def test_a_call_whose_agent_is_written_last_is_read_again_and_gets_its_agent():
    home = Home()
    home.read(beside(SpanKind.LLM), at=2)
    assert (home.record().state, home.record().next_ask) == (TraceState.OPEN, (T0 + 17) * S)
    home.read(beside(SpanKind.LLM, SpanKind.AGENT), at=17)
    assert home.record().state is TraceState.COMPLETE
    assert home.value("agentos_llm_calls_total", "workflow1", "agent0", "", "gpt") == 1
    assert home.value("agentos_llm_calls_total", "workflow1", "", "", "gpt") == 0


def test_a_call_that_never_gets_an_agent_counts_without_one():
    home = Home()
    home.read(beside(SpanKind.LLM), at=2)
    assert home.value("agentos_llm_calls_total", "workflow1", "", "", "gpt") == 0
    home.read(beside(SpanKind.LLM), at=17)
    assert home.record().state is TraceState.COMPLETE
    assert home.value("agentos_llm_calls_total", "workflow1", "", "", "gpt") == 1
    assert home.value("agentos_exporter_hidden_spans_total") == 0


def test_in_history_nothing_waits():
    home = Home()
    home.read(beside(SpanKind.LLM), at=3 * OVERLAP)
    assert home.record().state is TraceState.SETTLED
    assert home.value("agentos_llm_calls_total", "workflow1", "", "", "gpt") == 1


def test_asking_too_early_changes_no_schedule():
    home = Home()
    home.read(trace(2, 5))
    for at in range(1, 15):
        home.read(trace(2, 5), at=at)
        assert home.record().next_ask == (T0 + 15) * S


def test_growth_starts_the_asking_and_the_horizon_anew():
    home = Home()
    home.read(trace(2, 5))
    home.read(trace(2, 5), at=15)
    home.read(trace(3, 5), at=3599)
    assert (home.record().asks, home.record().next_ask) == (0, (T0 + 3614) * S)
    home.read(trace(3, 5), at=7198)
    assert home.record().state is TraceState.OPEN
    home.read(trace(3, 5), at=7199)
    assert home.record().state is TraceState.EXPIRED
    assert home.value("agentos_exporter_hidden_spans_total") == 2


def test_a_span_that_shows_after_expiry_still_counts_and_nothing_is_hidden_twice():
    home = Home()
    home.read(trace(2, 5))
    home.read(trace(2, 5), at=3600)
    home.read(trace(3, 5), at=4000)
    assert home.record().state is TraceState.OPEN
    assert home.value("agentos_spans_total", "agent0", "agent0", "llm") == 0  # of another name
    assert sum(series.value for series in home.totals.stored() if series.metric == "agentos_spans_total") == 3
    home.read(trace(3, 5), at=8000)
    assert home.value("agentos_exporter_hidden_spans_total") == 3
    home.read(trace(3, 9), at=8100)
    home.read(trace(3, 9), at=12000)
    assert home.value("agentos_exporter_hidden_spans_total") == 6
    home.read(trace(9), at=12100)
    assert home.record().state is TraceState.SETTLED
    assert sum(series.value for series in home.totals.stored() if series.metric == "agentos_spans_total") == 9
    assert home.value("agentos_traces_total", "agent") == 1


def test_a_trace_without_any_span_expires_as_unknown_and_hides_nothing():
    home = Home()
    home.read(trace(0, 0))
    home.read(trace(0, 0), at=3600)
    assert home.record().state is TraceState.EXPIRED
    assert home.value("agentos_traces_total", "unknown") == 1
    assert home.value("agentos_exporter_hidden_spans_total") == 0


def test_complete_is_not_final():
    home = Home()
    home.read(trace(3, 3), at=2)
    assert home.record().state is TraceState.COMPLETE
    home.read(trace(3, 5), at=10)
    assert home.record().state is TraceState.OPEN
    home.read(trace(7), at=20)
    assert home.record().state is TraceState.COMPLETE
    home.read(trace(7), at=79)
    assert home.record().state is TraceState.COMPLETE
    assert home.value("agentos_traces_total", "agent") == 0
    home.read(trace(7), at=80)
    assert home.record().state is TraceState.SETTLED
    assert home.value("agentos_traces_total", "agent") == 1
    assert home.observed("agentos_run_llm_calls") == (1, 6)


@pytest.mark.parametrize(("age", "state"), [(149, TraceState.COMPLETE), (151, TraceState.SETTLED)])
def test_what_is_old_at_its_first_complete_reading_is_settled_at_once(age, state):
    home = Home()
    home.read(trace(3, end=0), at=age)
    assert home.record().state is state


def test_a_request_that_can_start_a_run_has_the_horizon_to_show_it():
    """A background run answers at once: for as long as it goes on its trace is a request and nothing else."""
    home = Home()
    home.read(request("POST"), request("GET", "", trace_id="look"), at=2)
    for at, shown in ((62, 0), (HORIZON - 1, 1)):
        assert home.value("agentos_traces_total", "http") == shown
        assert home.record().next_ask == (T0 + 1 + HORIZON) * S  # it ended then
        home.read(request("POST"), request("GET", "", trace_id="look"), at=at)
    home.read(trace(3, end=HORIZON), at=HORIZON)
    home.read(trace(3, end=HORIZON), at=HORIZON + OVERLAP)
    assert home.record().state is TraceState.SETTLED
    assert (home.value("agentos_traces_total", "http"), home.value("agentos_traces_total", "agent")) == (1, 1)


@pytest.mark.parametrize("settles", ["read again", "listed"])
def test_a_request_whose_run_never_shows_is_one_at_the_horizon(settles):
    home = Home()
    home.read(request("POST", "", "POST"), at=2)
    home.now = T0 + HORIZON
    assert home.ledger.unsettled("os", "db", 10, due=int(home.now * S)) == []
    home.now += 1
    (due,) = home.ledger.unsettled("os", "db", 10, due=int(home.now * S))
    if settles == "listed":
        home.intake.absorb(Batch("db", settled=[due.id]))
    else:
        home.read(request("POST", "", "POST"))
    assert home.record().state is TraceState.SETTLED
    assert home.value("agentos_traces_total", "http") == 1


@pytest.mark.parametrize(("age", "state"), [(HORIZON - 1, TraceState.COMPLETE), (HORIZON, TraceState.SETTLED)])
def test_in_history_a_request_waits_for_what_is_left_of_the_horizon(age, state):
    home = Home()
    home.read(request("POST", end=0), at=age)
    assert home.record().state is state
    home.read(request("POST", end=0), at=HORIZON + OVERLAP)
    assert home.record().state is TraceState.SETTLED
    assert home.value("agentos_traces_total", "http") == 1


def test_no_request_settles_before_an_overlap_however_short_the_horizon(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "HORIZON", 5)
    home = Home()
    home.read(request("POST"), at=20)
    assert home.record().next_ask == (T0 + 20 + OVERLAP) * S


def test_a_listing_settles_what_is_complete_and_nothing_else():
    home = Home()
    home.read(trace(3, trace_id="whole"), trace(3, 9, trace_id="open"))
    home.intake.absorb(Batch("db", settled=["whole", "open", "never-seen"]))
    assert home.record("whole").state is TraceState.SETTLED
    assert home.record("open").state is TraceState.OPEN
    home.intake.absorb(Batch("other", settled=["open"]))
    assert home.value("agentos_traces_total", "agent") == 1


def test_a_settled_trace_that_grows_counts_on_and_is_reported_once():
    home = Home()
    home.read(trace(3), at=500)
    home.read(trace(4), at=600)
    assert home.record().state is TraceState.COMPLETE
    home.read(trace(4), at=700)
    assert home.record().state is TraceState.SETTLED
    assert home.value("agentos_traces_total", "agent") == 1
    assert home.observed("agentos_run_llm_calls") == (1, 2)


@pytest.mark.parametrize(("total", "end"), [(5, TraceState.EXPIRED), (2, TraceState.SETTLED)])
def test_what_is_missing_three_times_is_gone(total, end):
    home = Home()
    home.read(trace(2, total))
    for _ in range(2):
        home.intake.absorb(Batch("db", missed=["t"]))
    assert home.record().state in {TraceState.OPEN, TraceState.COMPLETE}
    home.read(trace(2, total))
    for _ in range(2):
        home.intake.absorb(Batch("db", missed=["t", "never-seen"]))
    assert home.record().state is not end
    home.intake.absorb(Batch("db", missed=["t"]))
    assert home.record().state is end
    assert home.value("agentos_exporter_hidden_spans_total") == total - 2
    assert home.value("agentos_traces_total", "agent") == 1
    home.intake.absorb(Batch("db", missed=["t"]))
    assert home.value("agentos_traces_total", "agent") == 1


def test_an_open_trace_that_turns_malformed_is_given_up():
    home = Home()
    home.read(trace(2, 5))
    for _ in range(3):
        home.intake.absorb(Batch("db", ignored=[("t", "malformed")]))
    assert home.record().state is TraceState.EXPIRED
    assert home.value("agentos_exporter_hidden_spans_total") == 3
    assert home.value("agentos_exporter_ignored_traces_total", "malformed") == 1


def test_a_trace_in_several_databases_is_one_trace():
    home = Home()
    home.read(trace(3), at=2)
    home.read(replace(trace(4), db="second"), at=3)
    assert sum(series.value for series in home.totals.stored() if series.metric == "agentos_spans_total") == 4
    home.intake.absorb(Batch("db", settled=["t"]))
    home.intake.absorb(Batch("second", settled=["t"]))
    assert home.value("agentos_traces_total", "agent") == 1
    assert home.observed("agentos_run_llm_calls")[0] == 1


def test_calls_that_another_database_shows_belong_to_the_run():
    home = Home()
    home.read(trace(2, 4), at=2)
    home.read(replace(trace(4), db="second"), at=3)
    home.read(trace(4), at=4)
    home.intake.absorb(Batch("db", settled=["t"]))
    home.intake.absorb(Batch("second", settled=["t"]))
    assert home.observed("agentos_run_llm_calls") == (1, 3)


def test_what_is_ignored_counts_once_and_may_still_be_read_well():
    home = Home()
    for _ in range(3):
        absorbed = home.intake.absorb(Batch("db", ignored=[("t", "malformed"), ("u", "too_old")], own=2))
    assert (absorbed.skipped, absorbed.traces) == (2, 0)
    assert home.value("agentos_exporter_ignored_traces_total", "malformed") == 1
    assert home.value("agentos_exporter_ignored_traces_total", "too_old") == 1
    assert home.value("agentos_exporter_ignored_traces_total", "own") == 6
    assert home.read(trace(3)).spans == 3


def test_a_reset_is_counted_and_announced_at_0():
    home = Home()
    home.intake.announce()
    home.publish()
    assert home.seen["agentos_exporter_source_resets_total", ("os",)][0] == 0
    home.intake.absorb(Batch("db", reset=True))
    home.intake.announce()
    home.publish()
    assert home.seen["agentos_exporter_source_resets_total", ("os",)][0] == 1


def test_one_trace_twice_in_a_batch():
    home = Home()
    home.read(trace(2, 5), trace(4), trace(2, 5), trace(4))
    assert sum(series.value for series in home.totals.stored() if series.metric == "agentos_spans_total") == 4
    assert home.record().state is TraceState.COMPLETE


def test_sessions_are_observed_when_idle_and_again_when_resumed():
    home = Home()

    def run(trace_id, start, end):
        root = Span(hash(trace_id) & 0xFFFF, -1, SpanKind.AGENT, "a", start * S, end * S, session_id="s")
        return Trace(trace_id, "db", start * S, end * S, start * S, 1, (root,))

    idle = SESSION_IDLE // S
    home.read(run("a", T0, T0 + 10), run("b", T0 + 100, T0 + 160))
    assert home.intake.observe_idle_sessions((T0 + 160 + idle) * S) == 0
    assert home.intake.observe_idle_sessions((T0 + 161 + idle) * S) == 1
    assert home.intake.observe_idle_sessions((T0 + 9999) * S) == 0
    home.open()
    home.read(run("c", T0 + 5000, T0 + 5007))
    assert home.intake.observe_idle_sessions((T0 + 9999) * S) == 1
    assert home.observed("agentos_session_runs") == (2, 3)
    assert home.observed("agentos_session_duration_seconds") == (2, 167 * S)


def test_what_is_forgotten_is_only_what_cannot_come_back():
    home = Home()
    home.read(trace(2, trace_id="settled", end=-500), trace(2, 5, trace_id="open"), trace(2, trace_id="complete"))
    assert home.intake.prune("db", created_before=T0 * S) == 0
    assert home.intake.prune("other", created_before=(T0 + 1) * S) == 0
    assert home.intake.prune("db", created_before=(T0 + 1) * S) == 1
    assert home.ledger.records("os", ["settled", "open", "complete"]).keys() == {"open", "complete"}


# Any order, split and repetition


@st.composite
def histories(draw, databases=("db",)):
    """Whole traces, and readings of parts of them in any order and split."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    wholes, readings = [], []
    for number in range(draw(st.integers(1, 4))):
        kinds = [rng.choice(list(SpanKind)) for _ in range(draw(st.integers(0, 8)))]
        session = rng.choice([None, "s1", "s2"])
        spans = tuple(
            span(
                number * 100 + place + 1,
                rng.randrange(-1, place),
                kind,
                error_type=rng.choice([None, None, "BoomError"]),
                session_id=session,
            )
            for place, kind in enumerate(kinds)
        )
        whole = Trace(f"t{number}", "db", T0 * S, (T0 + 1) * S, T0 * S, len(spans), spans)
        wholes.append(whole)
        for _ in range(draw(st.integers(0, 4))):
            part = partial(whole, rng, wait=SpanKind.WORKFLOW in kinds)
            readings.append(replace(part, db=rng.choice(databases)))
        readings += [replace(whole, db=rng.choice(databases)) for _ in range(rng.randrange(2))]
    rng.shuffle(readings)
    # In the end each is read as a whole.
    readings += [replace(whole, db=rng.choice(databases)) for whole in wholes]
    batches = []
    while readings:
        size = rng.randint(1, 3)
        here = [reading for reading in readings[:size] if reading.db == readings[0].db]
        batches.append(Batch(here[0].db, here, as_of=T0 * S, cursor={"n": len(batches)}))
        readings = [reading for reading in readings if not any(reading is other for other in here)]
    return wholes, batches


def partial(whole, rng, *, wait):
    """A reading with some spans, none without its ancestors."""
    place, spans = {}, []
    for index, span in enumerate(whole.spans):
        if (span.parent < 0 or span.parent in place) and rng.random() < 0.6:
            place[index] = len(spans)
            spans.append(replace(span, parent=place.get(span.parent, -1)))
    # Where a sibling names the agent, a part must not pretend to be all.
    total = len(whole.spans) if wait else rng.randint(len(spans), len(whole.spans))
    return replace(whole, spans=tuple(spans), total_spans=total)


def at_once(wholes):
    home = Home()
    home.read(*wholes)
    finish(home)
    return home


def finish(home):
    records = home.ledger.records("os", [f"t{number}" for number in range(9)])
    for found in records.values():
        for record in found:
            home.intake.absorb(Batch(record.db, settled=[record.id]))
            if record.state is TraceState.OPEN:  # nothing to show at all
                for _ in range(3):
                    home.intake.absorb(Batch(record.db, missed=[record.id]))
    home.intake.observe_idle_sessions((T0 + 10**6) * S)


def check(home, wholes):
    finish(home)
    expected = at_once(wholes)
    assert home.durable() == expected.durable()
    home.ledger.close()
    expected.ledger.close()


@examples(60)
@given(histories())
def test_any_split_order_and_repetition_gives_the_same_totals(history):
    wholes, batches = history
    home = Home()
    for batch in batches:
        home.intake.absorb(batch)
        home.publish()
        home.now += 1
    check(home, wholes)


@examples(40)
@given(histories(databases=("db", "second", "third")))
def test_so_do_databases_that_hold_parts_of_the_same_traces(history):
    wholes, batches = history
    home = Home()
    for batch in batches:
        home.intake.absorb(batch)
        home.publish()
        home.now += 1
    unfinished = {}
    for batch in batches:
        for trace in batch.traces:
            unfinished[trace.db, trace.id] = trace
    for (db, trace_id), _ in sorted(unfinished.items()):
        whole = next(one for one in wholes if one.id == trace_id)
        home.intake.absorb(Batch(db, [replace(whole, db=db)], as_of=T0 * S))
    check(home, wholes)


# Crashes


class Crash(BaseException):
    """The process dies here."""


class Mortal(Ledger):
    """A ledger whose process dies, or whose disk fails, at one of its writes."""

    def __init__(self, path, at: int, how: str) -> None:
        super().__init__(path)
        self.writes, self.at, self.how = 0, at, how

    def _write(self, write: Callable[[], None]) -> None:
        self.writes += 1
        if self.writes != self.at:
            write()
        elif self.how == "fails":
            raise StateError("disk full")
        elif self.how == "dies before":
            raise Crash
        else:
            write()
            raise Crash

    def commit(self, changes: Changes) -> None:
        self._write(lambda: super(Mortal, self).commit(changes))

    def expose(self, keys) -> None:
        keys = list(keys)
        if keys:
            self._write(lambda: super(Mortal, self).expose(keys))


def crash_history(seed):
    """A few traces revealed in steps, as batches in order."""
    rng = random.Random(seed)
    wholes, batches = [], []
    for number in range(3):
        kinds = [rng.choice([SpanKind.AGENT, SpanKind.HTTP]), *rng.choices(list(SpanKind), k=4)]
        spans = tuple(
            span(number * 100 + place + 1, rng.randrange(place) if place else -1, kind, session_id="s")
            for place, kind in enumerate(kinds)
        )
        whole = Trace(f"t{number}", "db", T0 * S, (T0 + 1) * S, T0 * S, len(spans), spans)
        wholes.append(whole)
        batches.append([partial(whole, rng, wait=True)])
    return wholes, [*batches, wholes[:2], wholes[1:]]


@pytest.mark.parametrize("how", ["fails", "dies before", "dies after"])
@pytest.mark.parametrize("seed", range(2))
def test_a_crash_at_any_write_changes_no_total_and_takes_nothing_back(tmp_path, how, seed):
    wholes, batches = crash_history(seed)
    expected = at_once(wholes).durable()
    point, reached = 0, True
    while reached:
        point += 1
        path = tmp_path / f"{point}.db"
        ledger = Mortal(path, point, how)
        home = Home(ledger)
        todo = list(batches)
        while todo:
            try:
                home.intake.absorb(Batch("db", todo[0], as_of=T0 * S, cursor={"at": len(todo)}))
                todo.pop(0)
                home.now += 1
                home.publish()
                home.now += 61
                home.publish()
            except StateError:
                pass  # the next poll reads it again
            except Crash:
                ledger.close()
                home.ledger = ledger = Ledger(path)
                home.open()
                home.publish()
                todo = list(batches)  # all is read again
        reached = not isinstance(ledger, Mortal) or ledger.writes >= point
        if isinstance(ledger, Mortal):
            ledger.at = -1
        finish(home)
        home.publish()
        assert home.durable() == expected, point
        stored, _ = ledger.load()
        assert {(one.metric, one.labels): one for one in stored} == {
            (series.metric, series.labels): series for series in home.totals.stored()
        }
        ledger.close()
    assert point > len(batches)


def test_what_cannot_be_committed_is_not_counted():
    home = Home(Mortal(None, 1, "fails"))
    with pytest.raises(StateError):
        home.read(trace(3))
    assert list(home.totals.stored()) == []
    assert home.ledger.records("os", ["t"]) == {}
    assert home.read(trace(3)).spans == 3


def test_every_durable_counter_and_histogram_is_reached_by_these_histories():
    """Of those that intake feeds: a metric that no test counts is a metric that may count wrongly."""
    rng = random.Random(5)
    wholes = []
    for number in range(30):
        kinds = rng.choices(list(SpanKind), k=8)
        spans = tuple(
            span(number * 100 + place + 1, rng.randrange(-1, place), kind, error_type="BoomError", session_id="s")
            for place, kind in enumerate(kinds)
        )
        wholes.append(Trace(f"t{number}", "db", 0, 0, 0, 8, spans))
    assert any(one.kind in RUN_KINDS for whole in wholes for one in whole.spans)
    home = Home()
    home.read(*wholes, trace(2, 5), at=0)
    home.read(trace(2, 5), at=HORIZON)
    home.intake.absorb(Batch("db", ignored=[("x", "malformed")], reset=True, settled=[one.id for one in wholes]))
    home.read(Trace("u", "db", 0, 0, 0, 1, (span(5, usage=TokenUsage()),)))
    home.read(Trace("v", "db", 0, 0, 0, 1, (span(6, model="free of price"),)))
    home.read(Trace("w", "db", 0, 0, 0, 1, (span(7),), frozenset({0})))
    home.read(Trace("z", "db", 0, 0, 0, 1, (span(8, not_believed=("cost",)),)))
    home.read(Trace("a", "db", 0, 0, 0, 1, (span(9, kind=SpanKind.AGENT, continued=True),)))
    home.read(Trace("b", "db", 0, 0, 0, 1, (span(10, model="m" * 300),)))
    cached = TokenUsage(prompt=9, completion=1, cache_read=4, detailed=True)
    tries = [("gpt", "BoomError"), ("gpt", "BoomError"), ("spare", None)]
    calls = [
        replace(span(20 + n, 0, model=model, error_type=error), start=(T0 + n) * S, end=(T0 + n + 1) * S)
        for n, (model, error) in enumerate(tries)
    ]
    answer = span(30, 0, model="other", usage=cached)
    agent = span(19, kind=SpanKind.AGENT)
    home.intake.absorb(Batch("db", [Trace("c", "db", 0, 0, 0, 5, (agent, *calls, answer))], settled=["c"]))
    home.intake.observe_idle_sessions(2**60)
    reached = {metric for metric, _ in home.durable()} | {DELAY}
    durable = {one.name for one in METRICS.values() if one.life is Life.DURABLE and one.kind is not Kind.GAUGE}
    not_of_spans = {"agentos_exporter_series_limited_total"}
    not_of_spans |= {"agentos_llm_time_to_first_token_seconds", "agentos_llm_time_per_output_token_seconds"}
    not_of_spans |= {"agentos_run_overhead_tokens_total", "agentos_run_overhead_cost_usd_total"}
    not_of_spans |= {one.name for one in METRICS.values() if group(one) == "What waits, and how it ended"}
    not_of_spans |= {"agentos_exporter_ignored_rows_total", "agentos_guardrail_blocks_total"}
    assert durable - reached <= not_of_spans
