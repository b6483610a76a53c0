"""Reconciling: differences that are planted in the ledger or in an export, each named for what made it."""

import datetime as dt
import json
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

import pytest

from exporter.core.errors import ExportError
from exporter.pricing.money import USD
from exporter.pricing.prices import Pricer
from exporter.reconcile.compare import DIFFERENT, NOT_COMPARED, OK, Period
from exporter.reconcile.exports import vendors
from exporter.reconcile.figures import Measure, Statement, days_between, start_of
from exporter.reconcile.ours import ours
from exporter.reconcile.reasons import Reason
from exporter.reconcile.sides import with_agentos, with_vendor

FIRST = dt.date(2026, 11, 2)
MODEL, DATED = "gpt-5.4-mini", "gpt-5.4-mini-2026-03-17"
TOKENS = {"input": 100_000, "cache_read": 20_000, "cache_write": 0, "output": 25_000, "reasoning": 5_000}
PRICES = {"input": 750, "cache_read": 75, "cache_write": 0, "output": 4500, "reasoning": 4500}
"""in USD for a thousand million tokens"""
CALLS = 60
COST = sum(TOKENS[one] * PRICES[one] * USD // 10**9 for one in TOKENS)


class Sum(NamedTuple):
    """A daily sum."""

    agentos: str
    day: dt.date
    metric: str
    labels: tuple[str, ...]
    value: int


class Sums(NamedTuple):
    """All of them."""

    since: dict[str, int]
    rows: list[Sum]


class World:
    """A ledger and an export of OpenAI that say the same of each of some days, until something is planted."""

    def __init__(self, days=20):
        self.days = days_between(FIRST, FIRST + dt.timedelta(days=days - 1))
        self.today = self.days[-1] + dt.timedelta(days=1)
        self.since = start_of(self.days[0])
        self.cache_known = True
        self.hidden = 0
        self.waiting = 0
        self.until = None
        self.ledger = {day: self.counted() for day in self.days}
        self.usage = {day: [self.stated()] for day in self.days}
        self.costs = {day: [self.billed()] for day in self.days}
        self.again = []
        """files beside the two"""
        self.models = {}
        """more models of the ledger, by day"""
        self.shift = {}
        """seconds by which the days of the export begin later, by day"""

    @staticmethod
    def counted(**more):
        return (
            {"calls": CALLS, "failed": 0, "without_usage": 0, "unpriced": 0, "source": "listed", "cost": COST}
            | TOKENS
            | more
        )

    @staticmethod
    def stated(model=DATED, **more):
        return {
            "object": "organization.usage.completions.result",
            "model": model,
            "num_model_requests": CALLS,
            "input_tokens": TOKENS["input"] + TOKENS["cache_read"],
            "input_cached_tokens": TOKENS["cache_read"],
            "output_tokens": TOKENS["output"] + TOKENS["reasoning"],
        } | more

    @staticmethod
    def billed(line_item=f"{DATED}, output", usd=Decimal(COST) / USD, currency="usd"):
        amount = {"value": str(usd), "currency": currency}
        return {"object": "organization.costs.result", "amount": amount, "line_item": line_item}

    def rows(self):
        for day in self.days:
            for model, one in [(MODEL, self.ledger[day]), *self.models.get(day, [])]:
                if one is None:
                    continue
                call = ("it", "", "agent", "openai", model)
                yield Sum("it", day, "agentos_llm_calls_total", call, one["calls"])
                yield Sum("it", day, "agentos_llm_call_errors_total", (*call, "Error"), one["failed"])
                yield Sum("it", day, "agentos_llm_calls_without_usage_total", call, one["without_usage"])
                yield Sum(
                    "it", day, "agentos_llm_unpriced_tokens_total", ("it", "openai", model, "input"), one["unpriced"]
                )
                for token_class in TOKENS:
                    if one[token_class] is not None:
                        yield Sum("it", day, "agentos_llm_tokens_total", (*call, token_class), one[token_class])
                if one["cost"] is not None:
                    labels = (*call, "input", one["source"])
                    yield Sum("it", day, "agentos_llm_cost_usd_total", labels, one["cost"])

    def exports(self, folder):
        def page(results):
            buckets = [
                {
                    "object": "bucket",
                    "start_time": start_of(day) // 10**6 + self.shift.get(day, 0),
                    "end_time": start_of(day) // 10**6 + 86_400 + self.shift.get(day, 0),
                    "results": results[day],
                }
                for day in self.days
            ]
            return {"object": "page", "data": buckets, "has_more": False, "next_page": None}

        paths = []
        for name, document in [("usage", page(self.usage)), ("costs", page(self.costs)), *self.again]:
            paths.append(folder / f"{name}.json")
            paths[-1].write_text(json.dumps(document))
        return paths

    def report(self, folder, tolerance="0"):
        (statement,) = vendors.read(self.exports(folder))
        mine = ours(Sums({"it": self.since}, list(self.rows())), ["it"], cache_known=self.cache_known)
        mine = replace(mine, hidden=self.hidden, until=self.until, waiting=self.waiting)
        period = Period(self.days[0], self.days[-1], self.today, Decimal(tolerance))
        return with_vendor(mine, statement, Pricer(), period)


# --- What is planted --------------------------------------------------------------------------------------------------


def begin_at_noon(world, day):
    world.since = start_of(day) + 43_200_000_000
    world.ledger[day] = world.counted(calls=30, input=50_000, cost=COST // 2)


def make_it_today(world, day):
    world.today = day
    world.ledger[day] = world.counted(calls=CALLS + 1, input=TOKENS["input"] + 100)


def lose_usage(world, day):
    world.ledger[day] = world.counted(without_usage=2, input=99_000)


def lose_prices(world, day):
    world.ledger[day] = world.counted(unpriced=50_000, cost=COST // 2)


def estimate(world, day):
    world.ledger[day] = world.counted(source="estimated", cost=COST * 2)


def hide_spans(world, day):
    world.hidden = 7
    world.ledger[day] = world.counted(calls=CALLS - 3)


def stop_at_noon(world, day):
    world.until = start_of(day) + 43_200_000_000
    world.ledger[day] = world.counted(calls=30)


def wait_for_details(world, day):
    world.waiting = 3
    world.ledger[day] = world.counted(output=24_000)


def call_past_agentos(world, day):
    more = world.stated(num_model_requests=CALLS + 5, input_tokens=130_000)
    world.usage[day] = [more]


def fail(world, day):
    world.ledger[day] = world.counted(calls=CALLS + 4, failed=4, without_usage=4)


def raise_the_price(world, day):
    world.costs[day] = [world.billed(usd=Decimal(COST) / USD * 2)]


def forget_the_cache(world, day):
    world.cache_known = False
    world.ledger[day] = world.counted(input=120_000, cache_read=None, cache_write=None, reasoning=None, output=30_000)


def bill_another_model(world, day):
    world.usage[day] = [world.stated(), world.stated("gpt-5.4-2026-03-05")]


def call_another_model(world, day):
    world.models[day] = [("gpt-5.4", world.counted())]


def search_the_web(world, day):
    world.costs[day] = [world.billed(), world.billed("web search tool calls", usd=Decimal("0.02"))]


def shift_the_day(world, day):
    world.shift = {day: 3600}
    world.ledger[day] = world.counted(calls=CALLS - 1)


def have_costs_alone(world, day):
    world.usage[day] = []
    world.costs[day] = [world.billed(usd=Decimal(COST) / USD * 3)]


class Plant(NamedTuple):
    """A difference: what plants it, and which lines are named for what."""

    plant: object
    reasons: dict[Measure, set[Reason]]
    model: str = MODEL


M, R = Measure, Reason
PLANTS = {
    "the ledger begins at noon": Plant(
        begin_at_noon,
        {
            M.CALLS: {R.LEDGER_BEGINS_LATER},
            M.INPUT: {R.LEDGER_BEGINS_LATER},
            M.COST: {R.LEDGER_BEGINS_LATER, R.TOKENS_DIFFER},
        },
    ),
    "calls report no tokens": Plant(lose_usage, {M.INPUT: {R.CALLS_WITHOUT_USAGE}}),
    "tokens without a price": Plant(lose_prices, {M.COST: {R.UNPRICED_TOKENS}}),
    "an estimate": Plant(estimate, {M.COST: {R.ESTIMATED_COST}}),
    "hidden spans": Plant(hide_spans, {M.CALLS: {R.HIDDEN_SPANS, R.CALLS_NOT_SEEN}}),
    "calls past AgentOS": Plant(call_past_agentos, {M.CALLS: {R.CALLS_NOT_SEEN}, M.INPUT: {R.CALLS_NOT_SEEN}}),
    "failed calls": Plant(fail, {M.CALLS: {R.FAILED_CALLS}}),
    "another price": Plant(raise_the_price, {M.COST: {R.PRICE_DIFFERS}}),
    "cached tokens not told apart": Plant(
        forget_the_cache,
        {M.INPUT: {R.CACHE_UNKNOWN}, M.CACHE_READ: {R.CACHE_UNKNOWN}, M.CACHE_WRITE: {R.CACHE_UNKNOWN}},
    ),
    "a model that the ledger has not": Plant(bill_another_model, {M.CALLS: {R.MODEL_ONLY_THEIRS}}, "gpt-5.4"),
    "a model that the export has not": Plant(call_another_model, {M.CALLS: {R.MODEL_ONLY_OURS}}, "gpt-5.4"),
    "money for no token": Plant(search_the_web, {M.COST: {R.BEYOND_TOKENS}}, "web search tool calls"),
    "a day of another time zone": Plant(shift_the_day, {M.CALLS: {R.TIME_ZONE}}),
    "costs alone": Plant(have_costs_alone, {M.COST: {R.USAGE_NOT_STATED}}),
    "calls that wait": Plant(wait_for_details, {M.OUTPUT: {R.CALLS_WAIT}}),
    "the daemon stopped at noon": Plant(stop_at_noon, {M.CALLS: {R.LEDGER_ENDS_EARLIER}}),
    "today": Plant(make_it_today, {M.CALLS: {R.DAY_NOT_OVER}, M.INPUT: {R.DAY_NOT_OVER}}),
}


def found(report, day, plant):
    """Return the reasons of the lines of a day and model that were planted, by measure."""
    return {
        line.measure: {finding.reason for finding in line.findings}
        for line in report.lines
        if (line.day, line.model) == (day, plant.model) and line.measure in plant.reasons
    }


def test_what_is_the_same_is_the_same(tmp_path):
    report = World().report(tmp_path)
    assert report.code == OK
    assert len(report.lines) == 20 * 6
    assert not any(line.findings or line.differs for line in report.lines)
    assert (report.gaps, report.remarks, report.unmatched) == ((), (), ())
    assert {line.model for line in report.lines} == {MODEL}


def day_of(name):
    """Return the day of a plant: the ledger begins on the first one, and today is the last one.

    Another day lies between two of them, as a day of another time zone reaches into the next.
    """
    return FIRST + dt.timedelta(days=2 * [*PLANTS].index(name))


@pytest.mark.parametrize("name", PLANTS)
def test_each_planted_difference_is_found_and_named(tmp_path, name):
    world, plant, day = World(days=2 * len(PLANTS) - 1), PLANTS[name], day_of(name)
    plant.plant(world, day)
    report = world.report(tmp_path)
    assert report.code == DIFFERENT
    assert found(report, day, plant) == plant.reasons
    assert {line.day for line in report.lines if line.differs} == {day}


def test_all_planted_differences_at_once_are_found_and_named(tmp_path):
    world = World(days=2 * len(PLANTS) - 1)
    for name, plant in PLANTS.items():
        plant.plant(world, day_of(name))
    report = world.report(tmp_path)
    for name, plant in PLANTS.items():
        named = found(report, day_of(name), plant)
        assert named.keys() == plant.reasons.keys(), name
        assert all(named[measure] >= reasons for measure, reasons in plant.reasons.items()), name
        # Spans that are hidden and calls that wait are of no day, so they may be of any.
        undated = {R.HIDDEN_SPANS, R.CALLS_WAIT}
        assert all(named[reason] - undated <= reasons for reason, reasons in plant.reasons.items()), name


def test_what_is_in_two_files_counts_once_and_is_named(tmp_path):
    world = World(days=2)
    bucket = {"start_time": start_of(FIRST) // 10**6, "end_time": start_of(FIRST) // 10**6 + 86_400}
    world.again = [("again", {"data": [{**bucket, "results": [world.stated()]}]})]
    report = world.report(tmp_path)
    assert report.code == OK
    assert report.remarks == ((R.DUPLICATE_ROWS, "1 row is in the files twice, and counted once"),)


def test_another_currency_is_refused(tmp_path):
    world = World(days=2)
    world.costs[FIRST] = [world.billed(currency="eur")]
    with pytest.raises(ExportError, match="is in eur, not in USD; export it in USD"):
        world.report(tmp_path)


def test_the_words_of_a_price_that_differs(tmp_path):
    world = World(days=1)
    raise_the_price(world, FIRST)
    (line,) = (line for line in world.report(tmp_path).lines if line.differs)
    text = "the tokens are the same: a million cost 1.41 USD here, 2.82 there"
    assert line.findings == ((R.PRICE_DIFFERS, text),)
    assert (line.difference, line.percent) == (-COST, Decimal("-50.00"))


def test_an_estimate_that_is_too_small_does_not_hide_another_price(tmp_path):
    world = World(days=1)
    world.ledger[FIRST] = world.counted(source="estimated", cost=COST // 100)
    world.models[FIRST] = [(DATED, world.counted() | {"calls": 0} | dict.fromkeys(TOKENS, 0))]
    world.costs[FIRST] = [world.billed(usd=Decimal(COST) / USD / 2)]
    (line,) = (line for line in world.report(tmp_path).lines if line.differs)
    assert {finding.reason for finding in line.findings} == {R.ESTIMATED_COST, R.PRICE_DIFFERS}


def test_models_of_which_nothing_tells_who_bills_them_are_said(tmp_path):
    world = World(days=1)
    run = Sum("it", FIRST, "agentos_runs_total", ("it", "agent", "a"), 3)
    call = Sum("it", FIRST, "agentos_llm_calls_total", ("it", "", "", "", "house-1"), 3)
    (statement,) = vendors.read(world.exports(tmp_path))
    mine = ours(Sums({"it": world.since}, [*world.rows(), run, call]), ["it"], cache_known=True)
    (remark,) = with_vendor(mine, statement, Pricer(), Period(FIRST, FIRST, world.today)).remarks
    assert remark.reason is R.PASSED_OVER
    assert remark.text.endswith("nothing tells who bills them: house-1")


# --- Days and tolerance -----------------------------------------------------------------------------------------------


def test_days_that_one_side_does_not_know_are_gaps(tmp_path):
    world = World(days=4)
    world.since = start_of(FIRST + dt.timedelta(days=1))
    world.days, whole = world.days[:3], world.days
    paths = world.exports(tmp_path)
    world.days = whole
    (statement,) = vendors.read(paths)
    mine = ours(Sums({"it": world.since}, list(world.rows())), ["it"], cache_known=True)
    report = with_vendor(mine, statement, Pricer(), Period(whole[0], whole[3], world.today))
    assert [(gap.day, gap.finding.reason) for gap in report.gaps] == [
        (whole[0], R.LEDGER_BEGINS_LATER),
        (whole[3], R.DAY_NOT_STATED),
    ]
    assert report.code == NOT_COMPARED
    assert {line.day for line in report.lines} == set(whole[1:3])


def test_an_agentos_that_was_never_read_cannot_be_compared(tmp_path):
    world = World(days=2)
    (statement,) = vendors.read(world.exports(tmp_path))
    report = with_vendor(
        ours(Sums({}, []), ["it"], cache_known=True), statement, Pricer(), Period(FIRST, FIRST, world.today)
    )
    assert [gap.finding.reason for gap in report.gaps] == [R.LEDGER_BEGINS_LATER]
    assert report.code == NOT_COMPARED


@pytest.mark.parametrize(("tolerance", "code"), [("0.9", DIFFERENT), ("1", OK)])
def test_tolerance_is_percent_of_their_figure(tmp_path, tolerance, code):
    world = World(days=1)
    world.ledger[FIRST] = world.counted(input=TOKENS["input"] - 1_000)
    assert world.report(tmp_path, tolerance).code == code


def test_costs_that_are_not_told_by_model_are_compared_as_a_whole(tmp_path):
    world = World(days=1)
    world.models[FIRST] = [("gpt-5.4", world.counted())]
    world.usage[FIRST] = [world.stated(), world.stated("gpt-5.4")]
    world.costs[FIRST] = [world.billed(None, usd=Decimal(COST) / USD * 2)]
    report = world.report(tmp_path)
    assert report.code == OK
    assert [(line.model, line.ours) for line in report.lines if line.measure is M.COST] == [("", 2 * COST)]


def test_a_model_without_any_price_has_no_cost_rather_than_none(tmp_path):
    world = World(days=1)
    world.ledger[FIRST] = world.counted(unpriced=150_000, cost=None)
    (line,) = (line for line in world.report(tmp_path).lines if line.differs)
    assert (line.measure, line.ours, line.difference, line.percent) == (M.COST, None, None, None)
    assert [finding.reason for finding in line.findings] == [R.UNPRICED_TOKENS]


def test_calls_of_other_sellers_are_no_difference(tmp_path):
    world = World(days=1)
    mine = [*world.rows()]
    for provider, model in (("azure", "gpt-5.4"), ("anthropic", "claude-sonnet-5-5"), ("ollama", "llama-3")):
        mine.append(Sum("it", FIRST, "agentos_llm_calls_total", ("it", "", "", provider, model), 3))
    mine.append(Sum("another", FIRST, "agentos_llm_calls_total", ("another", "", "", "openai", MODEL), 3))
    (statement,) = vendors.read(world.exports(tmp_path))
    found = ours(Sums({"it": world.since}, mine), ["it"], cache_known=True)
    assert with_vendor(found, statement, Pricer(), Period(FIRST, FIRST, world.today)).code == OK


def test_a_call_whose_provider_is_unknown_is_of_the_vendor_of_its_model(tmp_path):
    world = World(days=1)
    mine = [
        row._replace(labels=tuple("" if label == "openai" else label for label in row.labels)) for row in world.rows()
    ]
    (statement,) = vendors.read(world.exports(tmp_path))
    found = ours(Sums({"it": world.since}, mine), ["it"], cache_known=True)
    assert with_vendor(found, statement, Pricer(), Period(FIRST, FIRST, world.today)).code == OK


# --- AgentOS's own daily metrics --------------------------------------------------------------------------------------


def daily(days, **plants):
    """Return what AgentOS says of each day: its figures, as far as they are not those of the ledger."""
    plain = {M.RUNS: 10, M.PROMPT: 120_000, M.COMPLETION: 30_000}
    rows = {(day, ""): plain | plants.get(f"day{place}", {}) for place, day in enumerate(days)}
    return Statement("AgentOS", "", rows, frozenset(days), frozenset(days), {}, {}, {})


def agentos_report(**plants):
    world = World(days=3)
    rows = [*world.rows(), *(Sum("it", day, "agentos_runs_total", ("it", "agent", "a"), 10) for day in world.days)]
    mine = ours(Sums({"it": world.since}, rows), ["it"], cache_known=False)
    return with_agentos(mine, daily(world.days, **plants), Period(world.days[0], world.days[-1], world.today))


def reasons(report):
    return {
        (line.day.day - FIRST.day, line.measure): {finding.reason for finding in line.findings}
        for line in report.lines
        if line.differs
    }


def test_agentos_says_the_same():
    report = agentos_report()
    assert report.code == OK
    assert len(report.lines) == 9


def test_a_run_counts_on_the_day_its_session_began():
    moved = {M.RUNS: 13, M.PROMPT: 130_000, M.COMPLETION: 32_000}
    rest = {M.RUNS: 7, M.PROMPT: 110_000, M.COMPLETION: 28_000}
    report = agentos_report(day0=moved, day1=rest)
    named = reasons(report)
    assert named.keys() == {(day, measure) for day in (0, 1) for measure in (M.RUNS, M.PROMPT, M.COMPLETION)}
    assert all(R.DATED_BY_SESSION in found for found in named.values())
    assert all(found == {R.DATED_BY_SESSION} for (day, _), found in named.items() if day == 1)


def test_sessions_that_were_deleted():
    report = agentos_report(day1={M.RUNS: 8, M.PROMPT: 100_000, M.COMPLETION: 25_000})
    assert reasons(report) == {(1, measure): {R.SESSIONS_MISSING} for measure in (M.RUNS, M.PROMPT, M.COMPLETION)}


def test_runs_inside_runs():
    assert reasons(agentos_report(day2={M.RUNS: 25})) == {(2, M.RUNS): {R.INNER_RUNS, R.DATED_BY_SESSION}}


def test_what_nothing_explains_says_so():
    report = agentos_report(day2={M.PROMPT: 120_001})
    assert reasons(report) == {(2, M.PROMPT): {R.UNEXPLAINED}}
