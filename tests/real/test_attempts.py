"""Retries, fallbacks, speed, savings and overhead of a real AgentOS, against what its models and its tables say."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.harness import attempting, attempttruth, load, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import RunningExporter, reads
from tests.harness.postgres import Postgres

pytestmark = pytest.mark.slow

KINDS = tuple(
    load.Run(kind, component, stream=stream)
    for kind, components in attempting.COMPONENTS.items()
    for component in components
    for stream in (False, True)
)


def exact(database: str, folder: Path, *, runs: int, api: bool = False) -> None:
    """Let runs fail as planned while the exporter reads, and is killed; then all figures must agree."""
    record, prices = folder / "attempts.jsonl", folder / "prices.json"
    prices.write_text(attempttruth.price_file())
    with RunningAgentOS(sys.executable, database, attempts=record) as agentos:
        instances = {"tables": reads(database, enrich_runs=True)}
        if api:
            instances["api"] = {"url": agentos.base_url, "enrich_runs": True}
        with RunningExporter(folder, instances, prices=str(prices)) as exporter:
            asyncio.run(_drive_and_kill(agentos, exporter, runs))
            agentos.wait_until_quiet()
            made = attempting.read(record)
            for name in instances:
                expected = attempttruth.count(database, made, name, detailed=name == "api")
                _agree(exporter, expected, name)
                _check_failures(exporter, made, name)
    _check_the_runs(made, expected)


async def _drive_and_kill(agentos: RunningAgentOS, exporter: RunningExporter, runs: int) -> None:
    """Send the runs, and kill the exporter in their midst."""
    driving = asyncio.create_task(load.drive(agentos.base_url, runs=runs, leaving=False, kinds=KINDS))
    some = runs // 2
    await asyncio.to_thread(
        truth.wait_until, lambda: exporter.total("agentos_llm_calls_total", agentos="tables") > some
    )
    exporter.kill()
    await asyncio.to_thread(exporter.start)
    outcome = await driving
    assert (outcome.started, outcome.failed) == (runs, {})


def _agree(exporter: RunningExporter, expected: truth.Totals, agentos: str) -> None:
    """Wait until it shows what is expected, and see that four more polls change nothing."""
    differences: list[str] = []

    def equal() -> bool:
        differences[:] = attempttruth.difference(expected, exporter.samples(), agentos)
        return not differences

    try:
        truth.wait_until(equal, pause=0.5, deadline=60)
    except TimeoutError:
        raise AssertionError("\n".join([f"{len(differences)} samples differ:", *differences[:40]])) from None
    exporter.wait_until_polled(4)  # of all instances together
    assert attempttruth.difference(expected, exporter.samples(), agentos) == []


def _check_failures(exporter: RunningExporter, made: list[attempting.Attempt], agentos: str) -> None:
    """See that each attempt that failed is counted, with all the time that its model saw."""
    failed = [attempt for attempt in made if attempt.failed]
    assert exporter.total("agentos_llm_call_errors_total", agentos=agentos) == len(failed)
    for model in attempttruth.PRICES:
        own = [attempt.seconds for attempt in failed if attempt.model == model]
        assert exporter.total("agentos_llm_call_errors_total", agentos=agentos, model=model) == len(own)
        assert exporter.total("agentos_llm_wasted_seconds_total", agentos=agentos, model=model) >= sum(own)


def _check_the_runs(made: list[attempting.Attempt], expected: truth.Totals) -> None:
    """The runs had what there is to tell."""
    shown = Counter(name for name, _ in expected)
    assert all(shown[name] for name in attempttruth.EXACT), shown
    assert {attempt.role for attempt in made if attempt.why == attempting.RETRY} >= {"", "memory", "parser", "output"}
    pairs = {(attempt.instead_of, attempt.model) for attempt in made if attempt.why == attempting.FALLBACK}
    assert len(pairs) >= 5


def test_sqlite_by_tables_and_by_api(tmp_path: Path) -> None:
    exact(f"sqlite:{tmp_path / 'agno.db'}", tmp_path, runs=150, api=True)


@pytest.mark.postgres
def test_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    exact(f"postgres:{postgres.url('attempts')}", tmp_path, runs=100)
