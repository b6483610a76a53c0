"""The chart: what it renders is valid, hardened, true to the exporter's own check, and whole when copied alone."""

from __future__ import annotations

import copy
import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.mixin import chart
from deploy.mixin.settings import Settings
from exporter import __version__
from exporter.cli.main import main
from exporter.config import DEFAULT_PORT, DEFAULT_STATE
from exporter.metrics.catalog import METRICS
from tests.harness import manifests
from tests.harness.manifests import CHART, FULL, ROOT, helm, objects, of_kind, only, template
from tests.harness.prometheus import JOB
from tests.harness.tools import tool

CORE = ["ConfigMap", "NetworkPolicy", "Service", "ServiceAccount", "StatefulSet"]
MONITORING = {f"{part}.enabled": True for part in ("serviceMonitor", "prometheusRule", "dashboards")}
SECRETS = "/run/secrets/agentos-exporter"
FILES = {
    "default": (),
    "full": (FULL,),
}


@pytest.fixture(scope="module", params=list(FILES))
def values(request: pytest.FixtureRequest) -> tuple[Path, ...]:
    return FILES[request.param]


def pod(found: list[manifests.Object]) -> Any:
    return only("StatefulSet", found)["spec"]["template"]["spec"]


def configuration(found: list[manifests.Object]) -> dict[str, str]:
    """The files of the ConfigMap that the pod mounts."""
    (name,) = (volume["configMap"]["name"] for volume in pod(found)["volumes"] if volume["name"] == "config")
    (one,) = (each for each in of_kind("ConfigMap", found) if each["metadata"]["name"] == name)
    return one["data"]


# --- Valid ------------------------------------------------------------------------------------------------------------


def test_helm_lints_it(values: tuple[Path, ...]) -> None:
    done = helm("lint", "--strict", *(f"--values={file}" for file in values), str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout + done.stderr


@pytest.mark.parametrize("version", manifests.VERSIONS)
def test_every_object_fits_its_schema(values: tuple[Path, ...], version: str, tmp_path: Path) -> None:
    text = template(*values, sets=MONITORING, kubernetes=version)
    found = objects(text)
    assert {one["kind"] for one in found} >= {*CORE, "ServiceMonitor", "PrometheusRule"}
    assert [problem for one in found for problem in manifests.problems(one, version)] == []
    manifests.kubeconform(text, version, tmp_path)


def test_the_checks_of_schemas_can_fail(tmp_path: Path) -> None:
    found = objects(template(sets=MONITORING))
    broken: list[tuple[str, Any]] = [
        ("StatefulSet", lambda one: one["spec"]["template"]["spec"].update(securitycontext={})),
        ("NetworkPolicy", lambda one: one["spec"]["ingress"][0].update({"from": [{"namespaceselector": {}}]})),
        ("ServiceMonitor", lambda one: one["spec"]["endpoints"][0]["relabelings"][0].update(source_labels=["x"])),
        ("PrometheusRule", lambda one: one["spec"]["groups"][0]["rules"][0].update(expression="1")),
    ]
    for kind, breaks in broken:
        one = copy.deepcopy(only(kind, found))
        assert manifests.problems(one) == []
        breaks(one)
        assert manifests.problems(one) != [], kind
        with pytest.raises(AssertionError, match="statusInvalid"):
            manifests.kubeconform(yaml.safe_dump(one), manifests.VERSIONS[-1], tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("replicaCount", 2, "replicaCount"),
        ("config.agentos", [{"name": "a", "url": "http://a", "token": "secret"}], "config"),
        ("config.push", [{"otlp_url": "http://a/v1/metrics", "token": "secret"}], "config"),
        ("config.agentos", [], "minItems"),
        ("config.state", "/data/state.db", "state"),
        ("image.digest", "latest", "digest"),
        ("secrets", [{"name": "../x", "secret": "s", "key": "k"}], "secrets"),
        ("secrets", [{"name": "x", "value": "sk-1"}], "secrets"),
        ("service.port", 80, "port"),
        ("web.configFile", "/etc/web.yml", "configFile"),
        ("serviceMonitor.scheme", "ftp", "scheme"),
        ("terminationGracePeriodSeconds", 1, "terminationGracePeriodSeconds"),
        ("networkPolicy.enabled", "yes", "enabled"),
        ("serviceMonitor.interval", "15", "interval"),
        ("prometheusRule.grafanaUrl", "grafana.example.com", "grafanaUrl"),
        ("persistence.annotations", {"backup": "daily"}, "annotations"),
    ],
)
def test_wrong_values_are_refused(key: str, value: object, message: str) -> None:
    done = helm("template", "x", str(CHART), "--kube-version=1.34", f"--set-json={key}={json.dumps(value)}")
    assert done.returncode != 0
    assert message in done.stderr


def test_every_value_is_in_the_schema_and_described() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    default = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(default)
    for key, node in schema["properties"].items():
        if node.get("additionalProperties") is False:
            assert set(node["properties"]) == set(default[key]), key


def test_every_value_is_used() -> None:
    templates = "\n".join(path.read_text() for path in (CHART / "templates").iterdir())
    default = yaml.safe_load((CHART / "values.yaml").read_text())
    for key, value in default.items():
        assert re.search(rf"\.Values\.{key}\b", templates), key
        schema = json.loads((CHART / "values.schema.json").read_text())["properties"][key]
        for inner in value if schema.get("additionalProperties") is False else ():
            assert re.search(rf"\.Values\.{key}\.{inner}\b", templates), f"{key}.{inner}"


# --- What it says ---------------------------------------------------------------------------------------------------


def test_by_default_it_renders_the_core_only() -> None:
    assert sorted(manifest["kind"] for manifest in objects(template())) == CORE


def test_its_version_is_the_exporters() -> None:
    meta = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert meta["appVersion"] == __version__
    (container,) = pod(objects(template()))["containers"]
    assert container["image"] == f"agentos-exporter:{__version__}"
    (container,) = pod(objects(template(FULL)))["containers"]
    assert container["image"] == f"registry.example.com/observability/agentos-exporter@sha256:{'0' * 64}"


def test_the_exporter_understands_the_configuration(
    values: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files lie in a folder of the test, just as the pod's volumes have them."""
    found = objects(template(*values))
    spec = pod(found)
    monkeypatch.setenv("STAGING_TOKEN", "not-a-real-token")
    mounted = tmp_path / "secrets"
    mounted.mkdir()
    (volume,) = [v for v in spec["volumes"] if v["name"] == "secrets"] or [{"projected": {"sources": []}}]
    for source in volume["projected"]["sources"]:
        for item in source["secret"]["items"]:
            (mounted / item["path"]).write_text("not-a-real-token")
    pem = ROOT / "tests/config/pem/ca.pem"
    if (mounted / "ca.pem").exists():
        shutil.copy(pem, mounted / "ca.pem")
    for name, text in configuration(found).items():
        (tmp_path / name).write_text(text.replace(SECRETS, str(mounted)))

    (container,) = spec["containers"]
    command, config, *flags = container["args"]
    assert command == "run"
    folder = "--config.file=/etc/agentos-exporter/"
    assert config.startswith(folder)
    code = main(["check-config", f"--config.file={tmp_path / config.removeprefix(folder)}", *flags])
    told = capsys.readouterr()

    assert (code, told.err) == (0, "")
    assert re.search(rf"^state +{DEFAULT_STATE}$", told.out, re.MULTILINE)
    assert DEFAULT_STATE.parent in [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
    if values:
        assert "series_per_metric   1000000\n" in told.out
        assert "limit_usd         1500000.5\n" in told.out
        assert f"token             from the file {mounted}/prod-token\n" in told.out
        assert (tmp_path / "prices.yml").read_text()
        assert main(["prices", "check", str(tmp_path / "prices.yml")]) == 0
        assert "2 entries" in capsys.readouterr().out


def test_ports_and_paths_fit_together(values: tuple[Path, ...]) -> None:
    found = objects(template(*values, sets=MONITORING))
    (container,) = pod(found)["containers"]
    (port,) = container["ports"]
    assert f"--web.listen-address=:{port['containerPort']}" in container["args"]
    assert port["containerPort"] == (9999 if values else DEFAULT_PORT)
    service = only("Service", found)
    assert service["spec"]["ports"] == [
        {"name": "metrics", "port": port["containerPort"], "targetPort": port["name"], "protocol": "TCP"}
    ]
    (ingress,) = only("NetworkPolicy", found)["spec"]["ingress"]
    assert ingress["ports"] == [{"port": port["name"], "protocol": "TCP"}]
    (endpoint,) = only("ServiceMonitor", found)["spec"]["endpoints"]
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]
    paths = {probe: container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
    assert paths == {"livenessProbe": "/-/healthy", "readinessProbe": "/-/ready"}


def test_tls_and_passwords() -> None:
    """The file and its certificates are Secrets; probes need neither, and Prometheus is told of both."""
    ca = {"secret": {"name": "exporter-tls", "key": "ca.crt"}}
    user = {"username": {"name": "p", "key": "username"}, "password": {"name": "p", "key": "password"}}
    found = objects(
        template(
            sets={
                "web.configFile": "web.yml",
                "secrets": [{"name": "web.yml", "secret": "exporter-web", "key": "web.yml"}],
                "serviceMonitor": {"enabled": True, "scheme": "https", "tlsConfig": {"ca": ca}, "basicAuth": user},
            }
        )
    )
    assert all(manifests.problems(one) == [] for one in found)
    (container,) = pod(found)["containers"]
    assert f"--web.config.file={SECRETS}/web.yml" in container["args"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["tcpSocket"] == {"port": "metrics"}
        assert "httpGet" not in container[probe]
    (endpoint,) = only("ServiceMonitor", found)["spec"]["endpoints"]
    assert (endpoint["scheme"], endpoint["tlsConfig"], endpoint["basicAuth"]) == ("https", {"ca": ca}, user)


def test_every_reference_leads_somewhere(values: tuple[Path, ...]) -> None:
    found = objects(template(*values, sets=MONITORING))
    names = {(one["kind"], one["metadata"]["name"]) for one in found}
    stateful, spec = only("StatefulSet", found), pod(found)
    assert ("ServiceAccount", spec["serviceAccountName"]) in names
    assert ("Service", stateful["spec"]["serviceName"]) in names
    (config,) = (volume["configMap"]["name"] for volume in spec["volumes"] if volume["name"] == "config")
    assert ("ConfigMap", config) in names
    claims = [claim["metadata"]["name"] for claim in stateful["spec"]["volumeClaimTemplates"]]
    volumes = [volume["name"] for volume in spec["volumes"]] + claims
    assert sorted(volumes) == sorted({mount["name"] for mount in spec["containers"][0]["volumeMounts"]})

    labels = stateful["spec"]["template"]["metadata"]["labels"]
    selectors = [
        stateful["spec"]["selector"]["matchLabels"],
        only("Service", found)["spec"]["selector"],
        only("NetworkPolicy", found)["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
    monitor = only("ServiceMonitor", found)
    service = only("Service", found)
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["namespaceSelector"]["matchNames"] == [service["metadata"]["namespace"]]


def test_it_is_hardened(values: tuple[Path, ...]) -> None:
    """The restricted Pod Security Standard, and more."""
    found = objects(template(*values))
    spec = pod(found)
    assert "initContainers" not in spec
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert spec["automountServiceAccountToken"] is False
    assert only("ServiceAccount", found)["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert all("hostPath" not in volume for volume in spec["volumes"])
    assert set(container["resources"]) == {"requests", "limits"}
    writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"state", "tmp"}


def test_one_pod_and_only_one(values: tuple[Path, ...]) -> None:
    spec = only("StatefulSet", objects(template(*values)))["spec"]
    assert spec["replicas"] == 1
    # With OrderedReady a pod that never becomes ready is not replaced when its mistake is corrected.
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 5, "the daemon takes up to 5 seconds to stop"


@pytest.mark.parametrize(
    ("agentos", "ports"),
    [
        ([{"name": "a", "url": "https://a.example.com"}], [443]),
        ([{"name": "a", "url": "http://a.example.com/base"}], [80]),
        ([{"name": "a", "url": "http://a:7777"}, {"name": "b", "url": "http://b:7777"}], [7777]),
        ([{"name": "a", "url": "http://[fd00::1]:8080"}, {"name": "b", "url": "http://[fd00::1]"}], [8080, 80]),
        ([{"name": "a", "database": "postgresql+psycopg://reader@db/agno"}], [5432]),
        ([{"name": "a", "database": "mysql+aiomysql://reader@db:3307/agno"}], [3307]),
        ([{"name": "a", "database": {"url": "postgresql+psycopg://reader@db:5433/agno", "schema": "ai"}}], [5433]),
        ([{"name": "a", "database": [{"url": "postgresql+psycopg://reader@db/a"}, "mysql://r@db/b"]}], [5432, 3306]),
    ],
)
def test_it_may_go_where_the_urls_lead(agentos: list[dict[str, Any]], ports: list[int]) -> None:
    policy = only("NetworkPolicy", objects(template(sets={"config.agentos": agentos})))
    _dns, rule = policy["spec"]["egress"]
    assert rule == {"ports": [{"port": port, "protocol": "TCP"} for port in ports]}


def test_it_may_go_to_the_targets_of_a_push() -> None:
    pushes = [{"otlp_url": "https://c:4318/v1/metrics"}, {"remote_write_url": "http://p/api/v1/write"}]
    sets = {"config.agentos": [{"name": "a", "url": "http://a:7777"}], "config.push": pushes}
    _dns, rule = only("NetworkPolicy", objects(template(sets=sets)))["spec"]["egress"]
    assert [one["port"] for one in rule["ports"]] == [7777, 4318, 80]


def test_given_ports_and_peers_hold() -> None:
    sets = {"networkPolicy.egressPorts": [8443], "networkPolicy.egressTo": [{"podSelector": {}}]}
    _dns, rule = only("NetworkPolicy", objects(template(sets=sets)))["spec"]["egress"]
    assert rule == {"ports": [{"port": 8443, "protocol": "TCP"}], "to": [{"podSelector": {}}]}


@pytest.mark.parametrize("given", ["egressPorts", "egressTo", None])
def test_price_data_can_be_reached_wherever_it_is(given: str | None) -> None:
    sets: dict[str, object] = {"config.prices_update": True}
    if given:
        sets[f"networkPolicy.{given}"] = {"egressPorts": [8443], "egressTo": [{"podSelector": {}}]}[given]
    egress = only("NetworkPolicy", objects(template(sets=sets)))["spec"]["egress"]
    prices = {"ports": [{"port": 443, "protocol": "TCP"}]}
    assert egress[2:] == [prices]
    without = only("NetworkPolicy", objects(template(sets=sets | {"config.prices_update": False})))["spec"]["egress"]
    assert without == egress[:2]


def test_a_configuration_of_ones_own() -> None:
    found = objects(template(sets={"existingConfigMap": "mine"}))
    assert of_kind("ConfigMap", found) == []
    assert pod(found)["volumes"][0]["configMap"]["name"] == "mine"
    # Its URLs are not known here: any port, but for what networkPolicy says.
    assert only("NetworkPolicy", found)["spec"]["egress"][1] == {}


def notes(folder: Path, sets: dict[str, object]) -> str:
    """What Helm says after an install: `helm template` leaves it out, so it is rendered into an object."""
    copied = folder / "chart"
    shutil.copytree(CHART, copied)
    (copied / "templates/NOTES.txt").rename(copied / "notes.txt")
    wrapped = 'kind: Notes\ntext: {{ tpl (.Files.Get "notes.txt") . | quote }}\n'
    (copied / "templates/notes.yaml").write_text(wrapped)
    return only("Notes", objects(template(chart=copied, sets=sets)))["text"]


def test_notes_say_what_was_installed(tmp_path: Path) -> None:
    said = notes(
        tmp_path, {"config.agentos": [{"name": "prod", "url": "http://a"}, {"name": "dev", "url": "http://b"}]}
    )
    assert "what these AgentOS instances do:\n  prod\n  dev\n" in said
    assert "rollout restart" not in said
    assert "WARNING" not in said


def test_notes_say_what_the_chart_does_not_see(tmp_path: Path) -> None:
    said = notes(tmp_path, {"existingConfigMap": "mine", "persistence.enabled": False})
    assert "those of the ConfigMap mine." in said
    assert "\n  kubectl -n monitoring rollout restart statefulset agentos-exporter\n" in said
    assert "WARNING: without persistence" in said


def test_notes_say_that_there_are_replicas(tmp_path: Path) -> None:
    said = notes(tmp_path, {"state.postgres": {"enabled": True, "url": "postgresql://me@db/state"}})
    assert "\n2 replicas share the state in PostgreSQL, and each AgentOS is read by one of them:\n" in said
    assert "port-forward deployment/agentos-exporter 9777\n" in said
    assert "WARNING" not in said


def test_state_elsewhere() -> None:
    found = objects(template(sets={"persistence.existingClaim": "mine"}))
    assert "volumeClaimTemplates" not in only("StatefulSet", found)["spec"]
    assert {"name": "state", "persistentVolumeClaim": {"claimName": "mine"}} in pod(found)["volumes"]
    found = objects(template(sets={"persistence.enabled": False}))
    assert "volumeClaimTemplates" not in only("StatefulSet", found)["spec"]
    assert {"name": "state", "emptyDir": {}} in pod(found)["volumes"]


def test_a_changed_configuration_is_a_new_pod() -> None:
    def annotation(**sets: object) -> str:
        stateful = only("StatefulSet", objects(template(sets=sets)))
        return stateful["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert annotation() == annotation()
    assert annotation() != annotation(**{"config.poll_interval": "20s"})
    assert annotation() != annotation(prices={"prices": [{"model": "m", "input_mtok": 1, "output_mtok": 1}]})


MUTABLE = {"replicas", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy"}
IMMUTABLE: dict[str, object] = {
    "persistence.enabled": False,
    "persistence.existingClaim": "mine",
    "persistence.storageClass": "fast",
    "persistence.accessModes": ["ReadWriteOncePod"],
    "persistence.size": "5Gi",
}
"""Values behind fields of a StatefulSet that Kubernetes lets nobody change."""


def frozen(**sets: object) -> Any:
    """What has to be alike for an upgrade to be taken."""
    stateful = only("StatefulSet", objects(template(*((FULL,) if sets.pop("full", False) else ()), sets=sets)))
    return stateful["metadata"]["name"], {k: v for k, v in stateful["spec"].items() if k not in MUTABLE}


def test_only_what_the_documentation_names_cannot_be_upgraded() -> None:
    text = (ROOT / "docs/deployment.md").read_text()
    before = frozen()
    for key, value in IMMUTABLE.items():
        name, spec = frozen(**{key: value})
        assert (name, key.partition(".")[2] in text) == (before[0], True)
        assert spec != before[1], key
    default = yaml.safe_load((CHART / "values.yaml").read_text())
    back = {key: default["persistence"][key.partition(".")[2]] for key in IMMUTABLE}
    assert frozen(full=True, fullnameOverride="", **back) == before
    # Another object, beside the old one.
    for key in ("fullnameOverride", "nameOverride"):
        assert frozen(**{key: "another"})[0] != before[0]
        assert f"`{key}`" in text


def test_names_stay_within_what_kubernetes_takes() -> None:
    found = objects(template(release="r" * 53, sets=MONITORING | {"fullnameOverride": "x" * 80}))
    assert max(len(one["metadata"]["name"]) for one in found) <= 63
    # A StatefulSet labels its pods with its name and a hash of 10.
    assert len(only("StatefulSet", found)["metadata"]["name"]) <= 52


# --- Monitoring -----------------------------------------------------------------------------------------------------


def relabelled(endpoint: dict[str, Any], labels: dict[str, str], folder: Path) -> list[dict[str, str]]:
    """What a real Prometheus makes of a target with these labels."""
    snake = [
        {re.sub(r"(?<=[a-z])[A-Z]", lambda found: f"_{found[0].lower()}", key): value for key, value in rule.items()}
        for rule in endpoint["relabelings"]
    ]
    job = {
        "job_name": "job",
        "static_configs": [{"targets": ["10.1.2.3:9777"], "labels": labels}],
        "relabel_configs": snake,
    }
    file = folder / "prometheus.yml"
    file.write_text(json.dumps({"scrape_configs": [job]}))
    # It always waits that long.
    command = [tool("promtool"), "check", "service-discovery", "--timeout=3s", str(file), "job"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [target["labels"] for target in json.loads(done.stdout)]


@pytest.mark.prometheus
def test_a_restarted_pod_keeps_its_series(values: tuple[Path, ...], tmp_path: Path) -> None:
    sets = MONITORING | {"nameOverride": "alias"}
    (endpoint,) = only("ServiceMonitor", objects(template(*values, sets=sets)))["spec"]["endpoints"]
    # What the operator itself makes of a target, before it applies the rules of the ServiceMonitor.
    operators = {"job": "alias", "namespace": "monitoring", "service": "alias", "endpoint": endpoint["port"]}
    operators |= {"pod": "agentos-exporter-0", "container": "agentos-exporter"}
    (labels,) = relabelled(endpoint, operators | {"__meta_kubernetes_pod_name": "agentos-exporter-0"}, tmp_path)
    assert labels["instance"] == "agentos-exporter-0"
    assert labels["job"] == JOB, "the rules ask for it by this name"
    own = {label for metric in METRICS.values() for label in metric.labels}
    assert own & set(operators) == {"endpoint"}, "a label of the target would take its place"
    assert not own & set(labels)
    assert labels["__address__"] == "10.1.2.3:9777"
    if values:
        assert labels["cluster"] == "prod"


def shipped_rules() -> list[dict[str, Any]]:
    files = sorted((ROOT / "deploy/prometheus").glob("rules-*.yml"))
    assert len(files) == 2
    return [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]


def test_the_rule_object_has_the_shipped_rules_word_for_word() -> None:
    rule = only("PrometheusRule", objects(template(sets=MONITORING)))
    assert rule["spec"]["groups"] == [group for group in shipped_rules() if group["rules"]]


def test_alerts_can_be_left_out_and_labelled() -> None:
    alerts = [rule["alert"] for group in shipped_rules() for rule in group["rules"] if "alert" in rule]
    if not alerts:
        pytest.skip("no alerts are shipped")
    gone = alerts[0]
    sets = MONITORING | {"prometheusRule.disabled": [gone], "prometheusRule.alertLabels": {"team": "agents"}}
    groups = only("PrometheusRule", objects(template(sets=sets)))["spec"]["groups"]
    expected = copy.deepcopy(shipped_rules())
    for group in expected:
        group["rules"] = [rule for rule in group["rules"] if rule.get("alert") != gone]
        for rule in group["rules"]:
            if "alert" in rule:
                rule["labels"] = rule.get("labels", {}) | {"team": "agents"}
    assert groups == [group for group in expected if group["rules"]]


def test_links_of_alerts_lead_where_one_says() -> None:
    """Whatever addresses the files of rules were written with."""
    sets = {
        "prometheusRule.grafanaUrl": "https://g.example.com/x/",
        "prometheusRule.runbookUrl": "https://w.example.com",
    }
    groups = only("PrometheusRule", objects(template(sets=MONITORING | sets)))["spec"]["groups"]
    expected = copy.deepcopy(shipped_rules())
    settings = Settings()
    for rule in (rule for group in expected for rule in group["rules"] if "alert" in rule):
        for key, old, new in (
            ("dashboard_url", settings.grafana_url, "https://g.example.com/x"),
            ("runbook_url", settings.runbook_url, "https://w.example.com"),
        ):
            link = rule["annotations"][key]
            assert link.startswith(f"{old}/")
            rule["annotations"][key] = new + link.removeprefix(old)
    assert groups == expected


@pytest.mark.prometheus
def test_promtool_takes_the_rules_of_the_chart(tmp_path: Path) -> None:
    rule = only("PrometheusRule", objects(template(FULL)))
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    done = subprocess.run([tool("promtool"), "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_board_is_a_config_map() -> None:
    boards = {path.name: json.loads(path.read_text()) for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")}
    if not boards:
        pytest.skip("no dashboards are shipped")
    found = {}
    for one in of_kind("ConfigMap", objects(template(sets=MONITORING))):
        if one["metadata"]["labels"].get("grafana_dashboard") == "1":
            ((name, text),) = one["data"].items()
            assert len(text.encode()) < chart.MOST
            found[name] = json.loads(text)
    assert found == boards


def test_the_chart_has_its_own_copies() -> None:
    """`python -m deploy.mixin` writes them."""
    rules = {path.name: path.read_text() for path in (ROOT / "deploy/prometheus").glob("rules-*.yml")}
    boards = {path.name: path.read_text() for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")}
    made = chart.files(rules, boards)
    there = [path for path in (CHART / "files").rglob("*") if path.is_file()]
    assert {str(path.relative_to(ROOT)): path.read_text() for path in there} == made


def test_a_board_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(chart.ChartError, match=r"big\.json: .* bytes do not fit into a ConfigMap"):
        chart.files({}, {"deploy/grafana/dashboards/big.json": json.dumps({"title": "x" * chart.MOST})})


def test_it_is_whole_when_copied_alone(tmp_path: Path) -> None:
    copied = tmp_path / "agentos-exporter"
    shutil.copytree(CHART, copied)
    assert objects(template(FULL, chart=copied)) == objects(template(FULL))
    done = helm("package", str(copied), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tgz")
    # Helm keeps the chart and what it rendered in a Secret, compressed, in base64; etcd takes 1.5 MiB.
    release = archive.stat().st_size + len(gzip.compress(template(FULL).encode()))
    assert release * 4 / 3 < 1024 * 1024
