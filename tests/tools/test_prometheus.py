"""A real Prometheus: it takes what the exporter serves, keeps the exemplars, and sees the first error of a kind."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from tests.harness.agentos import RunningAgentOS
from tests.harness.demo import RunningDemo
from tests.harness.exporter import RunningExporter
from tests.harness.process import eventually
from tests.harness.prometheus import RunningPrometheus, shipped_rules
from tests.harness.tools import debian, pairs, tool

pytestmark = pytest.mark.prometheus

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def run(agentos: RunningAgentOS, agent: str) -> None:
    form = {"message": "Hello", "stream": "false"}
    httpx.post(f"{agentos.base_url}/agents/{agent}/runs", data=form, timeout=60, trust_env=False)


@pytest.mark.slow
def test_increase_sees_the_first_error_of_a_kind(tmp_path: Path) -> None:
    """An alert on `increase()` must fire on it: the series has to be there at 0 before it counts."""
    binaries = {"debian": debian("prometheus"), "current": tool("prometheus")}
    errors = 'agentos_error_spans_total{span_kind="tool",error_type="DatabaseError"}'
    with contextlib.ExitStack() as stack:
        agentos = stack.enter_context(RunningAgentOS(sys.executable, f"sqlite:{tmp_path / 'agno.db'}"))
        exporter = stack.enter_context(RunningExporter(tmp_path, {"it": agentos.base_url}, zero_hold="3s"))
        servers = []
        for name, binary in binaries.items():
            (folder := tmp_path / name).mkdir()
            servers.append(stack.enter_context(RunningPrometheus(binary, folder, exporter.port)))

        def eventually_all(query: str, what: str) -> None:
            eventually(lambda: all(server.value(query) for server in servers), what)

        run(agentos, "plain")
        eventually_all("sum(agentos_runs_total)", "a run")
        for server in servers:
            assert server.value(f"sum({errors})") is None, "there was one before"
        run(agentos, "failing-tool")
        eventually_all(f"sum({errors}) == 1", "the error")
        # Extrapolation takes a moment and some samples; the count itself is exact.
        eventually_all(f"sum(increase({errors}[1m])) > 0", "its increase")
        for server in servers:
            (samples,) = server.query(f"{errors}[2m]")
            values = [float(value) for _, value in samples["values"]]
            assert values[0] == 0
            assert values.count(0) >= 2, "a second Prometheus of a pair must see the 0 as well"
            assert sorted(values) == values


@pytest.mark.slow
@pytest.mark.parametrize("binaries", pairs("prometheus", "promtool"))
def test_prometheus_takes_what_the_demo_shows(tmp_path: Path, binaries: tuple[str, str]) -> None:
    prometheus, promtool = binaries
    with RunningDemo(prometheus) as demo:
        server = demo.prometheus
        groups = [group for file in shipped_rules() for group in yaml.safe_load(file.read_text())["groups"]]
        shipped = sorted(rule.get("alert") or rule["record"] for group in groups for rule in group["rules"])
        assert sorted(rule["name"] for rule in server.rules()) == shipped
        eventually(lambda: server.value('up{job="agentos-exporter"}') == 1, "the target is up")
        eventually(lambda: server.value("sum(agentos_llm_tokens_total)"), "tokens")
        eventually(lambda: server.value("sum(agentos_error_spans_total)"), "errors")

        metrics = httpx.get(f"{demo.url}/metrics", trust_env=False).text
        checked = subprocess.run(
            (promtool, "check", "metrics"), input=metrics, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")

        shown = httpx.get(f"{demo.url}/metrics", headers=OPENMETRICS, trust_env=False).text
        traces = set(re.findall(r'# \{trace_id="([0-9a-f]{32})"\}', shown))
        assert traces
        durations, errors = "agentos_run_duration_seconds_bucket", "agentos_error_spans_total"
        eventually(lambda: server.exemplar_traces(durations), "exemplars of durations")
        eventually(lambda: server.exemplar_traces(errors), "exemplars of errors")
        assert server.exemplar_traces('{__name__=~"agentos_.+"}') & traces
