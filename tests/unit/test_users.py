"""Metrics by user: whose call it was, what the label shows of it, and that no id leaks where none was asked for."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from exporter.bookkeeping.intake import Intake
from exporter.bookkeeping.shared import Shared
from exporter.bookkeeping.treasury import Treasury
from exporter.core.errors import StateRefused
from exporter.core.model import Clock, Span, SpanKind, TokenUsage, Trace
from exporter.counting.budgets import Budget, Budgets, Period
from exporter.counting.cashier import Cashier
from exporter.counting.delta import Delta
from exporter.counting.fold import fold
from exporter.counting.users import DIGITS, UserLabels, hashed, labeller
from exporter.ledger.store import Ledger
from exporter.metrics.catalog import OTHER
from exporter.metrics.render import Renderer
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from exporter.pricing.prices import Priced
from exporter.pricing.tokens import Classes
from exporter.sources.protocol import Batch
from tests.harness.cashiers import FixedPrices

S = 1_000_000
T0 = 1_790_000_000 * S
TOKENS, COST = "agentos_user_tokens_total", "agentos_user_cost_usd_total"
LIMITED = "agentos_exporter_series_limited_total"
ALICE, BOB = "alice@example.com", "bob@example.com"
AGENT, TEAM, WORKFLOW, LLM, TOOL, HTTP = (
    *(SpanKind.AGENT, SpanKind.TEAM, SpanKind.WORKFLOW, SpanKind.LLM, SpanKind.TOOL, SpanKind.HTTP),
)


def span(number, parent, kind, user=None, **more):
    usage = TokenUsage(prompt=3, completion=4) if kind is LLM else TokenUsage()
    fields = {"usage": usage, "model": "gpt", "user_id": user, **more}
    return Span(number, parent, kind, f"n{number}", T0, T0 + S, **fields)


def trace(*rows, trace_id="t"):
    """(parent, kind[, user]) a row."""
    spans = tuple(span(place + 1, *row) for place, row in enumerate(rows))
    return Trace(trace_id, "db", T0, T0 + S, T0, len(spans), spans)


def price(one):
    if one.model == "free of price":
        return Priced(Classes(3, None, None, 4, None), None, "", "")
    return Priced(Classes(1, 2, None, 3, 1), {"input": 10 * one.id, "output": 1}, "listed", "")


def counted(whole, label=str, cashier=None):
    delta = Delta("os")
    fold(delta, whole, (), {}, now=T0, final=True, cashier=cashier or FixedPrices(price, user_label=label))
    return {(name, labels[1]): value for (name, labels), value in delta.counters.items() if name in {TOKENS, COST}}


def users(whole):
    return {user for _, user in counted(whole)}


# --- Whose call it was ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(-1, AGENT, "a"), (0, LLM)], {"a"}),
        ([(-1, AGENT), (0, LLM)], {""}),
        ([(-1, LLM, "a")], {"a"}),  # no run at all: what the call says itself
        ([(-1, LLM)], {""}),
        ([(-1, HTTP, "http"), (0, AGENT, "a"), (1, LLM)], {"a"}),  # the request's user is not the run's
        ([(-1, TEAM, "t"), (0, AGENT, "a"), (1, LLM)], {"a"}),  # the nearest
        ([(-1, TEAM, "t"), (0, AGENT), (1, LLM)], {"t"}),
        ([(-1, TEAM, "t"), (0, AGENT), (1, TOOL, "x"), (2, AGENT), (3, LLM)], {"t"}),
        ([(-1, TEAM), (0, AGENT), (1, LLM), (0, AGENT, "b")], {"b"}),  # the first that the run names
        ([(-1, TEAM), (0, AGENT), (1, LLM), (0, AGENT, "b"), (0, AGENT, "c"), (4, LLM)], {"b", "c"}),
        ([(-1, WORKFLOW, "w"), (0, LLM)], {"w"}),
        ([(-1, WORKFLOW, "w"), (0, AGENT, "a"), (0, LLM)], {"a"}),  # the sibling is its agent
        ([(-1, AGENT, "a"), (0, LLM), (-1, AGENT), (2, LLM)], {"a", ""}),  # another run of the trace
        ([(-1, AGENT, ""), (0, LLM)], {""}),
    ],
)
def test_whose_call(rows, expected):
    assert users(trace(*rows)) == expected


def test_tokens_and_cost():
    assert counted(trace((-1, AGENT, "a"), (0, LLM), (0, LLM))) == {(TOKENS, "a"): 14, (COST, "a"): 52}
    assert counted(trace((-1, AGENT, "a"), (0, LLM)), cashier=Cashier(user_label=str)) == {(TOKENS, "a"): 7}


def test_what_is_not_known_is_not_zero():
    unpriced = Trace("t", "db", T0, T0, T0, 1, (span(1, -1, LLM, "a", model="free of price"),))
    assert counted(unpriced) == {(TOKENS, "a"): 7}
    silent = Trace("t", "db", T0, T0, T0, 1, (span(1, -1, LLM, "a", usage=TokenUsage()),))
    assert counted(silent) == {}
    reported = Trace("t", "db", T0, T0, T0, 1, (span(1, -1, LLM, "a", usage=TokenUsage(), reported_cost=1.0),))
    assert counted(reported) == {(COST, "a"): 11}


def test_a_vendors_view_of_a_call_is_not_counted_again():
    assert counted(trace((-1, AGENT, "a"), (0, LLM), (1, LLM))) == {(TOKENS, "a"): 7, (COST, "a"): 21}


def test_off_is_off():
    assert counted(trace((-1, AGENT, "a"), (0, LLM)), label=None) == {}
    assert labeller(UserLabels.OFF, b"") is None


# --- What the label shows ---------------------------------------------------------------------------------------------


def test_hashed():
    label = labeller(UserLabels.HASHED, b"k" * 32)
    assert label(ALICE) == label(ALICE) != label(BOB)
    assert label(ALICE) == hashed(ALICE, b"k" * 32)[:DIGITS]
    assert labeller(UserLabels.HASHED, b"K" * 32)(ALICE) != label(ALICE)
    assert label("") == ""
    assert len(label("\ud800")) == len(label("x" * 10_000)) == DIGITS


def test_the_hash_is_the_known_one():
    # RFC 4231, test case 2
    assert hashed("what do ya want for nothing?", b"Jefe").startswith("5bdcc146bf60754e6a042426089575c7")


@given(st.text())
def test_plain_is_the_id_on_one_line(user):
    shown = labeller(UserLabels.PLAIN, b"")(user)
    assert len(shown) == len(user)
    assert shown == user or not user.isprintable()
    assert shown.splitlines() in ([], [shown])
    shown.encode()


# --- In the daemon ----------------------------------------------------------------------------------------------------


class Home:
    def __init__(self, path=None, mode=UserLabels.PLAIN, limits=None, budgets=()):
        self.ledger, clock = Ledger(path), Clock(lambda: T0 / S, lambda: T0 / S)
        self.totals = Totals(limits or Limits(), zero_hold=0)
        self.totals.restore(*self.ledger.load())
        cashier = FixedPrices(price)
        shared = Shared(self.ledger, self.totals, clock)
        self.treasury = Treasury(shared, cashier, user_labels=mode)
        self.treasury.configure(budgets, ["os"], lookback=0)
        self.intake = Intake("os", shared, overlap=60, horizon=3600, cashier=cashier)

    def read(self, *wholes):
        self.intake.absorb(Batch("db", wholes, as_of=T0, first=True))
        return self

    def shown(self, metric=TOKENS):
        return {series.labels[1]: series.value for series in self.totals.stored() if series.metric == metric}

    def page(self):
        _, families = self.totals.families()
        return Renderer().render(families).openmetrics


def calls(*who, first=0):
    return [trace((-1, AGENT, user), (0, LLM), trace_id=f"t{first + place}") for place, user in enumerate(who)]


def distinct(wholes):
    """Each with span ids of its own, as a cost depends on them."""
    spans = []
    for place, whole in enumerate(wholes):
        moved = tuple(structs.replace(span, id=span.id + 10 * place) for span in whole.spans)
        spans.append(Trace(whole.id, "db", T0, T0 + S, T0, len(moved), moved))
    return spans


def test_beyond_the_limit_users_are_others_and_sums_stay_exact():
    wholes = distinct(calls("a", "b", "c", None, "a", "d", "b"))
    home = Home(limits=Limits(values_per_label=2)).read(*wholes)
    everyone = Home().read(*wholes)
    assert home.shown() == {"a": 14, "b": 14, OTHER: 14, "": 7}
    for metric in (TOKENS, COST):
        assert sum(home.shown(metric).values()) == sum(everyone.shown(metric).values())
        assert home.shown(metric)["a"] == everyone.shown(metric)["a"]
    assert home.totals.value(LIMITED, (TOKENS, "user")) == 14
    assert home.totals.value(LIMITED, (COST, "user")) == everyone.shown(COST)["c"] + everyone.shown(COST)["d"]


def test_the_key_survives_a_restart(tmp_path):
    path = tmp_path / "state.db"
    first = Home(path, UserLabels.HASHED).read(*calls(ALICE))
    (label,) = first.shown()
    first.ledger.close()
    again = Home(path, UserLabels.HASHED).read(*calls(ALICE, first=1))
    assert again.shown() == {label: 14}
    again.ledger.close()
    elsewhere = Home(tmp_path / "other.db", UserLabels.HASHED).read(*calls(ALICE))
    assert label not in elsewhere.shown()
    elsewhere.ledger.close()
    memory = [Home(None, UserLabels.HASHED).read(*calls(ALICE)).shown().keys() for _ in range(2)]
    assert memory[0] != memory[1]


def test_no_key_is_made_unless_it_is_needed(tmp_path):
    for mode in (UserLabels.OFF, UserLabels.PLAIN):
        home = Home(tmp_path / "state.db", mode)
        with home.ledger.transaction() as connection:
            assert "user_key" not in str(connection.exec_driver_sql("SELECT * FROM meta").all())
        home.ledger.close()


@pytest.mark.parametrize("broken", ["", "00", "no hex"])
def test_a_broken_key_is_refused(tmp_path, broken):
    path = tmp_path / "state.db"
    ledger = Ledger(path)
    ledger.user_key()
    with ledger.transaction() as connection:
        connection.exec_driver_sql("UPDATE meta SET value = ? WHERE key = 'user_key'", (broken,))
    with pytest.raises(StateRefused, match="the key of users cannot be read"):
        ledger.user_key()
    ledger.close()


@pytest.mark.parametrize("mode", [UserLabels.OFF, UserLabels.HASHED])
def test_no_id_anywhere_unless_plain(tmp_path, mode, caplog):
    caplog.set_level(logging.DEBUG)
    budgets = [Budget(name="b", period=Period.DAY, limit=1, user=ALICE)]
    home = Home(tmp_path / "state.db", mode, budgets=budgets).read(*calls(ALICE, BOB))
    home.treasury.refresh()
    assert b"@example.com" not in home.page()
    assert home.ledger.spent(0)
    written = [path.read_bytes() for path in tmp_path.iterdir()]
    home.ledger.close()
    written += [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(written) >= 3
    assert not any(b"@example.com" in one for one in written)
    assert "@example.com" not in caplog.text


def test_plain_shows_ids():
    assert b'agentos_user_tokens_total{agentos="os",user="alice@example.com"} 7' in Home().read(*calls(ALICE)).page()


def test_budgets_know_users_whatever_the_labels():
    budgets = Budgets([Budget(name="b", period=Period.DAY, limit=1, user="a")])
    delta = Delta("os")
    fold(
        delta,
        trace((-1, AGENT, "a"), (0, LLM)),
        (),
        {},
        now=T0,
        final=True,
        cashier=FixedPrices(price, budgets=budgets),
    )
    assert list(delta.spending.values()) == [21]
    assert not any(name in {TOKENS, COST} for name, _ in delta.counters)
