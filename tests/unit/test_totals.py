import random
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.counting.delta import Delta
from exporter.ledger.records import Changes
from exporter.ledger.store import Ledger
from exporter.metrics.catalog import METRICS, Kind
from exporter.metrics.render import Renderer
from exporter.metrics.series import Limits, StoredSeries
from exporter.metrics.totals import Totals

TOOL = "agentos_tool_calls_total"
LIMITED = "agentos_exporter_series_limited_total"
SHORTENED = "agentos_exporter_label_values_shortened_total"
DURATION = "agentos_tool_call_duration_seconds"


def tools(*names, amount=1):
    delta = Delta("os")
    for name in names:
        delta.add(TOOL, ("os", "root", "agent", name), amount)
        delta.observe(DURATION, ("os", name), 150_000)
    return delta


class Daemon:
    """Totals on a ledger with a driven clock, published the way `Publisher` does it."""

    def __init__(self, ledger=None, *, limits=None, hold=60.0, dropped=None):
        self.ledger = ledger or Ledger(None)
        self.totals = Totals(limits or Limits(), zero_hold=hold, dropped=dropped)
        self.totals.restore(*self.ledger.load())
        self.now = 0.0
        self.version = 0
        self.shown = {}

    def count(self, delta, *, show=False):
        plan = self.totals.plan(delta, show=show)
        self.ledger.commit(Changes("os", plan=plan))
        self.totals.apply(plan)

    def publish(self, after=0.0):
        self.now += after
        due = self.totals.due(self.now)
        self.ledger.expose(self.totals.durable(due))
        self.totals.show(due)
        self.version, families = self.totals.families()
        self.shown = {
            (family.metric.name, sample.labels): (sample.value, sample.counts)
            for family in families
            for sample in family.samples
        }

    def scrape(self):
        self.totals.scraped(self.version, self.now)
        return self.shown

    def tool(self, name="x"):
        return self.scrape().get((TOOL, ("os", "root", "agent", name)), (None,))[0]

    def value(self, metric, *labels):
        return self.totals.value(metric, labels)


# Showing 0 first


def test_a_new_series_shows_0_until_a_scraper_had_the_time_to_see_it():
    daemon = Daemon()
    daemon.publish()
    daemon.count(tools("x"))
    daemon.publish()
    assert daemon.tool() == 0
    daemon.count(tools("x"))
    daemon.publish(after=59.9)
    assert daemon.tool() == 0
    daemon.publish(after=0.1)
    assert daemon.tool() == 2
    daemon.count(tools("x"))
    daemon.publish()
    assert daemon.tool() == 3


def test_the_hold_begins_with_the_first_scrape_and_ends_with_a_publish():
    daemon = Daemon()
    daemon.count(tools("x"))
    daemon.publish()
    daemon.publish(after=600)  # nobody looked
    assert daemon.tool() == 0
    daemon.now += 600  # long enough, but nothing was published since
    assert daemon.tool() == 0
    daemon.publish()
    assert daemon.tool() == 2 - 1


def test_a_scrape_of_an_older_page_does_not_count():
    daemon = Daemon()
    daemon.publish()
    old = daemon.version
    daemon.count(tools("x"))
    daemon.publish()
    daemon.totals.scraped(old, daemon.now)
    daemon.publish(after=100)
    assert daemon.shown[TOOL, ("os", "root", "agent", "x")][0] == 0
    assert daemon.tool() == 0  # the first scrape that shows the 0
    daemon.publish(after=60)
    assert daemon.tool() == 1


def test_a_series_counted_between_scrapes_of_one_page_waits_for_its_own():
    daemon = Daemon()
    daemon.count(tools("x"))
    daemon.publish()
    daemon.tool()
    daemon.now += 59
    daemon.count(tools("y"))
    daemon.publish()
    daemon.tool("y")
    daemon.publish(after=1)
    assert (daemon.tool("x"), daemon.tool("y")) == (1, 0)
    daemon.publish(after=58)
    assert daemon.tool("y") == 0
    daemon.publish(after=1)
    assert daemon.tool("y") == 1


def test_two_scrapers_both_see_the_0():
    """Of a pair, each scraping every 30 s, the later one comes within the hold."""
    daemon = Daemon()
    daemon.count(tools("x"))
    daemon.publish()
    seen = {"a": [], "b": []}
    for second in range(0, 121, 5):
        daemon.publish()
        if second % 30 == 0:
            seen["a"].append(daemon.tool())
        if second % 30 == 20:
            seen["b"].append(daemon.tool())
        daemon.now += 5
    for values in seen.values():
        assert values[0] == 0
        assert values[-1] == 1
        assert values == sorted(values)


def test_without_a_hold_the_next_publish_after_a_scrape_shows():
    daemon = Daemon(hold=0)
    daemon.count(tools("x"))
    daemon.publish()
    assert daemon.tool() == 0
    daemon.publish()
    assert daemon.tool() == 1


def test_series_of_the_first_pass_show_at_once_and_histograms_as_a_whole():
    daemon = Daemon()
    daemon.count(tools("x"), show=True)
    daemon.count(tools("y"))
    daemon.publish()
    assert (daemon.tool("x"), daemon.tool("y")) == (1, 0)
    assert sum(daemon.shown[DURATION, ("os", "x")][1]) == 1
    assert sum(daemon.shown[DURATION, ("os", "y")][1]) == 0
    daemon.count(tools("x", "y"), show=True)
    daemon.publish()
    assert (daemon.tool("x"), daemon.tool("y")) == (2, 0), "what is already held is not let go"


def test_a_restart_takes_nothing_back_and_starts_the_hold_anew():
    daemon = Daemon()
    daemon.count(tools("x", "y"))
    daemon.publish()
    daemon.tool()
    daemon.publish(after=60)
    assert daemon.tool("x") == 1
    daemon.count(tools("z"))
    daemon.publish()
    assert daemon.tool("z") == 0

    again = Daemon(daemon.ledger)
    again.publish()
    assert (again.tool("x"), again.tool("z")) == (1, 0)
    again.publish(after=59)
    assert again.tool("z") == 0
    again.publish(after=1)
    assert again.tool("z") == 1


def test_process_counters_are_held_but_never_committed():
    daemon = Daemon()
    daemon.totals.add("agentos_exporter_polls_total", ("os", "ok"), 0)
    daemon.totals.add("agentos_exporter_api_requests_total", ("os", "info", "200"))
    daemon.publish()
    key = ("agentos_exporter_api_requests_total", ("os", "info", "200"))
    assert daemon.scrape()[key][0] == 0
    daemon.now += 60
    assert daemon.totals.due(daemon.now) == [key]
    assert daemon.totals.durable([key]) == []
    daemon.publish()
    assert daemon.scrape()[key][0] == 1


def test_scrapes_are_not_remembered_for_ever():
    daemon = Daemon()
    for _ in range(500):
        daemon.publish(after=1)
        daemon.scrape()
        assert len(daemon.totals._scrapes) <= 65


@given(st.lists(st.sampled_from(["x", "y", "z", "publish", "scrape", "wait", "restart"]), max_size=40))
def test_nothing_that_a_scraper_saw_ever_falls(steps):
    daemon, seen, counted = Daemon(hold=60), {}, Counter()
    for step in steps:
        if step == "publish":
            daemon.publish()
        elif step == "wait":
            daemon.now += 40
        elif step == "restart":
            daemon = Daemon(daemon.ledger)
            daemon.publish()
        elif step == "scrape":
            for key, (value, counts) in daemon.scrape().items():
                if METRICS[key[0]].kind is not Kind.GAUGE:
                    before = seen.get(key, (0, (0,) * len(counts)))
                    assert value >= before[0]
                    assert all(new >= old for new, old in zip(counts, before[1], strict=True))
                    seen[key] = (value, counts)
        else:
            daemon.count(tools(step))
            counted[step] += 1
    for name, count in counted.items():
        assert daemon.value(TOOL, "os", "root", "agent", name) == count
    daemon.ledger.close()


# Limits


def test_values_beyond_the_limit_fold_into_other_and_sums_stay_exact():
    daemon = Daemon(limits=Limits(values_per_label=2))
    daemon.count(tools("a"))
    daemon.count(tools("b", "c"))
    daemon.count(tools("c", "a", "d"))
    tool = {name: daemon.value(TOOL, "os", "root", "agent", name) for name in ("a", "b", "c", "d", "other")}
    assert tool == {"a": 2, "b": 1, "c": None, "d": None, "other": 3}
    assert daemon.value(LIMITED, TOOL, "tool") == 3
    assert daemon.value(LIMITED, DURATION, "tool") == 3
    durations = {series.labels[1]: sum(series.counts) for series in daemon.totals.stored() if series.metric == DURATION}
    assert durations == {"a": 2, "b": 1, "other": 3}


def test_who_was_admitted_stays_admitted_after_a_restart_even_below_a_lower_limit():
    daemon = Daemon(limits=Limits(values_per_label=2))
    daemon.count(tools("a", "b", "c"))
    again = Daemon(daemon.ledger, limits=Limits(values_per_label=1))
    again.count(tools("c", "b", "a"))
    values = [again.value(TOOL, "os", "root", "agent", name) for name in ("a", "b", "c", "other")]
    assert values == [2, 2, None, 2]


def test_a_value_admitted_later_starts_at_0():
    daemon = Daemon(limits=Limits(values_per_label=1))
    daemon.count(tools("a", "b"))
    again = Daemon(daemon.ledger, limits=Limits(values_per_label=9))
    again.count(tools("b"))
    assert [again.value(TOOL, "os", "root", "agent", name) for name in ("b", "other")] == [1, 1]


def test_the_limit_of_a_metric():
    daemon = Daemon(limits=Limits(series_per_metric=3))
    daemon.count(tools("a", "b", "c", "d"))
    daemon.count(tools("d", "e", "a"))
    series = {one.labels: one.value for one in daemon.totals.stored() if one.metric == TOOL}
    assert sum(series.values()) == 7
    assert series["os", "other", "other", "other"] == 3
    assert len(series) == 4
    assert daemon.value(LIMITED, TOOL, "") == 3


def test_long_values_are_shortened_and_stay_two():
    daemon = Daemon(limits=Limits(label_value_length=32))
    fits, longer, longest = "x" * 32, "x" * 33, "x" * 34
    daemon.count(tools(fits, longer, longest))
    daemon.count(tools(longest))
    values = {labels[3]: value for (name, labels), value in totals_of(daemon).items() if name == TOOL}
    assert {len(name) for name in values} == {32}
    assert sorted(values.values()) == [1, 1, 2]
    assert values[fits] == 1
    assert sum(name.startswith("x" * 23 + "…") for name in values) == 2
    assert daemon.value(SHORTENED, TOOL, "tool") == 3
    assert daemon.value(SHORTENED, DURATION, "tool") == 3


def test_a_gauge_has_the_same_shortened_value_as_a_counter():
    daemon = Daemon(limits=Limits(label_value_length=32))
    name = "agent " * 10
    daemon.count(tools(name))
    daemon.totals.gauges("agentos_component_info", "os", {("os", "agent", "1", name, name, "", ""): 1})
    (shown,) = (labels for (metric, labels) in daemon_shown(daemon) if metric == "agentos_component_info")
    (tool,) = (labels[3] for (metric, labels) in totals_of(daemon) if metric == TOOL)
    assert shown[3] == shown[4] == tool != name


def totals_of(daemon):
    return {(series.metric, series.labels): series.value for series in daemon.totals.stored()}


def daemon_shown(daemon):
    daemon.publish()
    return daemon.shown


def test_empty_and_other_need_no_admission():
    daemon = Daemon(limits=Limits(values_per_label=1))
    daemon.count(tools("", "other", "a"))
    assert [daemon.value(TOOL, "os", "root", "agent", name) for name in ("", "other", "a")] == [1, 1, 1]
    assert daemon.value(LIMITED, TOOL, "tool") is None


@given(
    st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=5), max_size=12),
    st.integers(1, 5),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
def test_under_any_limits_the_sum_is_the_number_of_increments(batches, values, series, rng):
    limits = Limits(series_per_metric=series, values_per_label=values)
    daemon, previous = Daemon(limits=limits), {}
    for batch in batches:
        daemon.count(tools(*batch))
        if rng.random() < 0.3:
            daemon = Daemon(daemon.ledger, limits=limits)
        now = {one.labels: one.value for one in daemon.totals.stored() if one.metric == TOOL}
        assert all(now[labels] >= value for labels, value in previous.items())
        previous = now
    assert sum(previous.values()) == sum(map(len, batches))
    spread = sum(sum(one.counts) for one in daemon.totals.stored() if one.metric == DURATION)
    assert spread == sum(map(len, batches))
    assert len({labels[3] for labels in previous} - {"other"}) <= values
    daemon.ledger.close()


# Dropped labels


def calls(spans):
    """Tool calls of (root, agent, tool), counted and timed."""
    delta = Delta("os")
    for root, agent, tool in spans:
        delta.add(TOOL, ("os", root, agent, tool))
        delta.observe(DURATION, ("os", tool), 150_000)
    return delta


def dropping(*labels):
    return {TOOL: frozenset(labels), DURATION: frozenset(labels) & {"tool"}}


def counts(daemon, metric):
    """By the labels of each series, how often something was counted in it."""
    return Counter(
        {
            series.labels: series.value or sum(series.counts)
            for series in daemon.totals.stored()
            if series.metric == metric
        }
    )


def test_a_dropped_label_is_empty_and_nothing_is_lost():
    daemon = Daemon(dropped=dropping("root", "tool"))
    daemon.count(calls([("r", "a", "x"), ("s", "a", "y"), ("r", "b", "x")]))
    assert counts(daemon, TOOL) == {("os", "", "a", ""): 2, ("os", "", "b", ""): 1}
    assert counts(daemon, DURATION) == {("os", ""): 3}
    (duration,) = (series for series in daemon.totals.stored() if series.metric == DURATION)
    assert duration.total == 3 * 150_000


def test_a_dropped_label_uses_up_no_admissions():
    daemon = Daemon(limits=Limits(values_per_label=1, label_value_length=32), dropped=dropping("tool"))
    daemon.count(calls([("r", "a", name * 40) for name in "xyz"]))
    assert counts(daemon, TOOL) == {("os", "r", "a", ""): 3}
    assert (daemon.value(LIMITED, TOOL, "tool"), daemon.value(SHORTENED, TOOL, "tool")) == (None, None)
    assert "tool" not in {label for label, _ in daemon.ledger.load()[1]}


def test_a_dropped_label_stays_empty_beyond_the_limit_of_a_metric():
    daemon = Daemon(limits=Limits(series_per_metric=1), dropped=dropping("root"))
    daemon.count(calls([("r", "a", "x"), ("r", "b", "x")]))
    assert counts(daemon, TOOL) == {("os", "", "a", "x"): 1, ("os", "", "other", "other"): 1}
    assert daemon.value(LIMITED, TOOL, "") == 1


def test_a_metric_without_limited_labels_may_drop_as_well():
    daemon = Daemon(dropped={"agentos_traces_total": frozenset({"root_kind"})})
    delta = Delta("os")
    for kind, amount in (("agent", 2), ("team", 0), ("http", 3)):
        delta.add("agentos_traces_total", ("os", kind), amount)
    daemon.count(delta)
    assert counts(daemon, "agentos_traces_total") == {("os", ""): 5}


def test_what_was_counted_under_a_label_stays_when_it_is_dropped():
    daemon = Daemon()
    daemon.count(calls([("r", "a", "x")]), show=True)
    daemon.totals.use(Limits(), zero_hold=60, dropped=dropping("tool"))
    daemon.count(calls([("r", "a", "x")] * 2))
    old, new = (TOOL, ("os", "r", "a", "x")), (TOOL, ("os", "r", "a", ""))
    daemon.publish()
    shown = daemon.scrape()
    assert (shown[old][0], shown[new][0]) == (1, 0)  # a new series shows 0 first
    daemon.publish(after=60)
    assert (daemon.shown[old][0], daemon.shown[new][0]) == (1, 2)
    daemon.totals.use(Limits(), zero_hold=60, dropped={})
    daemon.count(calls([("r", "a", "x")]))
    assert counts(daemon, TOOL) == {("os", "r", "a", "x"): 2, ("os", "r", "a", ""): 2}


SPANS = st.lists(st.tuples(*(st.sampled_from("abc") for _ in range(3))), max_size=30)


@given(SPANS, st.sets(st.sampled_from(("root", "agent", "tool"))), st.randoms(use_true_random=False))
def test_a_dropped_family_is_the_whole_one_added_up(spans, dropped, rng):
    whole, folded = Daemon(), Daemon(dropped=dropping(*dropped))
    whole.count(calls(spans))
    rng.shuffle(spans)
    while spans:
        size = rng.randint(1, len(spans))
        folded.count(calls(spans[:size]))
        spans = spans[size:]
    for metric in (TOOL, DURATION):
        expected = Counter()
        for labels, count in counts(whole, metric).items():
            named = zip(METRICS[metric].labels, labels, strict=True)
            expected[tuple("" if label in dropped else value for label, value in named)] += count
        assert counts(folded, metric) == expected
    whole.ledger.close()
    folded.ledger.close()


@given(
    st.lists(st.tuples(SPANS, st.sets(st.sampled_from(("root", "agent", "tool"))), st.booleans()), max_size=8),
    st.integers(1, 4),
    st.integers(1, 9),
)
def test_whatever_is_dropped_when_nothing_is_lost_and_nothing_falls(steps, values, series):
    limits = Limits(series_per_metric=series, values_per_label=values)
    daemon, before, total = Daemon(limits=limits), Counter(), 0
    for spans, dropped, restarts in steps:
        if restarts:
            daemon = Daemon(daemon.ledger, limits=limits, dropped=dropping(*dropped))
        else:
            daemon.totals.use(limits, zero_hold=60, dropped=dropping(*dropped))
        daemon.count(calls(spans))
        now = counts(daemon, TOOL)
        assert now >= before
        before, total = now, total + len(spans)
        assert sum(now.values()) == sum(counts(daemon, DURATION).values()) == total
    daemon.ledger.close()


def test_replicas_drop_labels_too():
    daemon = Daemon(dropped=dropping("root", "agent"))
    daemon.totals.lead(frozenset({"os"}))
    daemon.count(calls([("r", "a", "x"), ("s", "b", "x")]), show=True)
    (stored,) = (series for series in daemon.ledger.load(["os"])[0] if series.metric == TOOL)
    assert (stored.labels, stored.value) == (("os", "", "", "x"), 2)
    daemon.publish()
    assert daemon.shown[TOOL, ("os", "", "", "x")][0] == 2


def test_a_plan_that_is_not_applied_changes_nothing():
    daemon = Daemon(limits=Limits(values_per_label=1))
    daemon.totals.plan(tools("ghost"), show=True)
    daemon.count(tools("a"))
    assert daemon.value(TOOL, "os", "root", "agent", "a") == 1
    assert daemon.value(TOOL, "os", "root", "agent", "ghost") is None


# Versions


def test_a_version_changes_with_its_family_alone():
    daemon = Daemon()
    daemon.count(tools("x"), show=True)
    daemon.totals.gauge("agentos_up", ("os",), 1)

    def versions():
        return {family.metric.name: family.version for family in daemon.totals.families()[1]}

    first = versions()
    assert versions() == first
    daemon.totals.gauge("agentos_up", ("os",), 1)
    daemon.totals.gauge("agentos_up", ("gone",), None)
    assert versions() == first
    daemon.totals.gauge("agentos_up", ("os",), 0)
    second = versions()
    assert {name for name in second if second[name] != first[name]} == {"agentos_up"}
    daemon.count(tools("x"))
    third = versions()
    assert {name for name in third if third[name] != second[name]} == {TOOL, DURATION}


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("second", [0, 1])
def test_every_gauge_shows_from_its_first_value_on(first, second):
    daemon = Daemon()
    daemon.totals.gauge("agentos_up", ("a",), first)
    daemon.publish()
    daemon.totals.gauge("agentos_up", ("b",), second)
    daemon.publish()
    assert (daemon.shown["agentos_up", ("a",)][0], daemon.shown["agentos_up", ("b",)][0]) == (first, second)
    daemon.totals.gauge("agentos_up", ("a",), None)
    daemon.publish()
    assert ("agentos_up", ("a",)) not in daemon.shown


def test_gauges_of_one_agentos_are_replaced_as_a_whole():
    daemon = Daemon(limits=Limits(series_per_metric=2))
    metric = "agentos_session_stats_sessions"
    daemon.totals.gauges(metric, "a", {("a", "1h"): 1, ("a", "24h"): 0})
    daemon.totals.gauges(metric, "b", {("b", "1h"): 3})
    daemon.totals.gauges(metric, "a", {("a", "24h"): 5})
    daemon.publish()
    shown = {key[1]: value[0] for key, value in daemon.shown.items() if key[0] == metric}
    assert shown == {("a", "24h"): 5, ("b", "1h"): 3}


def test_series_are_counted():
    daemon = Daemon()
    daemon.count(tools("x", "y"), show=True)
    daemon.publish()
    first = dict(daemon.shown)
    daemon.publish()
    assert daemon.shown == first
    metric = "agentos_exporter_series"
    assert daemon.shown[metric, (TOOL,)][0] == 2
    assert daemon.shown[metric, (metric,)][0] == sum(key[0] == metric for key in daemon.shown)


def test_series_of_metrics_that_are_no_more_are_left_alone():
    totals = Totals(Limits(), zero_hold=60)
    totals.restore([StoredSeries("agentos_gone_total", ("os",), 5, shown=True)], [])
    assert list(totals.stored()) == []


def test_threads_lose_nothing():
    totals = Totals(Limits(), zero_hold=0)
    renderer = Renderer()
    failures = []

    def work(number):
        rng = random.Random(number)
        try:
            for _ in range(300):
                totals.add("agentos_exporter_api_requests_total", ("os", f"e{rng.randrange(20)}", "200"))
                totals.observe("agentos_exporter_poll_duration_seconds", ("os",), 5)
                totals.gauge("agentos_up", (f"os{rng.randrange(20)}",), rng.choice([0, 1, None]))
        except Exception as error:  # noqa: BLE001 - any
            failures.append(error)

    def publish():
        try:
            for _ in range(30):
                version, families = totals.families()
                renderer.render(families)
                totals.scraped(version, 0)
                totals.show(totals.due(1))
        except Exception as error:  # noqa: BLE001 - any
            failures.append(error)

    threads = [
        *(threading.Thread(target=work, args=(number,)) for number in range(4)),
        threading.Thread(target=publish),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    total = sum(
        totals.value("agentos_exporter_api_requests_total", ("os", f"e{place}", "200")) or 0 for place in range(20)
    )
    assert total == 1200


# Replicas


def test_with_replicas_what_the_limits_did_lives_with_the_process():
    daemon = Daemon(limits=Limits(values_per_label=1))
    daemon.totals.lead(frozenset({"os"}))
    daemon.count(tools("a", "b", "c"))
    assert daemon.value(LIMITED, TOOL, "tool") == 2
    assert not [series for series in daemon.ledger.load()[0] if series.metric == LIMITED]


def test_what_is_forgotten_while_it_is_to_be_shown_stays_forgotten():
    daemon = Daemon(hold=0)
    daemon.count(tools("a"))
    daemon.publish()
    daemon.scrape()
    due = daemon.totals.due(1)
    assert due
    daemon.totals.forget("os")
    daemon.totals.show(due)
    assert daemon_shown(daemon).keys() == {("agentos_exporter_series", ("agentos_exporter_series",))} or not [
        key for key in daemon.shown if key[0] in {TOOL, DURATION}
    ]
