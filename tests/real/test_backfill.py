"""Backfill of a real AgentOS, killed again and again: the bytes are those of a backfill that nobody disturbed."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.harness import truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import reads
from tests.harness.past import backfill, configured, files, finished
from tests.harness.seed import seed

KILLS = 10
UNTIL = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
PERIOD = ("--from", "2026-11-17", "--to", "2026-11-20T06:00:01", "--step", "5m")


def killed(process: subprocess.Popen[str], when: Callable[[], bool]) -> bool:
    """Kill the command as soon as this holds; whether it had not ended before."""
    while process.poll() is None and not when():
        time.sleep(0.001)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def size(work: Path) -> int:
    """Return the bytes of a work file with its journal."""
    return sum(path.stat().st_size for path in (work, work.with_name(f"{work.name}-wal")) if path.exists())


@pytest.mark.slow
@pytest.mark.parametrize("source", ["api", "database"])
def test_killed_ten_times_it_writes_the_same_bytes(tmp_path: Path, source: str) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    seed(database, 2_500, until=UNTIL, spread=timedelta(days=3), prompt_bytes=(50, 80))
    with RunningAgentOS(sys.executable, database) as agentos:
        keys = {"url": agentos.base_url} if source == "api" else reads(database)
        config = configured(tmp_path, tmp_path / "none.db", **keys)
        said = finished(backfill(config, *PERIOD, "--output", f"{tmp_path}/whole/"))
        traces, _ = truth.read(database)
        assert f"{len(traces)} traces, " in said
        rng, work, pieces = random.Random(source), tmp_path / "pieces.backfill", tmp_path / "pieces"

        def again() -> subprocess.Popen[str]:
            return backfill(config, *PERIOD, "--output", f"{pieces}/")

        for _ in range(KILLS - 2):
            least = (work.stat().st_size if work.exists() else 0) + rng.randrange(20_000, 400_000)
            assert killed(again(), lambda least=least: size(work) >= least)
        # Everything is read by now, or while the first file is written.
        for names in (["*.om.part"], ["2026-11-17.om", "2026-11-18.om.part"]):
            assert killed(again(), lambda names=names: all([*pieces.glob(name)] for name in names))
        finished(again())
    assert not work.exists()
    whole = files(tmp_path / "whole")
    assert list(whole) == [f"2026-11-{day}.om" for day in (17, 18, 19, 20)]
    assert files(tmp_path / "pieces") == whole
