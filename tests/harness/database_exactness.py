"""Mixed runs and damage in the tables of a real AgentOS: /metrics shows what an independent SQL count finds."""

import asyncio
import sys
import time
from pathlib import Path

from tests.harness import damage, load, sqltruth, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import RunningExporter, reads, total

RUNS = 150
NAME = "tables"
API = "api"
SMALL = (50, 80)
HORIZON = "40s"
"""of open traces; longer than any run takes here"""


def check_health(exporter: RunningExporter, name: str = NAME) -> None:
    """Nothing hidden, nothing waited for, nothing ignored, no poll that failed."""
    waited_for = "agentos_exporter_open_traces"  # a gauge that is worked out anew every few seconds
    truth.wait_until(lambda: exporter.total(waited_for, agentos=name) == 0, pause=0.5)
    samples = exporter.samples()
    assert total(samples, "agentos_exporter_hidden_spans_total", agentos=name) == 0
    assert total(samples, "agentos_exporter_ignored_traces_total", agentos=name) == 0
    assert total(samples, "agentos_exporter_source_resets_total", agentos=name) == 0
    assert total(samples, "agentos_exporter_series_limited_total") == 0
    polls = total(samples, "agentos_exporter_polls_total", agentos=name)
    assert 0 < polls == total(samples, "agentos_exporter_polls_total", agentos=name, outcome="ok")
    assert total(samples, "agentos_up", agentos=name) == 1


def check_people(exporter: RunningExporter, database: str, expected: truth.Truth) -> None:
    """Active sessions and users are those that spans name, and as many sessions are reported as the table has."""
    with truth.snapshot(database) as (connection, schema):
        (sessions,) = connection.execute(f"SELECT count(*) FROM {schema}agno_sessions").fetchone()
    assert expected.sessions
    assert expected.users
    assert sessions

    def equal() -> bool:
        samples = exporter.samples()
        shown = {
            (what, total(samples, f"agentos_active_{what}", agentos=NAME, window=window))
            for window in ("1h", "24h")
            for what in ("sessions", "users")
        }
        return (
            shown == {("sessions", len(expected.sessions)), ("users", len(expected.users))}
            and total(samples, "agentos_sessions", agentos=NAME) == sessions
        )

    truth.wait_until(equal, pause=0.5)


def crash(agentos: RunningAgentOS, database: str, runs: int) -> load.Outcome:
    """Send runs and kill AgentOS in their midst, when it has written some spans of many; start it again."""
    before = len(truth.read(database)[1])

    async def go() -> load.Outcome:
        driving = asyncio.create_task(
            load.drive(agentos.base_url, runs=runs, seed=2, kinds=load.ACCOUNTED, leaving=False)
        )
        await asyncio.to_thread(truth.wait_until, lambda: len(truth.read(database)[1]) > before + 100)
        await asyncio.to_thread(agentos.kill)
        return await driving

    outcome = asyncio.run(go())
    agentos.start()
    return outcome


def exact(database: str, folder: Path, *, api: bool = False, seed_of_load: int = 1) -> None:
    """Everything that can happen to spans, before and while the tables are read; then everything must agree."""
    with RunningAgentOS(sys.executable, database) as agentos:
        asyncio.run(load.drive(agentos.base_url, runs=45, seed=seed_of_load, kinds=load.ACCOUNTED))
        agentos.wait_until_quiet()
        lost = damage.lose(database)
        assert lost > 10
        instances = {NAME: reads(database)} | ({API: agentos.base_url} if api else {})
        # What is committed later than the overlap is lost: a loaded machine takes its time.
        with RunningExporter(folder, instances, trace_horizon=HORIZON, overlap="10s") as exporter:
            crashed = crash(agentos, database, 60)
            assert crashed.failed
            outcome = asyncio.run(load.drive(agentos.base_url, runs=RUNS, seed=seed_of_load, kinds=load.ACCOUNTED))
            assert (outcome.started, outcome.failed) == (RUNS, {})
            assert asyncio.run(damage.remote_parents(agentos.base_url, 10)) == 10
            agentos.wait_until_quiet()
            expected = sqltruth.count(database, NAME)
            assert expected.traces >= 45 + RUNS + 10 - outcome.left - 3
            check_span_facts(expected)
            began = time.monotonic()
            exporter.agree(expected)
            check_health(exporter)
            check_people(exporter, database, expected)
            if api:
                exporter.agree(truth.count(database, API), settle=1)
            exporter.kill()
            exporter.start()
            exporter.agree(expected, settle=2)
            check_health(exporter)
            print(
                f"{database.partition(':')[0]}: {expected.traces} traces, {expected.spans} spans, {lost} deleted, "
                f"{sum(crashed.failed.values())} runs killed, {len(expected.hidden)} spans the API cannot show: "
                f"difference 0 after {time.monotonic() - began:.1f} s"
            )


def check_span_facts(expected: truth.Truth) -> None:
    """The runs have all that only tables can tell."""
    for token_class in ("input", "cache_read", "cache_write", "output", "reasoning"):
        assert expected.total("agentos_llm_tokens_total", token_class=token_class), token_class
    assert expected.total("agentos_llm_calls_total", provider="ourselves")
    assert expected.total("agentos_llm_cost_usd_total", cost_source="reported")
    assert 30 < expected.total("agentos_exporter_orphan_spans_total") <= len(expected.hidden)
    assert expected.total("agentos_traces_total", root_kind="unknown")
    assert expected.total("agentos_runs_total", root="Plain")
