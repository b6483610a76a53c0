"""What metrics cost: as many series as totals have that count under the same limits, with the same labels dropped."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from exporter.counting.delta import Delta
from exporter.metrics.catalog import METRICS
from exporter.metrics.estimate import estimate
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals

TOOL = "agentos_tool_calls_total"
DURATION = "agentos_tool_call_duration_seconds"
LIMITED = "agentos_exporter_series_limited_total"
LABELS = ("root", "agent", "tool")
CALLS = st.lists(st.tuples(*(st.sampled_from("abcd") for _ in LABELS)), max_size=40)


def counted(calls, limits, dropped):
    totals, delta = Totals(limits, zero_hold=0, dropped=dropped), Delta("os")
    for root, agent, tool in calls:
        delta.add(TOOL, ("os", root, agent, tool))
        delta.observe(DURATION, ("os", tool), 150_000)
    totals.apply(totals.plan(delta, show=True))
    totals.gauge("agentos_up", ("os",), 1)
    return totals


def costs(calls, limits, dropped):
    families = counted(calls, Limits(10**9, 10**9), {}).families()[1]
    return {cost.metric.name: cost for cost in estimate(families, limits, dropped)}


def test_a_histogram_is_many_series_and_a_dropped_label_saves_them():
    found = costs([("r", "a", "x"), ("r", "b", "x"), ("r", "b", "y")], Limits(), {DURATION: frozenset({"tool"})})
    assert {name: (one.label_sets, one.series, one.saved) for name, one in found.items()} == {
        TOOL: (3, 3, 0),
        DURATION: (1, 18, 18),
        "agentos_up": (1, 1, 0),
        "agentos_exporter_series": (4, 4, 0),
    }
    assert list(found) == [name for name in METRICS if name in found]


def test_what_the_limits_fold_costs_one_series_and_the_metric_that_says_so():
    found = costs([("r", "a", name) for name in "abcd"], Limits(values_per_label=2), {})
    assert {name: found[name].label_sets for name in (TOOL, DURATION, LIMITED)} == {TOOL: 3, DURATION: 3, LIMITED: 2}


@given(CALLS, st.integers(1, 4), st.integers(1, 20), st.sets(st.sampled_from(LABELS)))
def test_it_costs_as_many_series_as_are_counted(calls, values, series, labels):
    limits = Limits(series_per_metric=series, values_per_label=values)
    dropped = {TOOL: frozenset(labels), DURATION: frozenset(labels) & {"tool"}}
    born = Counter(stored.metric for stored in counted(calls, limits, dropped).stored())
    found = costs(calls, limits, dropped)
    assert {name: one.label_sets for name, one in found.items() if name in born} == born
