"""End to end on the tables of a real AgentOS: /metrics shows what an independent SQL count finds, no API needed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.harness import seed, sqltruth, truth
from tests.harness.database_exactness import NAME, SMALL, check_health, exact
from tests.harness.exporter import RunningExporter, reads


@pytest.mark.slow
def test_sqlite(tmp_path: Path) -> None:
    exact(f"sqlite:{tmp_path / 'agno.db'}", tmp_path, api=True)


def test_history_is_counted_once_and_no_further_back_than_asked(tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    now = datetime.now(UTC)
    seed.seed(database, 700, until=now - timedelta(minutes=1), spread=timedelta(minutes=8), prompt_bytes=SMALL)
    expected = sqltruth.count(database, NAME)
    seed.seed(database, 50, until=now - timedelta(minutes=20), prompt_bytes=SMALL, number=1)
    with RunningExporter(tmp_path, {NAME: reads(database)}, initial_lookback="15m", zero_hold="10m") as exporter:
        # Series born in the first pass show their value at once.
        exporter.agree(expected)
        check_health(exporter)
        exporter.kill()
        exporter.start()
        # What was counted is served before the first poll.
        assert truth.difference(expected.totals, exporter.samples()) == []
        exporter.agree(expected)
        check_health(exporter)
