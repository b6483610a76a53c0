"""The part of a vendor's bill that the ledger has: when it is worked out, and when it is not known."""

import datetime as dt
import json
from decimal import Decimal
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from exporter.bookkeeping.shared import Shared
from exporter.config import AgentOS, Check
from exporter.core.errors import StateError
from exporter.core.model import Clock
from exporter.core.times import day_of
from exporter.counting.delta import Delta
from exporter.ledger.records import Changes
from exporter.ledger.store import Ledger
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from exporter.pricing.money import USD
from exporter.reconcile.capture import capture_ratio
from exporter.reconcile.figures import Measure, Statement, start_of
from exporter.reconcile.ours import Ours, Tally
from exporter.service.capture import AGAIN, EVERY, CostCapture

TODAY = dt.date(2026, 11, 20)
DAYS = [TODAY - dt.timedelta(days=count) for count in range(8)]
GAUGE = "agentos_cost_capture_ratio"


def tally(usd):
    found = Tally(calls=1)
    found.costs["listed"] = int(Decimal(usd) * USD)
    return found


def stated(costs, *, complete=None, beyond=None):
    rows = {(day, "gpt-5.4"): {Measure.COST: int(Decimal(usd) * USD)} for day, usd in costs.items()}
    days = frozenset(costs)
    return Statement("OpenAI", "openai", rows, days, days if complete is None else complete, beyond or {}, {}, {})


def ratio(ours, statement, days=7):
    return capture_ratio(ours, statement, days=days, today=TODAY)


def test_our_cost_over_theirs_of_the_last_whole_days():
    mine = {(day, "openai", "gpt-5.4-mini"): tally("3") for day in DAYS}
    mine |= {(day, "anthropic", "claude-sonnet-5-5"): tally("50") for day in DAYS}
    theirs = stated(dict.fromkeys(DAYS, "4"))
    assert ratio(Ours(0, mine), theirs) == Decimal("0.75")
    assert ratio(Ours(start_of(DAYS[2]), mine), theirs) == Decimal("0.75")


def test_what_is_no_token_is_a_part_of_the_bill():
    mine = {(DAYS[1], "openai", "gpt-5.4"): tally("3")}
    beyond = {(DAYS[1], "web search"): 2 * USD, (DAYS[2], "web search"): 99 * USD}
    theirs = stated({DAYS[1]: "4"}, beyond=beyond)
    assert ratio(Ours(0, mine), theirs) == Decimal("0.5")


@pytest.mark.parametrize(
    ("since", "costs", "complete"),
    [
        (None, {DAYS[1]: "4"}, None),
        (start_of(DAYS[1]) + 1, {DAYS[1]: "4"}, None),
        (0, {DAYS[0]: "4"}, None),
        (0, {DAYS[1]: "4"}, frozenset()),
        (0, {TODAY - dt.timedelta(days=8): "4"}, None),
        (0, {DAYS[1]: "0"}, None),
        (0, {}, None),
    ],
    ids=["never read", "begun that day", "today", "not whole", "too old", "costs nothing", "nothing stated"],
)
def test_what_is_not_known_has_no_ratio(since, costs, complete):
    mine = {(day, "openai", "gpt-5.4"): tally("3") for day in DAYS}
    assert ratio(Ours(since, mine), stated(costs, complete=complete)) is None


# --- The job ----------------------------------------------------------------------------------------------------------


class Daemon:
    """What the job sees of a daemon."""

    def __init__(self, folder, monkeypatch):
        self.now = start_of(TODAY) / 10**6 + 7200
        self.ledger = Ledger(None)
        self.shared = Shared(self.ledger, Totals(Limits(), zero_hold=0), Clock(lambda: self.now, lambda: self.now))
        self.file = folder / "costs.json"
        self.config = SimpleNamespace(reconcile=(Check("openai", str(folder / "*.json")),))
        self.agentos = [AgentOS("it", "http://it")]
        self.asked = []
        self.failure = None
        self.spend("3")
        self.read_days = self.ledger.days
        monkeypatch.setattr(self.ledger, "days", self.days)
        jobs = SimpleNamespace(add=lambda *_, **__: None)
        self.capture = CostCapture(self.shared, jobs, lambda: self.config, lambda: self.agentos)
        self.catches_up(0)

    def days(self, agentos, first, last):
        self.asked.append((agentos, first, last))
        if self.failure is not None:
            raise self.failure
        return self.read_days(agentos, first, last)

    def spend(self, usd):
        delta = Delta("it")
        labels = ("it", "", "", "openai", "gpt-5.4", "input", "listed")
        delta.add_on(day_of(start_of(DAYS[1])), "agentos_llm_cost_usd_total", labels, int(Decimal(usd) * USD))
        self.shared.commit(Changes("it", cursor=("db", {"floor": 0})), delta, show=True)

    def catches_up(self, value):
        self.shared.totals.gauge("agentos_exporter_catching_up", ("it",), value)
        self.shared.totals.gauge("agentos_exporter_last_success_timestamp_seconds", ("it",), 1)

    def bill(self, usd, currency="usd"):
        start = start_of(DAYS[1]) // 10**6
        result = {"amount": {"value": usd, "currency": currency}, "line_item": "gpt-5.4, input"}
        self.file.write_text(
            json.dumps({"data": [{"start_time": start, "end_time": start + 86_400, "results": [result]}]})
        )

    async def look(self, after=0.0):
        self.now += after
        await self.capture.look()
        checks = self.config.reconcile
        return self.shared.totals.value(GAUGE, (checks[0].agentos if checks else "", "openai"))


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    return Daemon(tmp_path, monkeypatch)


async def test_it_is_worked_out_once_a_day(daemon):
    daemon.bill(4)
    assert await daemon.look() == 0.75
    assert daemon.asked == [(None, TODAY - dt.timedelta(days=7), TODAY)]
    daemon.bill(6)
    assert await daemon.look(after=EVERY - 1) == 0.75
    assert await daemon.look(after=1) == 0.5


async def test_a_file_that_cannot_be_read_shows_nothing_and_says_so_once(daemon):
    daemon.bill(4, currency="eur")
    with capture_logs() as logs:
        assert await daemon.look() is None
        assert await daemon.look(after=AGAIN) is None
    (line,) = logs
    assert line["error"].endswith("is in eur, not in USD; export it in USD")
    daemon.bill(4)
    assert await daemon.look(after=AGAIN - 1) is None
    assert await daemon.look(after=1) == 0.75
    daemon.file.unlink()
    with capture_logs() as logs:
        assert await daemon.look(after=EVERY) is None
    assert logs[-1]["error"] == "*.json: there is no such file"


async def test_a_state_that_fails_shows_nothing(daemon):
    daemon.bill(4)
    assert await daemon.look() == 0.75
    daemon.failure = StateError("the disk is gone")
    assert await daemon.look(after=EVERY) is None


async def test_a_surprise_shows_nothing_and_is_logged(daemon):
    daemon.bill(4)
    daemon.failure = RuntimeError("surprise")
    with capture_logs() as logs:
        assert await daemon.look() is None
    assert logs[0]["event"] == "reconcile_bug"
    daemon.failure = None
    assert await daemon.look(after=AGAIN) == 0.75


async def test_it_waits_until_nothing_is_caught_up_with(daemon):
    daemon.bill(4)
    daemon.catches_up(1)
    assert await daemon.look() is None
    daemon.catches_up(0)
    daemon.shared.totals.gauge("agentos_exporter_last_success_timestamp_seconds", ("it",), None)
    assert await daemon.look(after=60) is None
    assert daemon.asked == []
    daemon.catches_up(0)
    assert await daemon.look(after=60) == 0.75


async def test_a_configuration_that_changes_is_honoured(daemon):
    daemon.bill(4)
    assert await daemon.look() == 0.75
    daemon.config.reconcile = ()
    assert await daemon.look(after=60) is None
    (check,) = [Check("openai", str(daemon.file), "it", 2)]
    daemon.config.reconcile = (check,)
    assert await daemon.look(after=60) == 0.75
    assert daemon.asked[-1][:2] == ("it", TODAY - dt.timedelta(days=2))
    daemon.config.reconcile = (check._replace(agentos="gone"),)
    assert await daemon.look(after=60) is None
    assert daemon.shared.totals.value(GAUGE, ("it", "openai")) is None


async def test_who_does_not_lead_shows_nothing(daemon):
    daemon.bill(4)
    daemon.shared.led = {"it": object()}
    assert await daemon.look() is None
    daemon.shared.led = {"it": object(), "": object()}
    assert await daemon.look(after=60) == 0.75
