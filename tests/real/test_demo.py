"""The demonstration, started as a newcomer starts it: what it shows, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.sources.operations import SCOPES
from tests.harness.demos import STOPS_WITHIN, Demo, demos


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    with demos(tmp_path) as begin:
        yield begin


def eventually(condition: Callable[[], object], *, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_sigterm_stops_it(start: Callable[..., Demo]) -> None:
    demo = start("--no-prometheus")
    demo.up()
    assert demo.stop(signal.SIGTERM) < STOPS_WITHIN
    assert (demo.process.returncode, demo.processes(), list(demo.folder.iterdir())) == (0, [], [])
    assert "Traceback" not in demo.output


WANTED = (
    ("agentos_approvals_pending",),
    ("agentos_approvals_resolved_total", 'resolution="approved"'),
    ("agentos_approvals_resolved_total", 'resolution="rejected"'),
    ("agentos_schedule_runs_total", 'schedule="Morning Digest"', 'status="success"'),
    ("agentos_schedule_runs_total", 'schedule="Archive Summary"', 'status="failed"'),
    ("agentos_schedule_next_run_timestamp_seconds", 'schedule="Stock Check"'),
    *(("agentos_queue_jobs", f'status="{status}"') for status in ("queued", "completed", "failed", "cancelled")),
    ("agentos_queue_oldest_job_timestamp_seconds",),
    ("agentos_queue_jobs_finished_total", 'component="summarizer"', 'status="completed"'),
    *(
        ("agentos_eval_runs_total", f'eval_type="{kind}"')
        for kind in ("accuracy", "agent_as_judge", "reliability", "performance")
    ),
    ("agentos_eval_score_count",),
    *(("agentos_knowledge_contents", f'status="{status}"') for status in ("completed", "partial", "failed")),
    ("agentos_memories",),
    ("agentos_memory_users",),
    *(("agentos_surface_up", f'surface="{surface}"') for surface in SCOPES),
    ("agentos_llm_call_errors_by_class_total",),
    ("agentos_llm_retries_total",),
    ("agentos_llm_fallbacks_total",),
    ("agentos_llm_wasted_seconds_total",),
    ("agentos_llm_output_tokens_per_second_count",),
    ("agentos_llm_time_per_output_token_seconds_count",),
    ("agentos_llm_cache_savings_usd_total",),
    ("agentos_run_overhead_tokens_total",),
    ("agentos_run_overhead_cost_usd_total",),
    ("agentos_guardrail_blocks_total",),
    *(("agentos_dimension_cost_usd_total", f'value="{tenant}"') for tenant in ("acme", "globex", "initech")),
    ("agentos_budget_value_spent_usd", 'value="acme"'),
)
"""Names and labels of samples that the demo is to show, and not as 0."""


def missing(metrics: str) -> list[tuple[str, ...]]:
    """Those of `WANTED` that are not there yet."""
    shown = [line.partition("{") for line in metrics.splitlines() if not line.endswith(" 0.0")]
    return [
        (name, *wanted)
        for name, *wanted in WANTED
        if not any(one == name and all(label in labels for label in wanted) for one, _, labels in shown)
    ]


@pytest.mark.slow
def test_it_shows_what_waits_what_fails_and_who_pays(start: Callable[..., Demo]) -> None:
    demo = start("--no-prometheus", "--rate=3")
    demo.up()
    assert eventually(lambda: not missing(demo.metrics()), seconds=120), missing(demo.metrics())
    assert 'agentos_schedule_enabled{agentos="demo",schedule="Old Newsletter"} 0.0' in demo.metrics()
    assert demo.stop(signal.SIGTERM) < STOPS_WITHIN
    assert (demo.process.returncode, demo.processes(), list(demo.folder.iterdir())) == (0, [], [])


def test_a_signal_while_it_starts_stops_it(start: Callable[..., Demo]) -> None:
    demo = start("--no-prometheus")
    demo.wait(demo.processes, "the first child")
    assert demo.stop(signal.SIGTERM) < STOPS_WITHIN
    assert (demo.process.returncode, demo.processes(), list(demo.folder.iterdir())) == (0, [], [])
    assert "Traceback" not in demo.output


def test_no_child_outlives_a_kill(start: Callable[..., Demo]) -> None:
    demo = start()  # with Prometheus, where there is one
    demo.up()
    assert len(demo.processes()) >= 2
    demo.process.kill()
    demo.process.wait()
    assert eventually(lambda: not demo.processes()), demo.processes()
    assert eventually(lambda: not list(demo.folder.iterdir())), list(demo.folder.iterdir())


def test_the_end_of_its_agentos_ends_it_with_a_word(start: Callable[..., Demo]) -> None:
    demo = start("--no-prometheus")
    demo.up()
    server = next(pid for pid in demo.processes() if b"leash" not in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(server, signal.SIGKILL)
    assert demo.process.wait(15) == 1
    assert "error: AgentOS ended unexpectedly" in demo.output
    assert "Traceback" not in demo.output
    assert (demo.processes(), list(demo.folder.iterdir())) == ([], [])


@pytest.mark.parametrize("flag", ["--web.listen-address", "--agentos-port"])
def test_a_taken_port_is_an_error_that_names_the_flag(start: Callable[..., Demo], flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo = start(flag, f"127.0.0.1:{port}" if flag.startswith("--web") else str(port))
        assert demo.process.wait(30) == 1
    assert re.fullmatch(rf".*error: {flag}: cannot listen on 127\.0\.0\.1:{port}: .*\n", demo.output), demo.output
    assert (demo.processes(), list(demo.folder.iterdir())) == ([], [])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--rate", "0"), "for --rate: '0' is not a number above 0"),
        (("--duration", "nan"), "for --duration: 'nan' is not a number above 0"),
        (("--agentos-port", "70000"), "for --agentos-port: '70000' is not a port"),
        (("--web.listen-address", "9777"), "for --web.listen-address: '9777' is not a listen address"),
    ],
)
def test_flags_that_make_no_sense(start: Callable[..., Demo], flags: tuple[str, ...], message: str) -> None:
    demo = start(*flags)
    assert demo.process.wait(30) == 2
    assert message in demo.output
