"""Details of runs that a real AgentOS refuses, and runs that its guardrails block."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest

from exporter.config import AgentOS
from tests.harness import load, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.details import COST
from tests.harness.exporter import RunningExporter, reads, total
from tests.harness.inprocess import Exporter
from tests.harness.mariadb import MariaDB
from tests.harness.postgres import Postgres
from tests.harness.proxy import FaultyProxy, status


async def test_without_the_scope_everything_goes_out_as_without_details(tmp_path):
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with RunningAgentOS(sys.executable, database) as agentos:
        async with FaultyProxy(agentos.base_url) as proxy:
            refusal = "Insufficient permissions. Required scope(s): sessions:read"
            proxy.fail(status(403, refusal), "/sessions")
            one = {"it": AgentOS("it", proxy.base_url, enrich_runs=True)}
            async with Exporter(one, tmp_path / "state.db") as exporter:
                await load.drive(agentos.base_url, runs=25, seed=5)
                await asyncio.to_thread(agentos.wait_until_quiet)
                await exporter.exact(database, "it")
                shown = await exporter.shown()
                assert shown("agentos_exporter_polls_total", outcome="ok") == shown("agentos_exporter_polls_total")
                assert len([request for request in proxy.requests if request.path.startswith("/sessions")]) == 1
                (line,) = exporter.logged("enrich_off")
                assert "sessions:read" in line["reason"]
                assert shown(COST, cost_source="estimated") > 0
                assert shown(COST, cost_source="listed") == 0


BLOCKS = "agentos_guardrail_blocks_total"


def blocks(samples: truth.Totals, agentos: str) -> Counter[tuple[str, str]]:
    """Runs of an AgentOS that guardrails blocked, by root and guardrail."""
    found = Counter[tuple[str, str]]()
    for (name, labels), value in samples.items():
        if name == BLOCKS and (known := dict(labels))["agentos"] == agentos:
            found[known["root"], known["guardrail"]] += int(value)
    return +found


def exact_blocks(database: str, folder: Path, *, api: bool = False) -> None:
    """Let guardrails block runs while the exporter reads tables, and the API, and is killed; all must agree."""
    kinds, rounds = (*load.BLOCKED, *load.NOT_BLOCKED), 2
    names = {"guarded": "Guarded", "guarded-team": "Guarded_Team"}
    expected = Counter[tuple[str, str]]()
    for run, guardrail in load.BLOCKED.items():
        if guardrail:
            expected[names[run.component], guardrail] += rounds
    with RunningAgentOS(sys.executable, database) as agentos:
        telling = {"tables": reads(database, enrich_runs=True)}
        plain = {"plain-tables": reads(database)}
        if api:
            telling["api"] = {"url": agentos.base_url, "enrich_runs": True}
            plain["plain-api"] = {"url": agentos.base_url}
        with RunningExporter(folder, telling | plain) as exporter:
            for number in range(rounds):
                asyncio.run(load.drive(agentos.base_url, runs=len(kinds), seed=number, leaving=False, kinds=kinds))
                exporter.kill()
                exporter.start()
            agentos.wait_until_quiet()
            truth.wait_until(lambda: all(blocks(exporter.samples(), name) == expected for name in telling))
            exporter.kill()
            exporter.start()
            runs = rounds * len(kinds) * len(telling | plain)
            truth.wait_until(lambda: total(exporter.samples(), "agentos_runs_total") == runs)
            samples = exporter.samples()
    assert {name: blocks(samples, name) for name in telling} == dict.fromkeys(telling, expected)
    assert {dict(labels)["agentos"] for name, labels in samples if name == BLOCKS} == set(telling)


def test_blocked_runs_count_once_and_by_what_blocked_them(tmp_path: Path) -> None:
    exact_blocks(f"sqlite:{tmp_path / 'agno.db'}", tmp_path, api=True)


@pytest.mark.postgres
def test_blocked_runs_in_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    exact_blocks(f"postgres:{postgres.url('blocked')}", tmp_path, api=True)


@pytest.mark.mariadb
def test_blocked_runs_in_mariadb(tmp_path: Path, mariadb: MariaDB) -> None:
    exact_blocks(f"mysql:{mariadb.url('blocked')}", tmp_path)
