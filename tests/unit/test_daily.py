"""Sums by the day on which calls and runs began: they are parts of the counters, whatever counts when."""

import datetime as dt
import sqlite3
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.errors import StateRefused
from exporter.core.times import DAY
from exporter.counting.budgets import KEPT
from exporter.counting.cashier import Cashier
from exporter.counting.delta import Delta
from exporter.counting.dimensions import Dimension, Dimensions, Origin
from exporter.counting.users import UserLabels, labeller
from exporter.ledger.copying import copy
from exporter.ledger.daily import Days
from exporter.ledger.records import Changes
from exporter.ledger.store import Ledger
from exporter.ledger.tables import SCHEMA_VERSION
from exporter.metrics.catalog import DAILY, METRICS, Kind, Life
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from exporter.service.connect import look_at_days
from tests.harness import days
from tests.harness.details import COST, PRICER, T0, TOKENS, Home, S, call, detail, run_of, use
from tests.harness.examples import examples
from tests.harness.ledgers import TOOL, changes

RUNS, CALLS = "agentos_runs_total", "agentos_llm_calls_total"
FIRST = dt.datetime.fromtimestamp(T0, dt.UTC).date()
NEXT = FIRST + dt.timedelta(days=1)
MIDNIGHT = (T0 // 86_400 + 1) * 86_400 - T0
"""Seconds from the start of a run to the end of its day"""
EVER = (dt.date.min, dt.date.max)
PERSON = Dimension("person", Origin.USER)


def cashier():
    label = labeller(UserLabels.PLAIN, b"")
    return Cashier(PRICER, user_label=label, dimensions=Dimensions([PERSON, Dimension("tenant", Origin.METADATA, "t")]))


def by_day(home, metric):
    """Sums of a counter by day."""
    found = Counter()
    for row in home.ledger.days("os", *EVER).rows:
        if row.metric == metric:
            found[row.day] += row.value
    return dict(found)


def test_these_counters_are_durable_and_of_one_agentos():
    assert {(METRICS[name].kind, METRICS[name].life, METRICS[name].labels[0]) for name in DAILY} == {
        (Kind.COUNTER, Life.DURABLE, "agentos")
    }


def test_a_call_belongs_to_the_day_on_which_it_began():
    home = Home(cashier=cashier())
    home.enabled = False
    home.open()
    calls = [call(100, 10, start=MIDNIGHT - 1), call(50, 5, start=MIDNIGHT), call(None, None, start=MIDNIGHT + 9)]
    home.read(run_of(1, *calls), at=3 * 86_400, settled=["t1"])
    assert by_day(home, CALLS) == {FIRST: 1, NEXT: 2}
    assert by_day(home, TOKENS) == {FIRST: 110, NEXT: 55}
    assert by_day(home, "agentos_user_tokens_total") == {FIRST: 110, NEXT: 55}
    assert by_day(home, "agentos_llm_calls_without_usage_total") == {NEXT: 1}
    assert by_day(home, RUNS) == {FIRST: 1}
    assert by_day(home, "agentos_dimension_runs_total") == {FIRST: 2}
    assert by_day(home, "agentos_dimension_tokens_total") == {FIRST: 220, NEXT: 110}
    assert sum(by_day(home, COST).values()) == sum(home.of(COST, 5).values()) > 0
    assert days.sums(home.ledger) == days.counters(home.totals)


def test_what_waited_for_a_detail_belongs_to_the_day_on_which_it_began():
    told = detail(1, use("gpt-5.4", "OpenAI", 100, 10, 40), metadata={"t": "acme"})
    home = Home({"run1": told}, cashier=cashier())
    home.read(run_of(1, call(100, 10)), settled=["t1"])
    assert by_day(home, TOKENS) == {}
    home.enrich(at=90)
    home.read(run_of(2, call(70, 7)), at=2 * 86_400, settled=["t2"])
    home.expire(at=2 * 86_400 + 3_600)
    assert by_day(home, TOKENS) == {FIRST: 187}
    assert by_day(home, "agentos_dimension_runs_total") == {FIRST: 4}
    assert by_day(home, "agentos_llm_cache_savings_usd_total").keys() == {FIRST}
    assert days.sums(home.ledger) == days.counters(home.totals)


def test_errors_have_days_too():
    home = Home(cashier=cashier())
    home.read(run_of(1, call(None, None, error_type="ModelProviderError"), error_type="ModelProviderError"))
    assert by_day(home, "agentos_llm_call_errors_total") == by_day(home, "agentos_run_errors_total") == {FIRST: 1}


@examples(60)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 3 * 86_400), st.booleans()), max_size=4)),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 3),
)
def test_the_sums_of_all_days_are_the_counter(readings, values):
    """Whatever is read when, over restarts, within limits that fold agents and models into `other`."""
    home = Home(cashier=cashier())
    home.limits = Limits(series_per_metric=4, values_per_label=values)
    home.open()
    for number, calls in readings:
        some = [
            call(number, 1, start=start, **({"error_type": "E"} if failed else {}), model=f"m{number}")
            for start, failed in calls
        ]
        home.read(run_of(number, *some, user_id=f"u{number}"), settled=[f"t{number}"])
        home.expire(at=home.now - T0 + 600)
        home.open()
    assert days.sums(home.ledger) == days.counters(home.totals)


def test_a_value_beyond_the_limits_counts_in_the_series_of_its_counter():
    ledger, totals = Ledger(None), Totals(Limits(values_per_label=1, label_value_length=9), zero_hold=0)
    for tool in ("one", "two", "a long name", "one"):
        delta = Delta("os")
        delta.add_on(1, TOOL, ("os", "r", "r", tool))
        plan = totals.plan(delta, show=False)
        ledger.commit(Changes("os", plan=plan))
        totals.apply(plan)
    assert (
        days.sums(ledger)
        == days.counters(totals)
        == {
            (TOOL, ("os", "r", "r", "one")): 2,
            (TOOL, ("os", "r", "r", "other")): 2,
        }
    )


def test_what_is_older_than_13_months_is_forgotten():
    home = Home()
    home.read(run_of(1, call(100, 10)), settled=["t1"])
    home.at(KEPT / S)
    home.intake.prune("db", created_before=0)
    assert by_day(home, RUNS) == {FIRST: 1}
    home.read(cursor={"floor": 5})
    assert home.ledger.days(None, *EVER).since == {"os": 5}
    home.at(KEPT / S + 86_400)
    home.intake.prune("db", created_before=0)
    since = (T0 + 86_400) // 86_400 * 86_400 * S
    assert home.ledger.days(None, *EVER) == Days({"os": since}, ())


# Since when they are complete


def test_sums_are_complete_from_the_first_trace_that_a_new_state_counts(tmp_path):
    path = tmp_path / "state.db"
    assert look_at_days(path, None, *EVER) == look_at_days(None, None, *EVER) == Days()
    ledger = Ledger(path)
    ledger.date(5 * DAY)
    ledger.commit(changes(cursor=("db", {"floor": 4 * DAY})))
    found = look_at_days(path, "os", dt.date(1970, 1, 2), dt.date(1970, 1, 2))
    assert found.since == {"os": 4 * DAY}
    assert [(row.agentos, row.day, row.metric, row.value) for row in found.rows] == [
        ("os", dt.date(1970, 1, 2), TOOL, 1)
    ]
    assert found.rows[0].labels == ("os", "r", "a", "é\u202e🙂")
    assert look_at_days(path, "os", dt.date(1970, 1, 3), dt.date.max).rows == ()
    assert look_at_days(path, "another", *EVER) == Days()
    ledger.close()


def older(path):
    """A state of the version before there were sums of days."""
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE daily")
        connection.execute("PRAGMA user_version = 7")
    connection.close()


def test_a_state_of_an_earlier_version_has_sums_from_then_on(tmp_path):
    path = tmp_path / "state.db"
    ledger = Ledger(path)
    ledger.date(5 * DAY)
    ledger.commit(changes(cursor=("db", {"floor": 4 * DAY})))
    ledger.close()
    older(path)
    with pytest.raises(StateRefused, match=f"its schema is 7, and this version .* knows {SCHEMA_VERSION}"):
        look_at_days(path, None, *EVER)
    ledger = Ledger(path)
    ledger.date(9 * DAY)
    ledger.date(10 * DAY)
    ledger.commit(changes("u", cursor=("db", {"floor": 4 * DAY})))
    assert look_at_days(path, None, *EVER).since == {"os": 9 * DAY}
    assert sum(days.sums(ledger).values()) == 1
    # Of a database that came later, earlier traces are not counted.
    ledger.commit(changes("v", cursor=("later", {"floor": 12 * DAY})))
    assert look_at_days(path, None, *EVER).since == {"os": 12 * DAY}
    ledger.close()


def test_a_state_that_does_not_know_its_date_has_sums_from_its_next_start_on_too(tmp_path):
    path = tmp_path / "state.db"
    ledger = Ledger(path)
    ledger.commit(changes(cursor=("db", {"floor": 4 * DAY})))
    ledger.close()
    older(path)
    ledger = Ledger(path)
    assert look_at_days(path, None, *EVER).since == {}
    ledger.date(9 * DAY)
    assert look_at_days(path, None, *EVER).since == {"os": 9 * DAY}
    ledger.close()


def test_a_run_that_was_not_settled_before_there_were_sums_is_dated_by_its_trace(tmp_path):
    path = tmp_path / "state.db"
    ledger = Ledger(path)
    ledger.commit(changes("t"))
    before = ledger.records("os", ["t"])["t"][0]
    ledger.close()
    older(path)
    ledger = Ledger(path)
    (record,) = ledger.records("os", ["t"])["t"]
    assert [run.start for run in record.runs.values()] == [before.end]
    assert record.runs.keys() == before.runs.keys()
    ledger.close()


def test_a_copy_knows_since_when_its_sums_are_whole(tmp_path):
    ledger, target = Ledger(tmp_path / "one.db"), Ledger(tmp_path / "two.db")
    ledger.commit(changes(cursor=("db", {"floor": 4 * DAY})))
    copy(ledger, target)
    target.date(9 * DAY)
    assert target.days(None, *EVER) == ledger.days(None, *EVER)
    assert target.days(None, *EVER).since == {"os": 4 * DAY}
    for each in (ledger, target):
        each.close()


def test_sums_whose_labels_changed_begin_anew_with_their_counter(tmp_path):
    path = tmp_path / "state.db"
    ledger = Ledger(path)
    ledger.date(5 * DAY)
    ledger.commit(changes(cursor=("db", {"floor": 4 * DAY})))
    ledger.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE layouts SET layout = '{}' WHERE metric = ?", (TOOL,))
    connection.close()
    ledger = Ledger(path)
    ledger.date(9 * DAY)
    assert ledger.begun_anew == [TOOL]
    assert look_at_days(path, None, *EVER) == Days({"os": 9 * DAY}, ())
    ledger.close()


def test_a_broken_sum_is_refused(tmp_path):
    path = tmp_path / "state.db"
    ledger = Ledger(path)
    ledger.commit(changes())
    ledger.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE daily SET value = 'many'")
    connection.close()
    with pytest.raises(StateRefused, match="broken: it cannot be read"):
        look_at_days(path, None, *EVER)
    ledger = Ledger(path)
    with pytest.raises(StateRefused, match="the sum of a day cannot be read"):
        ledger.commit(changes("u"))
    ledger.close()
