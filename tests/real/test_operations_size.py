"""All that waits in an AgentOS at once, with agno's own scheduler and queue: kills, and a week of downtime."""

import asyncio
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from tests.harness import truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import RunningExporter
from tests.harness.patience import HANG
from tests.harness.postgres import Postgres
from tests.harness.proxy import FaultyProxy, Forward, Reply, Request, hangs
from tests.harness.waitingside import APPROVALS, EVALS, WAITING_JOBS
from tests.real.test_operations import NAME, agree, fill, stored, submit

WEEK = 7 * 24 * 3600
FINISHED = "agentos_queue_jobs_finished_total"
LOST = "agentos_exporter_ignored_rows_total"


@pytest.mark.postgres
@pytest.mark.crash
@pytest.mark.slow
async def test_kills_and_a_week_of_downtime(tmp_path: Path, postgres: Postgres) -> None:
    plain = postgres.url("operations_size")
    database, url = f"postgres:{plain}", plain.replace("postgresql:", "postgresql+psycopg:", 1)
    with RunningAgentOS(sys.executable, database, operations=True, scheduler=True) as agentos:
        await asyncio.to_thread(make, database, agentos)
        async with FaultyProxy(agentos.base_url) as proxy:
            settings = {"operations_interval": "5s"}
            with RunningExporter(tmp_path, {NAME: proxy.base_url}, **settings) as exporter:
                for path in ("/approvals", "/schedules/", "/queue/jobs", "/eval-runs"):
                    await killed_at(path, proxy, exporter)
                await asyncio.to_thread(scheduled, url, 5)
                await asyncio.to_thread(agree, exporter, url, agentos)
                await asyncio.to_thread(look, exporter, url, rounds=1)
                assert (
                    exporter.total("agentos_schedule_next_run_timestamp_seconds", schedule="missed") < time.time() - 600
                )
                exporter.kill()
                seen = Counter({key: number for key, number in stored(url, []).items() if key[0] == FINISHED})
                await asyncio.to_thread(pass_a_week, database, agentos)
                exporter.ahead = WEEK
                await asyncio.to_thread(exporter.start)
                await killed_at("/eval-runs", proxy, exporter)
                await asyncio.to_thread(scheduled, url, 10)
                await asyncio.to_thread(agree, exporter, url, agentos, deleted=seen)
                await asyncio.to_thread(look, exporter, url, rounds=3)
                await asyncio.to_thread(lost, exporter)


def make(database: str, agentos: RunningAgentOS) -> None:
    """Fill AgentOS, and let its scheduler and its queue work."""
    fill(sys.executable, database, 0, "--no-schedules")
    fill(sys.executable, database, "due")
    fill(sys.executable, database, "stopped")
    submit(agentos, "plain", "failing-model", "plain", "confirming")


def pass_a_week(database: str, agentos: RunningAgentOS) -> None:
    """Let a week pass: jobs end and are deleted, as are two approvals that waited; two others are resolved."""
    fill(sys.executable, database, 1, "--no-schedules")
    submit(agentos, "plain", "failing-model")
    fill(sys.executable, database, "cleaned")
    with httpx.Client(base_url=agentos.base_url, timeout=HANG, trust_env=False) as client:
        pending = client.get("/approvals", params={"status": "pending"}).json()["data"]
        before = [one["id"] for one in pending if one["id"].startswith("approval-0-")]
        for approval in before[:2]:
            client.delete(f"/approvals/{approval}").raise_for_status()
        for approval in before[2:4]:
            client.post(f"/approvals/{approval}/resolve", json={"status": "rejected"}).raise_for_status()
    agentos.ahead = WEEK
    agentos.restart()
    fill(sys.executable, database, 2, "--no-schedules", f"--ahead={WEEK}")
    fill(sys.executable, database, "again", f"--ahead={WEEK}")


async def killed_at(path: str, proxy: FaultyProxy, exporter: RunningExporter) -> None:
    """Kill the exporter while it waits for the answer to a path, and start it again."""
    asked = asyncio.Event()

    async def holds(request: Request, forward: Forward) -> Reply | None:
        await forward()
        asked.set()
        return await hangs(request, forward)

    proxy.fail(holds, path)
    async with asyncio.timeout(HANG):
        await asked.wait()
    exporter.kill()
    proxy.mend()
    await asyncio.to_thread(exporter.start)


def scheduled(url: str, runs: int) -> None:
    """Wait until agno's scheduler has ended so many runs."""
    engine = sa.create_engine(url)
    query = "SELECT count(*) FROM ai.agno_schedule_runs WHERE status != 'running'"
    with engine.connect() as connection:
        truth.wait_until(lambda: connection.exec_driver_sql(query).scalar_one() >= runs, deadline=HANG)
    engine.dispose()


def look(exporter: RunningExporter, url: str, rounds: int) -> None:
    """See that what is shown beside counts is so, too, and that there was as much of it as there is to be."""
    query = "SELECT count(*), sum(resolved_at - created_at) FROM ai.agno_approvals WHERE status != 'pending'"
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        resolved, waited = connection.exec_driver_sql(query).one()
    engine.dispose()
    assert resolved > APPROVALS * rounds / 2
    assert exporter.total("agentos_approval_wait_seconds_count") == resolved
    assert exporter.total("agentos_approval_wait_seconds_sum") == waited
    for kind, score in (("accuracy", 7.5), ("agent_as_judge", 0.5), ("reliability", 1.0)):
        assert exporter.total("agentos_eval_score_sum", eval_type=kind) == score * EVALS * rounds
    assert exporter.total("agentos_eval_runs_total", eval_type="performance") == EVALS * rounds
    assert exporter.total("agentos_queue_jobs", status="queued") == WAITING_JOBS
    assert exporter.total("agentos_knowledge_contents", status="partial") == 1
    assert exporter.total("agentos_knowledge_contents", status="failed") == 1
    for resolution in ("approved", "rejected", "expired", "cancelled"):
        assert exporter.total("agentos_approvals_resolved_total", resolution=resolution) >= 8 * rounds
    assert "CONTENT" not in exporter.metrics() + exporter.logs


def lost(exporter: RunningExporter) -> None:
    """Wait until it says of which rows nobody knows the end."""
    truth.wait_until(lambda: exporter.total(LOST, surface="approvals", reason="gone") == 2, deadline=HANG, pause=0.3)
    assert exporter.total(LOST) == 2
    assert "msg=rows_unknown agentos=it surface=queue hours=168" in exporter.logs
