"""One exporter, hundreds of AgentOS instances from a list, some of them down, over real connections.

All that are up are one real AgentOS, which the list names again and again: hundreds of them have no place here.
"""

from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.harness import fleets, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.fleets import Fleet
from tests.harness.seed import seed

Polls = Counter[tuple[str, str]]
NONE: Polls = Counter()


def wait_for_polls(exporter: Fleet, more: int, names: Collection[str], before: Polls = NONE) -> Polls:
    """Wait until each of these instances had so many more good polls; return all polls."""
    polls: Polls = Counter()

    def done() -> bool:
        polls.update(exporter.polls() - polls)
        return all(polls[name, "ok"] - before[name, "ok"] >= more for name in names)

    truth.wait_until(done, pause=2.0)
    return polls


def check(agentos: RunningAgentOS, database: str, folder: Path, instances: int, interval: int) -> None:
    """Read so many `instances`, a twentieth of them down, then exchange a sixth; `interval` is in seconds.

    A poll may take as long as by default: one process answers for all instances, and may share its cores with others.
    """
    each_down, changed = max(1, instances // 60), instances // 6
    settled = datetime.now(UTC) - timedelta(minutes=40)
    seed(database, 1, until=settled, prompt_bytes=(50, 80))
    healthy = [f"up-{number:03}" for number in range(instances - 3 * each_down)]
    kept, added = healthy[changed:], [f"new-{number:03}" for number in range(changed)]
    expected = {key: value for name in healthy for key, value in truth.count(database, name).totals.items()}
    with fleets.down(each_down) as down, Fleet(folder, poll_interval=f"{interval}s") as exporter:
        exporter.list(dict.fromkeys(healthy, agentos.base_url) | down)
        wait_for_polls(exporter, 2, healthy)
        wanted = {(name, name.partition("-")[0]) for name in down}
        truth.wait_until(lambda: wanted <= exporter.polls().keys(), pause=2.0)
        assert exporter.up() == dict.fromkeys(healthy, 1) | dict.fromkeys(down, 0)
        counted = exporter.counters(healthy)
        assert truth.difference(expected, counted) == []

        before = exporter.polls()
        exporter.list(dict.fromkeys(kept + added, agentos.base_url) | down)
        truth.wait_until(lambda: exporter.up().keys() == {*kept, *added, *down}, pause=2.0)
        wait_for_polls(exporter, 1, added)
        after = wait_for_polls(exporter, 1, kept, before)
        assert exporter.up() == dict.fromkeys(kept + added, 1) | dict.fromkeys(down, 0)
        assert exporter.counters(healthy) == counted, "those that are gone show their last increments for a while"
        assert after.keys() == {(name, "ok") for name in healthy + added} | wanted
        troubles = [line for line in exporter.logs.splitlines() if " level=info " not in line]
        assert len(troubles) == len(down), "what is down is said once"


def test_some_instances(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    check(agentos, database, tmp_path, instances=60, interval=2)
