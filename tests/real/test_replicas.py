"""Several daemons on one state in a real PostgreSQL: each AgentOS has one leader, and whatever happens counts once."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.harness import load, truth, upheavals
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import RunningExporter
from tests.harness.postgres import Postgres
from tests.harness.replicas import LEADER, Replicas

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize("what", sorted(upheavals.KINDS.keys() - {"kill beside other clocks"}))
def test_whatever_happens_each_span_counts_once(what: str, tmp_path: Path) -> None:
    upheavals.survive(tmp_path, what, times=1)


def test_one_that_comes_gets_its_share_and_one_that_goes_hands_it_over(tmp_path: Path, postgres: Postgres) -> None:
    names = {f"it{number}": "http://127.0.0.1:9" for number in range(7)}
    with Replicas(tmp_path, 3, names, postgres.url("state")) as replicas:
        before = replicas.wait_until_shared()
        gone = replicas.exporters[1]
        assert gone.stop()[0] == 0
        after = replicas.wait_until_shared()
        assert {name: number for name, number in before.items() if number != 1}.items() <= after.items()
        gone.start()
        assert set(replicas.wait_until_shared().values()) == {0, 1, 2}
        follower = next(
            exporter for exporter in replicas.exporters if f'{LEADER}{{agentos="it0"}} 0' in exporter.metrics()
        )
        assert 'agentos_up{agentos="it0"}' not in follower.metrics()
        assert "agentos_exporter_build_info" in follower.metrics()
        page = follower._client.get("/").text
        assert "read by " in page
        assert follower._client.get("/-/ready").status_code == 200


def test_it_ends_though_the_database_hangs(tmp_path: Path, postgres: Postgres) -> None:
    with Replicas(tmp_path, 1, {"nobody": "http://127.0.0.1:9"}, postgres.url("state")) as replicas:
        (exporter,) = replicas.exporters
        truth.wait_until(lambda: replicas.leaders() == {"nobody": [0]})
        with postgres.frozen():
            # The series are dropped, and the rest goes on being shown.
            truth.wait_until(lambda: f'{LEADER}{{agentos="nobody"}} 0' in replicas.pages()[0])
            assert "agentos_up{" not in replicas.pages()[0]
            assert exporter.stop()[0] == 0


def test_a_deposed_leader_follows(tmp_path: Path, postgres: Postgres) -> None:
    with Replicas(tmp_path, 1, {"nobody": "http://127.0.0.1:9"}, postgres.url("state")) as replicas:
        (exporter,) = replicas.exporters
        truth.wait_until(lambda: replicas.leaders() == {"nobody": [0]})
        postgres.sql("UPDATE agentos_exporter.lease SET token = token + 1, holder = 'thief', "
                     "until = now() + interval '1 day' WHERE name <> 'all'", "state")  # fmt: skip
        truth.wait_until(lambda: f'{LEADER}{{agentos="nobody"}} 0' in replicas.pages()[0])
        assert "agentos_up{" not in replicas.pages()[0]
        assert "other replicas may lead these by now" in exporter.logs
        postgres.sql("UPDATE agentos_exporter.lease SET until = now()", "state")
        truth.wait_until(lambda: "agentos_up{" in replicas.pages()[0])
        assert replicas.leaders() == {"nobody": [0]}


def test_a_single_daemon_goes_on_after_a_kill(tmp_path: Path, postgres: Postgres) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    state = {"url": postgres.url("state"), "lease": "1s"}
    with (
        RunningAgentOS(sys.executable, database) as agentos,
        RunningExporter(tmp_path, {"it": agentos.base_url}, state=state) as exporter,
    ):
        for seed in range(2):
            assert asyncio.run(load.drive(agentos.base_url, runs=6, seed=seed, leaving=False)).failed == {}
            exporter.kill()
            exporter.start()
        agentos.wait_until_quiet()
        exporter.agree(truth.count(database, "it"))
        assert exporter.total("agentos_exporter_state_durable") == 1
        assert exporter.stop()[0] == 0
