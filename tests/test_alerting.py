"""From failing runs in a real AgentOS to a notification: exporter, Prometheus, the generated rules, Alertmanager."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.harness.agentos import RunningAgentOS
from tests.harness.alertmanager import Notification, RunningAlertmanager, Webhook
from tests.harness.exporter import RunningExporter
from tests.harness.process import eventually
from tests.harness.prometheus import JOB, RunningPrometheus
from tests.harness.tools import pairs

pytestmark = [pytest.mark.prometheus, pytest.mark.slow]

SPIKE = "AgentOSErrorSpanSpike"
HASTE: Mapping[str, str] = {"fast_interval": "2s", "slow_interval": "2s", "error_spike_for": "10s"}
"""Settings of the rules that differ from the shipped ones (1m, 2m, 2m): four minutes of nothing but waiting."""
FAILURES = 12
"""Runs that fail. The alert needs five failed spans of a kind."""
ALSO = {"AgentOSProviderFailing", "AgentOSRunErrorBudgetBurn"}
"""What may fire as well once it has lasted: a model's calls failed, and so did runs."""


@pytest.mark.parametrize("binaries", pairs("prometheus", "alertmanager"))
def test_failing_runs_are_notified_and_resolved(tmp_path: Path, binaries: tuple[str, str]) -> None:
    prometheus_binary, alertmanager_binary = binaries
    rules = generated(tmp_path, HASTE)
    with (
        RunningAgentOS(sys.executable, f"sqlite:{tmp_path / 'agno.db'}") as agentos,
        RunningExporter(tmp_path, {"prod": agentos.base_url}) as exporter,
        Webhook() as webhook,
        RunningAlertmanager(alertmanager_binary, tmp_path, webhook.url) as alertmanager,
        RunningPrometheus(
            prometheus_binary, tmp_path, exporter.port, rules=rules, alertmanager=alertmanager.url
        ) as prometheus,
    ):
        with traffic(agentos):
            shares = 'agentos_kind:error_spans:ratio_rate5m{agentos="prod"}'
            eventually(lambda: prometheus.value(f"count({shares} == 0)") == 3, "shares of agent, llm and tool spans")
            # Not even pending: what is true now would fire after its `for`.
            states = {rule["name"]: rule["state"] for rule in prometheus.rules("alert")}
            assert SPIKE in states
            assert set(states.values()) == {"inactive"}, states
            assert not webhook.notifications

        began = time.time()
        for _ in range(FAILURES):
            run(agentos, "failing-model")
        eventually(lambda: kinds(webhook, "firing") == {"agent", "llm"}, "both kinds of spans that failed are notified")
        firing = webhook.notified("firing", SPIKE)
        for notification in firing:
            check(notification)
        print(f"first error to notification: {', '.join(f'{each.received - began:.1f} s' for each in firing)}")
        assert not kinds(webhook, "resolved")

        ended = time.time()
        with traffic(agentos):
            eventually(lambda: kinds(webhook, "resolved") == {"agent", "llm"}, "both are resolved", seconds=120)
        resolved = webhook.notified("resolved", SPIKE)
        print(f"good runs to resolution: {', '.join(f'{each.received - ended:.1f} s' for each in resolved)}")
        assert {tuple(each.labels.items()) for each in resolved} == {tuple(each.labels.items()) for each in firing}
        assert all(each.starts_at < each.ends_at for each in resolved)
        (state,) = {rule["state"] for rule in prometheus.rules("alert") if rule["name"] == SPIKE}
        assert state == "inactive"
        assert webhook.names() <= {SPIKE} | ALSO
        assert SPIKE not in {alert["labels"]["alertname"] for alert in alertmanager.alerts()}


def check(notification: Notification) -> None:
    """What a person who is notified is told."""
    kind = notification.labels["span_kind"]
    assert notification.labels == {
        "alertname": SPIKE,
        "agentos": "prod",
        "job": JOB,
        "severity": "warning",
        "span_kind": kind,
    }
    assert notification.annotations["runbook_url"].endswith(f"/{SPIKE}.md")
    assert "/d/agentos-overview?var-agentos=prod" in notification.annotations["dashboard_url"]
    assert f"% of the {kind} spans of prod fail" in notification.annotations["summary"]
    assert not [text for text in notification.annotations.values() if "<no value>" in text or "{{" in text]


def kinds(webhook: Webhook, status: str) -> set[str]:
    """Kinds of spans that the webhook was notified of."""
    return {each.labels["span_kind"] for each in webhook.notified(status, SPIKE, agentos="prod")}


def generated(folder: Path, settings: Mapping[str, str]) -> list[Path]:
    """The shipped rules with some settings of one's own, as a user makes them."""
    file = folder / "settings.yml"
    file.write_text(json.dumps(settings))
    command = (sys.executable, "-m", "deploy.mixin", "--settings", str(file), "--out", str(folder))
    subprocess.run(command, cwd=Path(__file__).parents[1], check=True)
    rules = sorted(folder.rglob("rules*.yml"))
    assert rules
    return rules


@contextmanager
def traffic(agentos: RunningAgentOS) -> Iterator[None]:
    """Runs that go well, one after the other in a few threads."""
    done = threading.Event()

    def user(agent: str) -> None:
        while not done.is_set():
            run(agentos, agent)

    agents = ("plain", "plain", "claude", "tools")
    with ThreadPoolExecutor(len(agents)) as pool:
        users = [pool.submit(user, agent) for agent in agents]
        try:
            yield
        finally:
            done.set()
        for each in users:
            each.result()


def run(agentos: RunningAgentOS, agent: str) -> None:
    url, form = f"{agentos.base_url}/agents/{agent}/runs", {"message": "Hello", "stream": "false"}
    httpx.post(url, data=form, timeout=60, trust_env=False, verify=False).raise_for_status()
