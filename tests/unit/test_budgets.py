"""Budgets: the edges of their calendars, whose calls they hold, and that not a cent is lost, doubled or misdated."""

import random
import zoneinfo
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.bookkeeping.intake import Intake
from exporter.bookkeeping.shared import Shared
from exporter.bookkeeping.treasury import COVERED, LIMIT, RESET, SPENT, Treasury
from exporter.core.errors import StateError
from exporter.core.model import Clock, Span, SpanKind, TokenUsage, Trace
from exporter.counting.budgets import KEPT, Budget, Budgets, Calendar, Period, first_instant, known_since
from exporter.counting.delta import Delta
from exporter.counting.users import UserLabels
from exporter.ledger.records import Changes
from exporter.ledger.store import Ledger
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from exporter.pricing.money import USD
from exporter.pricing.prices import Priced
from exporter.pricing.tokens import Classes
from exporter.sources.protocol import Batch
from tests.harness.cashiers import FixedPrices
from tests.harness.examples import examples

S = 1_000_000
HOUR = 3600 * S
DAY, WEEK, MONTH = Period


def at(text):
    """Microseconds since the epoch of an ISO time with an offset."""
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo is not None
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


# --- The calendar -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "zone", "moment", "start", "end"),
    [
        # UTC
        (DAY, "UTC", "2026-03-01T00:00Z", "2026-03-01T00:00Z", "2026-03-02T00:00Z"),
        (DAY, "UTC", "2026-03-01T23:59:59.999999Z", "2026-03-01T00:00Z", "2026-03-02T00:00Z"),
        (MONTH, "UTC", "2026-02-28T23:59:59.999999Z", "2026-02-01T00:00Z", "2026-03-01T00:00Z"),
        (MONTH, "UTC", "2028-02-29T12:00Z", "2028-02-01T00:00Z", "2028-03-01T00:00Z"),
        (MONTH, "UTC", "2026-12-31T23:59Z", "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        (WEEK, "UTC", "2026-11-15T23:59:59Z", "2026-11-09T00:00Z", "2026-11-16T00:00Z"),  # a Sunday
        (WEEK, "UTC", "2026-11-16T00:00Z", "2026-11-16T00:00Z", "2026-11-23T00:00Z"),  # a Monday
        (WEEK, "UTC", "2027-01-01T00:00Z", "2026-12-28T00:00Z", "2027-01-04T00:00Z"),  # week 53
        # Berlin: days of 23 and 25 hours, and the weeks and months that hold them
        (DAY, "Europe/Berlin", "2026-03-29T12:00Z", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"),
        (DAY, "Europe/Berlin", "2026-10-25T12:00Z", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"),
        (WEEK, "Europe/Berlin", "2026-03-25T12:00Z", "2026-03-23T00:00+01:00", "2026-03-30T00:00+02:00"),
        (MONTH, "Europe/Berlin", "2026-03-31T21:59:59Z", "2026-03-01T00:00+01:00", "2026-04-01T00:00+02:00"),
        (MONTH, "Europe/Berlin", "2026-03-31T22:00Z", "2026-04-01T00:00+02:00", "2026-05-01T00:00+02:00"),
        (MONTH, "Europe/Berlin", "2026-10-31T23:00Z", "2026-11-01T00:00+01:00", "2026-12-01T00:00+01:00"),
        # New York: the month begins while clocks still show summer time, and ends after
        (MONTH, "America/New_York", "2026-11-01T05:30Z", "2026-11-01T00:00-04:00", "2026-12-01T00:00-05:00"),
        (DAY, "America/New_York", "2026-11-01T06:30Z", "2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00"),
        (DAY, "America/New_York", "2026-03-08T12:00Z", "2026-03-08T00:00-05:00", "2026-03-09T00:00-04:00"),
        # Midnight does not exist: 00:00 becomes 01:00
        (DAY, "America/Havana", "2026-03-08T04:59:59Z", "2026-03-07T00:00-05:00", "2026-03-08T01:00-04:00"),
        (DAY, "America/Havana", "2026-03-08T05:00Z", "2026-03-08T01:00-04:00", "2026-03-09T00:00-04:00"),
        (DAY, "Africa/Cairo", "2026-04-24T12:00Z", "2026-04-24T01:00+03:00", "2026-04-25T00:00+03:00"),
        # Midnight comes twice: 01:00 becomes 00:00, and the first of both counts
        (DAY, "America/Havana", "2026-11-01T05:30Z", "2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00"),
        # 24:00 becomes 23:00: the evening before is an hour longer
        (DAY, "Africa/Cairo", "2026-10-29T21:30Z", "2026-10-29T00:00+03:00", "2026-10-30T00:00+02:00"),
        # 00:01 becomes 23:01 of the day before, which is over by then
        (DAY, "America/St_Johns", "2006-10-29T02:45Z", "2006-10-29T00:00-02:30", "2006-10-30T00:00-03:30"),
        # The jump begins before midnight and ends after: 23:30 becomes 00:30
        (DAY, "America/Toronto", "1919-03-31T12:00Z", "1919-03-31T00:30-04:00", "1919-04-01T00:00-04:00"),
        # Samoa left out a Friday
        (DAY, "Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00"),
        (DAY, "Pacific/Apia", "2011-12-30T10:00Z", "2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00"),
        # No whole hours
        (MONTH, "Asia/Kathmandu", "2026-05-31T18:15Z", "2026-06-01T00:00+05:45", "2026-07-01T00:00+05:45"),
        (WEEK, "Pacific/Kiritimati", "2026-11-15T10:00Z", "2026-11-16T00:00+14:00", "2026-11-23T00:00+14:00"),
    ],
)
def test_edges(period, zone, moment, start, end):
    calendar = Calendar(period, zone)
    assert calendar.bounds(at(moment)) == (at(start), at(end))
    assert calendar.bounds(at(start)) == (at(start), at(end))
    assert calendar.bounds(at(end) - 1) == (at(start), at(end))
    assert calendar.bounds(at(end))[0] == at(end)


ZONES = sorted(zoneinfo.available_timezones())


@examples(300)
@given(st.sampled_from(ZONES), st.sampled_from(Period), st.integers(at("1900-01-01T00:00Z"), at("2100-01-01T00:00Z")))
@example("America/St_Johns", DAY, at("2006-10-29T02:31:30Z"))
@example("Pacific/Kwajalein", DAY, at("1993-08-21T12:30Z"))
def test_every_instant_lies_in_exactly_one_period(zone, period, moment):
    start, end = Calendar(period, zone).bounds(moment)
    assert start <= moment < end
    for other in (start, end - 1, (start + end) // 2):
        assert Calendar(period, zone).bounds(other) == (start, end)
    assert Calendar(period, zone).bounds(start - 1)[1] == start
    assert Calendar(period, zone).bounds(end)[0] == end


@examples(150)
@given(st.sampled_from(ZONES), st.dates(date(1901, 1, 1), date(2099, 12, 30)))
def test_a_day_starts_when_clocks_first_show_it(zone, day):
    local = ZoneInfo(zone)
    start = first_instant(day, local)
    shown = [datetime.fromtimestamp(start // S + offset, local).date() for offset in (-1, 0)]
    assert shown[0] < day <= shown[1]
    assert start % S == 0


@pytest.mark.parametrize("moment", [-(2**62), 2**62, at("0001-01-01T00:00Z"), at("9999-12-31T23:59Z")])
@pytest.mark.parametrize("period", Period)
def test_no_time_is_too_far(period, moment):
    start, end = Calendar(period, "Pacific/Kiritimati").bounds(moment)
    assert start < end


def test_periods_in_any_order_are_remembered_right():
    calendar, days = (
        Calendar(DAY, "Europe/Berlin"),
        list(range(at("2026-01-01T00:00Z"), at("2026-06-01T00:00Z"), 7 * HOUR)),
    )
    random.Random(1).shuffle(days)
    for _ in range(2):
        for moment in days:
            assert calendar.bounds(moment) == Calendar(DAY, "Europe/Berlin").bounds(moment)


# --- Who is charged ---------------------------------------------------------------------------------------------------


def budget(name="b", period=DAY, limit=USD, **more):
    return Budget(name=name, period=period, limit=limit, **more)


@pytest.mark.parametrize(
    ("filters", "hit"),
    [
        ({}, True),
        ({"agentos": "os"}, True),
        ({"agentos": "other"}, False),
        ({"root": "Team"}, True),
        ({"root": "team"}, False),
        ({"agent": "Researcher"}, True),
        ({"agent": "Team"}, False),
        ({"model": "gpt"}, True),
        ({"model": "gpt-4"}, False),
        ({"user": "alice"}, True),
        ({"user": "bob"}, False),
        ({"agentos": "os", "root": "Team", "agent": "Researcher", "model": "gpt", "user": "alice"}, True),
        ({"agentos": "os", "root": "Team", "agent": "Researcher", "model": "gpt", "user": "bob"}, False),
    ],
)
def test_filters(filters, hit):
    charges = list(
        Budgets([budget(**filters)]).charges(("os", "Team", "Researcher"), "gpt", "alice", at("2026-05-05T05:00Z"))
    )
    assert charges == ([("b", at("2026-05-05T00:00Z"))] if hit else [])


def test_several_budgets_are_charged_each_in_its_own_calendar():
    budgets = Budgets(
        [
            budget("d"),
            budget("w", WEEK, agentos="os"),
            budget("m", MONTH, time_zone="Asia/Tokyo"),
            budget("x", agentos="no"),
        ]
    )
    charges = set(budgets.charges(("os", "", ""), "", "", at("2026-05-31T20:00Z")))
    assert charges == {
        ("d", at("2026-05-31T00:00Z")),
        ("w", at("2026-05-25T00:00Z")),
        ("m", at("2026-06-01T00:00+09:00")),
    }
    assert {name for name, _ in budgets.charges(("elsewhere", "", ""), "", "", 0)} == {"d", "m"}
    assert not Budgets()


def test_no_id_of_a_user_in_any_repr():
    assert "alice" not in repr(budget(user="alice"))


@pytest.mark.parametrize(
    ("known", "agentos", "expected"),
    [
        (None, {"a": False}, 900),  # a first start: what it looks back at is known
        (None, {"a": True}, 1000),
        (None, {"a": True, "b": False}, 1000),
        (500, {"a": True}, 500),
        (500, {"a": True, "b": False}, 900),  # b's spending of the time before is not
        (950, {"a": False}, 950),
        (500, {}, 500),
    ],
)
def test_since_when_spending_is_known(known, agentos, expected):
    assert known_since(known=known, agentos=agentos, now=1000, lookback=100) == expected


# --- The ledger of spending -------------------------------------------------------------------------------------------

T0 = at("2026-10-25T00:30+02:00")  # in the first hour of Berlin's longest day
ZONE = "Europe/Berlin"


def price(span):
    return Priced(Classes(span.usage.prompt), {"input": span.usage.prompt * 10**9 + 1}, "listed", "")


def cost(span):
    return span.usage.prompt * 10**9 + 1


class Home:
    """One AgentOS with its treasury, on a clock that only the test moves."""

    def __init__(self, ledger=None, budgets=(), now=T0, lookback=HOUR, name="os"):
        self.ledger, self.now, self.name, self.lookback = ledger or Ledger(None), now, name, lookback
        self.open(budgets)

    def open(self, budgets):
        clock = Clock(lambda: self.now / S, lambda: self.now / S)
        self.totals = Totals(Limits(), zero_hold=0)
        self.totals.restore(*self.ledger.load())
        self.cashier = FixedPrices(price)
        shared = Shared(self.ledger, self.totals, clock)
        self.treasury = Treasury(shared, self.cashier, user_labels=UserLabels.OFF)
        self.configure(*budgets)
        self.intake = Intake(self.name, shared, overlap=60, horizon=3600, cashier=self.cashier)

    def configure(self, *budgets):
        return self.treasury.configure(budgets, [self.name], lookback=self.lookback)

    def read(self, *traces):
        self.intake.absorb(Batch("db", traces, cursor={"n": 1}, as_of=self.now))
        self.treasury.refresh()

    def gauge(self, metric, name="b", period=DAY, agentos=""):
        return self.totals.value(metric, (agentos, name, str(period)))


def call(number, start, tokens=1, parent=0, **more):
    return Span(
        number, parent, SpanKind.LLM, "m", start, start + S, usage=TokenUsage(prompt=tokens), model="gpt", **more
    )


def run(trace_id, *calls, agent="Researcher", user=None, total=None):
    root = Span(hash(trace_id) % 2**60, -1, SpanKind.AGENT, agent, calls[0].start, calls[-1].end, user_id=user)
    return Trace(trace_id, "db", root.start, root.end, root.end, total or 1 + len(calls), (root, *calls))


def test_gauges():
    home = Home(budgets=[budget(time_zone=ZONE, limit=3 * USD, agentos="os")])
    home.read(run("t", call(1, T0, 5), call(2, T0 + S, 6)))
    assert home.gauge(LIMIT, agentos="os") == 3 * USD
    assert home.gauge(SPENT, agentos="os") == 11 * 10**9 + 2
    assert home.gauge(RESET, agentos="os") == at("2026-10-26T00:00+01:00")
    assert home.gauge(COVERED, agentos="os") == at("2026-10-25T00:00+02:00")


def test_a_new_period_starts_at_zero_and_is_known_from_its_start():
    home = Home(budgets=[budget(time_zone=ZONE)])
    home.read(run("t", call(1, T0)))
    home.now = at("2026-10-26T00:00+01:00") - 1
    home.treasury.refresh()
    assert home.gauge(SPENT) == 10**9 + 1
    home.now += 1
    home.treasury.refresh()
    assert home.gauge(SPENT) == 0
    assert home.gauge(RESET) == at("2026-10-27T00:00+01:00")
    assert home.gauge(COVERED) == home.now


def test_late_spans_of_a_closed_period_go_there():
    home = Home(budgets=[budget(time_zone=ZONE), budget("m", MONTH)])
    before = at("2026-10-24T23:59:59.999999+02:00")
    home.read(run("t", call(1, before, 5), call(2, before + 1, 7)))
    assert home.gauge(SPENT) == 7 * 10**9 + 1
    assert home.gauge(SPENT, "m", MONTH) == 12 * 10**9 + 2
    assert home.ledger.spent(0)["b", at("2026-10-24T00:00+02:00")] == 5 * 10**9 + 1


def test_budgets_that_cannot_be_shown_at_once_are_in_force():
    home = Home(budgets=[budget("old")])
    home.ledger.spent, spent = failing, home.ledger.spent
    home.configure(budget("new", time_zone=ZONE))
    home.ledger.spent = spent
    home.read(run("t", call(1, T0, 5)))
    assert (home.gauge(SPENT, "new"), home.gauge(SPENT, "old")) == (5 * 10**9 + 1, None)


def failing(*_):
    raise StateError("the disk is full")


def test_spending_survives_a_restart(tmp_path):
    budgets = [budget(time_zone=ZONE)]
    home = Home(Ledger(tmp_path / "state.db"), budgets)
    home.read(run("t", call(1, T0)))
    for number in range(2, 5):
        home.ledger.close()
        home.now += HOUR
        home = Home(Ledger(tmp_path / "state.db"), budgets, now=home.now)
        assert home.gauge(SPENT) == (number - 1) * (10**9 + 1)
        assert home.gauge(COVERED) == at("2026-10-25T00:00+02:00")
        home.read(run("t", call(1, T0)), run(f"t{number}", call(number, home.now)))
    assert home.gauge(SPENT) == 4 * (10**9 + 1)
    home.ledger.close()


def test_a_changed_limit_keeps_spending_and_since():
    home = Home(budgets=[budget(time_zone=ZONE, limit=5)])
    home.read(run("t", call(1, T0)))
    home.now += 2 * HOUR
    assert home.configure(budget(time_zone=ZONE, limit=7)) == []
    assert (home.gauge(LIMIT), home.gauge(SPENT)) == (7, 10**9 + 1)
    assert home.gauge(COVERED) == at("2026-10-25T00:00+02:00")


@pytest.mark.parametrize(
    "change",
    [
        *({"agentos": "os"}, {"root": "Researcher"}, {"agent": "Researcher"}, {"model": "gpt"}, {"user": "alice"}),
        *({"time_zone": "UTC"}, {"period": WEEK}),
    ],
)
def test_a_changed_definition_starts_anew(change):
    home = Home(budgets=[budget(time_zone=ZONE), budget("stays")])
    home.read(run("t", call(1, T0), user="alice"))
    home.now += 2 * HOUR
    changed = budget(**{"time_zone": ZONE, **change})
    where = {"period": changed.period, "agentos": changed.agentos}
    assert home.configure(changed, budget("stays")) == ["b"]
    assert home.gauge(SPENT, **where) == 0
    assert home.gauge(COVERED, **where) == home.now
    home.read(run("u", call(2, home.now, 3), user="alice"))
    assert home.gauge(SPENT, **where) == 3 * 10**9 + 1
    assert home.configure(changed, budget("stays")) == []
    assert home.gauge(SPENT, **where) == 3 * 10**9 + 1
    assert sum(spent for (name, _), spent in home.ledger.spent(0).items() if name == "stays") == 4 * 10**9 + 2


def test_a_budget_that_is_gone_shows_nothing_and_comes_back_empty():
    home = Home(budgets=[budget(), budget("other", agentos="os")])
    home.read(run("t", call(1, T0)))
    home.configure(budget("other", agentos="os"))
    assert home.gauge(SPENT) is None
    assert home.gauge(LIMIT) is None
    assert home.gauge(SPENT, "other", agentos="os") == 10**9 + 1
    home.now += HOUR
    home.configure(budget())
    assert home.gauge(SPENT) == 0
    assert home.gauge(COVERED) == home.now
    assert home.gauge(SPENT, "other", agentos="os") is None
    home.configure()
    assert home.ledger.budgets() == {}
    assert home.ledger.spent(0) == {}


def test_what_is_known_on_a_first_start_and_of_a_budget_that_came_later():
    home = Home(budgets=[budget()], now=at("2026-10-25T02:00Z"))
    assert home.gauge(COVERED) == at("2026-10-25T01:00Z")
    home.now += HOUR
    home.open([budget()])  # nothing was read yet: the first poll looks back from here
    assert home.gauge(COVERED) == at("2026-10-25T02:00Z")
    home.read(run("t", call(1, home.now)))
    home.now += HOUR
    home.open([budget(), budget("late")])
    assert home.gauge(COVERED) == at("2026-10-25T02:00Z")
    assert home.gauge(COVERED, "late") == home.now


def test_an_agentos_looks_back_from_when_it_is_first_reached(tmp_path):
    ledger = Ledger(tmp_path / "state.db")
    home = Home(ledger, [budget(), budget("os", agentos="os")], now=at("2026-10-25T02:00Z"))
    for _ in range(4):  # it is down
        home.now += HOUR
        home.treasury.refresh()
        assert home.gauge(COVERED) == home.gauge(COVERED, "os", agentos="os") == home.now - HOUR
    home.configure(budget(), budget("os", agentos="os"))
    home.read(run("t", call(1, home.now)))
    since = home.now - HOUR
    home.now += HOUR
    home.treasury.refresh()
    assert home.gauge(COVERED) == home.gauge(COVERED, "os", agentos="os") == since
    ledger.close()
    again = Home(Ledger(tmp_path / "state.db"), [budget(), budget("os", agentos="os")], now=home.now)
    assert again.gauge(COVERED) == since
    again.ledger.close()


def test_old_periods_are_forgotten():
    home = Home(budgets=[budget()])
    home.read(run("t", call(1, T0)))
    home.now = T0 + KEPT - 24 * HOUR
    home.treasury.refresh()
    assert home.ledger.spent(0)
    home.now = T0 + KEPT + 24 * HOUR
    home.treasury.refresh()
    assert home.ledger.spent(0) == {}


def test_without_budgets_nothing_is_kept():
    home = Home()
    home.read(run("t", call(1, T0)))
    assert home.ledger.spent(0) == {}
    assert not home.cashier.charges


def test_no_id_of_a_user_in_the_state_file(tmp_path):
    home = Home(Ledger(tmp_path / "state.db"), [budget(user="alice@example.com")])
    home.read(run("t", call(1, T0), user="alice@example.com"), run("u", call(2, T0), user="bob@example.com"))
    assert home.gauge(SPENT) == 10**9 + 1
    home.ledger.close()
    again = Home(Ledger(tmp_path / "state.db"), [budget(user="alice@example.com")])
    assert again.gauge(SPENT) == 10**9 + 1
    again.ledger.close()
    assert not [path for path in tmp_path.iterdir() if b"@example.com" in path.read_bytes()]


def test_a_state_file_of_the_schema_before_gets_its_tables(tmp_path):
    path = tmp_path / "state.db"
    ledger = Ledger(path)
    with ledger.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE layouts")
        connection.exec_driver_sql("DROP TABLE budgets")
        connection.exec_driver_sql("DROP TABLE spending")
        connection.exec_driver_sql("PRAGMA user_version = 1")
    ledger.close()
    home = Home(Ledger(path), [budget()])
    home.read(run("t", call(1, T0)))
    assert home.gauge(SPENT) == 10**9 + 1
    home.ledger.close()


# --- Any order, split and repetition, and a crash between -------------------------------------------------------------

BUDGETS = (
    budget("d", time_zone=ZONE),
    budget("w", WEEK, time_zone="America/Havana", agent="A"),
    budget("m", MONTH, user="alice"),
)


@st.composite
def histories(draw):
    """Runs over the days around a change of clocks, and readings of their first calls in any order."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    wholes = []
    for number in range(draw(st.integers(1, 5))):
        starts = sorted(T0 + rng.randrange(-40 * 24 * HOUR, 40 * 24 * HOUR, 13 * S) for _ in range(rng.randint(1, 5)))
        calls = [call(number * 10 + place + 1, start, rng.randrange(10**6)) for place, start in enumerate(starts)]
        wholes.append(run(f"t{number}", *calls, agent=rng.choice("AB"), user=rng.choice([None, "alice", "bob"])))
    readings = []
    for whole in rng.choices(wholes, k=draw(st.integers(0, 12))):
        shown = whole.spans[: rng.randint(1, len(whole.spans))]
        readings.append(Trace(whole.id, "db", whole.start, whole.end, whole.created, whole.total_spans, shown))
    readings += wholes
    rng.shuffle(readings)
    return wholes, [readings[place : place + 2] for place in range(0, len(readings), 2)]


def truth(wholes):
    """What each period of each budget must hold, worked out span by span."""
    spent = {}
    for whole in wholes:
        root = whole.spans[0]
        for span in whole.spans[1:]:
            for one in BUDGETS:
                if one.agent in {"", root.name} and one.user in {"", root.user_id}:
                    key = one.name, Calendar(one.period, one.time_zone).bounds(span.start)[0]
                    spent[key] = spent.get(key, 0) + cost(span)
    return spent


@examples(60)
@given(histories())
def test_spent_is_the_sum_of_the_costs(history):
    wholes, batches = history
    home = Home(budgets=BUDGETS)
    for batch in batches:
        home.read(*batch)
        home.now += HOUR
    home.read(*wholes)
    assert home.ledger.spent(-(2**62)) == truth(wholes)
    home.ledger.close()


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("how", ["fails", "dies before", "dies after", "dies amid"])
def test_a_crash_loses_and_doubles_no_cent(tmp_path, monkeypatch, how):
    rng = random.Random(4)
    wholes = [
        run(
            f"t{number}",
            *(call(number * 10 + place, T0 + place * 5 * HOUR, rng.randrange(10**6)) for place in range(1, 5)),
        )
        for number in range(4)
    ]
    path, died = tmp_path / "state.db", 0
    home = Home(Ledger(path), BUDGETS)
    real_commit, real_write = Ledger.commit, Ledger._write_spending

    def commit(self, changes: Changes):
        if how == "fails":
            raise StateError("disk full")
        if how != "dies before":
            real_commit(self, changes)
        raise Crash

    def write(self, *arguments):
        real_write(self, *arguments)
        raise Crash

    for whole in wholes:
        with monkeypatch.context() as patch:
            if how == "dies amid":
                patch.setattr(Ledger, "_write_spending", write)
            else:
                patch.setattr(Ledger, "commit", commit)
            with pytest.raises((Crash, StateError)):
                home.read(whole)
        died += 1
        home.ledger.close()
        home = Home(Ledger(path), BUDGETS)
        home.read(whole)
    assert died == 4
    assert home.ledger.spent(0) == truth(wholes)
    home.ledger.close()


def test_spending_of_any_size_is_exact():
    ledger = Ledger(None)
    for _ in range(3):
        delta = Delta("os", spending={("b", 0): 10**30 + 1})
        ledger.commit(Changes("os", spending=delta.spending))
    assert ledger.spent(0) == {("b", 0): 3 * 10**30 + 3}


# --- SIGHUP -----------------------------------------------------------------------------------------------------------


def test_boundaries_follow_one_another():
    calendar = Calendar(MONTH, "America/New_York")
    starts = [calendar.bounds(at("2026-01-15T00:00Z"))[0]]
    while len(starts) < 14:
        starts.append(calendar.bounds(starts[-1])[1])
    assert [(after - before) // HOUR for before, after in pairwise(starts)][:12] == [
        *(31 * 24, 28 * 24, 31 * 24 - 1, 30 * 24, 31 * 24, 30 * 24),
        *(31 * 24, 31 * 24, 30 * 24, 31 * 24, 30 * 24 + 1, 31 * 24),
    ]
