"""What may befall replicas that share a state, and that each span counts once all the same."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.harness import load, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.postgres import Postgres
from tests.harness.replicas import LEASE, Replicas, Watch

NAMES = ("one", "two", "three")
"""The same AgentOS, read under three names."""


def _kill(replicas: Replicas, _: Postgres, random: Random) -> None:
    leader = replicas.leader(random.choice(NAMES))
    time.sleep(random.uniform(0, 2))
    leader.kill()
    time.sleep(random.uniform(0, 2 * LEASE))
    leader.start()


def _stop(replicas: Replicas, _: Postgres, random: Random) -> None:
    """Stop the process and let it go on, at times before its lease ends, at times after another took over."""
    leader = replicas.leader(random.choice(NAMES))
    time.sleep(random.uniform(0, 2))
    assert leader.process is not None
    leader.process.send_signal(signal.SIGSTOP)
    time.sleep(random.uniform(0.5, 3) * LEASE)
    leader.process.send_signal(signal.SIGCONT)


def _restart_database(_: Replicas, postgres: Postgres, random: Random) -> None:
    time.sleep(random.uniform(0, 2))
    postgres.stop()
    time.sleep(random.uniform(0, 2 * LEASE))
    postgres.start()


def _cut(_: Replicas, postgres: Postgres, random: Random) -> None:
    for _ in range(3):
        time.sleep(random.uniform(0, 1))
        own = "pid <> pg_backend_pid() AND datname = 'state'"
        postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {own}")


KINDS: dict[str, Callable[[Replicas, Postgres, Random], None]] = {
    "kill": _kill,
    "stop": _stop,
    "database restarts": _restart_database,
    "connections are cut": _cut,
}


def survive(folder: Path, postgres: Postgres, what: str, *, times: int, seed: int = 0) -> None:
    """Let this happen so many times under load, and compare all that is shown with what AgentOS did."""
    database, random = f"sqlite:{folder / 'agno.db'}", Random(seed)
    with RunningAgentOS(sys.executable, database) as agentos:
        instances = dict.fromkeys(NAMES, agentos.base_url)
        with Replicas(folder, 3, instances, postgres.url("state")) as replicas, Watch(replicas) as watch:
            for number in range(times):
                outcome = asyncio.run(load.drive(agentos.base_url, runs=4, seed=number, leaving=False))
                assert outcome.failed == {}
                KINDS[what](replicas, postgres, random)
            agentos.wait_until_quiet()
            expected = together(database)
            replicas.agree(expected)
            passes = watch.passes
            truth.wait_until(lambda: watch.passes > passes + 5)
    assert watch.violations == []
    assert watch.exceeds(expected) == []
    assert watch.passes > 5 * times


def together(database: str) -> truth.Totals:
    """Return what there is to count, under all names."""
    return {key: value for name in NAMES for key, value in truth.count(database, name).totals.items()}
