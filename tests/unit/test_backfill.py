"""Backfill: traces become samples, each span at the time when it ended, whatever order and pieces they come in."""

import asyncio
import random
import re
from collections import Counter as Counts
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.backfill.counting import Counter
from exporter.backfill.openmetrics import EOF, SeriesText, described, seconds
from exporter.backfill.output import Output
from exporter.backfill.period import DAY, Period
from exporter.backfill.reading import MOST_FAILURES, Progress, Reading
from exporter.backfill.work import Work, WorkError
from exporter.core.errors import NoPast, ServerFailed, SourceError, StateRefused, Unauthorized, Unreachable
from exporter.core.model import MICROSECONDS as S
from exporter.core.model import Clock, Span, SpanKind, TokenUsage, Trace
from exporter.core.times import parse
from exporter.counting.cashier import Cashier
from exporter.counting.delta import Delta
from exporter.counting.fold import fold
from exporter.counting.runs import settle
from exporter.ledger.coverage import Coverage
from exporter.ledger.records import Changes
from exporter.ledger.store import Ledger
from exporter.ledger.tables import SCHEMA_VERSION
from exporter.metrics.catalog import METRICS, Kind
from exporter.metrics.increments import Increments
from exporter.metrics.render import openmetrics_lines
from exporter.metrics.series import Limits, Sample
from exporter.metrics.totals import Totals
from exporter.service.connect import look_at_state
from exporter.sources.protocol import Batch
from tests.harness.examples import examples
from tests.harness.ledgers import TOOL, changes

A, L, X, H = SpanKind.AGENT, SpanKind.LLM, SpanKind.TOOL, SpanKind.HTTP
BEGIN = parse("2026-11-01")
MINUTE = 60 * S
LINE = re.compile(r"(\w+\{.*\}) (\S+) (\S+)")


def trace(name, *spans, total=None):
    """A trace of (kind, name, parent, start, end, more) in seconds from the beginning."""
    made = []
    for place, (kind, label, parent, start, end, *more) in enumerate(spans):
        fields = {"model": "gpt", "provider": "openai", "usage": TokenUsage(10, 3)} if kind is L else {}
        fields |= more[0] if more else {}
        own = int.from_bytes(f"{name}{place}".encode()[:8], "big")
        made.append(Span(own, parent, kind, label, BEGIN + round(start * S), BEGIN + round(end * S), **fields))
    first, last = min(one.start for one in made), max(one.end for one in made)
    return Trace(name, "db", first, last, first, len(made) if total is None else total, tuple(made))


def run(name, start, end, *, agent="clerk", session=None, calls=2):
    """An agent's run with calls spread over its time."""
    each = (end - start) / calls
    parts = [(L, "OpenAIChat", 0, start + place * each, start + (place + 1) * each) for place in range(calls)]
    return trace(name, (A, agent, -1, start, end, {"session_id": session}), *parts)


class Backfilled:
    """A backfill of one AgentOS in a folder, without a source."""

    def __init__(self, folder, *, until=3600.0, step=60_000, limits=None, coverage=None, name="out"):
        self.period = Period(BEGIN, BEGIN + round(until * S), step)
        self.work = Work(folder / f"{name}.backfill", {"until": until})
        self.counter = Counter(
            "os", self.period, self.work, Cashier(), Totals(limits or Limits(), zero_hold=0), coverage or Coverage()
        )
        self.path = folder / name

    def absorb(self, *traces, **more):
        return self.counter.absorb(Batch("db", list(traces), **more))

    def write(self, *labels, by_day=False):
        self.counter.close_sessions()
        return [path.read_text() for path in Output(self.work, self.period, labels).write(self.path, by_day=by_day)]


def samples(text):
    """By series: what it shows at which second from the beginning, in the order of the text."""
    found = defaultdict(list)
    for line in text.splitlines():
        if not line.startswith("#"):
            series, value, at = LINE.fullmatch(line).groups()
            found[series].append((round(float(at) - BEGIN / S, 3), float(value)))
    return dict(found)


RUNS = 'agentos_runs_total{agentos="os",root="clerk",root_kind="agent"}'


# Time


@given(
    st.integers(0, 10**10), st.sampled_from([60_000, 300_000]), st.integers(3 * 10**8, 10**10), st.integers(0, 10**10)
)
def test_a_span_shows_in_the_first_sample_at_or_after_its_end(since, step, length, end):
    period = Period(since, since + length, step)
    at, times = period.sample_of(end), period.samples(period.first, period.last)
    assert at in times
    assert times == sorted(set(times))
    if period.first + step <= at < period.last:
        assert at - step < end / 1000 <= at or end / 1000 <= period.first
    assert period.before(at) in {*times, period.first}


def test_days_divide_the_samples():
    period = Period(BEGIN + 3 * MINUTE, BEGIN + 2 * DAY * 1000, 60_000)
    parts = [period.samples(*day) for day in period.days()]
    assert [time for part in parts for time in part] == period.samples(period.first, period.last)
    # The end of the last day stands in its own file, rather than alone in one of the next day.
    assert [len(part) for part in parts] == [1440 - 3, 1441]
    assert period.reset == period.last + 1


# Text


@given(st.data())
def test_samples_read_as_on_the_page_of_metrics(data):
    metric = data.draw(st.sampled_from([one for one in METRICS.values() if one.kind is not Kind.GAUGE]))
    texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
    labels = tuple(data.draw(texts) for _ in metric.labels)
    counts = data.draw(st.lists(st.integers(0, 9), min_size=len(metric.buckets) + 1, max_size=len(metric.buckets) + 1))
    value = data.draw(st.integers(0, 10**24))
    histogram = metric.kind is Kind.HISTOGRAM
    sample = Sample(labels, 0, tuple(counts), value) if histogram else Sample(labels, value)
    lines = SeriesText(metric, labels, ()).render([*counts, value] if histogram else [value], ["1", "2.5"])
    shown = described(metric) + "".join(lines)
    expected = openmetrics_lines(metric, [sample])
    head = [line for line in expected if line.startswith("# ")]
    body = [line for line in expected if not line.startswith("# ")]
    assert shown.split("\n")[:-1] == [*head, *(f"{line} {at}" for at in ("1", "2.5") for line in body)]


def test_times_are_seconds():
    assert [seconds(one) for one in (1_700_000_000_000, 1_700_000_000_005)] == ["1700000000", "1700000000.005"]


# Counting


def test_a_counter_shows_0_then_what_ended_by_each_sample_and_falls_in_the_end(tmp_path):
    past = Backfilled(tmp_path, until=600.5)
    past.absorb(run("a", 100, 170), run("b", 200, 240), run("c", 595, 600.2))
    (text,) = past.write()
    assert text.endswith(EOF)
    assert samples(text)[RUNS] == [
        (120, 0),
        (180, 1),
        (240, 2),
        *((at, 2) for at in range(300, 601, 60)),
        (600.5, 3),
        (600.501, 0),
    ]


def test_what_a_trace_shows_after_a_long_time_stands_where_it_ended(tmp_path):
    """Its calls ended in samples of their own; the run is told what all of them add up to."""
    past = Backfilled(tmp_path)
    past.absorb(run("long", 0, 1800, calls=3))
    (text,) = past.write()
    shown = samples(text)
    calls = next(rows for series, rows in shown.items() if series.startswith("agentos_llm_calls_total"))
    assert dict(calls)[600] == 1
    assert dict(calls)[1200] == 2
    assert dict(calls)[1800] == 3
    assert dict(shown['agentos_run_llm_calls_sum{agentos="os",root="clerk",root_kind="agent"}'])[1800] == 3
    assert dict(shown[RUNS])[1740] == 0
    assert dict(shown[RUNS])[1800] == 1


def test_a_session_is_observed_once_it_is_idle_and_at_the_end_at_the_latest(tmp_path):
    past = Backfilled(tmp_path, until=7200)
    past.absorb(run("a", 0, 60, session="s"), run("b", 1500, 1560, session="s"), run("c", 3900, 3960, session="s"))
    past.absorb(run("d", 7000, 7100, session="t"))
    shown = samples(past.write()[0])
    count, total = (dict(shown[f'agentos_session_runs_{end}{{agentos="os"}}']) for end in ("count", "sum"))
    assert (count[3300], count[3360], total[3360]) == (0, 1, 2)  # half an hour after 1560
    assert (count[5700], count[5760], total[5760]) == (1, 2, 3)  # after 3960
    assert (count[7140], count[7200], total[7200]) == (2, 3, 4)  # no half hour is left


def test_a_series_of_the_daemon_alone_is_0_where_its_counting_begins(tmp_path):
    """Prometheus would not see that a series which is born at its value has grown."""
    other = 'agentos_runs_total{agentos="os",root="other",root_kind="agent"}'
    keys = [
        ("agentos_runs_total", ("os", "agent", "other")),
        ("agentos_exporter_orphan_spans_total", ("os",)),
        ("agentos_approvals_resolved_total", ("os", "required", "approved")),
        ("agentos_queue_jobs_finished_total", ("os", "agent", "completed")),
    ]
    past = Backfilled(tmp_path, until=600, coverage=Coverage(series=tuple(keys)))
    past.absorb(run("a", 100, 170))
    shown = samples(past.write()[0])
    assert shown[other] == [(600.001, 0)]
    assert not [series for series in shown if re.match("agentos_(exporter|approvals|queue)_", series)]


def test_who_the_daemon_has_admitted_stays_and_others_fold(tmp_path):
    limits = Limits(values_per_label=2)
    past = Backfilled(tmp_path, limits=limits, coverage=Coverage(admitted=(("root", "live"), ("root", "a"))))
    past.absorb(run("1", 0, 10, agent="a"), run("2", 0, 10, agent="b"), run("3", 0, 10, agent="live"))
    roots = {series for series in samples(past.write()[0]) if series.startswith("agentos_runs_total")}
    assert roots == {RUNS.replace("clerk", name) for name in ("a", "live", "other")}


def test_further_labels_are_on_each_series(tmp_path):
    past = Backfilled(tmp_path)
    past.absorb(run("a", 0, 10))
    shown = samples(past.write(("instance", "host:9777"), ("job", "exporter"))[0])
    assert shown
    assert all('instance="host:9777"' in series and 'job="exporter"' in series for series in shown)


@st.composite
def histories(draw):
    """Traces of a few hours, of which some take long."""
    made = []
    for place in range(draw(st.integers(1, 12))):
        start = draw(st.integers(-1000, 10_000)) / 2
        length = draw(st.sampled_from([0.5, 5, 90, 2000]))
        agent = draw(st.sampled_from(["clerk", "cook"]))
        made.append(run(f"t{place:02}", start, start + length, agent=agent, session=draw(st.sampled_from(["s", None]))))
    return made


@given(histories(), st.integers(0, 10**6))
@examples(40)
def test_no_split_order_or_repetition_changes_a_byte_and_nothing_is_lost(tmp_path_factory, traces, number):
    rng = random.Random(number)
    whole = Backfilled(tmp_path_factory.mktemp("whole"), until=9000, step=300_000)
    whole.absorb(*traces)
    pieces = Backfilled(tmp_path_factory.mktemp("pieces"), until=9000, step=300_000)
    again = [*traces, *rng.choices(traces, k=3)]
    rng.shuffle(again)
    while again:
        some, again = again[: (cut := rng.randint(1, 4))], again[cut:]
        pieces.absorb(*some)
    assert whole.write(by_day=True) == pieces.write(by_day=True)
    expected = Delta("os")
    for trace in traces:
        runs = {}
        fold(expected, trace, (), runs, now=trace.end, final=True)
        settle(expected, runs, Cashier())
    shown = samples(
        Output(whole.work, whole.period, ()).write(whole.path.with_name("one"), by_day=False)[0].read_text()
    )
    last = {series: dict(rows)[9000] for series, rows in shown.items() if series.startswith("agentos_spans_total")}
    counted = Counts({labels: n for (name, labels), n in expected.counters.items() if name == "agentos_spans_total"})
    assert sum(last.values()) == counted.total()
    for series, rows in shown.items():
        values = [value for _, value in rows]
        assert values[0] == values[-1] == 0, series
        assert values[:-1] == sorted(values[:-1]), series


def test_spans_that_show_in_a_second_database_count_once(tmp_path):
    past = Backfilled(tmp_path)
    one = run("a", 0, 10)
    past.absorb(one)
    assert past.counter.absorb(Batch("other", [one])) == 0
    assert dict(samples(past.write()[0])[RUNS])[60] == 1
    assert past.work.figures()["traces"] == 1


def test_what_is_hidden_or_not_read_is_told(tmp_path):
    past = Backfilled(tmp_path)
    past.absorb(trace("a", (A, "clerk", -1, 0, 10), total=4), ignored=[("x", "malformed")])
    assert past.work.figures() == {"traces": 1, "spans": 1, "hidden": 3, "ignored": 1}


# The work file


def test_a_batch_and_its_cursor_are_kept_together(tmp_path):
    past = Backfilled(tmp_path)
    past.absorb(run("a", 0, 10), cursor={"reached": 7})
    past.work.close()
    later = Backfilled(tmp_path)
    assert later.work.resumed
    assert later.work.reached() == {"db": 7}
    later.absorb(run("a", 0, 10), run("b", 0, 10))
    assert dict(samples(later.write()[0])[RUNS])[60] == 2


def test_a_work_file_of_another_backfill_is_refused(tmp_path):
    Work(tmp_path / "w", {"until": 1}).close()
    with pytest.raises(WorkError, match="of a backfill with other arguments"):
        Work(tmp_path / "w", {"until": 2})
    (tmp_path / "text").write_text("no database, and longer than the header of one" * 10)
    with pytest.raises(WorkError, match="file is not a database"):
        Work(tmp_path / "text", {})
    with pytest.raises(WorkError, match="unable to open"):
        Work(tmp_path / "none" / "w", {})


def test_a_work_file_in_use_is_refused(tmp_path):
    work = Work(tmp_path / "w", {})
    with pytest.raises(WorkError, match="locked"):
        Work(tmp_path / "w", {})
    work.remove()
    assert not list(tmp_path.iterdir())


# Reading


class Source:
    """Hands over batches, and fails where an error stands between them."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.reached = []

    async def past(self, since, until, reached):
        self.reached.append(dict(reached))
        while self.steps:
            step = self.steps.pop(0)
            if isinstance(step, Exception):
                raise step
            yield step


class Time:
    """A clock that sleeping moves on."""

    def __init__(self):
        self.now = 0.0
        self.slept = []
        self.clock = Clock(lambda: self.now, lambda: self.now)

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def read(past, source, time, **more):
    seen = []
    reading = Reading(source, past.counter, past.work, time.clock, sleep=time.sleep, progress=seen.append, **more)
    asyncio.run(reading.run(past.period))
    return seen


def test_it_goes_on_after_failures_where_it_was(tmp_path):
    past, time = Backfilled(tmp_path), Time()
    first, second = Batch("db", [run("a", 0, 10)], cursor={"reached": 5}), Batch("db", [run("b", 0, 20)])
    errors = Unreachable("gone"), ServerFailed("busy", retry_after=40), Unreachable("gone")
    source = Source(first, *errors, second)
    assert read(past, source, time) == [Progress(BEGIN + 10 * S, 1), Progress(BEGIN + 20 * S, 2)]
    assert source.reached == [{}, {"db": 5}, {"db": 5}, {"db": 5}]
    assert time.slept == [1, 40, 4]


@pytest.mark.parametrize("error", [Unauthorized("401"), NoPast("list")])
def test_what_will_not_pass_ends_it_at_once(tmp_path, error):
    with pytest.raises(type(error)):
        read(Backfilled(tmp_path), Source(error), time := Time())
    assert time.slept == []


def test_an_agentos_that_stays_away_ends_it(tmp_path):
    time = Time()
    first = Batch("db", [run("first", 0, 10)])
    with pytest.raises(SourceError):
        read(Backfilled(tmp_path), Source(first, *[Unreachable("gone")] * MOST_FAILURES), time)
    assert time.slept == [2**power for power in range(MOST_FAILURES - 1)]


def test_an_address_at_which_nothing_was_ever_read_is_not_tried_again(tmp_path):
    time = Time()
    with pytest.raises(SourceError):
        read(Backfilled(tmp_path), Source(Unreachable("gone")), time)
    assert time.slept == []


def test_it_reads_no_faster_than_it_may(tmp_path):
    time = Time()
    batches = [Batch("db", [run(f"{place}{one}", 0, 10) for one in range(20)]) for place in range(5)]
    read(Backfilled(tmp_path), Source(*batches), time, rate=10)
    assert time.now == pytest.approx(100 / 10)


# What the state of the daemon says


def test_a_state_in_use_tells_what_is_counted_and_stays_as_it_is(tmp_path):
    path = tmp_path / "state.db"
    ledger = Ledger(path)
    assert look_at_state(path, "os") == Coverage()
    key = ledger.user_key()
    totals = Totals(Limits(), zero_hold=0)
    ledger.commit(changes(totals=totals, cursor=("one", {"cutoff": 9, "floor": 5})))
    ledger.commit(changes("u", cursor=("two", {"cutoff": 9, "floor": 7})))
    before = path.read_bytes()
    found = look_at_state(path, "os")
    assert (found.since, found.until) == (5, 9)
    assert (TOOL, ("os", "r", "a", "é\u202e🙂")) in found.series
    assert ("tool", "é\u202e🙂") in found.admitted
    assert found.user_key == key
    assert look_at_state(path, "another").since is None
    assert path.read_bytes() == before
    ledger.commit(changes("v"))  # the daemon is not disturbed
    ledger.close()
    assert look_at_state(path, "os").since == 5


def test_a_state_of_another_schema_or_none_is_refused(tmp_path):
    path = tmp_path / "state.db"
    ledger = Ledger(path)
    with ledger.transaction(write=True) as connection:
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION - 1}")
    ledger.close()
    with pytest.raises(StateRefused, match="the version that the daemon has"):
        look_at_state(path, "os")
    assert look_at_state(tmp_path / "none.db", "os") == Coverage()


def test_a_state_says_what_was_not_seen_of_an_agentos(tmp_path):
    path = tmp_path / "state.db"
    ledger = Ledger(path)
    delta = Increments()
    for agentos in ("os", "own"):
        delta.add("agentos_exporter_hidden_spans_total", (agentos,), 3)
        for reason, amount in (("own", 50), ("too_old", 2), ("malformed", 1)):
            delta.add("agentos_exporter_ignored_traces_total", (agentos, reason), amount)
    ledger.commit(Changes("os", [], Totals(Limits(), zero_hold=0).plan(delta, show=False)))
    ledger.close()
    for agentos in ("os", "own"):
        assert (look_at_state(path, agentos).hidden, look_at_state(path, agentos).ignored) == (3, 3)
    assert (look_at_state(path, "os").until, look_at_state(path, "os").waiting) == (None, 0)
