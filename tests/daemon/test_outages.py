"""AgentOS fails in each way that needs no network to show: each is named, harms no other, loses and doubles nothing.

What does need one (connections that hang, drip, break) is in tests/real/test_outage.py.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.harness import load, proxy, truth
from tests.harness.driven import Driven, World
from tests.harness.inprocess import Shown

TOKEN = "sesame-7f3a9c"
TOOLS = load.Run("agents", "tools")
PLAIN = load.Run("agents", "plain")
OUTCOMES = ("unreachable", "timeout", "unauthorized", "server_error", "bad_answer", "silent_empty", "state_error")


def polls(shown: Shown, outcome: str, agentos: str = "it") -> float:
    return shown("agentos_exporter_polls_total", agentos=agentos, outcome=outcome)


def no_date(answer: Any) -> None:
    """Spoil the first row of a page."""
    if answer["data"]:
        answer["data"][0]["start_time"] = "tea time"


def wrong_types(answer: Any) -> None:
    answer["data"] = {"rows": answer["data"]}


def shifted(world: World, seconds: float) -> proxy.Fault:
    """Answer with a Date header that is so many seconds off the driven clock."""

    async def fault(request: proxy.Request, forward: proxy.Forward) -> proxy.Reply | None:
        return replace(await forward(), date=formatdate(world.clock.now() + seconds, usegmt=True))

    return fault


@dataclass(frozen=True)
class Case:
    """A fault, the outcome of polls under it, a part of what is said, and the path of the requests that it hits."""

    fault: proxy.Fault | float
    outcome: str
    says: str = ""
    path: str = "/"


SCOPES = "Insufficient permissions. Required scope(s): traces:read"
CASES = {
    "401-missing": Case(proxy.status(401, "Authorization header required"), "unauthorized", "token_file"),
    "401-invalid": Case(proxy.status(401, "Invalid authentication token"), "unauthorized", "token_file"),
    "401-expired": Case(proxy.status(401, "Token has expired"), "unauthorized", "expired; give a valid token"),
    "401-echo": Case(proxy.status(401, f"Bearer {TOKEN} is not welcome"), "unauthorized", "token_file"),
    "403": Case(proxy.status(403, SCOPES), "unauthorized", "needs the scopes traces:read", "/traces"),
    "429": Case(proxy.status(429, "Slow down", {"Retry-After": "20"}), "server_error", "429 Slow down"),
    "500": Case(proxy.status(500, "Internal Server Error"), "server_error", "500 Internal Server Error"),
    "503": Case(proxy.status(503, headers={"Retry-After": "20"}), "server_error", "503"),
    "400": Case(proxy.status(400, "no such operator"), "bad_answer", "400 no such operator", "/traces"),
    "404": Case(proxy.status(404, "Not Found"), "bad_answer", "is this the URL of an AgentOS?", "/traces"),
    "html": Case(proxy.says("<!DOCTYPE html><title>Log in</title>", "text/html"), "bad_answer", "HTML"),
    "empty-body": Case(proxy.says(""), "bad_answer", "the answer is empty"),
    "cut": Case(proxy.cuts, "bad_answer", "cut off"),
    "cut-json": Case(proxy.says('{"data": [{"trace_'), "bad_answer", "not valid JSON"),
    "wrong-types": Case(proxy.alters(wrong_types), "bad_answer", "not a page of traces"),
    "wrong-json": Case(proxy.says('["tea", 418]'), "bad_answer", "not a page of traces"),
    "log-in": Case(proxy.says('<html><form><input type="password">', "text/html"), "bad_answer", "a page to log in"),
    "redirect": Case(
        proxy.redirects(f"http://me:{TOKEN}@127.0.0.1:1/agno?key={TOKEN}#{TOKEN}"),
        "bad_answer",
        "redirected to http://127.0.0.1:1/agno; put the final URL into the configuration",
    ),
    "redirect-within": Case(proxy.redirects("/elsewhere"), "bad_answer", "/elsewhere; put the final URL"),
    "redirect-login": Case(
        proxy.redirects(f"https://login.example.com/oauth2/start?rd={TOKEN}"),
        "bad_answer",
        "redirected to https://login.example.com/oauth2/start, which looks like a page to log in",
    ),
    "br": Case(proxy.encodes("br"), "bad_answer", "which nobody asked for"),
    "closed": Case(proxy.closes, "unreachable", "cannot reach"),
    "empty-page": Case(proxy.empties, "silent_empty", "its database fails", "/traces"),
    "malformed-row": Case(proxy.alters(no_date), "ok", path="/traces/search"),
    "clock-ahead": Case(+300.0, "ok"),
    "clock-behind": Case(-300.0, "ok"),
    "no-clock": Case(proxy.dates(text=""), "ok"),
    "nonsense-clock": Case(proxy.dates(text="Someday, 99 Foo 0000"), "ok"),
    "none": Case(proxy.works, "ok"),
}


@dataclass(frozen=True)
class Outage:
    """What the exporter showed before, while and after each AgentOS failed in its own way."""

    before: Shown
    during: Shown
    after: Shown
    rows: dict[str, str]
    warnings: dict[str, list[str]]
    last: dict[str, str]
    polled: dict[str, int]
    expected: dict[str, truth.Totals]
    everything: str


@pytest.fixture(scope="module")
def remembered() -> dict[str, Outage]:
    """The one outage of this file: its tests look at it from each side."""
    return {}


@pytest.fixture
async def outage(remembered: dict[str, Outage], world: World, folder: Path) -> Outage:
    """All faults at once, on one AgentOS that is read under many names: they also prove to leave each other alone."""
    if not remembered:
        await world.run(TOOLS, PLAIN)
        (folder / "token").write_text(TOKEN)
        agentos = {name: {"token_file": str(folder / "token")} for name in CASES}
        async with world.exporter(folder, agentos, sessions_interval="1h", poll_interval="30s") as exporter:
            remembered["it"] = await suffered(world, exporter)
    return remembered["it"]


async def suffered(world: World, exporter: Driven) -> Outage:
    before = await exporter.until(lambda shown: shown("agentos_up") == len(CASES), within=90)
    for name, case in CASES.items():
        fault = shifted(world, case.fault) if isinstance(case.fault, float) else case.fault
        exporter.ways[name].fail(fault, case.path)
    lines = len(exporter.logged("poll"))
    await world.run(*[TOOLS] * 4)
    during = await exporter.forward(120)
    page, log = await exporter.get("/"), exporter.logged("poll")[lines:]
    for way in exporter.ways.values():
        way.mend()
    expected = {name: world.count(name).totals for name in CASES}
    after = await exporter.until(
        lambda shown: not any(truth.difference(expected[name], shown.of(name)) for name in CASES),
        within=900,
        what="all counted",
    )
    return Outage(
        before,
        during,
        after,
        dict(zip(CASES, page.split("<tbody>")[1].split("</tr>"), strict=False)),
        {
            name: [entry["error"] for entry in log if entry["agentos"] == name and entry["level"] == "warning"]
            for name in CASES
        },
        {entry["agentos"]: entry["error"] for entry in log if "error" in entry},
        {name: sum(entry["agentos"] == name for entry in log) for name in CASES},
        expected,
        exporter.log + page + after.text + await exporter.get("/"),
    )


@pytest.mark.parametrize("name", CASES)
def test_a_fault_has_its_outcome_its_words_and_no_consequences(outage: Outage, name: str) -> None:
    case = CASES[name]
    assert outage.before("agentos_up", agentos=name) == 1
    assert {outcome for outcome in OUTCOMES if polls(outage.during, outcome, name)} == {case.outcome} - {"ok"}
    assert outage.during("agentos_up", agentos=name) == (case.outcome == "ok")
    success = "agentos_exporter_last_success_timestamp_seconds"
    if case.outcome == "ok":
        assert '<td class="error">none</td>' in outage.rows[name]
    else:
        assert case.says in outage.rows[name]
        assert len(outage.warnings[name]) == 1
        assert html.escape(outage.last[name]) in outage.rows[name], "the page and the log say the same"
        assert case.says in outage.warnings[name][0]
        assert outage.during(success, agentos=name) == outage.before(success, agentos=name)
        assert outage.during.of(name).keys() >= {
            key for key in outage.before.of(name) if key[0] == "agentos_runs_total"
        }
    assert outage.after(success, agentos=name) > outage.before(success, agentos=name)
    assert truth.difference(outage.expected[name], outage.after.of(name)) == []
    assert outage.after("agentos_exporter_source_resets_total", agentos=name) == 0


def test_the_token_is_never_shown(outage: Outage) -> None:
    assert "[redacted] is not welcome" in outage.rows["401-echo"]
    assert TOKEN not in outage.everything


def test_a_malformed_row_costs_only_itself(outage: Outage) -> None:
    ignored, name = "agentos_exporter_ignored_traces_total", "malformed-row"
    assert outage.during(ignored, agentos=name, reason="malformed") >= 1
    assert outage.after("agentos_runs_total", agentos=name) - outage.during("agentos_runs_total", agentos=name) == 1


def test_a_broken_agentos_is_asked_less_often_and_delays_no_other(outage: Outage) -> None:
    assert outage.polled["none"] == 4
    assert outage.polled["500"] < outage.polled["none"]


# Back-off


async def test_pauses_grow_up_to_five_minutes_and_differ(world: World, folder: Path) -> None:
    async with world.exporter(folder, {"one": {}, "other": {}}) as exporter:
        for way in exporter.ways.values():
            way.fail(proxy.status(500, "no"))
        await exporter.forward(3600)
        pauses = {name: [b.at - a.at for a, b in pairwise(way.requests)] for name, way in exporter.ways.items()}
        for each in pauses.values():
            assert each[0] < 60
            assert 145 < max(each) < 316
            assert len(each) < 30, "without back-off it would be 240"
        assert pauses["one"] != pauses["other"]
        for way in exporter.ways.values():
            way.mend()
        await exporter.until(lambda shown: shown("agentos_up") == 2, within=315)


@pytest.mark.parametrize("code", [429, 503])
async def test_retry_after_is_kept(world: World, folder: Path, code: int) -> None:
    async with world.exporter(folder) as exporter:
        exporter.ways["it"].fail(proxy.status(code, headers={"Retry-After": "250"}))
        await exporter.forward(1600)
        pauses = [b.at - a.at for a, b in pairwise(exporter.ways["it"].requests)]
        assert 5 <= len(pauses) <= 6
        assert min(pauses) >= 250


# What the database behind AgentOS does


@pytest.mark.parametrize("table", ["agno_traces", "agno_spans"])
async def test_a_database_that_cannot_be_read_is_not_believed(world: World, folder: Path, table: str) -> None:
    await world.drive(runs=12)
    async with world.exporter(folder) as exporter:
        counted = await exporter.exact()
        with world.sql() as connection:
            connection.execute(f"ALTER TABLE {table} RENAME TO hidden")
        shown = await exporter.until(lambda shown: polls(shown, "silent_empty") >= 3, within=900)
        assert shown("agentos_up") == 0
        with world.sql() as connection:
            connection.execute(f"DROP TABLE IF EXISTS {table}")  # AgentOS may have made a new one
            connection.execute(f"ALTER TABLE hidden RENAME TO {table}")
        shown = await exporter.until(lambda shown: shown("agentos_up") == 1, within=600)
        assert truth.difference(counted.totals, shown.of("it")) == []
        await world.run(PLAIN, PLAIN, PLAIN)
        await exporter.exact()
        shown = exporter.scrapes[-1]
        assert shown("agentos_exporter_source_resets_total") == 0
        assert shown("agentos_exporter_open_traces") == 0
        said = exporter.logged("poll", level="warning", outcome="silent_empty")
        assert len(said) == 1
        assert "its database fails" in said[0]["error"]


def added(*parts: truth.Totals, without: truth.Totals) -> truth.Totals:
    """Return the sum of parts, less another."""
    return {  # durations are whole microseconds
        key: round(sum(part.get(key, 0) for part in parts) - without.get(key, 0), 6)
        for key in set().union(*parts, without)
    }


async def test_half_of_the_traces_deleted_is_no_reset(world: World, folder: Path) -> None:
    for seed in range(4):
        await world.drive(runs=5, seed=seed)
        world.clock.forward(600)
    async with world.exporter(folder) as exporter:
        counted = await exporter.exact()
        with world.sql() as connection:
            old = "SELECT trace_id FROM agno_traces ORDER BY end_time LIMIT 10"
            connection.execute(f"DELETE FROM agno_spans WHERE trace_id IN ({old})")
            connection.execute(f"DELETE FROM agno_traces WHERE trace_id IN ({old})")
        await exporter.forward(300)
        await exporter.agree(counted.totals)
        left = world.count().totals
        await world.run(PLAIN, TOOLS)
        await exporter.agree(added(counted.totals, world.count().totals, without=left))
        shown = exporter.scrapes[-1]
        assert shown("agentos_exporter_source_resets_total") == 0
        assert polls(shown, "ok") == shown("agentos_exporter_polls_total")


async def test_a_database_replaced_by_an_empty_one_is_a_reset_once_traces_come(world: World, folder: Path) -> None:
    await world.drive(runs=15)
    async with world.exporter(folder) as exporter:
        counted = await exporter.exact()
        with world.sql() as connection:
            connection.execute("DELETE FROM agno_spans")
            connection.execute("DELETE FROM agno_traces")
        # Until there is a trace again it looks just like a failing database: the documented false alarm.
        shown = await exporter.until(lambda shown: polls(shown, "silent_empty") >= 2, within=600)
        assert truth.difference(counted.totals, shown.of("it")) == []
        for seed in range(40):
            await world.drive(runs=2, seed=seed)
            if (await exporter.forward(30))("agentos_exporter_source_resets_total"):
                break
        await exporter.agree(added(counted.totals, world.count().totals, without={}))
        shown = exporter.scrapes[-1]
        assert shown("agentos_exporter_source_resets_total") == 1
        assert shown("agentos_up") == 1
        assert len(exporter.logged("source_reset")) == 1


async def test_an_outage_of_an_hour_under_load_loses_nothing(world: World, folder: Path) -> None:
    await world.drive(runs=4)
    async with world.exporter(folder) as exporter:
        await exporter.exact()
        exporter.ways["it"].fail(proxy.closes)
        for seed in range(6):
            await world.drive(runs=4, seed=seed)
            await exporter.forward(600)
        assert polls(exporter.scrapes[-1], "unreachable") >= 2
        exporter.ways["it"].mend()
        counted = await exporter.exact(within=900)
        assert counted.traces == 28
        assert exporter.scrapes[-1]("agentos_exporter_source_resets_total") == 0


async def test_a_trace_from_the_future_hides_no_other(world: World, folder: Path) -> None:
    await world.run(PLAIN)
    async with world.exporter(folder) as exporter:
        await exporter.exact()
        world.clock.forward(240)
        await world.run(TOOLS)
        world.clock.seconds -= 240
        for seed in range(6):
            await world.drive(runs=3, seed=seed)
            await exporter.forward(30)
        await exporter.exact()
