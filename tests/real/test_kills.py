"""A daemon that is killed eight times counts every span once, and no scraper ever sees a counter fall or vanish.

It is killed by what it has done, not after a time. Fifty kills at random moments are in tests/long/test_kills.py, death
at each single write in tests/crash.
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.harness import load, seed, sqltruth, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import RunningExporter, reads, total
from tests.harness.kills import Watch

pytestmark = [pytest.mark.crash, pytest.mark.slow]

NAME = "it"
HISTORY = 4_000
KILLS = 8


@pytest.mark.parametrize("way", ["api", "tables"])
def test_eight_kills(tmp_path: Path, way: str) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    until = datetime.now(UTC) - timedelta(hours=1)
    seed.seed(database, HISTORY, until=until, spread=timedelta(hours=2), prompt_bytes=(50, 80))
    with RunningAgentOS(sys.executable, database) as agentos:
        target = agentos.base_url if way == "api" else reads(database)
        with (
            RunningExporter(tmp_path, {NAME: target}, initial_lookback="3h10m") as exporter,
            Watch(f"{exporter.base_url}/metrics") as watch,
        ):
            for number in range(KILLS):
                if number % 2:  # while it starts
                    exporter.kill()
                    exporter.spawn(fork=number > 1)
                    continue
                if number:
                    exporter.wait_until_serving()
                outcome = asyncio.run(load.drive(agentos.base_url, runs=6, seed=number, leaving=False))
                assert outcome.failed == {}
                before = watch.spans
                truth.wait_until(lambda before=before: watch.spans > before)
                exporter.kill()
                exporter.spawn()
            agentos.wait_until_quiet()
            exporter.wait_until_serving()
            expected = (truth if way == "api" else sqltruth).count(database, NAME)
            samples = exporter.agree(expected)
            assert exporter.stop()[0] == 0
    assert watch.violations == []
    assert expected.traces == HISTORY + KILLS // 2 * 6
    assert total(samples, "agentos_exporter_hidden_spans_total") == 0
    assert total(samples, "agentos_exporter_source_resets_total") == 0
    assert total(samples, "agentos_exporter_ignored_traces_total") == 0
