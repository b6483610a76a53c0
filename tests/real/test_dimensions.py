"""Dimensions on a real AgentOS: metadata of runs over the API and from the database, ids, against its own tables."""

import asyncio
import json
import sqlite3
import sys
from collections import Counter
from contextlib import closing

from exporter.config import AgentOS, Database
from exporter.counting.dimensions import Dimension, Origin
from exporter.sources.database.location import parse
from tests.harness import load
from tests.harness.agentos import RunningAgentOS
from tests.harness.inprocess import Exporter

TENANT = Dimension("tenant", Origin.METADATA, "tenant_id")
USER = Dimension("user", Origin.USER, values={f"user-{n}": f"team-{n % 2}" for n in range(4)})
AGENTS = [run for run in load.EACH_KIND if run.component in {"plain", "tools", "failing-model", "claude"}]
"""those whose details agno stores as they are: a call of others waits for its detail for two minutes"""


def runs_by_tenant(path):
    """Runs that a user started, by tenant: the rows of agno's own table that are inside no other."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT run_data, status FROM agno_runs WHERE parent_run_id IS NULL").fetchall()
    return Counter(json.loads(run)["metadata"]["tenant_id"] for run, _ in rows)


def by_value(shown, name, agentos, dimension):
    found = Counter()
    for (metric, labels), value in shown.samples.items():
        have = dict(labels)
        if metric == name and have["agentos"] == agentos and have["dimension"] == dimension:
            found[have["value"]] += value
    return +found


def runs_by_component(path):
    """Runs that were asked for, by id of their agent, team or workflow: requests such as POST /agents/plain/runs."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT attributes FROM agno_spans WHERE name LIKE 'POST /%/runs'"
        rows = connection.execute(query).fetchall()
    return Counter(json.loads(attributes)["url.path"].split("/")[2] for (attributes,) in rows)


async def test_tags_that_openinference_sets_are_told_by_the_database_alone(tmp_path):
    path = tmp_path / "agno.db"
    with RunningAgentOS(sys.executable, f"sqlite:{path}", tags=True) as agentos:
        instances = {
            "api": AgentOS("api", agentos.base_url),
            "tables": AgentOS("tables", "", databases=(Database(parse(f"sqlite:///{path}", tmp_path)),)),
        }
        tag = Dimension("component", Origin.TAG, "component")
        async with Exporter(instances, tmp_path / "state.db", dimensions=(tag,)) as exporter:
            await load.drive(agentos.base_url, runs=24, seed=9, leaving=False, kinds=load.EACH_KIND)
            await asyncio.to_thread(agentos.wait_until_quiet)

            def all_counted(shown):
                return all(
                    sum(by_value(shown, f"agentos_dimension_{what}", name, "component").values())
                    == shown(f"agentos_{whole}", agentos=name)
                    > 0
                    for name in instances
                    for what, whole in (("runs_total", "runs_total"), ("tokens_total", "llm_tokens_total"))
                )

            shown = await exporter.until(all_counted, what="runs and tokens by tag")
    runs = by_value(shown, "agentos_dimension_runs_total", "tables", "component")
    assert runs == runs_by_component(path)
    assert len(runs) > 5
    assert by_value(shown, "agentos_dimension_tokens_total", "tables", "component")[""] == 0
    assert by_value(shown, "agentos_dimension_runs_total", "api", "component").keys() == {""}


async def test_sums_by_dimension_are_the_whole_and_values_are_those_of_the_runs(tmp_path):
    path = tmp_path / "agno.db"
    database = f"sqlite:{path}"
    with RunningAgentOS(sys.executable, database) as agentos:
        instances = {
            "api": AgentOS("api", agentos.base_url, enrich_runs=True),
            "tables": AgentOS("tables", "", databases=(Database(parse(f"sqlite:///{path}", tmp_path)),)),
        }
        async with Exporter(instances, tmp_path / "state.db", dimensions=(TENANT, USER)) as exporter:
            await load.drive(agentos.base_url, runs=30, seed=7, kinds=AGENTS)
            await asyncio.to_thread(agentos.wait_until_quiet)

            def all_counted(shown):
                return shown("agentos_runs_total") == 2 * 30 and all(
                    sum(by_value(shown, f"agentos_dimension_{what}", name, dimension).values())
                    == shown(f"agentos_{whole}", agentos=name)
                    for name in instances
                    for dimension in ("tenant", "user")
                    for what, whole in (("runs_total", "runs_total"), ("tokens_total", "llm_tokens_total"))
                )

            shown = await exporter.until(all_counted, what="runs and tokens by dimension")
            for name in instances:
                spent = shown("agentos_llm_cost_usd_total", agentos=name)
                for dimension in ("tenant", "user"):
                    found = by_value(shown, "agentos_dimension_cost_usd_total", name, dimension)
                    assert abs(sum(found.values()) - spent) < 1e-9
                    failed = by_value(shown, "agentos_dimension_run_errors_total", name, dimension)
                    assert sum(failed.values()) == shown("agentos_run_errors_total", agentos=name)
            stored = runs_by_tenant(path)
            assert len(stored) == 3
            for name in instances:
                assert by_value(shown, "agentos_dimension_runs_total", name, "tenant") == stored
                users = by_value(shown, "agentos_dimension_runs_total", name, "user")
                assert users == {"team-0": 12, "team-1": 12, "": 6}
            assert "not to be shown" not in shown.text
