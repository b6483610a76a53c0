"""From failing runs in a real AgentOS to a notification: exporter, Prometheus, generated rules, Alertmanager."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.harness.agentos import RunningAgentOS
from tests.harness.alertmanager import Notification, RunningAlertmanager, Webhook
from tests.harness.exporter import RunningExporter
from tests.harness.process import eventually
from tests.harness.prometheus import JOB, RunningPrometheus
from tests.harness.tools import debian, tool

pytestmark = [pytest.mark.prometheus, pytest.mark.slow]

SPIKE = "AgentOSErrorSpanSpike"
HASTE: Mapping[str, str] = {"fast_interval": "2s", "slow_interval": "2s", "error_spike_for": "10s"}
"""Settings of the rules that differ from the shipped ones (1m, 2m, 2m): four minutes of nothing but waiting."""
FAILURES = 8
"""Runs that fail: it is a spike with five failed spans of a kind, and more than one in twenty."""
BEFORE = 12
"""Runs that go well beforehand, each with three LLM calls, and a dozen more: few enough, or it would be no spike."""
ALSO = {"AgentOSProviderFailing", "AgentOSRunErrorBudgetBurn"}
"""What may fire as well once it has lasted: a model's calls failed, and so did runs."""


@dataclass(frozen=True)
class Side:
    """A Prometheus and an Alertmanager of one age, and what they notify."""

    name: str
    prometheus: RunningPrometheus
    alertmanager: RunningAlertmanager
    webhook: Webhook

    def kinds(self, status: str) -> set[str]:
        """Kinds of spans that it notified of."""
        return {each.labels["span_kind"] for each in self.webhook.notified(status, SPIKE, agentos="prod")}

    def quiet(self) -> bool:
        """Tell whether the shares of agent, llm and tool spans that failed are known, and all 0."""
        return self.prometheus.value('count(agentos_kind:error_spans:ratio_rate5m{agentos="prod"} == 0)') == 3

    def states(self) -> dict[str, set[str]]:
        """States of the rules of each alert."""
        found: dict[str, set[str]] = {}
        for rule in self.prometheus.rules("alert"):
            found.setdefault(rule["name"], set()).add(rule["state"])
        return found


def test_failing_runs_are_notified_and_resolved(tmp_path: Path) -> None:
    ages = {"debian": debian, "current": tool}
    binaries = {name: (find("prometheus"), find("alertmanager")) for name, find in ages.items()}
    rules = generated(tmp_path, HASTE)
    with ExitStack() as stack:
        agentos = stack.enter_context(RunningAgentOS(sys.executable, f"sqlite:{tmp_path / 'agno.db'}"))
        exporter = stack.enter_context(RunningExporter(tmp_path, {"prod": agentos.base_url}, zero_hold="5s"))
        sides = [
            stack.enter_context(side(name, each, tmp_path / name, exporter.port, rules))
            for name, each in binaries.items()
        ]
        for _ in range(BEFORE):
            run(agentos, "tools")

        def known() -> bool:
            """Where a Prometheus was too busy to scrape a new counter at 0, it knows of none of the runs before."""
            if not (quiet := all(each.quiet() for each in sides)):
                run(agentos, "tools")
            return quiet

        eventually(known, "shares of failed spans", pause=5)
        now = time.time()
        eventually(lambda: all(each.prometheus.evaluated(now) for each in sides), "rules that know them")
        for each in sides:
            # Not even pending: what is true now would fire after its `for`.
            assert SPIKE in (states := each.states())
            assert {state for found in states.values() for state in found} == {"inactive"}, (each.name, states)
            assert not each.webhook.notifications, each.name

        began = time.time()
        for _ in range(FAILURES):
            run(agentos, "failing-model")
        eventually(lambda: all(each.kinds("firing") == {"agent", "llm"} for each in sides), "both kinds are notified")
        for each in sides:
            for notification in each.webhook.notified("firing", SPIKE):
                check(notification)
                print(f"{each.name}: first error to notification: {notification.received - began:.1f} s")
            assert not each.kinds("resolved"), each.name

        ended = time.time()
        with traffic(agentos):
            resolved = {"agent", "llm"}
            eventually(
                lambda: all(each.kinds("resolved") == resolved for each in sides), "both are resolved", seconds=120
            )
        for each in sides:
            for notification in each.webhook.notified("resolved", SPIKE):
                check(notification)
                assert notification.starts_at < notification.ends_at
                print(f"{each.name}: good runs to resolution: {notification.received - ended:.1f} s")
            assert each.states()[SPIKE] == {"inactive"}, each.name
            assert each.webhook.names() <= {SPIKE} | ALSO, each.name
            assert SPIKE not in {alert["labels"]["alertname"] for alert in each.alertmanager.alerts()}, each.name


@contextmanager
def side(name: str, binaries: tuple[str, str], folder: Path, target: int, rules: list[Path]) -> Iterator[Side]:
    """Start a Prometheus that alerts an Alertmanager that calls a webhook."""
    folder.mkdir()
    prometheus_binary, alertmanager_binary = binaries
    with (
        Webhook() as webhook,
        RunningAlertmanager(alertmanager_binary, folder, webhook.url) as alertmanager,
        RunningPrometheus(prometheus_binary, folder, target, rules=rules, alertmanager=alertmanager.url) as prometheus,
    ):
        yield Side(name, prometheus, alertmanager, webhook)


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


def generated(folder: Path, settings: Mapping[str, str]) -> list[Path]:
    """The shipped rules with some settings of one's own, as a user makes them."""
    file = folder / "settings.yml"
    file.write_text(json.dumps(settings))
    command = (sys.executable, "-m", "deploy.mixin", "--settings", str(file), "--out", str(folder))
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
    rules = sorted((folder / "deploy/prometheus").glob("rules-*.yml"))
    assert len(rules) == 2
    return rules


@contextmanager
def traffic(agentos: RunningAgentOS) -> Iterator[None]:
    """Runs that go well, by a few users who each wait for the answer."""
    done = threading.Event()

    def user(agent: str) -> None:
        while not done.is_set():
            run(agentos, agent)

    agents = ("plain", "plain", "claude")
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
