"""The compose stack's own commands and files, run on this machine: AgentOS, exporter, Prometheus, Alertmanager.

What a container would be given is put in its place: paths of mounts become files of the repository, host names become
127.0.0.1 with free ports. Grafana is not on this machine: tests/deploy/test_compose.py checks what it is given.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.config import DEFAULT_STATE
from tests.harness import process
from tests.harness.agentos import free_port
from tests.harness.compose import mounts, port, services
from tests.harness.process import ServingProcess, eventually
from tests.harness.prometheus import JOB, KnownPrometheus
from tests.harness.tools import tool

# One stack for all of them, on whichever worker.
pytestmark = [pytest.mark.prometheus, pytest.mark.slow, pytest.mark.xdist_group("deploy_stack")]

ENTRYPOINTS = {
    "agentos-exporter": (sys.executable, "-m", "exporter"),
    "prometheus": ("prometheus",),
    "alertmanager": ("alertmanager",),
}
LISTEN = {
    "agentos": "--port={port}",
    "agentos-exporter": "--web.listen-address=127.0.0.1:{port}",
    "prometheus": "--web.listen-address=127.0.0.1:{port}",
    "alertmanager": "--web.listen-address=127.0.0.1:{port}",
}
READY = {"agentos": "/health", "agentos-exporter": "/-/ready", "prometheus": "/-/ready", "alertmanager": "/-/ready"}


@dataclass(frozen=True)
class Stack:
    """The running services, by their ports here."""

    folder: Path
    ports: dict[str, int]

    def here(self, text: str) -> str:
        """A text of the stack with this machine's ports for its host names and ports."""
        for name, number in self.ports.items():
            original = port(services()[name])
            text = re.sub(rf"\b{name}:{original}\b", f"127.0.0.1:{number}", text)
        return text

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def places(self, name: str) -> list[tuple[str, Path]]:
        """Paths of a service's container, longest first, with a copy or a folder of theirs here."""
        found = []
        for mount in mounts(services()[name]):
            place = self.folder / name / mount.target.strip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if mount.source is None:
                place.mkdir(exist_ok=True)
            elif mount.source.is_dir():
                shutil.copytree(mount.source, place)
            else:
                shutil.copy(mount.source, place)
            found.append((mount.target, place))
        for path in (self.folder / name).rglob("*.yml"):
            text = self.here(path.read_text())
            for target, place in found:
                text = text.replace(f"{target}/", f"{place}/")
            # Rules are evaluated once a minute or slower: the wait for it would be most of the time that this takes.
            text = re.sub(r"^(    interval:) [12]m$", r"\1 5s", text, flags=re.MULTILINE)
            path.write_text(text)
        return sorted(found, key=lambda pair: -len(pair[0]))

    def command(self, name: str) -> tuple[str, ...]:
        """What the container would run."""
        service = services()[name]
        first, *rest = service.get("entrypoint") or ENTRYPOINTS[name]
        program = {"python": sys.executable}.get(first) or (first if "/" in first else tool(first))
        words = [self.here(word) for word in service["command"]]
        places = self.places(name)
        for target, place in places:
            words = [re.sub(rf"(?<![\w/]){re.escape(target)}(?=/|$)", str(place), word) for word in words]
        if name == "agentos-exporter":
            # Its default lies in the volume.
            words += ["--state", str(dict(places)[str(DEFAULT_STATE.parent)] / DEFAULT_STATE.name)]
        return (program, *rest, *words, LISTEN[name].format(port=self.ports[name]))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All services, each started when what it depends on is well."""
    names = [name for name in services() if name != "grafana"]
    one = Stack(tmp_path_factory.mktemp("stack"), {name: free_port() for name in names})
    waiting = list(names)
    with ExitStack() as running:
        while waiting:
            name = next(n for n in waiting if not set(services()[n].get("depends_on", ())) & set(waiting))
            running.enter_context(ServingProcess(one.command(name), one.url(name), ready=READY[name]))
            waiting.remove(name)
        yield one


def health(stack: Stack, name: str) -> subprocess.CompletedProcess[str]:
    """Run the health check of a service, as its container would."""
    _, program, *words = services()[name]["healthcheck"]["test"]
    original = port(services()[name])
    words = [word.replace(f"127.0.0.1:{original}", f"127.0.0.1:{stack.ports[name]}") for word in words]
    program = sys.executable if program == "python" else tool(program)
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", ["agentos", "agentos-exporter", "prometheus", "alertmanager"])
def test_health_checks_tell_the_living_from_the_dead(stack: Stack, name: str) -> None:
    done = health(stack, name)
    assert done.returncode == 0, done.stdout + done.stderr
    nobody = Stack(stack.folder, stack.ports | {name: free_port()})
    assert health(nobody, name).returncode != 0


def test_numbers_arrive_in_prometheus_and_rules_are_well(stack: Stack) -> None:
    prometheus = KnownPrometheus(stack.url("prometheus"))
    eventually = functools.partial(process.eventually, seconds=180)
    for job in (JOB, "alertmanager"):
        eventually(lambda job=job: prometheus.value(f'up{{job="{job}"}}') == 1, f"{job} is scraped")
    eventually(lambda: prometheus.value('sum(agentos_runs_total{agentos="demo"})'), "runs")
    eventually(lambda: prometheus.value('agentos_budget_spent_usd{budget="demo-team"}'), "what was spent")
    eventually(lambda: prometheus.exemplar_traces("agentos_run_duration_seconds_bucket"), "exemplars")
    # Names of the models that the price file knows and does not know.
    eventually(lambda: prometheus.value('sum(agentos_llm_cost_usd_total{cost_source="custom"})') is not None, "a price")
    rules = prometheus.rules()
    assert {rule["type"] for rule in rules} == {"alerting", "recording"}
    eventually(
        lambda: {rule["health"] for rule in prometheus.rules()} == {"ok"}, "every rule is evaluated", seconds=240
    )
    assert [rule["lastError"] for rule in prometheus.rules() if rule.get("lastError")] == []


def test_prometheus_knows_its_alertmanager(stack: Stack) -> None:
    prometheus = KnownPrometheus(stack.url("prometheus"))

    def active() -> list[str]:
        return [one["url"] for one in prometheus.ask("alertmanagers")["activeAlertmanagers"]]

    eventually(active, "Alertmanager is discovered")
    assert active() == [f"{stack.url('alertmanager')}/api/v2/alerts"]


def post(stack: Stack, *alerts: dict[str, str]) -> None:
    url = f"{stack.url('alertmanager')}/api/v2/alerts"
    httpx.post(url, json=[{"labels": labels} for labels in alerts], trust_env=False).raise_for_status()


def shown(stack: Stack, agentos: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = httpx.get(f"{stack.url('alertmanager')}/api/v2/alerts", trust_env=False).raise_for_status().json()
    return {
        (one["labels"]["alertname"], one["labels"]["severity"], one["labels"].get("root", "")): one
        for one in found
        if one["labels"].get("agentos") == agentos
    }


def test_what_is_said_once_is_not_said_again(stack: Stack) -> None:
    common = {"agentos": "inhibited", "job": JOB}
    burn = common | {"alertname": "AgentOSRunErrorBudgetBurn"}
    dropped = common | {"alertname": "AgentOSTrafficDropped", "severity": "warning"}
    post(
        stack,
        burn | {"severity": "critical", "root": "a", "long": "1h"},
        burn | {"severity": "warning", "root": "a", "long": "3d"},
        burn | {"severity": "warning", "root": "b", "long": "3d"},
        common | {"alertname": "AgentOSUnreachable", "severity": "critical"},
        dropped,
        dropped | {"agentos": "another"},
    )
    eventually(lambda: len(shown(stack, "inhibited")) == 5, "the alerts are there")

    def suppressed() -> set[tuple[str, str, str]]:
        return {key for key, one in shown(stack, "inhibited").items() if one["status"]["inhibitedBy"]}

    expected = {("AgentOSRunErrorBudgetBurn", "warning", "a"), ("AgentOSTrafficDropped", "warning", "")}
    eventually(lambda: suppressed() == expected, "only these two are held back")
    (other,) = shown(stack, "another").values()
    assert other["status"]["inhibitedBy"] == []
    receivers = {key[1]: [r["name"] for r in one["receivers"]] for key, one in shown(stack, "inhibited").items()}
    assert receivers == {"critical": ["page"], "warning": ["chat"]}
