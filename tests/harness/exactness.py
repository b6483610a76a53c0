"""Mixed runs of a real AgentOS whose API is read: /metrics shows what stands in agno's tables, in good health."""

import asyncio
import time
from pathlib import Path

from tests.harness import load, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import RunningExporter, total

RUNS = 150
NAME = "it"


def check_health(samples: truth.Totals, *, hidden: int = 0) -> None:
    """Nothing hidden beyond what is missing, nothing ignored, no poll that failed."""
    assert total(samples, "agentos_exporter_hidden_spans_total") == hidden
    assert total(samples, "agentos_exporter_open_traces") == 0
    assert total(samples, "agentos_exporter_ignored_traces_total") == 0
    assert total(samples, "agentos_exporter_source_resets_total") == 0
    assert total(samples, "agentos_exporter_series_limited_total") == 0
    polls = {key: value for key, value in samples.items() if key[0] == "agentos_exporter_polls_total"}
    assert {dict(labels)["outcome"] for (_, labels), value in polls.items() if value} == {"ok"}
    assert total(samples, "agentos_up") == 1


def check_people(exporter: RunningExporter, expected: truth.Truth) -> None:
    assert expected.sessions
    assert expected.users

    # These gauges are worked out anew every few seconds.
    def equal() -> bool:
        samples = exporter.samples()
        return all(
            total(samples, f"agentos_active_{what}", window=window) == len(people)
            for window in ("1h", "24h")
            for what, people in (("sessions", expected.sessions), ("users", expected.users))
        )

    truth.wait_until(equal, pause=0.5)


def check_session_stats(exporter: RunningExporter, database: str, *, http_roots: bool, grouped: bool) -> None:
    """Without HTTP roots traces have session ids, and the gauges are what the table says; else they are absent."""
    sessions, groups, traces = traces_with_session(database)
    assert bool(sessions) != http_roots
    expected: dict[str, set[float]] = {
        "agentos_sessions": {groups if grouped else sessions},  # agno 2.3 counts its rows, several of one session
        "agentos_session_stats_sessions": {sessions},
        "agentos_session_stats_traces": {traces},
    }
    if http_roots:
        expected = {name: set() for name in expected}

    def shown() -> dict[str, set[float]]:
        samples = exporter.samples()
        return {name: {value for (have, _), value in samples.items() if have == name} for name in expected}

    # They are read rarely: AgentOS pays for it.
    truth.wait_until(lambda: shown() == expected, pause=0.5)


def traces_with_session(database: str) -> tuple[int, int, int]:
    """Return how many sessions traces name, in how many groups by who ran them, and how many such traces there are."""
    columns = "session_id, user_id, agent_id, team_id, workflow_id"
    with truth.snapshot(database) as (connection, schema):
        query = f"SELECT {columns} FROM {schema}agno_traces WHERE session_id IS NOT NULL"
        rows = connection.execute(query).fetchall()
    return len({row[0] for row in rows}), len(set(rows)), len(rows)


class LostByAgentOSError(Exception):
    """AgentOS itself lost a span whose children it wrote: now and then asynchronous databases do, under load."""


def exact(
    python: str | Path,
    database: str,
    folder: Path,
    *,
    http_roots: bool = True,
    grouped: bool = False,
    runs: int = RUNS,
    seed_of_load: int = 0,
    concurrency: int = 8,
    **settings: object,
) -> None:
    """Send mixed runs to an AgentOS while the exporter reads it; then everything must agree."""
    with (
        RunningAgentOS(python, database) as agentos,
        RunningExporter(folder, {NAME: agentos.base_url}, **settings) as exporter,
    ):
        outcome = asyncio.run(load.drive(agentos.base_url, runs=runs, seed=seed_of_load, concurrency=concurrency))
        assert (outcome.started, outcome.failed) == (runs, {})
        agentos.wait_until_quiet()
        expected = truth.count(database, NAME)
        assert expected.traces >= runs - outcome.left  # who leaves at once may leave nothing behind
        if expected.hidden and "async-" in database:
            raise LostByAgentOSError(f"{len(expected.hidden)} spans stand below one that was never written")
        assert not expected.hidden
        began = time.monotonic()
        samples = exporter.agree(expected)
        check_health(samples)
        check_people(exporter, expected)
        check_session_stats(exporter, database, http_roots=http_roots, grouped=grouped)
        assert truth.count(database, NAME).traces == expected.traces  # the exporter left no trace in AgentOS
        print(
            f"{runs} runs in {outcome.seconds:.1f} s, {expected.traces} traces, {expected.spans} spans: "
            f"difference 0 after {time.monotonic() - began:.1f} s more"
        )
