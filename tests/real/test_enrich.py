"""Details of runs that a real AgentOS refuses, and runs that its guardrails block."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

from exporter.config import AgentOS
from tests.harness import load, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.details import COST
from tests.harness.exporter import RunningExporter, total
from tests.harness.inprocess import Exporter
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
                assert len([one for one in proxy.requests if one.path.startswith("/sessions")]) == 1
                (line,) = exporter.logged("enrich_off")
                assert "sessions:read" in line["reason"]
                assert shown(COST, cost_source="estimated") > 0
                assert shown(COST, cost_source="listed") == 0


BLOCKS = "agentos_guardrail_blocks_total"


def blocks(samples: truth.Totals, agentos: str) -> Counter[tuple[str, str]]:
    """Runs of an AgentOS that guardrails blocked, by root and guardrail."""
    found = Counter[tuple[str, str]]()
    for (name, labels), value in samples.items():
        known = dict(labels)
        if name == BLOCKS and known["agentos"] == agentos:
            found[known["root"], known["guardrail"]] += int(value)
    return +found


def test_blocked_runs_count_once_and_by_what_blocked_them(tmp_path: Path) -> None:
    database, kinds, rounds = f"sqlite:{tmp_path / 'agno.db'}", (*load.BLOCKED, *load.NOT_BLOCKED), 2
    names = {"guarded": "Guarded", "guarded-team": "Guarded_Team"}
    expected = Counter[tuple[str, str]]()
    for run, guardrail in load.BLOCKED.items():
        if guardrail:
            expected[names[run.component], guardrail] += rounds
    with RunningAgentOS(sys.executable, database) as agentos:
        one = {"url": agentos.base_url, "enrich_runs": True}
        plain = {"url": agentos.base_url}
        tables = {"database": f"sqlite:///{tmp_path / 'agno.db'}", "enrich_runs": True}
        with RunningExporter(tmp_path, {"it": one, "tables": tables, "plain": plain}) as exporter:
            for number in range(rounds):
                asyncio.run(load.drive(agentos.base_url, runs=len(kinds), seed=number, leaving=False, kinds=kinds))
                exporter.kill()
                exporter.start()
            agentos.wait_until_quiet()
            truth.wait_until(lambda: [blocks(exporter.samples(), name) for name in ("it", "tables")] == [expected] * 2)
            exporter.kill()
            exporter.start()
            runs = rounds * len(kinds)
            truth.wait_until(lambda: total(exporter.samples(), "agentos_runs_total") == 3 * runs)
            samples = exporter.samples()
    assert [blocks(samples, name) for name in ("it", "tables", "plain")] == [expected, expected, Counter()]
