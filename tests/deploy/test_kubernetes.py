"""The plain manifests: they are what the chart renders; `pytest --update-golden` writes them anew.

The object with the rules is written by `python -m deploy.mixin`, which needs no Helm; it says the same as the chart's.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from deploy.mixin import manifests as mixin_manifests
from deploy.mixin.__main__ import main as mixin
from exporter.cli import main
from tests.harness import manifests
from tests.harness.manifests import CHART, ROOT, objects, only, template

PLACE = ROOT / "deploy/kubernetes"
VALUES = {
    "config": {
        "agentos": [
            {
                "name": "prod",
                "url": "http://agentos.agents.svc:7777",
                "token_file": "/run/secrets/agentos-exporter/prod-token",
            }
        ]
    },
    "secrets": [{"name": "prod-token", "secret": "agentos-tokens", "key": "prod"}],
    # An AgentOS behind https, and its own port.
    "networkPolicy.egressPorts": [443, 7777],
    "serviceMonitor.enabled": True,
    "prometheusRule.enabled": True,
}
OPERATOR = ("ServiceMonitor", "PrometheusRule")
RULES = "prometheus-operator/prometheusrule.yaml"
_HELM = re.compile(
    r"^# Source: .*\n"
    r"|^ *(?:helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n"
    # Who edits the configuration by hand would have to know a hash.
    r"|^ *# A changed configuration is a new pod.*\n *checksum/config: .*\n",
    re.MULTILINE,
)


def rendered() -> dict[str, str]:
    """The manifests by path below deploy/kubernetes, without what only Helm needs."""
    files = {}
    for part in re.split(r"^---\n", template(sets=VALUES), flags=re.MULTILINE):
        text = _HELM.sub("", part)
        found = objects(text)
        if found:
            (one,) = found
            name = f"{one['kind'].lower()}.yaml"
            files[f"prometheus-operator/{name}" if one["kind"] in OPERATOR else name] = text
    return files


def written() -> dict[str, str]:
    found = [path for path in PLACE.rglob("*.yaml") if path.name != "kustomization.yaml"]
    return {str(path.relative_to(PLACE)): path.read_text() for path in found}


def without_rules(files: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in files.items() if name != RULES}


def everything() -> list[manifests.Object]:
    return [one for text in written().values() for one in objects(text)]


def test_they_are_what_the_chart_renders(request: pytest.FixtureRequest) -> None:
    made = without_rules(rendered())
    if request.config.getoption("--update-golden"):
        for name, text in made.items():
            (PLACE / name).write_text(text)
    assert without_rules(written()) == made, "pytest tests/deploy/test_kubernetes.py --update-golden writes them anew"


def test_the_rules_are_the_charts() -> None:
    assert objects(written()[RULES]) == objects(rendered()[RULES])


def test_settings_of_ones_own_reach_the_rules(tmp_path: Path) -> None:
    settings = tmp_path / "my.yml"
    settings.write_text("grafana_url: https://grafana.example.com\nunreachable_for: 17m\n")
    assert mixin(["--settings", str(settings), "--out", str(tmp_path)]) == 0
    (plain,) = objects((tmp_path / "deploy/kubernetes" / RULES).read_text())
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    shutil.copytree(tmp_path / CHART.relative_to(ROOT) / "files", chart / "files", dirs_exist_ok=True)
    given = only("PrometheusRule", objects(template(chart=chart, sets=VALUES)))
    assert plain["spec"] == given["spec"]
    alerts = [rule for group in plain["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    assert {rule["for"] for rule in alerts if rule["alert"] == "AgentOSUnreachable"} == {"17m"}
    assert all(rule["annotations"]["dashboard_url"].startswith("https://grafana.example.com/d/") for rule in alerts)


def test_a_file_without_groups_is_no_file_of_rules() -> None:
    with pytest.raises(ValueError, match="groups:"):
        mixin_manifests.files({"rules-alerts.yml": "rules: []\n"})


def test_the_kustomization_names_the_ports_that_are_open() -> None:
    text = (PLACE / "kustomization.yaml").read_text()
    _dns, rule = only("NetworkPolicy", everything())["spec"]["egress"]
    ports = [port["port"] for port in rule["ports"]]
    assert f"TCP ports {ports[0]} and {ports[1]} only" in text
    assert ports == [443, 7777]
    url = urlsplit(yaml.safe_load(only("ConfigMap", everything())["data"]["agentos-exporter.yml"])["agentos"][0]["url"])
    assert url.port in ports


def test_nothing_of_helm_is_left() -> None:
    text = "\n".join(written().values())
    assert "helm" not in text.lower()
    assert "checksum" not in text


@pytest.mark.parametrize("version", manifests.VERSIONS)
def test_every_object_fits_its_schema(version: str, tmp_path: Path) -> None:
    assert {one["kind"] for one in everything()} >= {*OPERATOR, "StatefulSet", "NetworkPolicy", "Service"}
    assert [problem for one in everything() for problem in manifests.problems(one, version)] == []
    manifests.kubeconform("---\n".join(written().values()), version, tmp_path)


@pytest.mark.parametrize("folder", [PLACE, PLACE / "prometheus-operator"], ids=["core", "operator"])
def test_the_kustomization_lists_its_folder(folder: Path) -> None:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    here = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert sorted(kustomization["resources"]) == sorted(here)
    namespaces = {one["metadata"]["namespace"] for name in here for one in objects((folder / name).read_text())}
    assert namespaces == {kustomization["namespace"]}
    for image in kustomization.get("images", ()):
        (container,) = only("StatefulSet", everything())["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"{image['name']}:{image['newTag']}"


def test_the_exporter_understands_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (name, text), *others = only("ConfigMap", everything())["data"].items()
    assert others == []
    token = tmp_path / "token"
    token.write_text("not-a-real-token")
    (tmp_path / name).write_text(text.replace("/run/secrets/agentos-exporter/prod-token", str(token)))
    assert main(["check-config", "--config.file", str(tmp_path / name)]) == 0, capsys.readouterr().err


def test_the_documented_secret_is_the_mounted_one() -> None:
    spec: Any = only("StatefulSet", everything())["spec"]["template"]["spec"]
    (source,) = next(v["projected"]["sources"] for v in spec["volumes"] if v["name"] == "secrets")
    command = re.search(r"create secret generic (\S+) --from-file=(\S+)=", (PLACE / "kustomization.yaml").read_text())
    assert command is not None
    assert source["secret"]["name"] == command[1]
    assert [item["key"] for item in source["secret"]["items"]] == [command[2]]
