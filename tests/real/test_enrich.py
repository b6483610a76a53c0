"""Details of runs that a real AgentOS refuses."""

import asyncio
import sys

from exporter.config import AgentOS
from tests.harness import load
from tests.harness.agentos import RunningAgentOS
from tests.harness.details import COST
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
