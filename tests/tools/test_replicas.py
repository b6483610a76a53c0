"""Replicas on one state in PostgreSQL: what the chart makes of them; their series go on in a real Prometheus."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.cli.main import main
from tests.harness import manifests
from tests.harness.manifests import CHART, ROOT, helm, objects, of_kind, only, template
from tests.harness.process import eventually
from tests.harness.prometheus import DEPLOY, JOB, RunningPrometheus
from tests.harness.tools import tools

VALUES = CHART / "ci/replicas-values.yaml"
LEAST = {"state.postgres": {"enabled": True, "url": "postgresql://me@db/state"}}
SECRETS = "/run/secrets/agentos-exporter"


def snake(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rules of a ServiceMonitor as Prometheus spells them."""
    return [
        {re.sub(r"(?<=[a-z])[A-Z]", lambda found: f"_{found[0].lower()}", key): value for key, value in rule.items()}
        for rule in rules
    ]


def shared_series() -> list[dict[str, Any]]:
    """The rules of the shipped example."""
    (job,) = yaml.safe_load((DEPLOY / "scrape-replicas.yml").read_text())["scrape_configs"]
    return job["metric_relabel_configs"]


# --- The chart --------------------------------------------------------------------------------------------------------


def test_helm_lints_it() -> None:
    done = helm("lint", "--strict", f"--values={VALUES}", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", manifests.VERSIONS)
def test_every_object_fits_its_schema(version: str, tmp_path: Path) -> None:
    text = template(VALUES, kubernetes=version)
    found = objects(text)
    assert sorted(one["kind"] for one in found) == [
        *("ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount"),
        "ServiceMonitor",
    ]
    assert [problem for one in found for problem in manifests.problems(one, version)] == []
    manifests.kubeconform(text, version, tmp_path)


def test_replicas_have_no_volume_and_go_on_while_they_are_replaced() -> None:
    found = objects(template(VALUES))
    spec = only("Deployment", found)["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert volumes == {mount["name"] for mount in container["volumeMounts"]} == {"config", "tmp", "secrets"}
    assert pod["terminationGracePeriodSeconds"] > 5, "the daemon takes up to 5 seconds to stop and to hand over"
    assert "podAntiAffinity" in pod["affinity"]
    budget = only("PodDisruptionBudget", found)["spec"]
    assert budget["maxUnavailable"] == 1
    labels = spec["template"]["metadata"]["labels"]
    (spread,) = pod["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    for selector in (spec["selector"], budget["selector"], spread["labelSelector"]):
        assert selector["matchLabels"].items() <= labels.items()


def test_pods_differ_from_those_of_a_stateful_set_in_the_state_alone() -> None:
    (old,) = of_kind("StatefulSet", objects(template()))
    (new,) = of_kind("Deployment", objects(template(sets=LEAST)))
    assert new["spec"]["replicas"] == 2
    before, after = old["spec"]["template"]["spec"], new["spec"]["template"]["spec"]
    (container,) = before["containers"]
    container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "state"]
    del after["topologySpreadConstraints"]
    assert after == before


def test_constraints_of_ones_own_replace_the_default() -> None:
    own = [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
    deployment = only("Deployment", objects(template(sets=LEAST | {"topologySpreadConstraints": own})))
    assert deployment["spec"]["template"]["spec"]["topologySpreadConstraints"] == own


def test_the_exporter_understands_where_the_state_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = objects(template(VALUES))
    (volume,) = (
        each for each in only("Deployment", found)["spec"]["template"]["spec"]["volumes"] if each["name"] == "secrets"
    )
    sources = {one["secret"]["name"]: one["secret"]["items"] for one in volume["projected"]["sources"]}
    assert sources["agentos-state"] == [{"key": "pw", "path": "state-password"}]
    for items in sources.values():
        (tmp_path / items[0]["path"]).write_text("not-a-real-secret")
    file = tmp_path / "agentos-exporter.yml"
    file.write_text(only("ConfigMap", found)["data"][file.name].replace(SECRETS, str(tmp_path)))
    assert yaml.safe_load(file.read_text())["state"] == {
        "url": "postgresql://agentos_exporter@db.example.com:5433/monitoring?sslmode=verify-full",
        "schema": "monitoring",
        "lease": "20s",
        "password_file": f"{tmp_path}/state-password",
    }
    assert main(["check-config", "--config.file", str(file)]) == 0, capsys.readouterr().err


def test_they_may_go_to_the_database() -> None:
    egress = only("NetworkPolicy", objects(template(VALUES)))["spec"]["egress"]
    there = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    assert egress[2:] == [{"ports": [{"port": 5433, "protocol": "TCP"}], "to": there}]


@pytest.mark.parametrize(
    ("hosts", "ports"),
    [
        ("db", [5432]),
        ("me@db:6432", [6432]),
        ("me@db1:5433,db2", [5433, 5432]),
        ("me@[fd00::1]:5433", [5433]),
        ("[fd00::1]", [5432]),
    ],
)
def test_ports_of_databases(hosts: str, ports: list[int]) -> None:
    sets = {"state.postgres": {"enabled": True, "url": f"postgresql://{hosts}/state?application_name=a:1"}}
    egress = only("NetworkPolicy", objects(template(sets=sets)))["spec"]["egress"]
    assert egress[2:] == [{"ports": [{"port": port, "protocol": "TCP"} for port in ports]}]


def test_a_configuration_of_ones_own_names_the_state_itself() -> None:
    sets: dict[str, object] = {"state.postgres.enabled": True, "state.postgres.existingSecret": "pw"}
    found = objects(template(sets=sets | {"existingConfigMap": "mine"}))
    assert of_kind("ConfigMap", found) == []
    assert len(only("NetworkPolicy", found)["spec"]["egress"]) == 2
    assert "state-password" in json.dumps(only("Deployment", found))


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"replicas": 2}, "replicas: more than one needs state.postgres.enabled"),
        ({"state.postgres.url": "postgresql://db/state"}, "state.postgres: is not in force"),
        ({"state.postgres.enabled": True}, "state.postgres.url: must be"),
        (LEAST | {"config.state": "memory"}, "config.state and state.postgres.enabled"),
        (LEAST | {"persistence.existingClaim": "mine"}, "persistence and state.postgres.enabled"),
        (LEAST | {"persistence.storageClass": "fast"}, "persistence and state.postgres.enabled"),
        (LEAST | {"extraArgs": ["--shard.count=2"]}, "--shard.* and state.postgres.enabled"),
        (LEAST | {"existingConfigMap": "mine"}, "the ConfigMap itself names the state"),
        (LEAST | {"secrets": [{"name": "state-password", "secret": "s", "key": "k"}]}, "secrets: state-password"),
        ({"state.postgres": {"enabled": True, "url": "postgresql://me:secret@db/state"}}, "without a password"),
        ({"state.postgres": {"enabled": True, "url": "postgresql://db/state?password=secret@"}}, "without a password"),
        ({"state.postgres": {"enabled": True, "url": "mysql://me@db/state"}}, "state.postgres.url: must be"),
        # By the schema.
        ({"state.postgres": {"password": "secret"}}, "password"),
        ({"replicas": 0}, "replicas"),
    ],
)
def test_what_contradicts_is_refused(sets: dict[str, object], message: str) -> None:
    flags = (f"--set-json={key}={json.dumps(value)}" for key, value in sets.items())
    done = helm("template", "x", str(CHART), "--kube-version=1.34", *flags)
    assert done.returncode != 0
    assert message in done.stderr
    assert "secret@" not in done.stderr


def test_the_monitor_has_the_rules_of_the_example_and_then_ones_own() -> None:
    (endpoint,) = only("ServiceMonitor", objects(template(VALUES)))["spec"]["endpoints"]
    *ours, own = snake(endpoint["metricRelabelings"])
    assert ours == shared_series()
    assert own["regex"] == "agentos_user_.*"
    (single,) = only("ServiceMonitor", objects(template(sets={"serviceMonitor.enabled": True})))["spec"]["endpoints"]
    assert "metricRelabelings" not in single, "series of existing users would begin anew"


def test_the_documented_values_render(tmp_path: Path) -> None:
    text = (ROOT / "docs/deployment.md").read_text()
    (shown,) = re.findall(r"```yaml\n# values-replicas.yml\n(.*?)```", text, re.DOTALL)
    values = tmp_path / "values.yml"
    values.write_text(shown)
    found = objects(template(values))
    assert [problem for one in found for problem in manifests.problems(one)] == []
    assert only("Deployment", found)["spec"]["replicas"] == 2


# --- Prometheus -------------------------------------------------------------------------------------------------------


class Replica:
    """Serves what a replica does: of an AgentOS and of budgets only the leader shows something.

    Attributes:
        leads: whether this one leads.
        runs: what all replicas find in the state.

    """

    runs = 0

    def __init__(self, *, leads: bool) -> None:
        self.leads = leads
        replica = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.end_headers()
                self.wfile.write(replica.page().encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def page(self) -> str:
        shown = [
            f'agentos_exporter_leader{{agentos="prod"}} {self.leads:d}',
            'agentos_exporter_build_info{version="1"} 1',
        ]
        if self.leads:
            shown += [
                f'agentos_runs_total{{agentos="prod"}} {Replica.runs}',
                'agentos_budget_spent_usd{budget="all"} 3',
            ]
        return "".join(f"{line}\n" for line in shown)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Replica]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            thread.join()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.prometheus
@pytest.mark.parametrize("prometheus", tools("prometheus"))
def test_a_series_goes_on_as_one_when_another_replica_takes_over(prometheus: str, tmp_path: Path) -> None:
    Replica.runs = 10
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Replica(leads=True).serving())
        second = stack.enter_context(Replica(leads=False).serving())
        targets = [
            {"targets": [f"127.0.0.1:{each.port}"], "labels": {"pod": f"pod-{name}"}}
            for name, each in (("first", first), ("second", second))
        ]
        scrape = {"static_configs": targets, "metric_relabel_configs": shared_series()}
        server = stack.enter_context(RunningPrometheus(prometheus, tmp_path, scrape=scrape))
        eventually(lambda: server.value("agentos_runs_total == 10"), "a run")
        for taker, giver, runs in ((second, first, 20), (first, second, 30)):
            giver.leads, taker.leads, Replica.runs = False, True, runs
            eventually(lambda runs=runs: server.value(f"agentos_runs_total == {runs}"), "runs of who took over")
        # Now the leader dies.
        first.stop()
        second.leads, Replica.runs = True, 40
        eventually(lambda: server.value("agentos_runs_total == 40"), "runs of who is left")

        (runs,) = server.query("agentos_runs_total[1h]")
        assert runs["metric"] == {"__name__": "agentos_runs_total", "job": JOB, "agentos": "prod"}
        values = [float(value) for _, value in runs["values"]]
        assert values == sorted(values)
        assert set(values) == {10, 20, 30, 40}
        (budget,) = server.query("agentos_budget_spent_usd[1h]")
        assert budget["metric"] == {"__name__": "agentos_budget_spent_usd", "job": JOB, "budget": "all"}
        for name in ("agentos_exporter_leader", "agentos_exporter_build_info"):
            told = {one["metric"]["pod"]: one["metric"]["instance"] for one in server.query(f"{name}[1h]")}
            assert told == {"pod-first": f"127.0.0.1:{first.port}", "pod-second": f"127.0.0.1:{second.port}"}
        assert server.value("count(count_over_time(up[1h]))") == 2
