"""A real Prometheus takes blocks of a backfill, and says of any day, that of the seam too, what the tables say."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.harness import seams, sqltruth, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import RunningExporter, reads
from tests.harness.past import Past, backfill, configured, finished, make_blocks
from tests.harness.process import eventually
from tests.harness.prometheus import JOB, RunningPrometheus
from tests.harness.seed import seed
from tests.harness.tools import debian, tool

pytestmark = pytest.mark.prometheus

DAY = 86_400
LOOKBACK = 3_600
EXACT = "--enable-feature=promql-extended-range-selectors"
SUMS = {
    "agentos_llm_tokens_total": Past.tokens,
    "agentos_llm_cost_usd_total": Past.spent,
    "agentos_runs_total": Past.runs,
    "agentos_run_duration_seconds_count": Past.runs,
    "agentos_error_spans_total": Past.errors,
}


def increases(server: RunningPrometheus, until: float, seconds: int, modifier: str = "") -> Mapping[str, float]:
    """What each of the metrics has grown by within so many seconds."""
    found = {}
    for name in SUMS:
        query = f"sum(increase({name}[{seconds}s]{modifier}))"
        (sample,) = server.ask("query", query=query, time=f"{until:.3f}")["result"]
        found[name] = float(sample["value"][1])
    return found


def grew(past: Past, since: float, until: float) -> Mapping[str, object]:
    """The same from the tables: USD to 10**-9, all others to the last unit."""
    return {name: pytest.approx(float(count(past, since, until)), abs=1e-9) for name, count in SUMS.items()}


def boards_do_not_show_the_seam(server: RunningPrometheus, seamless: RunningPrometheus, ended: float) -> None:
    """Compare the answers to the boards' queries with those of a Prometheus that has all of it as past."""
    answered, differing = seams.differing(server, seamless, ended, DAY)
    assert answered > 50
    assert not differing
    answered, peaks = seams.peaks(server, seamless, ended - 2 * LOOKBACK, ended)
    assert answered > 20
    assert not peaks


@pytest.mark.slow
@pytest.mark.parametrize("source", ["api", "database"])
def test_any_day_is_told_to_the_last_token_and_the_day_of_the_seam_as_well(tmp_path: Path, source: str) -> None:
    prometheus, promtool = tool("prometheus"), tool("promtool")
    database = f"sqlite:{tmp_path / 'agno.db'}"
    now = datetime.now(UTC)
    seed(database, 500, until=now - timedelta(minutes=2), spread=timedelta(days=3), prompt_bytes=(50, 80))
    # Some series are busier in the hour before the daemon began than ever before: it begins with more than they had.
    seed(database, 300, until=now - timedelta(minutes=1), spread=timedelta(minutes=50), prompt_bytes=(50, 80), number=1)
    rows = truth.Row if source == "api" else sqltruth.Row
    with RunningAgentOS(sys.executable, database) as agentos:
        keys = {"url": agentos.base_url} if source == "api" else reads(database)
        config = configured(tmp_path, tmp_path / "state.db", **keys)
        with (
            RunningExporter(tmp_path, {"it": keys}, initial_lookback="1h", prices="prices.yml") as exporter,
            RunningPrometheus(prometheus, tmp_path, exporter.port, flags=[EXACT]) as server,
        ):
            exporter.wait_until_polled(2)
            first = exporter.total("agentos_runs_total")
            assert 300 < first < 340
            eventually(lambda: server.value("sum(agentos_runs_total)") == first, "the first pass")
            seed(database, 40, until=datetime.now(UTC), spread=timedelta(seconds=20), prompt_bytes=(50, 80), number=2)
            exporter.wait_until_polled(4)
            eventually(lambda: server.value("sum(agentos_runs_total)") == first + 40, "what came after it")
            eventually(lambda: server.value("sum(agentos_run_llm_calls_count)") == first + 40, "the last run settles")
            labels = ("--label", f"job={JOB}", "--label", f"instance=127.0.0.1:{exporter.port}")
            begin = (now - timedelta(days=3, hours=1)).isoformat()
            said = finished(backfill(config, "--from", begin, *labels, "--output", f"{tmp_path}/past/"))
            texts = sorted((tmp_path / "past").iterdir())
            assert f"{840 - int(first) - 40} traces, " in said
            ended = time.time()
            if source == "database":
                until = datetime.fromtimestamp(ended, UTC).isoformat()
                nothing = configured(tmp_path, "memory", name="whole.yml", **keys)
                finished(backfill(nothing, "--from", begin, "--to", until, *labels, "--output", f"{tmp_path}/whole/"))
        make_blocks(promtool, texts, tmp_path / "prometheus")
        past = Past(database, rows)
        with RunningPrometheus(prometheus, tmp_path, flags=[EXACT]) as server:
            seam = int(now.timestamp() - LOOKBACK - 600) // 60 * 60
            for until in (seam, seam - DAY):
                expected = grew(past, until - DAY, until)
                assert increases(server, until, DAY, " anchored") == expected
                # Without the modifier it leaves out the first minute, and makes up for it: it is never far off.
                assert increases(server, until, DAY)["agentos_llm_tokens_total"] == pytest.approx(
                    past.tokens(until - DAY, until), rel=0.02
                )
            start = seam - DAY
            assert increases(server, ended, int(ended) - start, " anchored") == grew(past, start, ended)
            if source == "database":
                (whole := tmp_path / "of the past").mkdir()
                make_blocks(promtool, sorted((tmp_path / "whole").iterdir()), whole / "prometheus")
                with RunningPrometheus(prometheus, whole) as seamless:
                    boards_do_not_show_the_seam(server, seamless, ended)
        if source == "api":
            (folder := tmp_path / "debian").mkdir()
            make_blocks(promtool, texts, folder / "prometheus")
            with RunningPrometheus(debian("prometheus"), folder) as server:
                assert increases(server, seam, DAY) == grew(past, seam - DAY, seam)
