"""The harness itself: what it counts is what AgentOS shows, and every kind of run is among it."""

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.harness import load, seed, truth, venvs
from tests.harness.agentos import UNSAMPLED, RunningAgentOS
from tests.harness.postgres import Postgres
from tests.harness.tools import or_skip

RUNS = 60
"""Enough for each kind of run; the exact tests send more."""


def nodes(spans: list[dict] | None) -> Iterator[str]:
    for span in spans or []:
        yield span["id"]
        yield from nodes(span.get("spans"))


def shown(base_url: str, *, search: bool = True) -> set[str]:
    """Return the ids of all spans that AgentOS shows."""
    found: list[str] = []
    with httpx.Client(base_url=base_url, headers=UNSAMPLED, timeout=60, trust_env=False) as client:

        def rows(method: str, path: str, **more: object) -> list[dict]:
            return client.request(method, path, **more).raise_for_status().json()["data"]

        if search:
            page = 1
            while traces := rows("POST", "/traces/search", json={"page": page, "limit": 100}):
                found += [node for trace in traces for node in nodes(trace["tree"])]
                page += 1
        else:
            for trace in rows("GET", "/traces", params={"limit": 10_000}):
                found += nodes(client.get(f"/traces/{trace['trace_id']}").raise_for_status().json()["tree"])
    assert len(found) == len(set(found))
    return set(found)


def drive(python: str | Path, database: str, *, search: bool = True) -> truth.Truth:
    """Send runs of each kind, and check that AgentOS shows the spans that are counted as visible."""
    with RunningAgentOS(python, database) as agentos:
        outcome = asyncio.run(load.drive(agentos.base_url, runs=RUNS))
        agentos.wait_until_quiet()
        counted = truth.count(database, "prod")
        assert counted.visible == shown(agentos.base_url, search=search)
    assert (outcome.started, outcome.failed, set(outcome.codes)) == (RUNS, {}, set(outcome.codes) & {200, 202})
    assert outcome.left >= 2
    return counted


def check(counted: truth.Truth, *, tool_errors: bool = True, model_errors: bool = True) -> None:
    assert not counted.hidden
    assert not counted.empty_traces
    assert counted.traces >= RUNS
    assert counted.nested_llm
    for kind in ("AGENT", "TEAM", "WORKFLOW", "LLM", "TOOL"):
        assert counted.kinds[kind], kind
    for kind in ("agent", "team", "workflow"):
        assert counted.total("agentos_traces_total", root_kind=kind)
        assert counted.total("agentos_runs_total", root_kind=kind)
    # `root` is a label of most: the sums over it agree where they describe the same spans.
    runs = counted.total("agentos_runs_total")
    assert runs == counted.total("agentos_run_duration_seconds_count") == counted.total("agentos_run_llm_calls_count")
    calls = counted.total("agentos_llm_calls_total")
    assert calls == counted.kinds["LLM"] - counted.nested_llm == counted.total("agentos_spans_total", span_kind="llm")
    assert calls == counted.total("agentos_run_llm_calls_sum")
    assert counted.total("agentos_tool_calls_total") == counted.kinds["TOOL"]
    assert counted.total("agentos_llm_calls_without_usage_total", agent="No_Usage")
    assert counted.total("agentos_llm_calls_total", provider="vertexai")
    assert counted.total("agentos_llm_calls_total", provider="", model="our-model-7b")
    assert counted.total("agentos_llm_calls_total", root="Nesting_Agent_v1.2", agent="Inner_Agent")
    assert counted.total("agentos_llm_calls_total", root="Hooked", agent="Auditor")
    assert counted.total("agentos_llm_calls_total", root="Report_Flow", agent="Claude_Agent")
    tokens = {c: counted.total("agentos_llm_tokens_total", token_class=c) for c in ("input", "output")}
    assert tokens["input"] == counted.total("agentos_llm_call_input_tokens_sum")
    assert tokens["output"] == counted.total("agentos_llm_call_output_tokens_sum")
    assert bool(counted.total("agentos_tool_call_errors_total", error_type="other")) == tool_errors
    assert bool(counted.total("agentos_tool_call_errors_total", error_type="DatabaseError")) == tool_errors
    assert bool(counted.total("agentos_llm_call_errors_total", error_type="ModelProviderError")) == model_errors
    assert bool(counted.total("agentos_run_errors_total", root="Failing_Model", error_type="other")) == model_errors


@pytest.mark.slow
def test_newest_agno_with_http_roots(tmp_path: Path) -> None:
    counted = drive(sys.executable, f"sqlite:{tmp_path / 'agno.db'}")
    check(counted)
    assert counted.kinds["UNKNOWN"]
    assert counted.error_kinds["UNKNOWN"] == 0


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize("name", ["newest-plain", "agno26", "agno23"])
def test_other_releases(name: str, tmp_path: Path) -> None:
    setup = venvs.SETUPS[name]
    counted = drive(venvs.python(name), f"sqlite:{tmp_path / 'agno.db'}", search=setup.search)
    # Instrumentors of their days: 0.1.25 writes no span for a failed tool, 0.1.38 marks failed model calls OK.
    check(counted, tool_errors=name != "agno23", model_errors=name == "newest-plain")
    assert bool(counted.kinds["UNKNOWN"]) == setup.http_roots


@pytest.mark.slow
@pytest.mark.postgres
def test_postgresql() -> None:
    with or_skip(Postgres) as server:
        check(drive(sys.executable, f"postgres:{server.url('agno')}"))
        seed.seed(f"postgres:{server.url('seeded')}", 20, prompt_bytes=(50, 80))
        assert truth.count(f"postgres:{server.url('seeded')}", "prod").traces == 20


def test_a_killed_agentos_comes_back_on_its_port(tmp_path: Path) -> None:
    def calls() -> float:
        return truth.count(agentos.database, "prod").total("agentos_llm_calls_total")

    async def scenario() -> load.Outcome:
        stop = asyncio.Event()
        traffic = asyncio.create_task(load.steady(agentos.base_url, rate=20, until=stop))
        await asyncio.to_thread(truth.wait_until, lambda: calls() > 5)
        await asyncio.to_thread(agentos.kill)
        before = calls()
        await asyncio.to_thread(agentos.start)
        await asyncio.to_thread(truth.wait_until, lambda: calls() > before)
        stop.set()
        return await traffic

    with RunningAgentOS(sys.executable, f"sqlite:{tmp_path / 'agno.db'}") as agentos:
        outcome = asyncio.run(scenario())
    assert outcome.failed
    assert set(outcome.codes) <= {200, 202}


@pytest.mark.compat
def test_a_security_key_is_demanded(tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with RunningAgentOS(venvs.python("newest-plain"), database, security_key="secret") as agentos:
        rejected = asyncio.run(load.drive(agentos.base_url, runs=2, leaving=False))
        headers = {"Authorization": "Bearer secret"}
        accepted = asyncio.run(load.drive(agentos.base_url, runs=2, leaving=False, headers=headers))
    assert set(rejected.codes) == {401}
    assert set(accepted.codes) <= {200, 202}


@pytest.mark.parametrize("http_roots", [True, False])
def test_seeded_traces_are_as_agno_writes_them(tmp_path: Path, *, http_roots: bool) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    until = datetime(2026, 1, 2, tzinfo=UTC)
    spread = timedelta(days=1)
    assert (
        seed.seed(database, 100, until=until, spread=spread, prompt_bytes=(50, 80), http_roots=http_roots, errors=0.5)
        == 800
    )
    seed.seed(database, 10, until=until, prompt_bytes=(50, 80), http_roots=http_roots, number=1)
    counted = truth.count(database, "prod")
    assert (counted.traces, counted.spans, len(counted.visible), counted.hidden) == (110, 880, 880, set())
    assert counted.total("agentos_runs_total", root_kind="agent") == counted.total("agentos_traces_total") == 110
    assert counted.total("agentos_llm_call_errors_total", error_type="ModelProviderError") > 10
    assert counted.total("agentos_tool_call_errors_total", error_type="other") > 10
    _, rows = truth.read(database)
    assert max(row.end for row in rows) == until.timestamp()
    with RunningAgentOS(sys.executable, database) as agentos:
        assert shown(agentos.base_url) == counted.visible


def test_a_second_database_is_listed(tmp_path: Path) -> None:
    first, second = (f"sqlite:{tmp_path / name}" for name in ("first.db", "second.db"))
    with RunningAgentOS(sys.executable, first, second_db=second) as agentos:
        seed.seed(second, 3, prompt_bytes=(50, 80))
        with httpx.Client(base_url=agentos.base_url, headers=UNSAMPLED, timeout=60, trust_env=False) as client:
            listed = [db["db_id"] for db in client.get("/config").json()["traces"]["dbs"]]
            assert listed == ["harness-db", "second-db"]
            traces = client.get("/traces", params={"db_id": "second-db"}).json()
            assert traces["meta"]["total_count"] == 3


def test_a_difference_names_the_sample() -> None:
    page = """\
# TYPE agentos_runs_total counter
agentos_runs_total{agentos="prod",root="A",root_kind="agent"} 3
agentos_runs_total{agentos="prod",root="B",root_kind="agent"} 0
# TYPE agentos_up gauge
agentos_up{agentos="prod"} 1
# TYPE agentos_run_duration_seconds histogram
agentos_run_duration_seconds_bucket{agentos="prod",root="A",root_kind="agent",le="+Inf"} 3
agentos_run_duration_seconds_count{agentos="prod",root="A",root_kind="agent"} 3
agentos_run_duration_seconds_sum{agentos="prod",root="A",root_kind="agent"} 4.5
"""
    labels = frozenset({("agentos", "prod"), ("root", "A"), ("root_kind", "agent")})
    tool = ("agentos_tool_calls_total", frozenset({("agentos", "prod"), ("tool", "search")}))
    expected = {
        ("agentos_runs_total", labels): 3,
        ("agentos_run_duration_seconds_count", labels): 3,
        ("agentos_run_duration_seconds_sum", labels): 4.5,
    }
    assert truth.difference(expected, truth.scrape(page)) == []
    assert truth.difference(expected | {tool: 2, ("agentos_runs_total", labels): 2}, truth.scrape(page)) == [
        "agentos_runs_total{agentos='prod', root='A', root_kind='agent'}: expected 2, got 3",
        "agentos_tool_calls_total{agentos='prod', tool='search'}: expected 2, got 0 (absent)",
    ]
    with_eof = page.replace("agentos_runs_total counter", "agentos_runs counter") + "# EOF\n"
    assert truth.difference(expected, truth.scrape(with_eof)) == []
