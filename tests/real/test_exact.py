"""End to end, with a real AgentOS and a real daemon: /metrics shows what stands in agno's tables, to the last token."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.harness import load, seed, truth, venvs
from tests.harness.agentos import RunningAgentOS
from tests.harness.exactness import NAME, check_health, exact
from tests.harness.exporter import RunningExporter, total
from tests.harness.postgres import Postgres
from tests.harness.server import FAILURES


@pytest.mark.slow
def test_newest_agno_with_http_roots(tmp_path: Path) -> None:
    """Part of `make test`, so with fewer runs than elsewhere; each kind is among them."""
    exact(sys.executable, f"sqlite:{tmp_path / 'agno.db'}", tmp_path, runs=60)


def test_why_calls_fail(tmp_path: Path) -> None:
    """A model call fails for each reason; what the texts say goes nowhere."""
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with (
        RunningAgentOS(sys.executable, database) as agentos,
        RunningExporter(tmp_path, {NAME: agentos.base_url}) as exporter,
    ):
        runs = 3 * len(load.EACH_FAILURE)
        asyncio.run(load.drive(agentos.base_url, runs=runs, kinds=load.EACH_FAILURE, leaving=False))
        agentos.wait_until_quiet()
        expected = truth.count(database, NAME)
        samples = exporter.agree(expected)
        exporter.kill()
        exporter.start()
        assert truth.difference(expected.totals, exporter.samples()) == []
        check_health(exporter.agree(expected))
        logs = exporter.logs
    counter = "agentos_llm_call_errors_by_class_total"
    classes = {name: total(samples, counter, error_class=name) for name in FAILURES}
    assert all(count >= 2 for count in classes.values())
    assert sum(classes.values()) == total(samples, counter) == total(samples, "agentos_llm_call_errors_total") == runs
    seen = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file() and "agno" not in path.name)
    assert [text for text, _ in FAILURES.values() if text.encode() in seen or text in logs] == []


@pytest.mark.slow
@pytest.mark.postgres
def test_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    exact(sys.executable, f"postgres:{postgres.url('sync')}", tmp_path)


@pytest.mark.slow
@pytest.mark.compat
def test_the_oldest_agno_that_shows_traces(tmp_path: Path) -> None:
    """The releases between it and the newest are in tests/long."""
    exact(venvs.python("agno23"), f"sqlite:{tmp_path / 'agno.db'}", tmp_path, http_roots=False, grouped=True)


def test_history_is_counted_once_and_no_further_back_than_asked(tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    small, now = (50, 80), datetime.now(UTC)
    seed.seed(database, 700, until=now - timedelta(minutes=1), spread=timedelta(minutes=8), prompt_bytes=small)
    expected = truth.count(database, NAME)
    seed.seed(database, 50, until=now - timedelta(minutes=20), prompt_bytes=small, number=1)
    with (
        RunningAgentOS(sys.executable, database) as agentos,
        RunningExporter(tmp_path, {NAME: agentos.base_url}, initial_lookback="15m", zero_hold="10m") as exporter,
    ):
        # Series born in the first pass show their value at once.
        samples = exporter.agree(expected)
        check_health(samples)
        exporter.kill()
        exporter.start()
        # What was counted is served before the first poll.
        assert truth.difference(expected.totals, exporter.samples()) == []
        check_health(exporter.agree(expected))
