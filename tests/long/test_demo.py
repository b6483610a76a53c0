"""The demonstration to its end: what it shows, and that it leaves nothing behind but what was asked for."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.demos import ROOT, STOPS_WITHIN, Demo, demos


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    with demos(tmp_path) as begin:
        yield begin


def series(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and values of the samples of a metric that are not 0."""
    lines = re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
    found = [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for labels, value in lines]
    return [(labels, value) for labels, value in found if value]


def error_kinds(text: str) -> set[tuple[str, str]]:
    return {(labels["span_kind"], labels["error_type"]) for labels, _ in series(text, "agentos_error_spans_total")}


COST_KINDS = {
    ("gpt-5.4", "input", "listed"),
    ("gpt-5.4", "cache_read", "listed"),
    ("gpt-5.4", "reasoning", "listed"),
    ("claude-sonnet-4-5", "cache_read", "listed"),
    ("acme-router-7b", "output", "custom"),
}


def cost_kinds(text: str) -> set[tuple[str, str, str]]:
    found = series(text, "agentos_llm_cost_usd_total")
    return {(labels["model"], labels["token_class"], labels["cost_source"]) for labels, _ in found}


def test_it_shows_a_company_at_work_without_the_network_and_leaves_nothing(start: Callable[..., Demo]) -> None:
    demo = start("--rate", "3", "--no-prometheus")
    demo.wait(lambda: series(demo.metrics(), "agentos_llm_tokens_total"), "tokens that are not 0")
    models = {"gpt-5.4", "gpt-5.4-mini", "claude-sonnet-4-5", "gemini-2.5-flash", "llama3.2:3b"}
    models |= {"acme-router-7b", "acme-guard-1b"}
    demo.wait(
        lambda: {labels["model"] for labels, _ in series(demo.metrics(), "agentos_llm_tokens_total")} == models,
        "every model",
    )
    kinds = {("tool", "other"), ("tool", "PaymentError"), ("llm", "ModelProviderError")}
    demo.wait(lambda: error_kinds(demo.metrics()) >= kinds, "errors of several kinds")
    root_kinds = {"agent", "team", "workflow"}
    demo.wait(
        lambda: {labels["root_kind"] for labels, _ in series(demo.metrics(), "agentos_runs_total")} == root_kinds,
        "agents, a team and a workflow",
    )
    demo.wait(lambda: re.search(r"^\d+:\d\d  [1-9]\d* runs ", demo.output, re.MULTILINE), "a line of live numbers")
    demo.wait(lambda: cost_kinds(demo.metrics()) >= COST_KINDS, "cost of every kind", seconds=90)
    demo.wait(
        lambda: (
            {labels["model"] for labels, _ in series(demo.metrics(), "agentos_llm_unpriced_tokens_total")}
            == {"acme-guard-1b"}
        ),
        "tokens without a price",
    )
    demo.wait(lambda: series(demo.metrics(), "agentos_budget_spent_usd"), "a budget that is spent")
    demo.wait(lambda: series(demo.metrics(), "agentos_user_cost_usd_total"), "cost by user")
    users = {labels["user"] for labels, _ in series(demo.metrics(), "agentos_user_cost_usd_total")}
    assert not any("@" in user for user in users)
    free = 'model="llama3.2:3b",provider="ollama",root="Summarizer",token_class="input"} 0.0'
    demo.wait(lambda: free in demo.metrics(), "a local model that is free")
    demo.wait(lambda: re.search(r"^\d+:\d\d .* \$\d+\.\d\d ", demo.output, re.MULTILINE), "dollars in the live line")
    explain = re.search(r"prices explain (.*)", demo.output)
    assert explain
    command = [sys.executable, "-m", "exporter", "prices", "explain", *shlex.split(explain[1])]
    assert "custom" in subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "\x1b" not in demo.output, "control characters where no terminal is"
    assert len(demo.processes()) == 2, "the AgentOS and its leash"

    assert demo.stop(signal.SIGINT) < STOPS_WITHIN
    assert demo.process.returncode == 0
    assert "Traceback" not in demo.output
    assert demo.processes() == []
    assert list(demo.folder.iterdir()) == []
    assert not demo.network.exists(), demo.network.read_text()


def test_it_stops_by_itself_and_keeps_its_files_where_asked(start: Callable[..., Demo]) -> None:
    demo = start("--duration", "3", "--keep", "--no-prometheus")
    assert demo.process.wait(90) == 0, demo.output
    (scratch,) = demo.folder.iterdir()
    assert f"Kept: {scratch}\n" in demo.output
    assert {"state.db", "agno.db", "agentos.log"} <= {path.name for path in scratch.iterdir()}
    assert demo.processes() == []
