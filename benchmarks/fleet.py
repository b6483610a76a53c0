"""What many idle AgentOS instances cost one exporter, with 5 % of them down, against one instance.

All that are up are one real AgentOS under many names: its answers are real, and its own CPU time is told apart.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from benchmarks.measure import cpu, quantile
from tests.harness import fleets, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.process import resident
from tests.harness.seed import seed

_POLL = re.compile(r"^ts=(\S+) .* msg=poll agentos=(up-\d+) outcome=ok ", re.MULTILINE)
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class _Figures:
    """`memory` in MiB; CPU seconds a second, of the exporter and of AgentOS; polls a second; `lags` in intervals."""

    memory: float
    cpu: float
    theirs: float
    polls: float
    lags: list[float]


def main(*, quick: bool) -> None:
    """Read one instance, then many; print."""
    many, interval = (60, 5) if quick else (300, 30)
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:{folder}/agno.db"
        seed(database, 1, until=datetime.now(UTC) - timedelta(minutes=40), prompt_bytes=(50, 80))
        with RunningAgentOS(sys.executable, database) as agentos:
            one = _measure(agentos, Path(tempfile.mkdtemp(dir=folder)), 1, 0, interval)
            all_ = _measure(agentos, Path(tempfile.mkdtemp(dir=folder)), many, many // 60, interval)
    each = (all_.memory - one.memory) / (many - 1)
    print(f"{many} idle instances, {many // 60 * 3} of them down, a poll every {interval} s")
    print(f"memory: 1 instance {one.memory:.0f} MiB, {many} {all_.memory:.0f}: {each:.2f} MiB an instance (bound: 1)")
    print(
        f"CPU: 1 instance {one.cpu:.0%} of a core, {many} {all_.cpu:.0%}: "
        f"{1000 * (all_.cpu - one.cpu) / (all_.polls - one.polls):.1f} ms a poll; "
        f"AgentOS's own {1000 * (all_.theirs - one.theirs) / (all_.polls - one.polls):.1f} ms"
    )
    p50, p99 = (quantile(all_.lags, share) for share in (0.5, 0.99))
    print(f"from the end of a poll to that of the next, in intervals: p50 {p50:.2f}, p99 {p99:.2f} (bound: 2)")


def _measure(agentos: RunningAgentOS, folder: Path, count: int, each_down: int, interval: int) -> _Figures:
    names = [f"up-{number}" for number in range(count - 3 * each_down)]
    with (
        fleets.down(each_down) as down,
        fleets.Fleet(folder, poll_interval=f"{interval}s") as exporter,
    ):
        exporter.list(dict.fromkeys(names, agentos.base_url) | down)
        assert exporter.process is not None
        assert agentos.process is not None
        pids = exporter.process.pid, agentos.process.pid

        def after(rounds: int) -> tuple[float, ...]:
            """Wait for so many rounds; CPU seconds of both until then, polls, and the time."""
            truth.wait_until(lambda: min(_polls(exporter, names)) >= rounds, deadline=20 * interval, pause=0.2)
            return *(cpu(pid) for pid in pids), sum(_polls(exporter, names)), time.monotonic()

        first = after(1)
        ours, theirs, polls, seconds = (b - a for a, b in zip(first, after(_ROUNDS), strict=True))
        lags = _lags(exporter.logs, interval)
        return _Figures(resident(pids[0]), ours / seconds, theirs / seconds, polls / seconds, lags)


def _polls(exporter: fleets.Fleet, names: list[str]) -> list[int]:
    """Polls by instance, as the log has them: scrapes would cost the exporter what is measured."""
    polls = dict.fromkeys(names, 0)
    for _, name in _POLL.findall(exporter.logs):
        polls[name] += 1
    return list(polls.values())


def _lags(log: str, interval: int) -> list[float]:
    ends: dict[str, list[datetime]] = defaultdict(list)
    for at, name in _POLL.findall(log):
        ends[name].append(datetime.fromisoformat(at))
    return [(b - a) / timedelta(seconds=interval) for end in ends.values() for a, b in pairwise(end)]
