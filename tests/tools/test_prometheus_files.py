"""The Prometheus and Alertmanager configurations: taken by the real tools, and doing what their comments say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.tools import tool, tools

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "deploy/prometheus"
SCRAPES = sorted(PLACE.glob("scrape*.yml"))
ALERTMANAGER = ROOT / "deploy/alertmanager/alertmanager.yml"
JOB = "agentos-exporter"

pytestmark = pytest.mark.prometheus


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def check(promtool: str, file: Path, *flags: str) -> None:
    done = run(promtool, "check", "config", *flags, str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def without_kubernetes(config: Any) -> Any:
    """What a Prometheus without Kubernetes can be asked about: Debian's is built so."""
    for job in config["scrape_configs"]:
        if job.pop("kubernetes_sd_configs", None):
            job["static_configs"] = [{"targets": ["10.0.0.1"]}]
    return config


# --- Prometheus -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("promtool", tools("promtool"))
def test_the_whole_configuration(promtool: str) -> None:
    check(promtool, PLACE / "prometheus.yml")


@pytest.mark.parametrize("promtool", tools("promtool"))
def test_the_whole_configuration_brings_the_rules(promtool: str) -> None:
    done = run(promtool, "check", "config", str(PLACE / "prometheus.yml"))
    for name in ("rules-alerts.yml", "rules-recording.yml"):
        found = re.search(rf"Checking \S*{name}\s+SUCCESS: (\d+) rules found", done.stdout + done.stderr)
        assert found is not None, done.stdout + done.stderr
        assert int(found[1]) > 0


def beside_its_certificates(file: Path, folder: Path) -> Path:
    """A copy where its user would have put certificates: promtool looks whether they are there."""
    for place in (folder, folder / "tls"):
        shutil.copytree(ROOT / "tests/tls", place, dirs_exist_ok=True)
    return Path(shutil.copy(file, folder))


@pytest.mark.parametrize("promtool", tools("promtool"))
def test_the_stacks_configuration_for_tls(promtool: str, tmp_path: Path) -> None:
    check(promtool, beside_its_certificates(ROOT / "deploy/compose/tls/prometheus/prometheus.yml", tmp_path))


@pytest.mark.parametrize("promtool", tools("promtool"))
@pytest.mark.parametrize("file", SCRAPES, ids=lambda file: file.stem)
def test_every_example(promtool: str, file: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(file.read_text())
    if any("tls_config" in job for job in config["scrape_configs"]):
        file = beside_its_certificates(file, tmp_path)
    if not any("kubernetes_sd_configs" in job for job in config["scrape_configs"]):
        check(promtool, file)
        return
    static = tmp_path / file.name
    static.write_text(json.dumps(without_kubernetes(config)))
    check(promtool, static)
    if promtool == tool("promtool"):  # the current one knows Kubernetes
        check(promtool, file)


def test_examples_can_be_named_by_another_configuration(tmp_path: Path) -> None:
    shutil.copytree(PLACE, tmp_path / "prometheus")
    shutil.copytree(ROOT / "tests/tls", tmp_path / "prometheus/tls")
    for name in ("scrape.yml", "scrape-file-sd.yml", "scrape-tls.yml"):
        config = tmp_path / "prometheus.yml"
        config.write_text(json.dumps({"scrape_config_files": [f"prometheus/{name}"]}))
        check(tool("promtool"), config)


def test_the_agents_example_is_an_agents() -> None:
    check(tool("promtool"), PLACE / "scrape-agent.yml", "--agent")


def discovered(promtool: str, file: Path, job: str) -> list[dict[str, str] | None]:
    """The labels of each target, sorted by what it was before; None of one that is dropped."""
    # It always waits that long.
    done = run(promtool, "check", "service-discovery", "--timeout=3s", str(file), job)
    assert done.returncode == 0, done.stderr
    found = sorted(json.loads(done.stdout), key=lambda target: target["discoveredLabels"].get("__meta_number", ""))
    return [target["labels"] or None for target in found]


def test_targets_in_files_have_names_that_last() -> None:
    found = discovered(tool("promtool"), PLACE / "scrape-file-sd.yml", JOB)
    assert sorted((one["instance"], one["__address__"], one["team"]) for one in found if one) == [
        ("prod", "agentos-exporter.example.com:9777", "agents"),
        ("staging", "agentos-exporter.staging.example.com:9777", "agents"),
    ]
    assert all("exporter" not in one for one in found if one)


POD = {
    "__meta_kubernetes_namespace": "monitoring",
    "__meta_kubernetes_pod_name": "agentos-exporter-0",
    "__meta_kubernetes_pod_phase": "Running",
}
ASKING = POD | {
    "__meta_kubernetes_pod_annotation_prometheus_io_scrape": "true",
    "__meta_kubernetes_pod_annotation_prometheus_io_port": "9777",
    "__meta_kubernetes_pod_label_app_kubernetes_io_name": "agentos-exporter",
}

CASES: dict[str, list[tuple[dict[str, str], dict[str, str] | None]]] = {
    JOB: [
        (
            POD | {"__meta_kubernetes_endpointslice_port_name": "metrics"},
            {"instance": "agentos-exporter-0", "namespace": "monitoring", "job": JOB, "__address__": "10.0.0.0:1"},
        ),
        (POD | {"__meta_kubernetes_endpointslice_port_name": "other"}, None),
    ],
    "kubernetes-pods": [
        (
            ASKING | {"__meta_kubernetes_pod_ip": "10.1.2.3"},
            {"instance": "agentos-exporter-0", "job": JOB, "__address__": "10.1.2.3:9777", "__scheme__": "http"},
        ),
        (
            ASKING
            | {
                "__meta_kubernetes_pod_ip": "fd00::12",
                "__meta_kubernetes_pod_annotation_prometheus_io_path": "/own",
                "__meta_kubernetes_pod_annotation_prometheus_io_scheme": "https",
            },
            {"__address__": "[fd00::12]:9777", "__metrics_path__": "/own", "__scheme__": "https"},
        ),
        (
            ASKING
            | {
                "__meta_kubernetes_pod_ip": "10.1.2.4",
                "__meta_kubernetes_pod_label_app_kubernetes_io_name": "another",
            },
            {"job": "kubernetes-pods", "__address__": "10.1.2.4:9777"},
        ),
        (ASKING | {"__meta_kubernetes_pod_phase": "Succeeded"}, None),
        (POD, None),
    ],
}


@pytest.mark.parametrize("job", list(CASES))
@pytest.mark.parametrize("promtool", tools("promtool"))
def test_what_becomes_of_a_pod(promtool: str, job: str, tmp_path: Path) -> None:
    config = without_kubernetes(yaml.safe_load((PLACE / "scrape-kubernetes.yml").read_text()))
    for each in config["scrape_configs"]:
        each["static_configs"] = [
            {"targets": [f"10.0.0.{number}:1"], "labels": labels | {"__meta_number": str(number)}}
            for number, (labels, _) in enumerate(CASES[job])
        ]
    file = tmp_path / "prometheus.yml"
    file.write_text(json.dumps(config))
    found = discovered(promtool, file, job)
    assert len(found) == len(CASES[job])
    for labels, (_, expected) in zip(found, CASES[job], strict=True):
        if expected is None:
            assert labels is None
        else:
            assert labels is not None
            assert {key: labels.get(key) for key in expected} == expected


# --- Alertmanager -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amtool", tools("amtool"))
def test_alertmanagers_configuration(amtool: str) -> None:
    done = run(amtool, "check-config", str(ALERTMANAGER))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("amtool", tools("amtool"))
@pytest.mark.parametrize(("severity", "receiver"), [("critical", "page"), ("warning", "chat"), ("info", "nowhere")])
def test_where_an_alert_goes(amtool: str, severity: str, receiver: str) -> None:
    done = run(amtool, "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"severity={severity}")
    assert (done.returncode, done.stdout.strip()) == (0, receiver), done.stderr


def test_the_receivers_in_its_comments_are_right(tmp_path: Path) -> None:
    """What somebody uncomments has to work."""
    commented = re.compile(r"^(  # .* For example:\n)((?:  #   .*\n)+)(  - name: \w+\n)", re.MULTILINE)
    text = commented.sub(_taken_in, ALERTMANAGER.read_text())
    config = yaml.safe_load(text)
    kinds = {key for receiver in config["receivers"] for key in receiver if key != "name"}
    assert kinds == {"pagerduty_configs", "webhook_configs", "slack_configs", "email_configs"}
    file = tmp_path / "alertmanager.yml"
    file.write_text(text)
    done = run(tool("amtool"), "check-config", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def _taken_in(found: re.Match[str]) -> str:
    return found[3] + re.sub(r"^  #   ", "    ", found[2], flags=re.MULTILINE)
