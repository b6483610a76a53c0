"""A daemon that is killed at any moment counts every span once, and no scraper ever sees a counter fall or vanish."""

import asyncio
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from tests.harness import load, seed, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import RunningExporter, total
from tests.harness.kills import Watch, delete_half, kill_often

pytestmark = pytest.mark.crash

NAME = "it"
SEED = int(os.environ.get("CRASH_SEED", "1"))
HISTORY = 10_000
KILLS = 50
RATE = 2.0
SMALL = (50, 80)
SEEDED = ("Support_Desk", "Researcher", "Code_Review", "Planner_v2.1", "Translator")
"""Names of the agents in the history, as spans spell them."""


def history_counted(exporter: RunningExporter) -> float:
    """Return how many of the seeded runs are counted; the live ones have other names."""
    samples = exporter.samples()
    return sum(total(samples, "agentos_runs_total", root=agent) for agent in SEEDED)


async def test_fifty_kills_lose_nothing_and_no_counter_ever_falls(tmp_path: Path) -> None:
    began, random = time.monotonic(), Random(SEED)
    path, kept = tmp_path / "agno.db", tmp_path / "kept.db"
    database = f"sqlite:{path}"
    until = datetime.now(UTC) - timedelta(hours=1)
    spans = await asyncio.to_thread(
        seed.seed, database, HISTORY, until=until, spread=timedelta(hours=2), prompt_bytes=SMALL, number=SEED
    )
    with RunningAgentOS(sys.executable, database) as agentos:
        stop = asyncio.Event()
        with (
            RunningExporter(tmp_path, {NAME: agentos.base_url}, initial_lookback="3h10m") as exporter,
            Watch(f"{exporter.base_url}/metrics") as watch,
        ):
            exporter.kill()
            traffic = asyncio.create_task(load.steady(agentos.base_url, rate=RATE, until=stop, seed=SEED))
            try:
                died = await asyncio.to_thread(kill_often, exporter, KILLS // 2, random, watch)
                assert died["counting"] >= 3, "it was hardly ever killed in the middle of the history"

                # Only what was counted may be deleted.
                await asyncio.to_thread(exporter.start)
                await asyncio.to_thread(truth.wait_until, lambda: history_counted(exporter) == HISTORY, pause=0.5)
                gone = await asyncio.to_thread(delete_half, path, kept, random)
                assert gone == HISTORY // 2

                died += await asyncio.to_thread(kill_often, exporter, KILLS - KILLS // 2, random, watch)
            finally:
                stop.set()
                outcome = await traffic
            await asyncio.to_thread(agentos.wait_until_quiet)
            expected = await asyncio.to_thread(truth.count, [database, f"sqlite:{kept}"], NAME)
            await asyncio.to_thread(exporter.start)
            samples = await asyncio.to_thread(exporter.agree, expected)
            assert exporter.stop() == (0, pytest.approx(0, abs=5))
    assert outcome.failed == {}
    assert expected.traces >= HISTORY + outcome.started
    assert expected.spans > spans
    assert not expected.hidden
    assert total(samples, "agentos_exporter_hidden_spans_total") == 0
    # With half of the traces all three that are asked for as witnesses may go: that is noticed, once.
    assert total(samples, "agentos_exporter_source_resets_total") <= 1
    assert total(samples, "agentos_exporter_ignored_traces_total") == 0
    assert watch.violations == []
    assert sum(died.values()) == KILLS
    assert died["starting"]
    assert died["counting"] > KILLS // 5
    assert watch.scrapes > 100
    print(
        f"seed {SEED}: {KILLS} kills ({died['starting']} before it served, {died['serving']} while it served, "
        f"{died['counting']} after it had counted spans in that life), {gone} of {HISTORY} old traces deleted, "
        f"{outcome.started} live runs, {expected.traces} traces, {expected.spans} spans, "
        f"{watch.scrapes} scrapes (+{watch.refused} refused) of up to {len(watch.seen)} persisted samples: "
        f"difference 0, nothing fell, {time.monotonic() - began:.0f} s"
    )


@pytest.mark.parametrize("repeat", range(3))
def test_sigterm_ends_it_in_order_in_the_middle_of_a_backlog(tmp_path: Path, repeat: int) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    until = datetime.now(UTC) - timedelta(minutes=5)
    seed.seed(database, 3_000, until=until, prompt_bytes=SMALL)
    expected = truth.count(database, NAME)
    with (
        RunningAgentOS(sys.executable, database) as agentos,
        RunningExporter(tmp_path, {NAME: agentos.base_url}, initial_lookback="3h") as exporter,
        Watch(f"{exporter.base_url}/metrics") as watch,
    ):
        truth.wait_until(lambda: exporter.total("agentos_runs_total") > repeat * 500)
        assert exporter.total("agentos_exporter_catching_up") == 1
        before = exporter.total("agentos_runs_total")
        code, seconds = exporter.stop()
        assert (code, seconds) == (0, pytest.approx(0, abs=5))
        assert "msg=stopped" in exporter.logs
        assert "Traceback" not in exporter.logs
        assert before < 3_000
        exporter.start()
        samples = exporter.agree(expected)
        assert total(samples, "agentos_traces_total") == 3_000
    assert watch.violations == []


def test_sigterm_ends_it_while_agentos_hangs(tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with RunningAgentOS(sys.executable, database) as agentos:
        asyncio.run(load.drive(agentos.base_url, runs=20, leaving=False))
        agentos.wait_until_quiet()
        expected = truth.count(database, NAME)
        with RunningExporter(tmp_path, {NAME: agentos.base_url}) as exporter:
            exporter.agree(expected)
            assert agentos.process is not None
            agentos.process.send_signal(signal.SIGSTOP)
            try:
                # A poll a second: when none has ended for three, one of them hangs.
                polls, since = -1.0, time.monotonic()
                while time.monotonic() - since < 3:
                    if (now := exporter.total("agentos_exporter_polls_total")) != polls:
                        polls, since = now, time.monotonic()
                    time.sleep(0.1)
                code, seconds = exporter.stop()
            finally:
                agentos.process.send_signal(signal.SIGCONT)
            assert (code, seconds) == (0, pytest.approx(0, abs=5))
            exporter.start()
            exporter.agree(expected)
