"""100,000 traces of 30 days, backfilled: what each day has grown by is what the tables say, by agent and model.

Prometheus 3 is also asked about the day of the seam, on which a daemon went on to count.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import RunningExporter, reads
from tests.harness.past import backfill, configured, finished, make_blocks, usd
from tests.harness.process import eventually
from tests.harness.prometheus import JOB, RunningPrometheus
from tests.harness.seed import seed
from tests.harness.tools import debian, tool

pytestmark = [pytest.mark.prometheus, pytest.mark.slow]

TRACES, DAYS = 100_000, 30
DAY = 86_400
KEEP = f"--storage.tsdb.retention.time={2 * DAYS}d"
EXACT = "--enable-feature=promql-extended-range-selectors"
CALLS_BY_DAY = """
SELECT substr(call.end_time, 1, 10), replace(agent.name, '.arun', ''), call.attributes ->> '$."llm.model_name"',
    count(*),
    sum(coalesce(call.attributes ->> '$."llm.token_count.prompt"', 0)),
    sum(coalesce(call.attributes ->> '$."llm.token_count.completion"', 0)),
    sum(coalesce(call.attributes ->> '$."llm.token_count.prompt_details.cache_read"', 0))
FROM agno_spans call JOIN agno_spans agent ON agent.span_id = call.parent_span_id
WHERE call.attributes ->> '$."openinference.span.kind"' = 'LLM'
GROUP BY 1, 2, 3
"""
APART = "claude-sonnet-5-5"
"""The model whose count of input leaves out what came from the cache."""


@dataclass(frozen=True)
class Calls:
    """What the model calls of an agent with a model came to on one day."""

    number: int
    tokens: int
    cost: Decimal


Day = Mapping[tuple[str, str], Calls]
"""By agent and model"""


def by_day(database: Path, source: str) -> dict[str, Day]:
    """Count calls by the day in UTC on which they ended, as they are seen over the API or in the database."""
    days: dict[str, dict[tuple[str, str], Calls]] = {}
    with closing(sqlite3.connect(database)) as connection:
        for day, agent, model, number, prompt, output, cached in connection.execute(CALLS_BY_DAY):
            tokens = {"input": prompt, "output": output}
            if source == "database":
                fresh = prompt if model == APART else prompt - cached
                tokens = {"input": fresh, "cache_read": cached, "output": output}
            cost = sum((usd(model, *token) for token in tokens.items()), Decimal(0))
            days.setdefault(day, {})[agent, model] = Calls(number, sum(tokens.values()), cost)
    return days


def grown(server: RunningPrometheus, until: float, seconds: int, modifier: str = "") -> Day:
    """Return what Prometheus says of so many seconds."""

    def increase(metric: str) -> dict[tuple[str, str], float]:
        query = f"sum by (agent, model) (increase({metric}[{seconds}s]{modifier})) > 0"
        result = server.ask("query", query=query, time=f"{until:.3f}")["result"]
        return {(one["metric"]["agent"], one["metric"]["model"]): float(one["value"][1]) for one in result}

    calls, tokens, cost = map(
        increase, ("agentos_llm_calls_total", "agentos_llm_tokens_total", "agentos_llm_cost_usd_total")
    )
    assert calls.keys() == tokens.keys() == cost.keys()
    return {key: Calls(round(calls[key], 6), round(tokens[key], 6), round(Decimal(cost[key]), 9)) for key in calls}


def rounded(day: Day) -> Day:
    """Return the same with cost to 1e-9 USD."""
    return {key: Calls(one.number, one.tokens, round(one.cost, 9)) for key, one in day.items()}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of 30 days."""
    path = tmp_path_factory.mktemp("history") / "agno.db"
    until = datetime.now(UTC) - timedelta(minutes=1)
    seed(f"sqlite:{path}", TRACES, until=until, spread=timedelta(days=DAYS), prompt_bytes=(50, 80))
    return path


@dataclass
class Watch:
    """Prints how long each step took."""

    began: float

    def say(self, what: str) -> None:
        """Print the seconds since the last step."""
        print(f"{time.monotonic() - self.began:.0f} s: {what}", flush=True)
        self.began = time.monotonic()


@pytest.mark.parametrize("source", ["api", "database"])
def test_each_day_of_a_month_is_told_to_the_last_token(tmp_path: Path, history: Path, source: str) -> None:
    path = tmp_path / "agno.db"
    shutil.copyfile(history, path)
    prometheus = tool("prometheus")
    with RunningAgentOS(sys.executable, f"sqlite:{path}") as agentos:
        keys = {"url": agentos.base_url} if source == "api" else reads(f"sqlite:{path}")
        config = configured(tmp_path, tmp_path / "state.db", **keys)
        with (
            RunningExporter(tmp_path, {"it": keys}, initial_lookback="1h", prices="prices.yml") as exporter,
            RunningPrometheus(prometheus, tmp_path, exporter.port, flags=[EXACT, KEEP]) as server,
        ):
            exporter.wait_until_polled(2)
            first = exporter.total("agentos_runs_total")
            eventually(lambda: server.value("sum(agentos_runs_total)") == first, "the first pass")
            seam = datetime.now(UTC) - timedelta(hours=1)
            seed(f"sqlite:{path}", 40, spread=timedelta(seconds=20), prompt_bytes=(50, 80), number=1)
            exporter.wait_until_polled(4)
            # A series that is new after the first pass shows 0 for a while.
            calls = 2 * (first + 40)
            eventually(lambda: server.value("sum(agentos_llm_calls_total)") == calls, "what came after it")
            ended = time.time()
            watch = Watch(time.monotonic())
            texts = written(tmp_path, config, exporter.port)
        size = sum(text.stat().st_size for text in texts)
        watch.say(f"{source}: {size / 2**20:.0f} MiB in {len(texts)} files")
    days = by_day(path, source)
    assert sum(one.number for day in days.values() for one in day.values()) == 2 * (TRACES + 40)
    midnight = seam.replace(hour=0, minute=0, second=0, microsecond=0)
    since = f"{midnight:%Y-%m-%d}"
    make_blocks(tool("promtool"), texts, tmp_path / "prometheus")
    watch.say("blocks by the current promtool")
    with RunningPrometheus(prometheus, tmp_path, flags=[EXACT, KEEP]) as server:
        for day, known in past(days, since):
            assert grown(server, day, DAY, " anchored") == known, day
        seamed = merged([one for day, one in days.items() if day >= since])
        assert grown(server, ended, int(ended - midnight.timestamp()), " anchored") == rounded(seamed)
    watch.say(f"{len(days)} days are exact in Prometheus 3")
    (folder := tmp_path / "debian").mkdir()
    make_blocks(debian("promtool"), texts, folder / "prometheus")
    watch.say("blocks by Debian's promtool")
    with RunningPrometheus(debian("prometheus"), folder, flags=[KEEP]) as server:
        for day, known in past(days, since):
            assert grown(server, day, DAY) == known, day
    watch.say("days are exact in Prometheus 2")


def written(folder: Path, config: Path, port: int) -> Sequence[Path]:
    """Backfill all of it, and return the files."""
    begin = f"{datetime.now(UTC) - timedelta(days=DAYS + 1):%Y-%m-%d}"
    labels = ("--label", f"job={JOB}", "--label", f"instance=127.0.0.1:{port}")
    finished(backfill(config, "--from", begin, "--step", "5m", *labels, "--output", f"{folder}/past/"))
    return sorted((folder / "past").iterdir())


def past(days: Mapping[str, Day], since: str) -> Iterator[tuple[float, Day]]:
    """Yield the end of each day before `since`, in seconds, and what was counted on it."""
    before = {day: calls for day, calls in days.items() if day < since}
    assert len(before) >= DAYS
    for day, calls in before.items():
        yield datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() + DAY, rounded(calls)


def merged(days: Sequence[Day]) -> Day:
    """Add up days."""
    whole: dict[tuple[str, str], Calls] = {}
    for key, one in ((key, one) for day in days for key, one in day.items()):
        other = whole.get(key, Calls(0, 0, Decimal(0)))
        whole[key] = Calls(one.number + other.number, one.tokens + other.tokens, one.cost + other.cost)
    return whole
