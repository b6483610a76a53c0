"""What may befall replicas that share a state, and that each span counts once all the same."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.harness import load, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.patience import HANG
from tests.harness.postgres import Postgres
from tests.harness.replicas import LEASE, Replicas, Watch
from tests.harness.tcp import Switch

NAMES = ("one", "two", "three")
"""The same AgentOS, read under three names."""


@dataclass
class Scene:
    """What there is to be upset; `switch` leads the replicas to the server that has the state."""

    replicas: Replicas
    switch: Switch
    primary: Postgres
    random: Random
    stack: contextlib.ExitStack


def _kill(scene: Scene) -> None:
    leader = scene.replicas.leader(scene.random.choice(NAMES))
    time.sleep(scene.random.uniform(0, 2))
    leader.kill()
    time.sleep(scene.random.uniform(0, 2 * LEASE))
    leader.start()


def _kill_beside_other_clocks(scene: Scene) -> None:
    """The same while the clocks of two replicas are 5 minutes apart from that of the third."""
    for exporter, ahead in zip(scene.replicas.exporters, (300, -300), strict=False):
        if not exporter.ahead:
            exporter.kill()
            exporter.ahead = ahead
            exporter.start()
    _kill(scene)


def _stop(scene: Scene) -> None:
    """Stop the process and let it go on, at times before its lease ends, at times after another took over."""
    leader = scene.replicas.leader(scene.random.choice(NAMES))
    time.sleep(scene.random.uniform(0, 2))
    assert leader.process is not None
    leader.process.send_signal(signal.SIGSTOP)
    time.sleep(scene.random.uniform(0.5, 3) * LEASE)
    leader.process.send_signal(signal.SIGCONT)


def _restart_database(scene: Scene) -> None:
    time.sleep(scene.random.uniform(0, 2))
    scene.primary.stop()
    time.sleep(scene.random.uniform(0, 2 * LEASE))
    scene.primary.start()


def _freeze_database(scene: Scene) -> None:
    time.sleep(scene.random.uniform(0, 2))
    with scene.primary.frozen():
        time.sleep(scene.random.uniform(0.5, 3) * LEASE)


def _fail_over(scene: Scene) -> None:
    """The server dies, and its standby, which has all that was committed, takes its place."""
    standby = scene.stack.enter_context(Postgres(standby_of=scene.primary))
    for statement in ("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"):
        scene.primary.sql(statement)
    truth.wait_until(lambda: "sync" in scene.primary.sql("SELECT sync_state FROM pg_stat_replication"))
    time.sleep(scene.random.uniform(0, 2))
    scene.primary.stop()
    standby.promote()
    scene.switch.lead_to(standby.port)
    scene.primary = standby


def _cut(scene: Scene) -> None:
    for _ in range(3):
        time.sleep(scene.random.uniform(0, 1))
        scene.switch.lead_to(None)
        time.sleep(scene.random.uniform(0, LEASE))
        scene.switch.lead_to(scene.primary.port)


KINDS: dict[str, Callable[[Scene], None]] = {
    "kill": _kill,
    "kill beside other clocks": _kill_beside_other_clocks,
    "stop": _stop,
    "database restarts": _restart_database,
    "database freezes": _freeze_database,
    "fail over": _fail_over,
    "connections are cut": _cut,
}


def survive(folder: Path, what: str, *, times: int, seed: int = 0, deadline: float = HANG) -> None:
    """Let this happen so many times under load, and compare all that is shown with what AgentOS did.

    It is to be shown at the deadline, in seconds: what is to be asked for at some time waits for the clock that runs.
    """
    database = f"sqlite:{folder / 'agno.db'}"
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(Postgres())
        postgres.url("state")
        switch = stack.enter_context(Switch(postgres.port))
        agentos = stack.enter_context(RunningAgentOS(sys.executable, database))
        state = f"postgresql://postgres@127.0.0.1:{switch.port}/state"
        replicas = stack.enter_context(Replicas(folder, 3, dict.fromkeys(NAMES, agentos.base_url), state))
        scene = Scene(replicas, switch, postgres, Random(seed), stack)
        with Watch(replicas) as watch:
            for number in range(times):
                outcome = asyncio.run(load.drive(agentos.base_url, runs=4, seed=number, leaving=False))
                assert outcome.failed == {}
                KINDS[what](scene)
            agentos.wait_until_quiet()
            expected = together(database)
            replicas.agree(expected, deadline=deadline)
            passes = watch.passes
            truth.wait_until(lambda: watch.passes > passes + 5)
    assert watch.violations == []
    assert watch.exceeds(expected) == []


def together(database: str) -> truth.Totals:
    """Return what there is to count, under all names."""
    return {key: value for name in NAMES for key, value in truth.count(database, name).totals.items()}
