"""AgentOS fails in each way it can: each is named, harms no other, and nothing is lost or doubled afterwards."""

import asyncio
import contextlib
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.config import AgentOS
from tests.harness import load, proxy, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.inprocess import Exporter, Shown
from tests.harness.postgres import Postgres
from tests.harness.proxy import FaultyProxy
from tests.harness.seed import seed
from tests.harness.tools import or_skip

TOKEN = "sesame-7f3a9c"
DAY = 86_400


def sql(database: str, *statements: str) -> None:
    """Change agno's SQLite tables behind its back."""
    with sqlite3.connect(database.partition(":")[2], timeout=30) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def hide(database: str, table: str = "agno_traces") -> None:
    sql(database, f"ALTER TABLE {table} RENAME TO hidden")


def unhide(database: str, table: str = "agno_traces") -> None:
    # AgentOS may have made a new, empty table meanwhile.
    sql(database, f"DROP TABLE IF EXISTS {table}", f"ALTER TABLE hidden RENAME TO {table}")


def ids(database: str) -> list[str]:
    return truth.read(database)[0]


async def runs(url: str, number: int, *, agent: str = "plain", **headers: str) -> None:
    """Run an agent a few times; each call may fail."""
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, headers=headers) as client:
        for _ in range(number):
            await client.post(f"/agents/{agent}/runs", data={"message": "Hello", "stream": "false"})


def forget(folder: Path) -> None:
    for path in folder.glob("agno.db*"):
        path.unlink()


async def quiet(agentos: RunningAgentOS) -> None:
    await asyncio.to_thread(agentos.wait_until_quiet)


def polls(outcome: str, least: int = 1, agentos: str = "it") -> Callable[[Shown], bool]:
    return lambda shown: shown("agentos_exporter_polls_total", agentos=agentos, outcome=outcome) >= least


def up(shown: Shown) -> bool:
    return shown("agentos_up", agentos="it") == 1


def failures(shown: Shown, agentos: str = "it") -> float:
    every = shown("agentos_exporter_polls_total", agentos=agentos)
    return every - shown("agentos_exporter_polls_total", agentos=agentos, outcome="ok")


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'agno.db'}"


@pytest.fixture
def agentos(database: str) -> Iterator[RunningAgentOS]:
    with RunningAgentOS(sys.executable, database) as running:
        yield running


# Faults on the way: all at once, one AgentOS each, so that they also prove to leave each other alone.


def no_date(answer: Any) -> None:
    """Spoil the first row of a page."""
    if answer["data"]:
        answer["data"][0]["start_time"] = "tea time"


def wrong_types(answer: Any) -> None:
    answer["data"] = {"rows": answer["data"]}


@dataclass
class Case:
    fault: proxy.Fault
    outcome: str
    says: str  # part of the error, its cure if there is one
    path: str = "/"
    deadline: float = 60.0


SCOPES = "Insufficient permissions. Required scope(s): traces:read"
FAULTS = {
    "401-missing": Case(proxy.status(401, "Authorization header required"), "unauthorized", "token_file"),
    "401-invalid": Case(proxy.status(401, "Invalid authentication token"), "unauthorized", "token_file"),
    "401-expired": Case(proxy.status(401, "Token has expired"), "unauthorized", "expired; give a valid token"),
    "401-echo": Case(proxy.status(401, f"Bearer {TOKEN} is not welcome"), "unauthorized", "token_file"),
    "403": Case(proxy.status(403, SCOPES), "unauthorized", "needs the scopes traces:read", "/traces"),
    "429": Case(proxy.status(429, "Slow down", {"Retry-After": "2"}), "server_error", "429 Slow down"),
    "500": Case(proxy.status(500, "Internal Server Error"), "server_error", "500 Internal Server Error"),
    "503": Case(proxy.status(503, headers={"Retry-After": "2"}), "server_error", "503"),
    "400": Case(proxy.status(400, "no such operator"), "bad_answer", "400 no such operator", "/traces"),
    "404": Case(proxy.status(404, "Not Found"), "bad_answer", "is this the URL of an AgentOS?", "/traces"),
    "html": Case(proxy.says("<!DOCTYPE html><title>Log in</title>", "text/html"), "bad_answer", "HTML"),
    "empty-body": Case(proxy.says(""), "bad_answer", "the answer is empty"),
    "cut": Case(proxy.cuts, "bad_answer", "cut off"),
    "cut-json": Case(proxy.says('{"data": [{"trace_'), "bad_answer", "not valid JSON"),
    "wrong-types": Case(proxy.alters(wrong_types), "bad_answer", "not a page of traces"),
    "wrong-json": Case(proxy.says('["tea", 418]'), "bad_answer", "not a page of traces"),
    "redirect": Case(proxy.redirects("http://127.0.0.1:1/login"), "bad_answer", "final URL"),
    "closed": Case(proxy.closes, "unreachable", "cannot reach"),
    "hang": Case(proxy.hangs, "timeout", "no answer within", deadline=5),
    "drip": Case(proxy.slow(0, drip=2.0), "timeout", "no answer within", deadline=5),
    "empty-page": Case(proxy.empties, "silent_empty", "its database fails", "/traces"),
    # Alone: a row that stays malformed for longer than the overlap is lost, and many take long to fail.
    "malformed-row": Case(proxy.alters(no_date), "ok", "", "/traces/search", deadline=30),
    "slow": Case(proxy.slow(0.2), "ok", ""),
    "clock-ahead": Case(proxy.dates(+300), "ok", ""),
    "clock-behind": Case(proxy.dates(-300), "ok", ""),
    "no-clock": Case(proxy.dates(text=""), "ok", ""),
    "nonsense-clock": Case(proxy.dates(text="Someday, 99 Foo 0000"), "ok", ""),
    "none": Case(proxy.works, "ok", "", deadline=5),
}


@dataclass
class Seen:
    """What the exporter showed before, while and after AgentOS failed in one way."""

    before: Shown
    during: Shown
    after: Shown
    page: str
    log: list[dict[str, Any]]
    everything: str
    difference: list[str] = field(default_factory=list)


async def outage(faults: dict[str, Case], running: RunningAgentOS, folder: Path) -> dict[str, Seen]:
    """Several faults at once, on one AgentOS that is read under many names through a proxy each."""
    url, database, deadline = running.base_url, running.database, next(iter(faults.values())).deadline
    token_file = folder / "token"
    token_file.write_text(TOKEN)
    async with contextlib.AsyncExitStack() as stack:
        proxies = {name: await stack.enter_async_context(FaultyProxy(url)) for name in faults}
        instances = {name: AgentOS(name, one.base_url, token_file=token_file) for name, one in proxies.items()}
        settings = {"poll_interval": 3, "poll_deadline": deadline, "sessions_interval": 3600, "overlap": 15}
        exporter = await stack.enter_async_context(Exporter(instances, folder / f"{deadline}.db", **settings))
        await exporter.until(
            lambda shown: all(
                shown("agentos_exporter_watermark_timestamp_seconds", agentos=name)
                and shown("agentos_up", agentos=name)
                for name in faults
            ),
            deadline=120,
            what="all up",
        )
        before = await exporter.shown()
        for name, case in faults.items():
            proxies[name].fail(case.fault, case.path)
        await runs(url, 4, agent="tools")
        # Where polls still succeed the next one to end may have begun before the last run.
        whole = await exporter.shown()
        ended = {name: round(whole("agentos_exporter_polls_total", agentos=name, outcome="ok")) for name in faults}
        await exporter.until(
            lambda shown: all(
                polls(case.outcome, 2 + (ended[name] if case.outcome == "ok" else 0), name)(shown)
                and shown("agentos_up", agentos=name) == (case.outcome == "ok")
                for name, case in faults.items()
            ),
            deadline=120,
            what="two polls with each outcome",
        )
        during, page, log = await exporter.shown(), await exporter.get("/"), exporter.logged("poll")
        for one in proxies.values():
            one.mend()
        await exporter.until(lambda shown: shown("agentos_up") == len(faults), deadline=120, what="all up again")
        await quiet(running)
        totals = {name: truth.count(database, name).totals for name in faults}
        after, differences = during, {name: ["never compared"] for name in faults}
        end = time.monotonic() + 300
        while any(differences.values()) and time.monotonic() < end:
            after = await exporter.shown()
            differences = {name: truth.difference(totals[name], after.of(name)) for name in faults}
            await asyncio.sleep(0.3)
        everything = exporter.log + page + after.text + await exporter.get("/")
        rows = dict(zip(faults, page.split("<tbody>")[1].split("</tr>"), strict=False))
        return {
            name: Seen(
                before,
                during,
                after,
                rows[name],
                [line for line in log if line["agentos"] == name],
                everything,
                differences[name],
            )
            for name in faults
        }


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    folder = tmp_path_factory.mktemp("outages")
    found: dict[str, Seen] = {}
    with RunningAgentOS(sys.executable, f"sqlite:{folder / 'agno.db'}") as running:
        asyncio.run(runs(running.base_url, 4, agent="tools"))
        running.wait_until_quiet()
        for deadline in sorted({case.deadline for case in FAULTS.values()}):
            faults = {name: case for name, case in FAULTS.items() if case.deadline == deadline}
            found |= asyncio.run(outage(faults, running, folder))
    return found


@pytest.mark.parametrize("name", FAULTS)
def test_fault_has_its_outcome_its_words_and_no_consequences(outages: dict[str, Seen], name: str) -> None:
    case, seen = FAULTS[name], outages[name]
    assert seen.before("agentos_up", agentos=name) == 1
    new = {
        outcome: count
        for outcome in ("unreachable", "timeout", "unauthorized", "server_error", "bad_answer", "silent_empty")
        if (count := seen.during("agentos_exporter_polls_total", agentos=name, outcome=outcome))
    }
    assert set(new) == ({case.outcome} - {"ok"})
    if case.outcome == "ok":
        assert seen.during("agentos_up", agentos=name) == 1
        assert '<td class="error">none</td>' in seen.page
    else:
        assert seen.during("agentos_up", agentos=name) == 0
        assert case.says in seen.page
        said = [line for line in seen.log if line["level"] == "warning"]
        assert len(said) == 1, said
        assert case.says in said[0]["error"]
        assert seen.during("agentos_exporter_last_success_timestamp_seconds", agentos=name) < seen.after(
            "agentos_exporter_last_success_timestamp_seconds", agentos=name
        )
    assert seen.difference == []
    assert seen.after("agentos_exporter_source_resets_total", agentos=name) == 0


def test_the_token_is_never_shown(outages: dict[str, Seen]) -> None:
    assert "[redacted] is not welcome" in outages["401-echo"].page
    for seen in (outages["401-echo"], outages["hang"]):
        assert TOKEN not in seen.everything


def test_a_malformed_row_costs_only_itself(outages: dict[str, Seen]) -> None:
    seen = outages["malformed-row"]
    assert seen.during("agentos_exporter_ignored_traces_total", agentos="malformed-row", reason="malformed") >= 1
    assert seen.after("agentos_runs_total") - seen.during("agentos_runs_total") == 1


def test_a_broken_agentos_delays_no_other(outages: dict[str, Seen]) -> None:
    hanging, sound = (len(outages[name].log) for name in ("hang", "none"))
    assert sound > 1.5 * hanging, "a poll that hangs takes 5 s, and one that works comes every 3 s"


# Back-off


async def asked(fault: proxy.Fault, seconds: float, tmp_path: Path) -> list[float]:
    """Pauses between the polls of an AgentOS that keeps failing, at an interval of 0.2 s."""
    async with (
        FaultyProxy() as broken,
        Exporter({"it": broken.base_url}, tmp_path / f"{time.monotonic()}.db", poll_interval=0.2),
    ):
        broken.fail(fault)
        await asyncio.sleep(seconds)
        return [later.at - earlier.at for earlier, later in pairwise(broken.requests)]


async def test_pauses_grow_and_differ(tmp_path: Path) -> None:
    one, other = await asyncio.gather(*(asked(proxy.status(500, "no"), 8, tmp_path) for _ in range(2)))
    for pauses in (one, other):
        assert 4 <= len(pauses) <= 10, pauses  # without back-off: 40
        assert max(pauses[-2:]) > 3 * pauses[0], pauses
    assert [round(pause, 2) for pause in one] != [round(pause, 2) for pause in other]


@pytest.mark.parametrize("code", [429, 503])
async def test_retry_after_is_kept(tmp_path: Path, code: int) -> None:
    pauses = await asked(proxy.status(code, headers={"Retry-After": "3"}), 7, tmp_path)
    assert pauses
    assert min(pauses) >= 3


# What the real thing does


@pytest.mark.parametrize("table", ["agno_traces", "agno_spans"])
async def test_database_unreadable_while_idle(
    agentos: RunningAgentOS, database: str, tmp_path: Path, table: str
) -> None:
    await load.drive(agentos.base_url, runs=12, leaving=False)
    await quiet(agentos)
    async with Exporter({"it": agentos.base_url}, tmp_path / "state.db") as exporter:
        counted = await exporter.exact(database, "it")
        hide(database, table)
        shown = await exporter.until(polls("silent_empty", 3))
        assert shown("agentos_up") == 0
        unhide(database, table)
        shown = await exporter.until(up)
        assert truth.difference(counted.totals, shown.of("it")) == []
        await runs(agentos.base_url, 3)
        await quiet(agentos)
        await exporter.exact(database, "it")
        shown = await exporter.shown()
        assert shown("agentos_exporter_source_resets_total") == 0
        assert shown("agentos_exporter_open_traces") == 0
        said = exporter.logged("poll", level="warning", outcome="silent_empty")
        assert 1 <= len(said) <= 3
        assert "its database fails" in said[0]["error"]


async def under_load(
    exporter: Exporter,
    agentos: RunningAgentOS,
    breaks: Callable[[], Any],
    mends: Callable[[], Any],
    *,
    broken: Callable[[Shown], bool] = lambda shown: failures(shown) >= 2,
) -> None:
    """Break something while runs go on, until it shows."""
    done = asyncio.Event()
    traffic = asyncio.create_task(load.steady(agentos.base_url, rate=2, until=done, leaving=False, most=8))
    await exporter.until(lambda shown: shown("agentos_runs_total") >= 10)
    await asyncio.to_thread(breaks)
    await exporter.until(broken, what="polls that failed")
    await asyncio.to_thread(mends)
    await exporter.until(up)
    await asyncio.sleep(2)
    done.set()
    await traffic
    await quiet(agentos)


async def test_database_unreadable_under_load(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    async with Exporter({"it": agentos.base_url}, tmp_path / "state.db", trace_horizon=30) as exporter:
        await under_load(exporter, agentos, lambda: hide(database), lambda: unhide(database))
        await exporter.exact(database, "it")
        assert (await exporter.shown())("agentos_exporter_source_resets_total") == 0


@pytest.mark.parametrize("how", ["restarted", "killed"])
async def test_agentos_down_under_load(agentos: RunningAgentOS, database: str, tmp_path: Path, how: str) -> None:
    async with Exporter({"it": agentos.base_url}, tmp_path / "state.db", trace_horizon=30) as exporter:
        stop = agentos.stop if how == "restarted" else agentos.kill
        await under_load(exporter, agentos, stop, agentos.start)
        counted = await exporter.exact(database, "it")
        shown = await exporter.shown()
        # What a crash cut off is exported as hidden, or had no span at all.
        assert shown("agentos_exporter_hidden_spans_total") == len(counted.hidden)
        assert shown("agentos_exporter_polls_total", outcome="unreachable") >= 1
        assert shown("agentos_exporter_source_resets_total") == 0


@pytest.mark.postgres
@pytest.mark.parametrize("kind", ["postgres", "async-postgres"])
async def test_postgresql_down_under_load(tmp_path: Path, kind: str) -> None:
    with or_skip(Postgres) as server, RunningAgentOS(sys.executable, f"{kind}:{server.url('agno')}") as agentos:
        # What AgentOS has begun to write it may finish after the outage: that must not be given up before.
        async with Exporter({"it": agentos.base_url}, tmp_path / "state.db", trace_horizon=40) as exporter:
            # AgentOS answers with no traces; on a loaded machine it may first take too long to answer at all.
            await under_load(exporter, agentos, server.stop, server.start, broken=polls("silent_empty"))
            counted = await exporter.exact(agentos.database, "it", deadline=180)
            shown = await exporter.shown()
            assert shown("agentos_exporter_hidden_spans_total") == len(counted.hidden)
            assert shown("agentos_exporter_polls_total", outcome="silent_empty") >= 1
            assert shown("agentos_exporter_source_resets_total") == 0


async def test_half_of_the_traces_deleted(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    seed(database, 60, until=datetime.now(UTC) - timedelta(seconds=30), spread=timedelta(minutes=40))
    async with Exporter({"it": agentos.base_url}, tmp_path / "state.db") as exporter:
        counted = await exporter.exact(database, "it")
        old = "SELECT trace_id FROM agno_traces ORDER BY end_time LIMIT 30"
        sql(
            database,
            f"DELETE FROM agno_spans WHERE trace_id IN ({old})",
            f"DELETE FROM agno_traces WHERE trace_id IN ({old})",
        )
        await exporter.polls(12, "it")
        await exporter.matches(counted.totals, "it")
        left = truth.count(database, "it").totals
        await runs(agentos.base_url, 3)
        await quiet(agentos)
        now = truth.count(database, "it").totals
        await exporter.matches(added(counted.totals, now, without=left), "it")
        shown = await exporter.shown()
        assert shown("agentos_exporter_source_resets_total") == 0
        assert failures(shown) == 0


def added(*parts: truth.Totals, without: truth.Totals) -> truth.Totals:
    """Return the sum of parts, less another."""
    return {  # durations are whole microseconds
        key: round(sum(part.get(key, 0) for part in parts) - without.get(key, 0), 6)
        for key in set().union(*parts, without)
    }


async def test_database_replaced_by_a_fresh_one(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    await load.drive(agentos.base_url, runs=15, leaving=False)
    await quiet(agentos)
    async with Exporter({"it": agentos.base_url}, tmp_path / "state.db") as exporter:
        counted = await exporter.exact(database, "it")
        agentos.stop()
        forget(tmp_path)
        agentos.start()
        # Until there is a trace again it looks just like a failing database: the documented false alarm.
        shown = await exporter.until(polls("silent_empty"))
        assert truth.difference(counted.totals, shown.of("it")) == []
        done = asyncio.Event()
        traffic = asyncio.create_task(load.steady(agentos.base_url, rate=3, until=done, leaving=False))
        await exporter.until(lambda shown: shown("agentos_exporter_source_resets_total") == 1)
        done.set()
        await traffic
        await quiet(agentos)
        fresh = truth.count(database, "it").totals
        await exporter.matches(added(counted.totals, fresh, without={}), "it")
        shown = await exporter.shown()
        assert shown("agentos_exporter_source_resets_total") == 1
        assert shown("agentos_up") == 1
        assert len(exporter.logged("source_reset")) == 1


async def test_a_trace_from_the_future_hides_no_other(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    async with Exporter({"it": agentos.base_url}, tmp_path / "state.db") as exporter:
        await runs(agentos.base_url, 3)
        await exporter.until(lambda shown: shown("agentos_runs_total") >= 3)
        seed(database, 1, until=datetime.now(UTC) + timedelta(minutes=4), spread=timedelta())
        await exporter.until(lambda shown: shown("agentos_runs_total") >= 4)
        for _ in range(5):
            await runs(agentos.base_url, 4)
            await exporter.polls(2, "it")
        await quiet(agentos)
        await exporter.exact(database, "it")


@pytest.mark.parametrize("shown_before", [False, True])
async def test_ties(agentos: RunningAgentOS, database: str, tmp_path: Path, shown_before: bool) -> None:
    """Rows with one start time come in any order, page after page."""
    async with Exporter({"it": agentos.base_url}, tmp_path / "state.db") as exporter:
        if shown_before:
            await runs(agentos.base_url, 2)
            await exporter.until(lambda shown: shown("agentos_runs_total") >= 2)
        # Each batch is one transaction: rows show with the tied time or not at all.
        spread = timedelta() if shown_before else timedelta(minutes=10)
        seed(database, 230, spread=spread, prompt_bytes=(50, 100))
        tied = (datetime.now(UTC) - timedelta(minutes=11)).isoformat()
        sql(database, f"UPDATE agno_traces SET start_time = '{tied}'")
        await exporter.exact(database, "it")


async def test_replicas_whose_clocks_differ_by_an_overlap(
    agentos: RunningAgentOS, database: str, tmp_path: Path
) -> None:
    """One replica's clock is right, another's is 6 s behind; both write all the time."""
    async with Exporter({"it": agentos.base_url}, tmp_path / "state.db", overlap=6) as exporter:
        for number in range(40):
            late = timedelta(seconds=6) if number % 2 else timedelta()
            seed(database, 1, until=datetime.now(UTC) - late, spread=timedelta(), prompt_bytes=(50, 100), number=number)
            await asyncio.sleep(0.25)
        await exporter.exact(database, "it")


async def test_callers_that_send_sampled_traceparents(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    """With HTTP roots AgentOS never shows such spans: they are exported as hidden, and no poll fails."""
    async with Exporter({"it": agentos.base_url}, tmp_path / "state.db", trace_horizon=8) as exporter:
        for number in range(20):
            await runs(agentos.base_url, 1, agent="tools", traceparent=f"00-{number + 1:032x}-{number + 1:016x}-01")
        await runs(agentos.base_url, 4)
        await quiet(agentos)
        counted = await exporter.exact(database, "it")
        assert len(counted.hidden) > 60
        shown = await exporter.until(
            lambda shown: shown("agentos_exporter_hidden_spans_total") >= len(counted.hidden),
            what=f"{len(counted.hidden)} hidden spans",
        )
        assert shown("agentos_exporter_hidden_spans_total") == len(counted.hidden)
        assert failures(shown) == 0
        await exporter.until(lambda shown: shown("agentos_exporter_open_traces") == 0)


# A backlog


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def week_of_downtime(database: str, traces: int, prompt_bytes: tuple[int, int]) -> None:
    seed(database, traces, spread=timedelta(days=7) - timedelta(minutes=5), prompt_bytes=prompt_bytes, number=2)


async def stopped_a_week_ago(url: str, database: str, state: Path, **settings: Any) -> None:
    """Let an exporter read what there was a week ago, and stop it."""
    seed(database, 5, until=datetime.now(UTC) - timedelta(days=7), spread=timedelta(hours=1), number=1)
    async with Exporter({"it": url}, state, initial_lookback=8 * DAY, **settings) as exporter:
        await exporter.exact(database, "it")


async def test_a_week_of_downtime_is_caught_up(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    state = tmp_path / "state.db"
    await stopped_a_week_ago(agentos.base_url, database, state)
    week_of_downtime(database, 3_000, (4_000, 12_000))
    held, most, catching_up = resident(), 0, []
    async with Exporter({"it": agentos.base_url}, state, poll_deadline=5) as exporter:
        while not catching_up or catching_up[-1] or not any(catching_up):
            catching_up.append((await exporter.shown())("agentos_exporter_catching_up"))
            most = max(most, resident())
            assert len(catching_up) < 1200
            await asyncio.sleep(0.1)
        await exporter.exact(database, "it")
        shown = await exporter.shown()
        assert shown("agentos_exporter_ignored_traces_total", reason="too_old") == 0
    read = shown("agentos_exporter_api_response_bytes_total")
    print(f"3,000 traces: {read / 2**20:.0f} MiB read, {(most - held) / 2**20:.0f} MiB held")
    assert most - held < 150 * 2**20


async def test_database_unreadable_while_a_backlog_is_read(
    agentos: RunningAgentOS, database: str, tmp_path: Path
) -> None:
    state = tmp_path / "state.db"
    await stopped_a_week_ago(agentos.base_url, database, state)
    week_of_downtime(database, 2_500, (500, 1_000))
    async with Exporter({"it": agentos.base_url}, state, poll_deadline=5) as exporter:
        await exporter.until(lambda shown: shown("agentos_runs_total") >= 200)
        hide(database)
        shown = await exporter.until(polls("silent_empty", 2))
        assert shown("agentos_runs_total") < 2_500
        unhide(database)
        await exporter.exact(database, "it")
        assert (await exporter.shown())("agentos_exporter_source_resets_total") == 0


async def test_a_poll_beyond_its_deadline_keeps_its_progress(
    agentos: RunningAgentOS, database: str, tmp_path: Path
) -> None:
    seed(database, 450, spread=timedelta(minutes=20), prompt_bytes=(500, 1_000))
    async with FaultyProxy(agentos.base_url) as slow_way:
        slow_way.fail(proxy.slow(0.5), "/traces/search")
        async with Exporter({"it": slow_way.base_url}, tmp_path / "state.db", poll_deadline=5) as exporter:
            # On a slow machine the first polls may not come to anything.
            shown = await exporter.until(lambda shown: failures(shown) >= 1 and shown("agentos_runs_total") > 0)
            assert polls("timeout")(shown)
            assert shown("agentos_up") == 0
            assert 0 < shown("agentos_runs_total") < 450
            await exporter.exact(database, "it", deadline=180)


# Who may read what


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningAgentOS, tuple[str, str]]]:
    """An AgentOS with a security key and two databases, each with some traces."""
    folder = tmp_path_factory.mktemp("guarded")
    both = f"sqlite:{folder / 'one.db'}", f"sqlite:{folder / 'two.db'}"
    for number, database in enumerate(both):
        seed(database, 10, spread=timedelta(minutes=10), prompt_bytes=(50, 100), number=number)
    with RunningAgentOS(sys.executable, both[0], second_db=both[1], security_key=TOKEN) as running:
        yield running, both


async def test_the_token_file_is_rotated(guarded, tmp_path: Path) -> None:
    running, _ = guarded
    token = tmp_path / "token"
    token.write_text("stale-token")
    instance = AgentOS("it", running.base_url, token_file=token)
    async with Exporter({"it": instance}, tmp_path / "state.db") as exporter:
        await exporter.until(polls("unauthorized", 2))
        token.write_text(TOKEN + "\n")
        await exporter.until(lambda shown: up(shown) and shown("agentos_runs_total") == 20)
        token.write_text("another-token")
        await exporter.until(lambda shown: shown("agentos_up") == 0)
        assert "give a valid token" in await exporter.get("/")
        token.unlink()
        before = (await exporter.shown())("agentos_exporter_polls_total", agentos="it", outcome="unauthorized")
        await exporter.until(polls("unauthorized", before + 2))  # one may have been under way
        assert str(token) in await exporter.get("/")
        token.write_text(TOKEN)
        await exporter.until(up)
        shown = await exporter.shown()
        assert shown("agentos_runs_total") == 20
        everything = exporter.log + shown.text + await exporter.get("/")
        for secret in (TOKEN, "stale-token", "another-token"):
            assert secret not in everything


async def test_config_forbidden_and_one_database(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    async with FaultyProxy(agentos.base_url) as way:
        way.fail(proxy.status(403, "Insufficient permissions. Required scope(s): config:read"), "/config")
        async with Exporter({"it": way.base_url}, tmp_path / "state.db", sessions_interval=1) as exporter:
            await load.drive(agentos.base_url, runs=12, leaving=False)
            await quiet(agentos)
            await exporter.exact(database, "it")
            assert failures(await exporter.shown()) == 0
            said = exporter.logged("config_forbidden")
            assert len(said) == 1
            assert "config:read" in said[0]["reason"]
            assert not exporter.logged("survey")
        assert not [request for request in way.requests if "db_id" in request.target]


async def test_config_forbidden_and_several_databases(guarded, tmp_path: Path) -> None:
    running, both = guarded
    token = tmp_path / "token"
    token.write_text(TOKEN)
    async with FaultyProxy(running.base_url) as way:
        way.fail(proxy.status(403, "Insufficient permissions. Required scope(s): config:read"), "/config")
        instance = AgentOS("it", way.base_url, token_file=token)
        async with Exporter({"it": instance}, tmp_path / "state.db") as exporter:
            await exporter.until(polls("bad_answer", 2))
            assert "db_ids" in exporter.logged("poll", level="warning")[0]["error"]
            assert "db_ids" in await exporter.get("/")
        instance = AgentOS("it", way.base_url, token_file=token, db_ids=("harness-db", "second-db"))
        async with Exporter({"it": instance}, tmp_path / "state.db") as exporter:
            await exporter.matches(truth.count(both, "it").totals, "it")
            assert failures(await exporter.shown()) == 0


async def test_one_of_several_databases_is_unknown(guarded, tmp_path: Path) -> None:
    running, _ = guarded
    token = tmp_path / "token"
    token.write_text(TOKEN)
    instance = AgentOS("it", running.base_url, token_file=token, db_ids=("gone-db", "second-db"))
    async with Exporter({"it": instance}, tmp_path / "state.db") as exporter:
        shown = await exporter.until(polls("bad_answer", 2))
        assert shown("agentos_runs_total") == 10, "the other one is read nevertheless"
        assert "db_ids" in await exporter.get("/")
