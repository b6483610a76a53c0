"""One outage of each kind over real connections: each is named, harms no other, and nothing is lost or doubled.

The faults that need no network are in tests/daemon/test_outages.py, longer outages in tests/long/test_outage.py.
"""

import contextlib
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from exporter.config import AgentOS
from tests.harness import load, proxy, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.downtime import exact_but_for_hidden, failures, polls, quiet, runs, under_load, up
from tests.harness.inprocess import Exporter, Shown
from tests.harness.postgres import Postgres
from tests.harness.proxy import FaultyProxy
from tests.harness.seed import seed
from tests.harness.tools import or_skip

TOKEN = "sesame-7f3a9c"
DEADLINE = 5.0
"""Of a poll, in seconds: a fault that is waited for takes it all."""

FAULTS = {
    "closed": (proxy.closes, "unreachable", "cannot reach"),
    "cut": (proxy.cuts, "bad_answer", "cut off"),
    "hang": (proxy.hangs, "timeout", "no answer within"),
    "drip": (proxy.slow(0, drip=2.0), "timeout", "no answer within"),
    "slow": (proxy.slow(0.2), "ok", ""),
    "none": (proxy.works, "ok", ""),
}
"""Fault of the connection, outcome of the poll, and a part of what is said."""


def polls_of(shown: Shown, agentos: str, outcome: str) -> float:
    return shown("agentos_exporter_polls_total", agentos=agentos, outcome=outcome)


@pytest.mark.slow
async def test_connections_that_fail(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    """All at once, on one AgentOS that is read under many names, so that they also prove to leave each other alone."""
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    await runs(agentos.base_url, 4, agent="tools")
    async with contextlib.AsyncExitStack() as stack:
        proxies = {name: await stack.enter_async_context(FaultyProxy(agentos.base_url)) for name in FAULTS}
        instances = {name: AgentOS(name, one.base_url, token_file=token_file) for name, one in proxies.items()}
        settings = {
            "poll_interval": 1,
            "poll_deadline": DEADLINE,
            "sessions_interval": 3600,
            "operations_interval": 3600,
        }
        exporter = await stack.enter_async_context(Exporter(instances, tmp_path / "state.db", **settings))
        await exporter.until(lambda shown: shown("agentos_up") == len(FAULTS), what="all up")
        for name, (fault, _, _) in FAULTS.items():
            proxies[name].fail(fault)
        shown = await exporter.until(
            lambda shown: all(polls(outcome, 2, name)(shown) for name, (_, outcome, _) in FAULTS.items()),
            what="two polls with each outcome",
        )
        rows = dict(zip(FAULTS, (await exporter.get("/")).split("<tbody>")[1].split("</tr>"), strict=False))
        for name, (_, outcome, says) in FAULTS.items():
            assert shown("agentos_up", agentos=name) == (outcome == "ok"), name
            others = failures(shown, name) - (outcome != "ok") * polls_of(shown, name, outcome)
            assert others == 0, name
            assert says in rows[name], rows[name]
        polled = {name: len(exporter.logged("poll", agentos=name)) for name in FAULTS}
        assert polled["none"] > 1.5 * polled["hang"], (
            "a poll that hangs takes 5 s, and one that works comes every second"
        )
        await runs(agentos.base_url, 4, agent="tools")
        for one in proxies.values():
            one.mend()
        await quiet(agentos)
        for name in FAULTS:
            await exporter.exact(database, name)
        everything = exporter.log + await exporter.get("/") + (await exporter.shown()).text
        assert TOKEN not in everything
        assert (await exporter.shown())("agentos_exporter_source_resets_total") == 0


@pytest.mark.slow
async def test_agentos_killed_under_load(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    async with Exporter({"it": agentos.base_url}, tmp_path / "state.db", trace_horizon=30) as exporter:
        await under_load(exporter, agentos, agentos.kill, agentos.start)
        shown = await exact_but_for_hidden(exporter, database)
        assert shown("agentos_exporter_polls_total", outcome="unreachable") >= 1


@pytest.mark.slow
@pytest.mark.postgres
async def test_postgresql_down_under_load(tmp_path: Path) -> None:
    with or_skip(Postgres) as server, RunningAgentOS(sys.executable, f"postgres:{server.url('agno')}") as agentos:
        # What AgentOS has begun to write it may finish after the outage: that must not be given up before.
        async with Exporter({"it": agentos.base_url}, tmp_path / "state.db", trace_horizon=40) as exporter:
            await under_load(exporter, agentos, server.stop, server.start, broken=polls("silent_empty"))
            await exact_but_for_hidden(exporter, agentos.database)


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
